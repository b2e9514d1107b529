package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/invite"
	"balai/room/ledger"
	"balai/room/wire"
)

// Serve answers a control stream whose first record has been read: *wire.Hello or *wire.LedgerRequest.
// It returns when the conversation is over; the caller closes the stream.
func (s *Session) Serve(ctx context.Context, st Stream, first proto.Message) {
	switch m := first.(type) {
	case *wire.Hello:
		if !s.doorway.enter(st) {
			s.sendRefusal(ctx, st, room.Busy)
			return
		}
		defer s.doorway.leave(st)
		var watch sync.WaitGroup
		if err := s.serveJoin(ctx, st, m, &watch); err != nil {
			s.sendRefusal(ctx, st, err)
		}
		stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
		watch.Wait() // the newcomer ends the stream, or the deadline does
		stop()
	case *wire.LedgerRequest:
		s.serveLedger(ctx, st, m)
	}
}

// sendRefusal tells the newcomer why not; a fault of ours or of the stream is told as busy.
func (s *Session) sendRefusal(ctx context.Context, st Stream, err error) {
	r := room.Busy
	if !errors.As(err, &r) {
		s.cfg.Log.Info("join not served", "peer", st.Remote(), "err", err)
	}
	m := &wire.Refuse{Reason: uint32(r)}
	if r == room.NoAdmitter {
		_ = s.call(ctx, func() error { m.Records = s.authorityRecords(); return nil })
	}
	_ = st.SetDeadline(time.Now().Add(stepWait))
	_ = st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Refuse{Refuse: m}})
}

// newcomer is what a handshake has found out so far.
type newcomer struct {
	peer  peer.ID
	chain *invite.Chain // nil without an invite
	nonce []byte
	claim *wire.Claim
}

// serveJoin is the admitter's half of the handshake. It runs in the stream's goroutine.
func (s *Session) serveJoin(ctx context.Context, st Stream, hello *wire.Hello, watch *sync.WaitGroup) error {
	n := &newcomer{peer: st.Remote(), nonce: randomBytes(nonceLen)}
	if err := n.readHello(hello, s.cfg.Room); err != nil {
		return err
	}
	var ch *wire.Challenge
	if err := s.call(ctx, func() (err error) { ch, err = s.challenge(n); return err }); err != nil {
		return refusalOf(err)
	}
	if err := st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Challenge{Challenge: ch}}); err != nil {
		return err
	}
	var m wire.JoinMessage
	if err := st.Read(&m); err != nil {
		return err
	}
	if n.claim = m.GetClaim(); n.claim == nil {
		return room.Malformed
	}
	if aheadOf(n.claim.TimeMs, time.Now()).Abs() > maxSkew { // before what a wrong clock would make of the invite
		return room.ClockOff
	}
	if n.chain != nil { // junk is weighed here, not in the session's goroutine
		if err := n.weigh(s.me, time.Now()); err != nil {
			_ = s.call(ctx, func() error {
				if _, again := s.seen[sha256.Sum256(n.claim.Sig)]; again {
					err = room.Replayed
				}
				return nil
			})
			return err
		}
	}
	var wait chan error
	knocking := false
	err := s.call(ctx, func() (err error) { wait, knocking, err = s.decide(n, time.Now()); return err })
	if err != nil {
		return refusalOf(err)
	}
	s.doorway.prove(st)
	if knocking {
		err = s.holdKnock(ctx, st, wait, watch)
	} else {
		err = s.await(ctx, wait)
	}
	if err != nil {
		return refusalOf(err)
	}
	var w *wire.Welcome
	if err := s.call(ctx, func() (err error) { w, err = s.welcome(n, time.Now()); return err }); err != nil {
		return refusalOf(err)
	}
	_ = st.SetDeadline(time.Now().Add(stepWait))
	return st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Welcome{Welcome: w}})
}

// weigh checks what needs no state: the invite itself first, then the proof of holding it.
func (n *newcomer) weigh(admitter peer.ID, now time.Time) error {
	if _, err := n.chain.VerifyOffline(now); err != nil {
		return err
	}
	return n.chain.VerifyClaim(n.peer, admitter, n.nonce, n.claim.Sig)
}

// holdKnock waits for an authority's answer as long as the newcomer holds the stream.
func (s *Session) holdKnock(ctx context.Context, st Stream, wait chan error, watch *sync.WaitGroup) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Knocking{Knocking: &wire.Knocking{}}}); err != nil {
		cancel(err)
	}
	_ = st.SetDeadline(time.Now().Add(knockWait))
	watch.Go(func() { cancel(st.Read(&wire.JoinMessage{})) }) // nothing is due: an end is a change of mind
	err := s.await(ctx, wait)
	_ = s.call(context.WithoutCancel(ctx), func() error { s.dropKnock(st.Remote(), wait); return nil })
	return err
}

