package session

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

// promoteFor bounds how long a guest waits to be taken into the ledger.
const promoteFor = 8 * time.Second

// asMember makes a guest a member before she raises her hand, writes or reacts: from then on she is seen, and in the
// members' gossip. Not in the session's goroutine.
func (s *Session) asMember(ctx context.Context) error {
	authorities, err := s.authorities(ctx)
	if err != nil || len(authorities) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, promoteFor)
	defer cancel()
	err = room.NoAdmitter
	for _, p := range authorities {
		if err = s.promoteBy(ctx, p); err == nil {
			return nil
		}
	}
	return fmt.Errorf("the room has more listeners than are listed by name, and nobody could add you: %w", err)
}

// authorities are whom a guest can ask; none when I am no guest.
func (s *Session) authorities(ctx context.Context) (out []peer.ID, err error) {
	err = s.call(ctx, func() error {
		if !s.guest || s.phase != Live {
			return nil
		}
		for _, p := range append([]peer.ID{s.state.Host}, s.state.Moderators...) {
			if p != s.me {
				out = append(out, p)
			}
		}
		return nil
	})
	return out, err
}

// passAgain asks for a new pass by my link, as a newcomer does: the authority that signed mine is none any more.
func (s *Session) passAgain() {
	ctx, cancel := s.ctxOf(promoteFor)
	defer cancel()
	authorities, err := s.authorities(ctx)
	if err != nil {
		return
	}
	for _, p := range authorities {
		w, _, err := s.askEntry(ctx, p, false)
		if err != nil {
			continue
		}
		_ = s.call(ctx, func() error {
			now := time.Now()
			s.takePass(w.Pass, now)
			s.addOps(w.Ops, now)
			s.takeKey(w.Key, now)
			s.arrive(w.Records, p, now)
			return nil
		})
		return
	}
}

// promoteBy asks one authority.
func (s *Session) promoteBy(ctx context.Context, p peer.ID) error {
	w, l, err := s.askEntry(ctx, p, true)
	if err != nil {
		return err
	}
	return s.call(ctx, func() error { return s.promoted(w, l, p, time.Now()) })
}

// askEntry goes through the handshake again, as a guest or to be a member.
func (s *Session) askEntry(ctx context.Context, p peer.ID, member bool) (*wire.Welcome, *ledger.Ledger, error) {
	a := s.hello(ctx, p)
	defer a.close()
	if a.err != nil {
		return nil, nil, a.err
	}
	stop := context.AfterFunc(ctx, func() { _ = a.st.Reset() })
	defer stop()
	claim := s.makeClaim(p, a.nonce)
	claim.Member = member
	if err := a.st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Claim{Claim: claim}}); err != nil {
		return nil, nil, err
	}
	m, err := s.answer(a.st)
	if err != nil {
		return nil, nil, err
	}
	w := m.GetWelcome()
	if w == nil {
		return nil, nil, room.KnockPending
	}
	l, err := s.checkWelcome(ctx, w, p)
	return w, l, err
}

// promoted is the moment of being in the ledger.
func (s *Session) promoted(w *wire.Welcome, l *ledger.Ledger, from peer.ID, now time.Time) error {
	if s.phase != Live || l.State().Role(s.me) == room.NoRole {
		return ErrOver
	}
	if !s.guest {
		return nil
	}
	for _, e := range s.ledger.All() {
		l.Add(e.Signed) // what this admitter left out, or has not heard of
	}
	s.ledger = l
	s.takePass(w.Pass, now)
	s.takeKey(w.Key, now)
	s.arrive(w.Records, from, now)
	s.due.presence = time.Time{}
	s.afterLedger(now)
	return nil
}
