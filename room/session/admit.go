package session

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/ledger"
	"balai/room/wire"
)

const (
	admitBatch   = 64                      // peers in one admit op
	admitBytes   = ledger.MaxRecord - 1024 // of one admit op; the rest is its head
	maxClaims    = 4096
	admitSpacing = time.Second      // between two admit ops of mine
	knockWait    = 10 * time.Minute // how long a knock stands
	knockLimit   = 64
	stepWait     = 10 * time.Second // for each record of the handshake
	memberLimit  = 96               // people here whom the ledger holds; listeners beyond gossipLimit come with a pass
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

// decide looks at a claim against the room's state. A nil channel means that the peer is in already.
func (s *Session) decide(n *newcomer, now time.Time) (wait chan error, knocking bool, err error) {
	if _, authority := s.state.Rank(s.me); s.phase != Live || !authority {
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
	if s.isElsewhere(n.peer, n.claim.HandoutKey, presenceTTL, now) {
		return nil, false, room.SecondDevice
	}
	if s.confirmed(n.peer) {
		return nil, false, nil
	}
	if n.chain == nil && s.state.Policy.Visibility != room.Open {
		return nil, false, room.Malformed
	}
	switch {
	case s.state.Locked:
		return nil, false, room.Locked
	case s.isFull():
		return nil, false, room.NoRelay
	case s.mayBeGuest(n):
		s.asGuest(n, now)
		return nil, false, nil
	case len(s.live)+len(s.admits.waiting) >= memberLimit:
		return nil, false, room.Busy
	case s.isWaiting(n.peer):
		return nil, false, room.Busy
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

// isFull tells whether one more is too many: a mesh ends where its members' lines do, and nobody carries the room.
func (s *Session) isFull() bool {
	return len(s.live)+len(s.admits.waiting) >= election.AssistMax && !s.isCarried()
}

func (s *Session) isWaiting(p peer.ID) bool {
	return slices.ContainsFunc(s.admits.waiting, func(w waiter) bool { return w.admission.Peer == p })
}

// isElsewhere tells whether p spoke here lately from another process than the one that this handout key is of: by its
// presence, or by the claim with which it has just come in.
func (s *Session) isElsewhere(p peer.ID, key *wire.Signed, lately time.Duration, now time.Time) bool {
	l := s.live[p]
	if l == nil || len(l.handoutKey) == 0 {
		return false
	}
	said := l.said
	if said.IsZero() {
		said = l.since
	}
	if now.Sub(said) > lately {
		return false
	}
	k, ok := s.openHandoutKey(p, key)
	return !ok || !bytes.Equal(k.X25519, l.handoutKey)
}

// mustKnock tells whether an authority decides by name: in a closed room, by a link that says so, and by one
// whose issuer has handed the room over since: nobody can tell when that link was made.
func (s *Session) mustKnock(n *newcomer) bool {
	if s.state.Policy.Visibility == room.Closed {
		return true
	}
	if n.chain == nil {
		return false
	}
	issuer, err := identity.PeerOf(n.chain.Issuer())
	_, authority := s.state.Rank(issuer)
	return err != nil || !authority || n.chain.Grant().Knock
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

// checkClaim verifies the invite; the proof of holding it has been verified.
func (s *Session) checkClaim(n *newcomer, now time.Time) error {
	if err := n.chain.Verify(s.cfg.Room, now, s.grantOf); err != nil {
		return err
	}
	if len(s.seen) >= maxClaims {
		clear(s.seen) // each was good for one nonce of one handshake anyway
	}
	s.seen[sha256.Sum256(n.claim.Sig)] = now
	if s.confirmed(n.peer) {
		return nil // a member that comes back charges nothing
	}
	a := s.admission(n)
	if why := s.spent(&a); why != 0 {
		return why
	}
	return nil
}

// spent tells why its invite lets somebody in no more, 0 when it does: it, or one that it comes of, is revoked or used up.
func (s *Session) spent(a *room.Admission) room.Reason {
	for i, id := range a.Chain {
		if branch, revoked := s.state.IsRevoked(id, a.Issuer); revoked && (branch || i == len(a.Chain)-1) {
			return room.Revoked
		}
		if !s.isGuestBy(a) && a.Uses[i] > 0 && s.state.Uses[id]+s.waitingFor(id)+s.passed[id]-s.tallied[id] >= int(a.Uses[i]) {
			return room.UsedUp
		}
	}
	return 0
}

// forgetClaims drops the claims of handshakes that are long over.
func (s *Session) forgetClaims(now time.Time) {
	for h, at := range s.seen {
		if now.Sub(at) > knockWait {
			delete(s.seen, h)
		}
	}
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
	n, size := 0, 0
	for n < min(len(s.admits.waiting), admitBatch) {
		a := &s.admits.waiting[n].admission
		if size += 128 + len(a.Name) + 40*len(a.Chain); n > 0 && size > admitBytes {
			break
		}
		n++
	}
	batch := s.admits.waiting[:n]
	s.admits.waiting = s.admits.waiting[n:]
	s.admits.last = now
	if err := s.admitNow(batch, now); err == nil || n == 1 {
		answer(batch, err)
		return
	}
	for i := range batch { // one of them is why: each for itself
		answer(batch[i:i+1], s.admitNow(batch[i:i+1], now))
	}
}

func answer(batch []waiter, err error) {
	for _, w := range batch {
		w.done <- err
	}
}

func (s *Session) admitNow(batch []waiter, now time.Time) error {
	op := room.Op{Kind: room.Admit}
	for _, w := range batch {
		op.Admissions = append(op.Admissions, w.admission)
	}
	if _, err := s.appendOp(op, now, true); err != nil {
		return err
	}
	for _, w := range batch {
		if s.state.Role(w.admission.Peer) != room.NoRole {
			s.touch(w.admission.Peer, now).name = w.admission.Name
		}
	}
	return nil
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

// admitByName lets in who knocks, takes back a removal, or confirms somebody whose admission is void.
func (s *Session) admitByName(p peer.ID) error {
	a := room.Admission{Peer: p, Role: room.Listener}
	k, removed := s.knocks[p], s.state.Removed[p]
	switch {
	case k != nil && s.isFull():
		return room.NoRelay
	case k != nil:
		if why := s.spent(&k.admission); why != 0 {
			return why // an admission that would not count
		}
		a = k.admission
	case s.inDoubt(p):
		m := s.state.Members[p]
		a.Role, a.Name = m.Role, m.Name
	case removed == room.OpID{}:
		return ErrUnknown
	default:
		a.Name = s.namesGiven()[p]
	}
	now := time.Now()
	_, err := s.appendOp(room.Op{Kind: room.Admit, Admissions: []room.Admission{a}}, now, true)
	if err == nil && k != nil && s.state.Role(p) != room.NoRole { // who was removed is not here yet
		s.touch(p, now).name = a.Name
	}
	return err
}

// answerKnocks tells those who wait what the ledger has decided, by whomever: also that others have used up their invite.
func (s *Session) answerKnocks() {
	for p, k := range s.knocks {
		_, declined := s.state.Declined[p]
		why := s.spent(&k.admission)
		switch {
		case s.confirmed(p):
			k.done <- nil
		case declined || s.state.Banned[p]:
			k.done <- room.Declined
		case why != 0:
			k.done <- why
		default:
			continue
		}
		delete(s.knocks, p)
		s.dirty = true
	}
}
