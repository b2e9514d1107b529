package session

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
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

const (
	admitBatch   = 64               // peers in one admit op
	admitSpacing = time.Second      // between two admit ops of mine
	knockWait    = 10 * time.Minute // how long a knock stands
	knockLimit   = 64
	stepWait     = 10 * time.Second // for each record of the handshake
	meshLimit    = 16               // people that a room holds without a relay
	nonceLen     = 32
	version      = 1
)

// admitQueue spaces my admit ops: the first goes at once, the rest in batches.
type admitQueue struct {
	last    time.Time
	waiting []waiter
}

// waiter is one handshake that waits for its admission to be in the ledger.
type waiter struct {
	admission room.Admission
	done      chan error
}

// knock is somebody who waits for an authority's yes.
type knock struct {
	admission room.Admission
	since     time.Time
	done      chan error
}

// Serve answers a control stream whose first record has been read: *wire.Hello or *wire.LedgerRequest.
// It returns when the conversation is over; the caller closes the stream.
func (s *Session) Serve(ctx context.Context, st Stream, first proto.Message) {
	switch m := first.(type) {
	case *wire.Hello:
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
	var wait chan error
	knocking := false
	err := s.call(ctx, func() (err error) { wait, knocking, err = s.decide(n, time.Now()); return err })
	if err != nil {
		return refusalOf(err)
	}
	if knocking {
		err = s.holdKnock(ctx, st, wait, watch)
	} else {
		err = s.await(ctx, wait)
	}
	if err != nil {
		return refusalOf(err)
	}
	var w *wire.Welcome
	if err := s.call(ctx, func() error { w = s.welcome(n, time.Now()); return nil }); err != nil {
		return refusalOf(err)
	}
	_ = st.SetDeadline(time.Now().Add(stepWait))
	return st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Welcome{Welcome: w}})
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
	c := &wire.Challenge{Nonce: n.nonce, Admitter: []byte(s.me), Genesis: s.ledger.Genesis()}
	if s.me != s.state.Host {
		if g := s.ledger.GrantOf(s.me); g != nil {
			c.Grant = []*wire.Signed{g}
		}
	}
	return c, nil
}

// decide looks at a claim against the room's state. A nil channel means that the peer is in already.
func (s *Session) decide(n *newcomer, now time.Time) (wait chan error, knocking bool, err error) {
	if s.phase != Live {
		return nil, false, room.NoAdmitter
	}
	if s.state.Banned[n.peer] {
		return nil, false, room.Banned
	}
	if _, out := s.state.Removed[n.peer]; out {
		return nil, false, room.Removed
	}
	if n.chain != nil {
		if err := s.checkClaim(n, now); err != nil {
			return nil, false, err
		}
	}
	if s.state.Role(n.peer) != room.NoRole {
		return nil, false, nil
	}
	if n.chain == nil && s.state.Policy.Visibility != room.Open {
		return nil, false, room.Malformed
	}
	switch {
	case s.state.Locked:
		return nil, false, room.Locked
	case len(s.live) >= meshLimit:
		return nil, false, room.NoRelay
	}
	a := s.admission(n)
	if s.mustKnock(n) {
		return s.addKnock(a, now)
	}
	w := waiter{a, make(chan error, 1)}
	s.admits.waiting = append(s.admits.waiting, w)
	s.flushAdmits(now)
	return w.done, false, nil
}

func (s *Session) mustKnock(n *newcomer) bool {
	return s.state.Policy.Visibility == room.Closed || n.chain != nil && n.chain.Grant().Knock
}

func (s *Session) admission(n *newcomer) room.Admission {
	a := room.Admission{Peer: n.peer, Role: room.Listener}
	if prof := (identity.Profile{Name: n.claim.Name}); prof.Validate() == nil {
		a.Name = n.claim.Name
	}
	if n.chain != nil {
		a.Role, a.Chain, a.Uses = n.chain.Grant().Role, n.chain.ChainIDs(), n.chain.Uses()
		if p, err := identity.PeerOf(n.chain.Issuer()); err == nil {
			a.Issuer = p
		}
	}
	return a
}

// checkClaim verifies the invite and the proof of holding it.
func (s *Session) checkClaim(n *newcomer, now time.Time) error {
	h := sha256.Sum256(n.claim.Sig)
	if _, again := s.seen[h]; again {
		return room.Replayed
	}
	if err := n.chain.Verify(s.cfg.Room, now, s.grantOf); err != nil {
		return err
	}
	if err := n.chain.VerifyClaim(n.peer, s.me, n.nonce, n.claim.Sig); err != nil {
		return err
	}
	s.seen[h] = now
	ids, uses := n.chain.ChainIDs(), n.chain.Uses()
	if s.state.Role(n.peer) != room.NoRole {
		return nil // a member that comes back charges nothing
	}
	for i, id := range ids {
		if branch, revoked := s.state.Revoked[id]; revoked && (branch || i == len(ids)-1) {
			return room.Revoked
		}
		if uses[i] > 0 && s.state.Uses[id]+s.waitingFor(id) >= int(uses[i]) {
			return room.UsedUp
		}
	}
	return nil
}

