package session

import (
	"cmp"
	"crypto/rand"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/sframe"
	"balai/room/wire"
)

const (
	epochsKept   = 4
	rekeySwitch  = 3 * time.Second  // senders take a new epoch after this, or when all live members hold it
	rekeyBackup  = 3 * time.Second  // the next authority acts when the first did not
	leaveBatch   = 60 * time.Second // leaves share one new epoch
	handoutPeers = 64               // sealed to each member up to this many
)

// Causes of a new epoch; the numbers are on the wire.
const (
	causeCreated uint8 = 1
	causeKick    uint8 = 2
	causeLeave   uint8 = 3
)

// stepPeriod is how fast the ratchet goes at most; a chair steps once in beatsPerStep beats.
const stepPeriod = 8 * time.Second

// stepSlack is how far the ratchet may be ahead of that.
const stepSlack = 3

// lastStep is the highest step of an epoch that somebody is given: at that pace an epoch of centuries. So no sum of a step and
// what may follow it is more than the number holds.
const lastStep = 1 << 30

// keyring holds the epochs of a room. Owned by the session.
type keyring struct {
	handout  *sframe.HandoutKey
	epochs   []sframe.Epoch // oldest first
	before   []sframe.Epoch // the step that each of these left last, for what was under way
	notes    map[room.EpochID]keyNote
	seal     room.EpochID  // the one that I seal with
	switchAt time.Time     // when seal follows the ledger's
	early    *wire.Handout // came before the ledger named its epoch; nil: none
	changes  uint64        // of epochs, steps and notes, so far
}

// keyNote is what is known of an epoch besides its secret.
type keyNote struct {
	proven bool      // its secret matches its id, or has opened what another sealed
	step   uint32    // at which it came
	at     time.Time // when
}

// at finds an epoch by id, -1 for none.
func (k *keyring) at(id room.EpochID) int {
	return slices.IndexFunc(k.epochs, func(e sframe.Epoch) bool { return room.EpochID(e.ID) == id })
}

// hold takes an epoch that is not held yet; above epochsKept the oldest goes, but neither the one in force
// nor the one that I seal with.
func (k *keyring) hold(e sframe.Epoch, inForce room.EpochID, now time.Time) {
	k.changes++
	k.epochs = append(k.epochs, e)
	k.notes[room.EpochID(e.ID)] = keyNote{e.Step == 0, e.Step, now}
	slices.SortStableFunc(k.epochs, func(a, b sframe.Epoch) int { return cmp.Compare(a.N, b.N) })
	for i := 0; len(k.epochs) > epochsKept && i < len(k.epochs); {
		if id := room.EpochID(k.epochs[i].ID); id != inForce && id != k.seal && id != room.EpochID(e.ID) {
			k.drop(id)
			continue
		}
		i++
	}
}

// drop forgets an epoch.
func (k *keyring) drop(id room.EpochID) {
	k.changes++
	gone := func(e sframe.Epoch) bool { return room.EpochID(e.ID) == id }
	k.epochs, k.before = slices.DeleteFunc(k.epochs, gone), slices.DeleteFunc(k.before, gone)
	delete(k.notes, id)
}

// mayBe tells whether an epoch can be at a step by now: whoever names a later one lies, or its clock does.
func (n keyNote) mayBe(step uint32, now time.Time) bool {
	past := max(now.Round(0).Sub(n.at.Round(0)), 0)
	return uint64(step) <= uint64(n.step)+uint64(past/stepPeriod)+stepSlack
}

// sealing is the epoch that I seal with.
func (k *keyring) sealing() (sframe.Epoch, bool) {
	if i := k.at(k.seal); i >= 0 {
		return k.epochs[i], true
	}
	return sframe.Epoch{}, false
}

// step tells an epoch as it is given to others.
func keyStep(e sframe.Epoch) *wire.KeyStep {
	return &wire.KeyStep{N: e.N, Id: e.ID[:], Step: e.Step, Secret: e.Secret[:]}
}

