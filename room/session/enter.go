package session

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

const (
	enterFor      = 30 * time.Second // how long a newcomer looks for somebody who lets in
	returnAlone   = 4 * time.Second  // an authority that finds nobody goes on alone after this
	firstPause    = 300 * time.Millisecond
	longestPause  = 5 * time.Second
	returnForever = 365 * 24 * time.Hour
)

// final tells whether a refusal by one admitter stands for all.
func final(r room.Reason) bool {
	switch r {
	case room.NoAdmitter, room.Busy, room.RateLimited, room.KnockPending, room.NoRelay:
		return false
	}
	return true
}

// enter looks for somebody who lets me in, until it is done, refused or out of time. Its own goroutine.
func (s *Session) enter() {
	limit := enterFor
	if s.cfg.Genesis != nil {
		limit = returnForever
	}
	ctx, cancel := s.ctxOf(limit)
	defer cancel()
	start, pause := time.Now(), firstPause
	last := room.NoAdmitter
	for ctx.Err() == nil {
		for _, p := range s.cfg.Ports.Candidates(ctx) {
			if p == s.me {
				continue
			}
			r, done := s.try(ctx, p)
			if done {
				return
			}
			if r != 0 {
				last = r
			}
		}
		if s.mayGoAlone(time.Since(start)) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
	if s.ctx.Err() == nil {
		_ = s.call(s.ctx, func() error { s.refuse(last); return nil })
	}
}

// mayGoAlone lets an authority that found nobody act by itself.
func (s *Session) mayGoAlone(since time.Duration) (alone bool) {
	if s.cfg.Genesis == nil || since < returnAlone {
		return false
	}
	_ = s.call(s.ctx, func() error {
		if _, authority := s.state.Rank(s.me); authority && s.phase == Joining {
			s.alone, alone = true, true
			s.goLive(time.Now())
			s.rekey(time.Now(), causeLeave)
		}
		return nil
	})
	return alone
}

// try asks one peer; done means that there is nothing more to ask.
func (s *Session) try(ctx context.Context, p peer.ID) (r room.Reason, done bool) {
	ctx, cancel := context.WithTimeout(ctx, knockWait)
	defer cancel()
	var err error
	if s.cfg.Genesis != nil {
		err = s.tryReturn(ctx, p)
	} else {
		err = s.tryJoin(ctx, p)
	}
	if err == nil {
		return 0, true
	}
	if !errors.As(err, &r) {
		s.cfg.Log.Debug("no entry", "peer", p, "err", err)
		return 0, false
	}
	if final(r) {
		_ = s.call(s.ctx, func() error { s.refuse(r); return nil })
		return r, true
	}
	return r, false
}

// tryJoin is the newcomer's half of the handshake.
func (s *Session) tryJoin(ctx context.Context, p peer.ID) error {
	openCtx, cancel := context.WithTimeout(ctx, stepWait)
	st, err := s.cfg.Ports.Open(openCtx, p, JoinProtocol)
	cancel()
	if err != nil {
		return err
	}
	defer st.Reset() //nolint:errcheck // the conversation is over
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	defer stop()
	hello := &wire.Hello{Room: s.cfg.Room[:], Version: version}
	if s.cfg.Invite != nil {
		hello.Invite = s.cfg.Invite.Public()
	}
	if err := st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Hello{Hello: hello}}); err != nil {
		return err
	}
	m, err := s.answer(st)
	if err != nil {
		return err
	}
	ch := m.GetChallenge()
	if ch == nil || len(ch.Nonce) != nonceLen || peer.ID(ch.Admitter) != p {
		return errors.New("no challenge")
	}
	if err := st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Claim{Claim: s.makeClaim(p, ch.Nonce)}}); err != nil {
		return err
	}
	return s.awaitWelcome(st, p)
}

func (s *Session) makeClaim(admitter peer.ID, nonce []byte) *wire.Claim {
	prof, now := s.cfg.Profile(), time.Now()
	c := &wire.Claim{Name: prof.Name, Headline: prof.Headline, HandoutKey: s.signHandoutKey(now), Addrs: [][]byte{s.cfg.Ports.Record()}}
	if s.cfg.Invite != nil {
		c.Sig = s.cfg.Invite.Claim(s.me, admitter, nonce)
	}
	return c
}