// await waits for an admission; nil means that there is nothing to wait for.
func (s *Session) await(ctx context.Context, wait chan error) error {
	if wait == nil {
		return nil
	}
	t := time.NewTimer(knockWait)
	defer t.Stop()
	select {
	case err := <-wait:
		return err
	case <-s.done:
		return room.Ended
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return room.KnockPending
	}
}

func refusalOf(err error) error {
	if errors.Is(err, ErrOver) {
		return room.NoAdmitter
	}
	return err
}

// readHello checks what can be checked without the room's state.
func (n *newcomer) readHello(h *wire.Hello, id room.ID) error {
	if string(h.Room) != string(id[:]) {
		return room.WrongRoom
	}
	if len(h.Invite) == 0 {
		return nil
	}
	c, err := invite.ParsePublic(h.Invite)
	if err != nil {
		return room.Malformed
	}
	if c.Room() != id {
		return room.WrongRoom
	}
	n.chain = c
	return nil
}

// challenge answers a hello: only an authority that is in may.
func (s *Session) challenge(n *newcomer) (*wire.Challenge, error) {
	if s.phase != Live {
		return nil, room.NoAdmitter
	}
	_, authority := s.state.Rank(s.me)
	if !authority {
		return nil, room.NoAdmitter
	}
	c := &wire.Challenge{Nonce: n.nonce, Admitter: []byte(s.me), Genesis: s.ledger.Genesis(), NowMs: time.Now().UnixMilli()}
	c.Grant = s.grantsOf(s.me)
	return c, nil
}

// welcome is all that a newcomer needs. It goes to nobody who is out again by now.
func (s *Session) welcome(n *newcomer, now time.Time) (*wire.Welcome, error) {
	if s.phase != Live {
		return nil, room.NoAdmitter
	}
	g, guest := s.guests[n.peer]
	if s.confirmed(n.peer) {
		delete(s.guests, n.peer)
	} else if _, reason := s.checkPass(n.peer, nil, now); !guest || reason != room.NoAdmitter {
		return nil, s.whyNot(n.peer)
	} else {
		w := s.welcomeAll(now)
		w.Pass = s.makePass(n.peer, room.Listener, g.name, g.by, now)
		return w, nil
	}
	l := s.touch(n.peer, now)
	if prof := (identity.Profile{Name: n.claim.Name}); l.name == "" && prof.Validate() == nil {
		l.name = n.claim.Name
	}
	s.takeHandoutKey(n.peer, n.claim.HandoutKey)
	s.takeSource(n.peer, n.claim.Source)
	for _, r := range n.claim.Addrs[:min(len(n.claim.Addrs), 1)] {
		s.cfg.Ports.Learn(r, n.peer)
	}
	w := s.welcomeAll(now)
	w.Pass = s.passFor(n.peer, nil, now)
	return w, nil
}

// welcomeAll is what all who are let in get.
func (s *Session) welcomeAll(now time.Time) *wire.Welcome {
	w := &wire.Welcome{Genesis: s.ledger.Genesis(), NowMs: now.UnixMilli(), Rendezvous: s.cfg.Secret[:], Sources: s.sourceRecords(now)}
	w.Ops, _ = s.missing(nil)
	w.Records = s.liveRecords()
	if i := s.keys.at(s.state.Epoch.ID); i >= 0 {
		w.Key = keyStep(s.keys.epochs[i])
	}
	if l := s.carry.force.Lease(); l != nil {
		w.Lease = l.Signed
	}
	return w
}

// whyNot tells somebody admitted just now why that does not count.
func (s *Session) whyNot(p peer.ID) room.Reason {
	switch _, declined := s.state.Declined[p]; {
	case s.state.Banned[p]:
		return room.Banned
	case declined:
		return room.Declined
	}
	if id, out := s.state.Removed[p]; out {
		if op, held := s.ledger.Get(id); held {
			if o, _, err := ledger.ParseOp(op); err == nil && o.Kind == room.Admit {
				return room.UsedUp
			}
		}
	}
	return room.Removed
}

// liveRecords are the peer records of the members that are here.
func (s *Session) liveRecords() [][]byte {
	out := [][]byte{s.cfg.Ports.Record()}
	for p := range s.live {
		if r := s.cfg.Ports.RecordOf(p); p != s.me && len(r) > 0 {
			out = append(out, r)
		}
	}
	return out
}

func (s *Session) authorityRecords() (out [][]byte) {
	if s.state == nil {
		return nil
	}
	for _, p := range append([]peer.ID{s.state.Host}, s.state.Moderators...) {
		if s.live[p] != nil && p != s.me {
			if r := s.cfg.Ports.RecordOf(p); len(r) > 0 {
				out = append(out, r)
			}
		}
	}
	return out
}
