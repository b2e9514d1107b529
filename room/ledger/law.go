package ledger

import (
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// why tells why an op does not count; 0 when it does.
type why uint8

const (
	whyNot     why = iota
	whyGrant       // acts under a grant that does not count
	whyRight       // a host's decision by a moderator
	whyCut         // past the cut of a dismissal or a hand-over
	whyFork        // at or after a fork that nobody decided
	whyNothing     // changes nothing: appoints a moderator, dismisses nobody
	whyTarget      // about nobody whom the author may touch
	whyInvite      // by an invite that is used up, revoked or void
	whyOpen        // an open room stays open
	whyTurn        // an epoch out of turn
)

var whyWords = [...]string{
	"", "its author was no authority", "only the host may do this", "after its author's last op that counts", "its author wrote two ops with one number",
	"it changes nothing", "its author may not decide about them", "the invite is used up, revoked or void", "an open room stays open", "the epoch is out of turn",
}

func (w why) String() string { return whyWords[w] }

// tenure is one grant of authority: from start, until end if that is set. With an end, ops up to cut count
// (nil: none).
type tenure struct {
	who        peer.ID
	host       bool
	start, end *node
	cut        *node
}

// law is who held authority when. It follows from the linked ops alone.
type law struct {
	l       *Ledger
	chosen  map[*node]*node // parent of a fork -> the branch that a cut or checkpoint named first
	grants  map[*node]*tenure
	of      map[peer.ID][]*tenure
	current map[peer.ID]*tenure // moderators
	mods    []*tenure           // in grant order, ended ones too
	host    *tenure             // of now
	wishes  []*node             // successions, whether they count or not
}

// derive finds the line of hosts, then what each moderator wrote within the law, and marks every op.
func (l *Ledger) derive() *law {
	d := &law{
		l: l, chosen: map[*node]*node{}, grants: map[*node]*tenure{}, of: map[peer.ID][]*tenure{}, current: map[peer.ID]*tenure{},
	}
	for _, n := range l.order {
		if n.void = whyGrant; n.op.Kind == room.Succeed {
			d.wishes = append(d.wishes, n)
		}
	}
	d.hosts()
	for _, a := range l.authors {
		d.judgeChain(a)
	}
	return d
}

// extend judges one more op without deriving anew; false when it may change more than itself.
func (d *law) extend(n *node) bool {
	k := n.op.Kind
	if k.HostOnly() || k == room.Succeed || len(n.author.forks) > 0 || d.mayTakeBack(n) {
		return false
	}
	t := d.grants[n.grant]
	if t != nil && (t.end != nil || t.host && (k == room.Kick || k == room.Ban) && d.anyCurrent(n.op.Targets)) {
		return false
	}
	if n.void = whyNot; t == nil {
		n.void = whyGrant
	}
	return true
}

func (d *law) anyCurrent(peers []peer.ID) bool {
	return slices.ContainsFunc(peers, func(p peer.ID) bool { return d.current[p] != nil })
}

func (d *law) open(t *tenure) {
	d.grants[t.start] = t
	d.of[t.who] = append(d.of[t.who], t)
	if t.host {
		d.host = t
		return
	}
	d.current[t.who] = t
	d.mods = append(d.mods, t)
}

// close ends a tenure at the op end; ops up to cut count. What a cut names decides forks below it.
func (d *law) close(t *tenure, end, cut *node) {
	t.end, t.cut = end, cut
	if !t.host {
		delete(d.current, t.who)
	}
	d.decide(cut)
}

// decide chooses the branch that leads to n at each fork below it; who chose first stands.
func (d *law) decide(n *node) {
	if n == nil || len(n.author.forks) == 0 {
		return
	}
	for ; n != n.author.root; n = n.parent {
		if len(n.author.forks[n.parent]) > 0 && d.chosen[n.parent] == nil {
			d.chosen[n.parent] = n
		}
	}
}

// path is the chain of a up to its first undecided fork, whose parent is the second answer.
func (d *law) path(a *author) (ops []*node, fork *node) {
	if a == nil {
		return nil, nil
	}
	for n := a.root; ; {
		next := n.next
		if len(a.forks[n]) > 0 {
			if next = d.chosen[n]; next == nil {
				return ops, n
			}
		}
		if next == nil {
			return ops, nil
		}
		ops = append(ops, next)
		n = next
	}
}

// judgeChain marks what a wrote as a moderator, and why the rest of the chain does not count.
func (d *law) judgeChain(a *author) {
	path, _ := d.path(a)
	if len(a.forks) > 0 {
		for _, n := range d.l.order {
			if n.author == a && n.void == whyGrant {
				n.void = whyFork
			}
		}
	}
	for _, n := range path {
		if n.void == whyNot || n.void == whyNothing {
			continue // of the line of hosts
		}
		n.void = d.judgeOp(n)
	}
}

func (d *law) judgeOp(n *node) why {
	t := d.grants[n.grant]
	switch {
	case n.op.Kind == room.Succeed, t == nil:
		return whyGrant
	case t.host:
		return whyCut
	case t.end != nil && (t.cut == nil || n != t.cut && !before(n, t.cut)):
		return whyCut
	case n.op.Kind.HostOnly():
		return whyRight
	}
	return whyNot
}

// hosts walks the line of hosts from the genesis through each hand-over.
func (d *law) hosts() {
	grant := d.l.root()
	d.open(&tenure{who: d.l.founder, host: true, start: grant})
	for grant != nil {
		t := d.host
		ops, over := d.reign(t)
		for _, n := range ops {
			n.void = d.rule(n)
		}
		switch {
		case over == nil:
		case over.op.Kind == room.Succeed:
			over.void = whyNot
			last := t.start
			if over.cut != nil {
				last = over.cut
			}
			d.close(t, over, last)
			d.crown(over, over.op.Author, parentOp(over))
		default:
			d.close(t, over, over)
			d.crown(over, over.op.Targets[0], over.cut)
		}
		grant = over
	}
}

func parentOp(n *node) *node {
	if n.parent == n.author.root {
		return nil
	}
	return n.parent
}

// crown makes p the host by the op over; p's ops as a moderator count up to cut.
func (d *law) crown(over *node, p peer.ID, cut *node) {
	if t := d.current[p]; t != nil {
		d.close(t, over, cut)
	} else {
		d.decide(cut)
	}
	d.open(&tenure{who: p, host: true, start: over})
}

// rule applies one op of the line of hosts to the tenures.
func (d *law) rule(n *node) why {
	op := n.op
	switch op.Kind {
	case room.Appoint:
		p := op.Targets[0]
		if p == d.host.who || d.current[p] != nil {
			return whyNothing
		}
		d.open(&tenure{who: p, start: n})
	case room.Dismiss:
		t := d.current[op.Targets[0]]
		if t == nil {
			return whyNothing
		}
		d.close(t, n, n.cut)
	case room.Kick, room.Ban:
		for _, p := range op.Targets {
			if t := d.current[p]; t != nil {
				d.close(t, n, d.lastSeen(n, p))
			}
		}
	case room.Checkpoint:
		for _, m := range n.names {
			d.decide(m)
		}
	}
	return whyNot
}

// lastSeen is the highest op of p in the past of n: a kick or ban of a moderator dismisses her with that cut.
func (d *law) lastSeen(n *node, p peer.ID) (last *node) {
	a := d.l.authors[p]
	if a == nil {
		return nil
	}
	for _, lane := range a.lanes {
		for m := d.l.tips[lane]; m != a.root && m.lane == lane; m = m.parent {
			if before(m, n) {
				if last == nil || m.op.Seq > last.op.Seq || m.op.Seq == last.op.Seq && ledgerOrder(m, last) < 0 {
					last = m
				}
				break
			}
		}
	}
	return last
}

// reign is what the holder of t wrote as the host, and the op that ended it: a transfer, or the succession of
// the heir. A transfer stands over a succession, and over a fork above it unless two hand-overs compete.
func (d *law) reign(t *tenure) (ops []*node, over *node) {
	path, fork := d.path(d.l.authors[t.who])
	ops, over = d.under(t, path)
	if over != nil {
		return ops, over
	}
	if fork != nil {
		if rivals := d.handOvers(t, fork); len(rivals) == 1 {
			over = rivals[0]
			last := over
			if over.op.Kind == room.Succeed {
				last = over.cut
			}
			d.decide(last)
			ops, _ = d.under(t, d.pathTo(last))
			return ops, over
		}
	}
	for _, s := range d.claims(t) {
		if s.cut == nil {
			if d.succeeds(t, ops, 0, s) {
				return nil, s
			}
		} else if i := slices.Index(ops, s.cut); i >= 0 && d.succeeds(t, ops, i+1, s) {
			return ops[:i+1], s
		}
	}
	return ops, nil
}

// under keeps the ops of a path that act under the grant of t, up to the first transfer.
func (d *law) under(t *tenure, path []*node) (ops []*node, over *node) {
	for _, n := range path {
		if n.grant != t.start {
			continue
		}
		ops = append(ops, n)
		if n.op.Kind == room.Transfer && n.op.Targets[0] != t.who {
			return ops, n
		}
	}
	return ops, nil
}

// pathTo is the chain from its first op to n.
func (d *law) pathTo(n *node) (ops []*node) {
	for ; n != n.author.root; n = n.parent {
		ops = append(ops, n)
	}
	slices.Reverse(ops)
	return ops
}

// handOvers are the transfers and good successions on all branches above a fork.
func (d *law) handOvers(t *tenure, fork *node) (out []*node) {
	a := fork.author
	for todo := slices.Clone(a.forks[fork]); len(todo) > 0; {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n.grant == t.start && n.op.Kind == room.Transfer && n.op.Targets[0] != t.who {
			out = append(out, n)
			continue
		}
		if kids := a.forks[n]; len(kids) > 0 {
			todo = append(todo, kids...)
		} else if n.next != nil {
			todo = append(todo, n.next)
		}
	}
	for _, s := range d.claims(t) {
		if s.cut == nil || s.cut == fork || !before(fork, s.cut) {
			continue
		}
		ops, over := d.under(t, d.pathTo(s.cut))
		if over == nil && d.succeeds(t, ops, len(ops), s) {
			out = append(out, s)
		}
	}
	return out
}

// claims are the successions that the heir wrote for this reign, in her order.
func (d *law) claims(t *tenure) (out []*node) {
	a := d.l.authors[d.l.heir]
	if a == nil || t.who == d.l.heir {
		return nil
	}
	path, _ := d.path(a)
	for _, n := range path {
		last := d.l.nodes[n.op.CutHash]
		if n.op.Kind == room.Succeed && (n.cut == nil && last == t.start || n.cut != nil && n.cut.author.id == t.who && n.cut.grant == t.start) {
			out = append(out, n)
		}
	}
	return out
}

// mayTakeBack tells whether the author of n had voted for a succession that is not in the past of n.
func (d *law) mayTakeBack(n *node) bool {
	return slices.ContainsFunc(d.wishes, func(s *node) bool {
		return !before(s, n) && slices.ContainsFunc(s.op.Consents, func(c room.Consent) bool { return c.By == n.author.id })
	})
}

// tookBack tells whether p worked on under the returned host, whose first op past the cut is back, before p knew of
// the succession s. Votes carry no time: without this, those of a week in which the host was away would undo a year.
// A chain is walked to its first fork, and the fork counts as well: nobody brings a vote back by forking, and which
// branches a replica keeps does not matter.
func (d *law) tookBack(p peer.ID, back, s *node) bool {
	a := d.l.authors[p]
	if a == nil {
		return false
	}
	for n := a.root; n != nil && !before(s, n); n = n.next {
		if before(back, n) || len(a.forks[n]) > 0 {
			return true
		}
	}
	return false
}

// succeeds counts the votes: a majority of the moderators that the host had appointed by ops[:n], one at least
// besides the heir. A host who comes back undoes it by dismissing a voter or by ending the room; a voter takes her
// vote back by working under her.
func (d *law) succeeds(t *tenure, ops []*node, n int, s *node) bool {
	mods := map[peer.ID]bool{}
	for p := range maps.Keys(d.current) {
		mods[p] = true
	}
	for _, o := range ops[:n] {
		switch o.op.Kind {
		case room.Appoint:
			if p := o.op.Targets[0]; p != t.who {
				mods[p] = true
			}
		case room.Dismiss, room.Kick, room.Ban:
			for _, p := range o.op.Targets {
				delete(mods, p)
			}
		}
	}
	votes := map[peer.ID]bool{}
	for _, c := range s.op.Consents {
		if mods[c.By] && c.By != s.op.Author {
			votes[c.By] = true
		}
	}
	for _, o := range ops[n:] {
		switch o.op.Kind {
		case room.End:
			return false
		case room.Dismiss, room.Kick, room.Ban:
			for _, p := range o.op.Targets {
				delete(votes, p)
			}
		}
	}
	if n < len(ops) {
		maps.DeleteFunc(votes, func(p peer.ID, _ bool) bool { return d.tookBack(p, ops[n], s) })
	}
	count := len(votes)
	if mods[s.op.Author] {
		count++
	}
	return len(votes) > 0 && 2*count > len(mods)
}