// answer reads one record; a refusal is its reason.
func (s *Session) answer(st Stream) (*wire.JoinMessage, error) {
	var m wire.JoinMessage
	if err := st.Read(&m); err != nil {
		return nil, err
	}
	if r := m.GetRefuse(); r != nil {
		for _, rec := range r.Records {
			s.cfg.Ports.Learn(rec, st.Remote())
		}
		return nil, room.Reason(r.Reason)
	}
	return &m, nil
}

// awaitWelcome waits through a knock.
func (s *Session) awaitWelcome(st Stream, p peer.ID) error {
	for {
		m, err := s.answer(st)
		if err != nil {
			return err
		}
		if m.GetKnocking() != nil {
			_ = st.SetDeadline(time.Now().Add(knockWait))
			_ = s.call(s.ctx, func() error { s.phase, s.dirty = Knocking, true; return nil })
			continue
		}
		w := m.GetWelcome()
		if w == nil {
			return errors.New("no welcome")
		}
		return s.call(s.ctx, func() error { return s.takeWelcome(w, p, time.Now()) })
	}
}

// takeWelcome is the moment of being let in.
func (s *Session) takeWelcome(w *wire.Welcome, from peer.ID, now time.Time) error {
	if s.phase.Over() {
		return ErrOver
	}
	if err := checkWelcome(w, s.cfg.Room); err != nil {
		return err
	}
	if err := s.openLedger(w.Genesis, w.Ops); err != nil {
		return err
	}
	if err := s.saveAll(w); err != nil {
		s.cfg.Log.Warn("room not stored", "err", err)
	}
	s.takeKey(w.Key, now)
	s.meet(w.Records, from, now)
	for _, src := range w.Sources {
		s.takeSourceOf(src)
	}
	s.wasStage = s.state.Members[s.me].OnStage
	s.goLive(now)
	return nil
}

// meet learns the members that the other side says are here.
func (s *Session) meet(records [][]byte, from peer.ID, now time.Time) {
	s.touch(from, now)
	for i, r := range records {
		if i >= meshLimit*4 {
			return
		}
		if p := s.cfg.Ports.Learn(r, from); p != "" && p != s.me && s.state.Role(p) != room.NoRole {
			s.touch(p, now)
		}
	}
}

func (s *Session) saveAll(w *wire.Welcome) error {
	if err := s.saveGenesis(w.Genesis); err != nil {
		return err
	}
	for _, op := range w.Ops {
		if err := s.saveOp(op); err != nil {
			return err
		}
	}
	return nil
}

// tryReturn fetches ops and keys as a member that was away.
func (s *Session) tryReturn(ctx context.Context, p peer.ID) error {
	var heads []*wire.Seen
	if err := s.call(ctx, func() error { heads = ledger.EncodeSeen(s.ledger.Heads()); return nil }); err != nil {
		return err
	}
	rep, err := s.fetch(ctx, p, &wire.LedgerRequest{Room: s.cfg.Room[:], Heads: heads})
	if err != nil {
		return err
	}
	return s.call(s.ctx, func() error {
		now := time.Now()
		s.takeReply(rep, p, now)
		if s.state.Role(s.me) == room.NoRole {
			return room.Removed
		}
		s.wasStage = s.state.Members[s.me].OnStage
		s.goLive(now)
		return nil
	})
}

// signHandoutKey says where epochs may be sealed to.
func (s *Session) signHandoutKey(now time.Time) *wire.Signed {
	pub := s.keys.handout.Public()
	return wire.Sign(s.cfg.Key, wire.DomainHandoutKey, &wire.HandoutKey{Room: s.cfg.Room[:], Peer: []byte(s.me), X25519: pub[:], TimeMs: now.UnixMilli()})
}

// takeHandoutKey keeps the newest key of a member.
func (s *Session) takeHandoutKey(p peer.ID, signed *wire.Signed) {
	l := s.live[p]
	if signed == nil || l == nil {
		return
	}
	var k wire.HandoutKey
	who, err := wire.Open(signed, wire.DomainHandoutKey, &k)
	if err != nil || who != p || string(k.Room) != string(s.cfg.Room[:]) || len(k.X25519) != 32 || k.TimeMs < l.handoutMs {
		return
	}
	l.handoutKey, l.handoutMs = k.X25519, k.TimeMs
}
