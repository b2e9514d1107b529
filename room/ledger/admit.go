package ledger

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// invites gathers who revoked what, which is needed before any admission can be judged.
func (f *fold) invites() {
	for _, n := range f.l.order {
		if n.void == whyNot && n.op.Kind == room.Revoke {
			f.revokes[n.op.Invite] = append(f.revokes[n.op.Invite], n)
		}
	}
}

// admit takes the admissions of one op, each if its invite still let somebody in.
func (f *fold) admit(n *node) {
	good := false
	for i := range n.op.Admissions {
		a := &n.op.Admissions[i]
		if f.shielded(n, a.Peer) {
			continue
		}
		x := f.person(a.Peer)
		if lost := f.lostBy(n, a); lost != nil {
			x.lost = lost
			continue
		}
		for _, id := range a.Chain {
			if key := (use{id, a.Peer}); !f.used[key] {
				f.used[key] = true
				f.state.Uses[id]++
			}
		}
		good = true
		x.adm = act{n: n, adm: a, tight: letsIn}
		x.in.add(x.adm)
		place := act{n: n, adm: a, tight: 1}
		if a.Role == room.Speaker {
			place.tight = 0
		}
		x.place.add(place)
	}
	if !good {
		n.note = whyInvite
	}
}

// lostBy tells which op makes an admission void: a revocation, the dismissal of the issuer, or the admission
// itself when the invite was used up in ledger order.
func (f *fold) lostBy(n *node, a *room.Admission) *node {
	if len(a.Chain) == 0 {
		return nil
	}
	if end := f.issuerGone(n, a.Issuer); end != nil {
		return end
	}
	for i, id := range a.Chain {
		for _, r := range f.revokes[id] {
			leaf := i == len(a.Chain)-1
			if (r.byHost || r.op.Author == a.Issuer) && (r.op.Branch || leaf && before(r, n)) {
				return r
			}
		}
	}
	for i, id := range a.Chain {
		if max := int(a.Uses[i]); max > 0 && f.state.Uses[id] >= max && !f.used[use{id, a.Peer}] {
			return n
		}
	}
	return nil
}

// issuerGone is the end of the issuer's last tenure if n was written after all of them had ended: a dismissal
// voids the invites that nobody used before (a host's stay good after a transfer; the next host may revoke them).
// The admission itself for an issuer who never was an authority.
func (f *fold) issuerGone(n *node, issuer peer.ID) *node {
	last := n
	for _, t := range f.law.of[issuer] {
		if before(n, t.start) {
			continue
		}
		if t.host || t.end == nil || !before(t.end, n) {
			return nil
		}
		last = t.end
	}
	return last
}

func (f *fold) unsure(n *node) {
	for i := range n.op.Admissions {
		a := &n.op.Admissions[i]
		f.person(a.Peer).unsure = act{n: n, adm: a}
	}
}

// finish turns the fields into the state.
func (f *fold) finish() {
	s := f.state
	for _, t := range f.law.mods {
		if t.end == nil {
			s.Moderators = append(s.Moderators, t.who)
		}
	}
	if lock, ok := f.lock.holds(); ok {
		s.Locked = lock.tight > 0
	}
	for key, count := range f.tallies {
		s.Uses[key.invite] += int(min(count, 1<<30))
	}
	var stage []placed
	for p, x := range f.people {
		if at := f.settle(p, x); at != nil {
			stage = append(stage, placed{p, at})
		}
	}
	slices.SortFunc(stage, func(a, b placed) int {
		if c := ledgerOrder(a.at, b.at); c != 0 {
			return c
		}
		return compareID(a.who, b.who)
	})
	for _, p := range stage {
		s.Stage = append(s.Stage, p.who)
	}
	f.closeInvites()
	for id, a := range f.l.authors {
		if len(a.forks) > 0 {
			s.Forked = append(s.Forked, id)
		}
	}
	slices.Sort(s.Forked)
}

type placed struct {
	who peer.ID
	at  *node
}