// takeKey accepts an epoch from another member if the ledger names it. Of an epoch that I hold only the step
// is taken: my own secret leads there.
func (s *Session) takeKey(k *wire.KeyStep, now time.Time) bool {
	if k == nil || len(k.Id) != 16 || len(k.Secret) != 32 || k.Step > lastStep || s.state == nil {
		return false
	}
	id := room.EpochID(k.Id)
	if s.keys.at(id) >= 0 {
		return s.adoptStep(id, k.Step, now)
	}
	c, named := s.state.Epochs[id]
	if !named || c.N != k.N {
		return false
	}
	e := sframe.Epoch{N: k.N, ID: sframe.EpochID(id), Step: k.Step, Secret: sframe.Secret(k.Secret)}
	if e.Verify() != nil {
		return false
	}
	s.keys.hold(e, s.state.Epoch.ID, now)
	s.dirty = true
	s.followEpoch(now)
	return true
}

// prove notes that an epoch has opened what another sealed at a step.
func (s *Session) prove(id room.EpochID, step uint32, now time.Time) {
	if n, held := s.keys.notes[id]; held {
		n.proven = true
		s.keys.notes[id] = n
		s.keys.changes++
		s.adoptStep(id, step, now)
	}
}

// doubt drops an epoch that somebody gave me and that does not open what p sealed or passed on, and asks p.
func (s *Session) doubt(id room.EpochID, p peer.ID) {
	if n, held := s.keys.notes[id]; held && !n.proven {
		s.keys.drop(id)
		s.dirty = true
		s.fetchFrom(p)
	}
}

// followEpoch plans the switch to the epoch in force.
func (s *Session) followEpoch(now time.Time) {
	want := s.state.Epoch.ID
	if s.keys.seal == want || s.keys.at(want) < 0 {
		return
	}
	if _, sealing := s.keys.sealing(); !sealing {
		s.keys.seal, s.dirty = want, true
		return
	}
	if s.keys.switchAt.IsZero() {
		s.keys.switchAt = now.Add(rekeySwitch)
	}
}

// switchEpoch seals with the epoch in force once all live members hold it, or the wait is over.
func (s *Session) switchEpoch(now time.Time) {
	if s.keys.switchAt.IsZero() || s.keys.at(s.state.Epoch.ID) < 0 {
		return
	}
	if now.Before(s.keys.switchAt) && (!s.allHold(s.state.Epoch.ID) || s.listenersBeyond() > 0) { // of those nobody knows
		return
	}
	s.keys.seal, s.keys.switchAt, s.dirty = s.state.Epoch.ID, time.Time{}, true
}

func (s *Session) allHold(id room.EpochID) bool {
	for p, l := range s.live {
		if p != s.me && s.state.Role(p) != room.NoRole && !slices.Contains(l.epochs, id) {
			return false
		}
	}
	return true
}

// firstAuthority is the first live authority: host, then moderators in grant order.
func (s *Session) firstAuthority() peer.ID {
	for _, p := range append([]peer.ID{s.state.Host}, s.state.Moderators...) {
		if p == s.me || s.live[p] != nil {
			return p
		}
	}
	return ""
}

// paid forgets the new epoch that was due when another authority has drawn one; but a kick that it may not have
// known of is mine to follow.
func (s *Session) paid() {
	if s.cause != causeKick || s.firstAuthority() != s.me {
		s.owed = time.Time{}
	}
}

// owe asks for a new epoch at a time; an earlier one stands.
func (s *Session) owe(at time.Time, cause uint8) {
	if s.owed.IsZero() || at.Before(s.owed) {
		s.owed, s.cause = at, cause
	}
}

// rekeyIfOwed draws the new epoch when it is my turn.
func (s *Session) rekeyIfOwed(now time.Time) {
	if s.owed.IsZero() || now.Before(s.owed) {
		return
	}
	rank, authority := s.state.Rank(s.me)
	switch {
	case !authority:
		s.owed = time.Time{}
	case s.firstAuthority() == s.me || now.Sub(s.owed) > time.Duration(rank)*rekeyBackup:
		s.owed = time.Time{}
		s.rekey(now, s.cause)
	}
}