// grantOf tells the appoint op of a present moderator.
func (s *Session) grantOf(issuer ed25519.PublicKey) (room.OpID, bool) {
	p, err := identity.PeerOf(issuer)
	if err != nil {
		return room.OpID{}, false
	}
	g := s.ledger.GrantOf(p)
	if g == nil {
		return room.OpID{}, false
	}
	return ledgerID(g), true
}

// waitingFor counts admissions by an invite that are not in the ledger yet.
func (s *Session) waitingFor(id room.InviteID) (n int) {
	for _, w := range s.admits.waiting {
		for _, c := range w.admission.Chain {
			if c == id {
				n++
			}
		}
	}
	return n
}

// flushAdmits writes the admissions that wait, at most one op a second.
func (s *Session) flushAdmits(now time.Time) {
	if len(s.admits.waiting) == 0 || now.Sub(s.admits.last) < admitSpacing {
		return
	}
	n := min(len(s.admits.waiting), admitBatch)
	batch := s.admits.waiting[:n]
	s.admits.waiting = s.admits.waiting[n:]
	s.admits.last = now
	err := s.admitNow(batch, now)
	for _, w := range batch {
		w.done <- err
	}
}

func (s *Session) admitNow(batch []waiter, now time.Time) error {
	op := room.Op{Kind: room.Admit}
	for _, w := range batch {
		op.Admissions = append(op.Admissions, w.admission)
		s.touch(w.admission.Peer, now).name = w.admission.Name
	}
	_, err := s.appendOp(op, now, true)
	return err
}

// addKnock queues somebody for the authorities of this daemon.
func (s *Session) addKnock(a room.Admission, now time.Time) (chan error, bool, error) {
	if len(s.knocks) >= knockLimit {
		return nil, false, room.Busy
	}
	if old := s.knocks[a.Peer]; old != nil {
		old.done <- room.KnockPending
	}
	k := &knock{a, now, make(chan error, 1)}
	s.knocks[a.Peer], s.dirty = k, true
	return k.done, true, nil
}

func (s *Session) dropKnock(p peer.ID, done chan error) {
	if k := s.knocks[p]; k != nil && k.done == done {
		delete(s.knocks, p)
		s.dirty = true
	}
}

// admitByName lets in who knocks, or takes back a removal.
func (s *Session) admitByName(p peer.ID) error {
	a := room.Admission{Peer: p, Role: room.Listener}
	if k := s.knocks[p]; k != nil {
		a = k.admission
	} else if _, out := s.state.Removed[p]; !out {
		return ErrUnknown
	}
	now := time.Now()
	_, err := s.appendOp(room.Op{Kind: room.Admit, Admissions: []room.Admission{a}}, now, true)
	if err == nil && s.state.Role(p) != room.NoRole {
		s.touch(p, now).name = a.Name
	}
	return err
}

// answerKnocks tells those who wait what the ledger has decided, by whomever.
func (s *Session) answerKnocks() {
	for p, k := range s.knocks {
		_, declined := s.state.Declined[p]
		switch {
		case s.state.Role(p) != room.NoRole:
			k.done <- nil
		case declined || s.state.Banned[p]:
			k.done <- room.Declined
		default:
			continue
		}
		delete(s.knocks, p)
		s.dirty = true
	}
}

// welcome is all that a newcomer needs.
func (s *Session) welcome(n *newcomer, now time.Time) *wire.Welcome {
	l := s.touch(n.peer, now)
	if l.name == "" {
		l.name = n.claim.Name
	}
	s.takeHandoutKey(n.peer, n.claim.HandoutKey)
	s.takeSource(n.peer, n.claim.Source)
	for _, r := range n.claim.Addrs {
		s.cfg.Ports.Learn(r, n.peer)
	}
	ops, _ := s.ledger.Since(nil, maxOps)
	w := &wire.Welcome{Genesis: s.ledger.Genesis(), Ops: ops, NowMs: now.UnixMilli(), Rendezvous: s.cfg.Secret[:], Sources: s.sourceRecords(now)}
	w.Records = s.liveRecords()
	if i := s.keys.at(s.state.Epoch.ID); i >= 0 {
		w.Key = keyStep(s.keys.epochs[i])
	}
	return w
}

// maxOps bounds the ops of one reply.
const maxOps = 2000

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

// checkWelcome refuses a welcome that is not of this room.
func checkWelcome(w *wire.Welcome, id room.ID) error {
	g, err := ledger.ParseGenesis(w.GetGenesis())
	if err != nil {
		return err
	}
	if g.Room() != id {
		return fmt.Errorf("welcome: %w", room.WrongRoom)
	}
	return nil
}