func compareID(a, b peer.ID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// settle decides about one person. The answer is the op that put her on stage, nil when she is not there.
func (f *fold) settle(p peer.ID, x *person) *node {
	s := f.state
	if v, ok := x.vouch.holds(); ok && v.tight == 0 {
		s.Vouched[p] = true
	}
	in, held := x.in.holds()
	ban, _ := x.ban.holds()
	rank, authority := s.Rank(p)
	banned := ban.tight > 0 && !authority
	if banned {
		s.Banned[p] = true
	}
	switch {
	case authority:
	case held && in.tight == putsOut:
		s.Removed[p] = in.n.op.ID
		return nil
	case banned:
		s.Removed[p] = ban.n.op.ID
		return nil
	case held && in.tight == turnsOff:
		s.Declined[p] = in.n.op.ID
		return nil
	case !held && x.lost != nil:
		s.Removed[p] = x.lost.op.ID
		return nil
	case !held:
		if x.unsure.n != nil {
			s.Unconfirmed[p] = f.doubt(p, x)
		}
		return nil
	}
	m, at := f.member(p, x, in)
	if authority {
		m.Role = room.Moderator
		if rank == 0 {
			m.Role = room.Host
		}
	}
	s.Members[p] = m
	return at
}

// doubt tells what somebody would be whom only void admissions let in. What others decided about her since holds.
func (f *fold) doubt(p peer.ID, x *person) room.Doubt {
	m, _ := f.member(p, x, x.unsure)
	if _, placed := x.place.holds(); !placed && x.unsure.adm.Role == room.Speaker {
		m.Role, m.OnStage = room.Speaker, true
	}
	return room.Doubt{Op: x.unsure.n.op.ID, Member: m}
}

func (f *fold) member(p peer.ID, x *person, in act) (m room.Member, stage *node) {
	if x.adm.n != nil {
		in = x.adm
	}
	m = room.Member{Peer: p, Role: room.Listener, By: in.n.op.Author, Since: in.n.op.Time}
	if in.adm != nil {
		m.Name, m.Chain = in.adm.Name, in.adm.Chain
	}
	if place, ok := x.place.holds(); ok && place.tight == 0 {
		m.Role, m.OnStage, stage = room.Speaker, true, place.n
	}
	if mute, ok := x.mute.holds(); ok {
		m.Muted = mute.tight > 0
	}
	return m, stage
}

// closeInvites tells which invites let nobody in any more: those revoked, and those by which somebody came who is banned
// now, as an admission in the ban's past tells or, of a guest, the ban: one written beside or after it could make a host's
// ban close what its moderator likes. What a host closes is closed. What a moderator closes is for the invites
// that she issued, and the ledger does not know which these are: admissions tell it, but they are the word of who wrote
// them, and there are none of a link by which nobody has come yet, or guests alone. So it keeps who closed what.
func (f *fold) closeInvites() {
	for id, ops := range f.revokes {
		for _, r := range ops {
			f.shut(r, id, r.op.Branch)
		}
	}
	came, issuers := map[peer.ID][]act{}, map[room.InviteID]peer.ID{}
	for _, n := range f.l.order {
		for i := range n.op.Admissions {
			if a := &n.op.Admissions[i]; n.void == whyNot && len(a.Chain) > 0 {
				came[a.Peer] = append(came[a.Peer], act{n: n, adm: a})
				for _, id := range a.Chain {
					issuers[id] = a.Issuer
				}
			}
		}
	}
	for p := range f.state.Banned {
		for _, n := range f.people[p].bans {
			for _, c := range came[p] {
				if before(c.n, n) {
					f.shut(n, c.adm.Chain[len(c.adm.Chain)-1], false)
				}
			}
			if n.op.Invite != (room.InviteID{}) {
				f.shut(n, n.op.Invite, false)
			}
		}
	}
	for id, ops := range f.revokes {
		for _, r := range ops {
			if by, known := issuers[id]; known && !r.byHost && by != r.op.Author {
				r.note = whyTarget // most likely: the issuer is what an admission told
			}
		}
	}
}

// shut closes an invite by what n decided.
func (f *fold) shut(n *node, id room.InviteID, branch bool) {
	s := f.state
	if n.byHost {
		s.Revoked[id] = s.Revoked[id] || branch
		return
	}
	if s.Closed[id] == nil {
		s.Closed[id] = map[peer.ID]bool{}
	}
	s.Closed[id][n.op.Author] = s.Closed[id][n.op.Author] || branch
}
