package ledger

import (
	"bytes"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// act is one op's wish for one (target, field). Of concurrent wishes the most restrictive holds, then a host's,
// then the lowest id.
type act struct {
	n     *node
	adm   *room.Admission // of an admit
	tight uint8           // higher is more restrictive
}

// field holds the acts that no later act has seen.
type field []act

// add takes acts in ledger order: a later one is never in the past of an earlier one.
func (f *field) add(a act) {
	*f = append(slices.DeleteFunc(*f, func(b act) bool { return b.n == a.n || before(b.n, a.n) }), a)
}

// holds is the act that holds; ok is false for a field that nobody touched.
func (f field) holds() (best act, ok bool) {
	for i, a := range f {
		if i == 0 || a.tight > best.tight || a.tight == best.tight && a.over(best) {
			best = a
		}
	}
	return best, len(f) > 0
}

func (a act) over(b act) bool {
	if a.n.byHost != b.n.byHost {
		return a.n.byHost
	}
	return bytes.Compare(a.n.op.ID[:], b.n.op.ID[:]) < 0
}

// The tightness of acts on membership; on other fields 0 gives and 1 takes.
const (
	letsIn   uint8 = 0
	turnsOff uint8 = 1 // decline
	putsOut  uint8 = 2 // kick, ban
)

// person is what the ops say of one peer.
type person struct {
	in, ban, place, mute, vouch field
	adm                         act     // the last admission that counts
	bans                        []*node // those that nobody lifted
	lost                        *node   // an admission by an invite that does not count, or the revocation of it
	unsure                      act     // the last admission by an op that does not count
}

// fold makes the state of the ops that count.
type fold struct {
	l       *Ledger
	law     *law
	state   *room.State
	people  map[peer.ID]*person
	lock    field
	revokes map[room.InviteID][]*node
	used    map[use]bool
	tallies map[tally]uint64
	epochs  map[uint64]*node
}

// use is one person's coming through one invite: it is charged once, however often she comes back.
type use struct {
	invite room.InviteID
	peer   peer.ID
}

type tally struct {
	invite room.InviteID
	author peer.ID
}

// State is what the ops that count make together. It is kept until an op is added; nobody may write to it.
func (l *Ledger) State() *room.State {
	if l.state != nil {
		return l.state
	}
	if l.law == nil {
		l.law = l.derive()
	}
	f := &fold{
		l: l, law: l.law, people: map[peer.ID]*person{}, revokes: map[room.InviteID][]*node{},
		used: map[use]bool{}, tallies: map[tally]uint64{}, epochs: map[uint64]*node{},
		state: &room.State{
			Room: l.id, Policy: l.origin.Policy, Host: l.law.host.who, Members: map[peer.ID]room.Member{}, Banned: map[peer.ID]bool{},
			Removed: map[peer.ID]room.OpID{}, Declined: map[peer.ID]room.OpID{}, Revoked: map[room.InviteID]bool{}, Closed: map[room.InviteID]map[peer.ID]bool{}, Uses: map[room.InviteID]int{},
			Vouched: map[peer.ID]bool{}, Lowered: map[peer.ID]uint64{}, Epochs: map[room.EpochID]room.EpochCommit{}, Unconfirmed: map[peer.ID]room.Doubt{},
		},
	}
	f.invites()
	f.person(l.founder).in.add(act{n: l.root(), tight: letsIn})
	f.person(l.founder).place.add(act{n: l.root()})
	for _, n := range l.order {
		if n.note = whyNot; n.void == whyNot {
			f.apply(n)
		} else if n.op.Kind == room.Admit && (n.void == whyCut || n.void == whyFork) {
			f.unsure(n)
		}
	}
	f.finish()
	l.state = f.state
	return l.state
}

func (f *fold) person(p peer.ID) *person {
	x := f.people[p]
	if x == nil {
		x = &person{}
		f.people[p] = x
	}
	return x
}

// shielded tells whether p was an authority whom the author of n, a moderator, may not touch: a tenure that did
// not begin after n and had not ended before it.
func (f *fold) shielded(n *node, p peer.ID) bool {
	if n.byHost {
		return p == n.op.Author && (n.op.Kind == room.Kick || n.op.Kind == room.Ban)
	}
	if p == n.op.Author {
		return n.op.Kind == room.Kick || n.op.Kind == room.Ban
	}
	for _, t := range f.law.of[p] {
		if !before(n, t.start) && (t.end == nil || !before(t.end, n)) {
			return true
		}
	}
	return false
}

// apply takes one op that counts.
func (f *fold) apply(n *node) {
	op := n.op
	switch op.Kind {
	case room.Admit:
		f.admit(n)
	case room.Appoint, room.Transfer:
		f.person(op.Targets[0]).in.add(act{n: n, tight: letsIn})
	case room.Succeed:
		f.person(op.Author).in.add(act{n: n, tight: letsIn})
	case room.SetPolicy:
		if f.state.Policy.Visibility == room.Open && op.Policy.Visibility != room.Open {
			n.note = whyOpen
			return
		}
		f.state.Policy = *op.Policy
	case room.End:
		f.state.Ended = true
	case room.Lock:
		f.lock.add(act{n: n, tight: 1})
	case room.Unlock:
		f.lock.add(act{n: n})
	case room.NewEpoch:
		f.epoch(n)
	case room.TallyUses:
		key := tally{op.Invite, op.Author}
		f.tallies[key] = max(f.tallies[key], op.Count)
	default:
		f.decide(n)
	}
}

// decide takes an op about people.
func (f *fold) decide(n *node) {
	touched := len(n.op.Targets) == 0
	for _, p := range n.op.Targets {
		if f.shielded(n, p) {
			continue
		}
		touched = true
		x := f.person(p)
		switch n.op.Kind {
		case room.Decline:
			x.in.add(act{n: n, tight: turnsOff})
		case room.Kick:
			x.in.add(act{n: n, tight: putsOut})
		case room.Ban:
			x.in.add(act{n: n, tight: putsOut})
			x.ban.add(act{n: n, tight: 1})
			x.bans = append(x.bans, n)
		case room.Unban:
			x.ban.add(act{n: n})
			x.bans = slices.DeleteFunc(x.bans, func(b *node) bool { return before(b, n) })
		case room.ToStage:
			x.place.add(act{n: n})
		case room.ToAudience:
			x.place.add(act{n: n, tight: 1})
		case room.Mute:
			x.mute.add(act{n: n, tight: 1})
		case room.Unmute:
			x.mute.add(act{n: n})
		case room.Lower:
			f.state.Lowered[p] = max(f.state.Lowered[p], n.op.Beat)
		case room.Vouch:
			x.vouch.add(act{n: n})
		case room.Unvouch:
			x.vouch.add(act{n: n, tight: 1})
		}
	}
	if !touched {
		n.note = whyTarget
	}
}

// epoch takes a commitment. Of two with one number the lower rank holds, then the lower id.
func (f *fold) epoch(n *node) {
	if !n.turn {
		n.note = whyTurn
		return
	}
	e := n.op.Epoch
	if f.state.Epochs[e.ID] = e; f.epochs[e.N] == nil || f.epochOver(n, f.epochs[e.N]) {
		f.epochs[e.N] = n
	}
	if e.N >= f.state.Epoch.N {
		f.state.Epoch = f.epochs[e.N].op.Epoch
	}
}

func (f *fold) epochOver(a, b *node) bool {
	if ra, rb := f.rank(a), f.rank(b); ra != rb {
		return ra < rb
	}
	return bytes.Compare(a.op.Epoch.ID[:], b.op.Epoch.ID[:]) < 0
}

// rank is that of the grant an op acts under: a host's 0, a moderator's by grant order.
func (f *fold) rank(n *node) int {
	if n.byHost {
		return 0
	}
	return 1 + slices.Index(f.law.mods, f.law.grants[n.grant])
}
