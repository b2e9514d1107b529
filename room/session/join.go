package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

// hello begins the newcomer's half of the handshake: up to the challenge, by which the other proves to be an
// authority of this room.
func (s *Session) hello(ctx context.Context, p peer.ID) *asked {
	a := &asked{peer: p}
	openCtx, cancel := context.WithTimeout(ctx, stepWait)
	st, err := s.cfg.Ports.Open(openCtx, p, JoinProtocol)
	cancel()
	if err != nil {
		a.err = err
		return a
	}
	a.st = st
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	defer stop()
	hello := &wire.Hello{Room: s.cfg.Room[:], Version: version}
	if s.cfg.Invite != nil {
		hello.Invite = s.cfg.Invite.Public()
	}
	if a.err = st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Hello{Hello: hello}}); a.err != nil {
		return a
	}
	m, err := s.answer(st)
	if err != nil {
		a.err = err
		return a
	}
	ch := m.GetChallenge()
	if ch == nil || len(ch.Nonce) != nonceLen || peer.ID(ch.Admitter) != p {
		a.err = errors.New("no challenge")
		return a
	}
	a.nonce, a.err = ch.Nonce, checkGrants(ch, s.cfg.Room, p)
	if a.ahead = aheadOf(ch.NowMs, time.Now()); a.err == nil && a.ahead.Abs() > maxSkew {
		a.err = room.ClockOff
	}
	return a
}

// aheadOf is how far a clock that tells ms is ahead of mine; 0 when it is not told.
func aheadOf(ms int64, now time.Time) time.Duration {
	if ms == 0 {
		return 0
	}
	return time.UnixMilli(ms).Sub(now)
}

// checkGrants follows the line of grants from p back to the founder: it shows that p was once made an authority
// of the room. The error is room.BadSignature or room.WrongRoom.
func checkGrants(ch *wire.Challenge, id room.ID, p peer.ID) error {
	g, err := ledger.ParseGenesis(ch.Genesis)
	if err != nil {
		return err
	}
	if g.Room() != id {
		return room.WrongRoom
	}
	return ledger.CheckGrants(g, ch.Grant, p)
}

// grantsOf is the line of grants that ledger.CheckGrants follows.
func (s *Session) grantsOf(p peer.ID) (line []*wire.Signed) {
	for g := s.ledger.GrantOf(p); g != nil && len(line) < ledger.MaxGrants; {
		line = append(line, g)
		op, _, err := ledger.ParseOp(g)
		if err != nil {
			break
		}
		g, _ = s.ledger.Get(op.Grant)
	}
	return line
}

// join claims entry from an authority and waits for its answer. What it refuses stands.
func (e *entry) join(ctx context.Context, a *asked) error {
	s := e.s
	ctx, cancel := context.WithTimeout(ctx, knockWait)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = a.st.Reset() })
	defer stop()
	claim := s.makeClaim(a.peer, a.nonce)
	if err := a.st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Claim{Claim: claim}}); err != nil {
		return err
	}
	w, err := s.awaitWelcome(a.st)
	if err != nil {
		_ = s.call(s.ctx, func() error { s.stopKnocking(); return nil })
		if r, _ := refusalIn(err); r != 0 && r != room.ClockOff { // of two clocks either may be wrong
			return proof{r}
		}
		return err
	}
	l, err := s.checkWelcome(ctx, w, a.peer)
	if err != nil {
		_ = s.call(s.ctx, func() error { s.stopKnocking(); return nil })
		return fmt.Errorf("welcome: %w", err)
	}
	return s.call(s.ctx, func() error { return s.takeWelcome(w, l, a.peer, time.Now()) })
}

func (s *Session) makeClaim(admitter peer.ID, nonce []byte) *wire.Claim {
	prof, now := s.cfg.Profile(), time.Now()
	c := &wire.Claim{Name: prof.Name, Headline: prof.Headline, HandoutKey: s.signHandoutKey(now), TimeMs: now.UnixMilli(), Addrs: [][]byte{s.cfg.Ports.Record()}}
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
		for _, rec := range r.Records[:min(len(r.Records), maxRecords)] {
			s.cfg.Ports.Learn(rec, st.Remote())
		}
		if r.Reason == 0 || r.Reason > uint32(room.Removed) {
			return nil, room.NoAdmitter // a reason of a later version
		}
		return nil, room.Reason(r.Reason)
	}
	return &m, nil
}