// rekey draws E(n+1), commits it in the ledger and hands it out.
func (s *Session) rekey(now time.Time, cause uint8) {
	e := sframe.NewEpoch(s.state.Epoch.N + 1)
	s.keys.hold(e, s.state.Epoch.ID, now)
	op := room.Op{Kind: room.NewEpoch, Epoch: room.EpochCommit{N: e.N, ID: room.EpochID(e.ID), Cause: cause}}
	signed, err := s.appendOp(op, now, false)
	if err != nil {
		s.cfg.Log.Warn("new epoch not stored", "err", err)
		s.owe(now.Add(time.Second), cause)
		return
	}
	s.publish(OpsTopic, &wire.OpsMessage{Ops: []*wire.Signed{signed}, Handout: s.handout(e)})
	s.followEpoch(now)
}

// handout seals an epoch to each live member's handout key.
func (s *Session) handout(e sframe.Epoch) *wire.Handout {
	plain, err := proto.Marshal(keyStep(e))
	if err != nil {
		panic("impossible: " + err.Error())
	}
	h := &wire.Handout{Room: s.cfg.Room[:], N: e.N, Id: e.ID[:], Step: e.Step}
	for p, l := range s.live {
		if p == s.me || len(l.handoutKey) == 0 || s.state.Role(p) == room.NoRole || len(h.Sealed) >= handoutPeers {
			continue
		}
		enc, ct, err := sframe.SealHandout(l.handoutKey, s.cfg.Room, e.ID, plain)
		if err != nil {
			continue
		}
		id := identity.ShortID(p)
		h.Sealed = append(h.Sealed, &wire.SealedKey{Peer: id[:], Enc: enc, Ct: ct})
	}
	return h
}

// takeHandout opens what is sealed to me; the ledger must name the epoch.
func (s *Session) takeHandout(h *wire.Handout, now time.Time) {
	mine := identity.ShortID(s.me)
	if len(h.GetId()) != 16 || h.Step != 0 {
		return
	}
	if _, named := s.state.Epochs[room.EpochID(h.Id)]; !named {
		s.keys.early = h // no authority has committed it, or what its op follows is under way
		return
	}
	for i, k := range h.Sealed {
		if string(k.Peer) != string(mine[:]) || i >= handoutPeers {
			continue
		}
		plain, err := s.keys.handout.Open(s.cfg.Room, sframe.EpochID(h.Id), k.Enc, k.Ct)
		if err != nil {
			continue
		}
		var step wire.KeyStep
		if proto.Unmarshal(plain, &step) == nil && string(step.Id) == string(h.Id) && step.Step == 0 {
			s.takeKey(&step, now)
		}
	}
}

// takeEarly opens a handout that came before the ledger named its epoch.
func (s *Session) takeEarly(now time.Time) {
	if h := s.keys.early; h != nil {
		if _, named := s.state.Epochs[room.EpochID(h.Id)]; named {
			s.keys.early = nil
			s.takeHandout(h, now)
		}
	}
}

// adoptStep follows the step of a beat, a member's key or what a member sealed, as far as it can be so by now.
func (s *Session) adoptStep(id room.EpochID, step uint32, now time.Time) bool {
	i := s.keys.at(id)
	if i < 0 || step <= s.keys.epochs[i].Step || !s.keys.notes[id].mayBe(step, now) {
		return false
	}
	old := s.keys.epochs[i]
	e := old
	for e.Step < step {
		var err error
		if e, err = e.Advance(min(step, e.Step+sframe.MaxAhead)); err != nil {
			panic("impossible: " + err.Error())
		}
	}
	s.keys.before = append(slices.DeleteFunc(s.keys.before, func(b sframe.Epoch) bool { return b.ID == old.ID }), old)
	if len(s.keys.before) > epochsKept {
		s.keys.before = s.keys.before[1:]
	}
	s.keys.epochs[i], s.dirty = e, true
	s.keys.changes++
	return true
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // never fails since Go 1.24
	return b
}