// awaitWelcome waits through a knock.
func (s *Session) awaitWelcome(st Stream) (*wire.Welcome, error) {
	for knocked := false; ; knocked = true {
		m, err := s.answer(st)
		if err != nil {
			return nil, err
		}
		if w := m.GetWelcome(); w != nil {
			return w, nil
		}
		if m.GetKnocking() == nil || knocked {
			return nil, errors.New("no welcome")
		}
		_ = st.SetDeadline(time.Now().Add(knockWait))
		_ = s.call(s.ctx, func() error {
			if s.phase == Joining {
				s.phase, s.dirty = Knocking, true
			}
			return nil
		})
	}
}

// stopKnocking goes on looking.
func (s *Session) stopKnocking() {
	if s.phase == Knocking {
		s.phase, s.dirty = Joining, true
	}
}

// checkWelcome refuses a welcome whose ledger is not of this room, does not let me in, or in which the admitter
// is no authority. It fetches the rest of a long ledger. Not in the session's goroutine.
func (s *Session) checkWelcome(ctx context.Context, w *wire.Welcome, from peer.ID) (*ledger.Ledger, error) {
	l, err := s.newLedger(w.Genesis)
	if err != nil {
		return nil, err
	}
	l.Add(w.Ops...)
	for range returnReplies {
		if l.State().Role(s.me) != room.NoRole {
			break
		}
		rep, err := s.fetch(ctx, from, &wire.LedgerRequest{Room: s.cfg.Room[:], Heads: ledger.EncodeSeen(l.Heads()), Pass: w.Pass})
		if err != nil {
			return nil, err
		}
		if len(rep.Ops) == 0 {
			break
		}
		l.Add(rep.Ops...)
	}
	if _, authority := l.State().Rank(from); !authority {
		return nil, errors.New("by no authority")
	}
	if l.State().Role(s.me) == room.NoRole && w.Pass == nil {
		return nil, errors.New("without my admission")
	}
	return l, nil
}

// takeWelcome is the moment of being let in.
func (s *Session) takeWelcome(w *wire.Welcome, l *ledger.Ledger, from peer.ID, now time.Time) error {
	if s.phase.Over() || s.phase == Live {
		return ErrOver
	}
	s.ledger, s.state, s.dirty = l, l.State(), true
	s.guest = s.state.Role(s.me) == room.NoRole
	s.takePass(w.Pass, now)
	if s.guest && s.pass == nil {
		return errors.New("a pass that is not good")
	}
	s.keepLedger()
	s.takeKey(w.Key, now)
	s.arrive(w.Records, from, now)
	for _, src := range w.Sources[:min(len(w.Sources), maxSources)] {
		s.takeSourceOf(src)
	}
	s.wasStage = s.state.Members[s.me].OnStage
	s.goLive(now)
	if w.Lease != nil {
		_ = s.takeLease(w.Lease, from, now)
	}
	return nil
}

// signHandoutKey says where epochs may be sealed to.
func (s *Session) signHandoutKey(now time.Time) *wire.Signed {
	pub := s.keys.handout.Public()
	return wire.Sign(s.cfg.Key, wire.DomainHandoutKey, &wire.HandoutKey{Room: s.cfg.Room[:], Peer: []byte(s.me), X25519: pub[:], TimeMs: now.UnixMilli()})
}

// made is a record that is said again for a while as it was signed: others then see that it is the one they have checked.
type made struct {
	signed *wire.Signed
	at     time.Time
}

const (
	keyAgain    = 20 * time.Second
	sourceAgain = 2 * presencePeriod
)

// toldHandoutKey is my handout key as presences tell it.
func (s *Session) toldHandoutKey(now time.Time) *wire.Signed {
	if s.signedKey.signed == nil || now.Sub(s.signedKey.at) >= keyAgain {
		s.signedKey = made{s.signHandoutKey(now), now}
	}
	return s.signedKey.signed
}

// takeHandoutKey keeps the newest key of a member.
func (s *Session) takeHandoutKey(p peer.ID, signed *wire.Signed) {
	l := s.live[p]
	if l == nil || l.handoutSigned != nil && bytes.Equal(l.handoutSigned, signed.GetBody()) {
		return
	}
	if k, ok := s.openHandoutKey(p, signed); ok && k.TimeMs >= l.handoutMs && near(k.TimeMs, time.Now()) {
		l.handoutKey, l.handoutMs, l.handoutSigned = k.X25519, k.TimeMs, signed.Body
	}
}

func (s *Session) openHandoutKey(p peer.ID, signed *wire.Signed) (*wire.HandoutKey, bool) {
	if signed == nil || len(signed.Body) > maxSmall {
		return nil, false
	}
	var k wire.HandoutKey
	who, err := wire.Open(signed, wire.DomainHandoutKey, &k)
	return &k, err == nil && who == p && string(k.Peer) == string(p) && string(k.Room) == string(s.cfg.Room[:]) && len(k.X25519) == 32
}
