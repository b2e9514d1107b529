package ledger

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// Heads are the highest linked ops of each author, sorted by author; after a fork one for each branch, the one
// that counts first.
func (l *Ledger) Heads() []room.Seen {
	var out []room.Seen
	for _, id := range l.people() {
		a := l.authors[id]
		first := l.head(a)
		if first != nil {
			out = append(out, seenOf(first))
		}
		for _, lane := range a.lanes {
			if n := l.tips[lane]; n != a.root && n != first {
				out = append(out, seenOf(n))
			}
		}
	}
	return out
}

// maxLocator bounds a Locator: its 128 names take about 9 KiB.
const maxLocator = 128

// Locator is Heads for who asks for what it misses: then, of each branch, also ops 1, 2, 4, 8 … before its end, as far as
// they fit. Where two replicas hold different branches of one chain they show how far both agree, or the other would begin
// at the first op again and again.
func (l *Ledger) Locator() []room.Seen {
	out := l.Heads()
	for back, more := uint64(1), true; more && back < 1<<32; back *= 2 {
		more = false
		for _, id := range l.people() {
			a := l.authors[id]
			for _, lane := range a.lanes {
				n := l.tips[lane]
				if n.op.Seq <= back || len(out) >= maxLocator {
					continue
				}
				for end := n.op.Seq - back; n.op.Seq > end; {
					n = n.parent
				}
				out, more = append(out, seenOf(n)), true
			}
		}
	}
	return out
}

func (l *Ledger) people() []peer.ID {
	ids := make([]peer.ID, 0, len(l.authors))
	for id := range l.authors {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// head is the last op of a's chain before any undecided fork, nil when there is none.
func (l *Ledger) head(a *author) *node {
	if a == nil {
		return nil
	}
	if len(a.forks) == 0 {
		if n := l.tips[a.lanes[0]]; n != a.root {
			return n
		}
		return nil
	}
	l.lawful()
	path, _ := l.law.path(a)
	if len(path) == 0 {
		return nil
	}
	return path[len(path)-1]
}

func (l *Ledger) lawful() *law {
	if l.law == nil {
		l.law = l.derive()
	}
	return l.law
}

func seenOf(n *node) room.Seen {
	return room.Seen{Author: n.op.Author, Seq: n.op.Seq, Hash: n.op.ID}
}

// Since is what a peer with these heads misses, at most limit ops, each after all that it names; more tells that
// some were left out. A head that is not held here hides no op below it, except when it is higher than mine:
// then the peer is ahead of me in that chain.
func (l *Ledger) Since(heads []room.Seen, limit int) (ops []*wire.Signed, more bool) {
	have := make([]uint32, len(l.tips))
	ahead := map[peer.ID]bool{}
	for _, h := range heads {
		n := l.nodes[h.Hash]
		switch {
		case n != nil:
			for i, seq := range n.past {
				have[i] = max(have[i], seq)
			}
		case l.authors[h.Author] != nil:
			if h.Seq > l.height(l.authors[h.Author]) {
				ahead[h.Author] = true
			}
		}
	}
	for _, n := range l.order {
		if uint32(n.op.Seq) <= have[n.lane] || ahead[n.op.Author] {
			continue
		}
		if len(ops) == limit {
			return ops, true
		}
		ops = append(ops, n.signed)
	}
	return ops, false
}

// height is the highest number on any branch of a's chain: of two replicas with different branches at most one finds the
// other ahead, so one gives its own.
func (l *Ledger) height(a *author) (seq uint64) {
	for _, lane := range a.lanes {
		seq = max(seq, l.tips[lane].op.Seq)
	}
	return seq
}

// Wanted is what pending ops name and this ledger does not hold; Author is empty where only the id is known.
func (l *Ledger) Wanted() []room.Seen {
	aside := map[room.OpID]bool{}
	for k := range l.wait.ops {
		aside[k.id] = true
	}
	var out []room.Seen
	for id, waiters := range l.wait.by {
		if len(waiters) == 0 || aside[id] || l.wait.isVoid(waiters[0].need) {
			continue
		}
		if out = append(out, waiters[0].need); len(out) == maxWanted {
			break
		}
	}
	return out
}

// isVoid tells whether a name is that of a void op: who names it waits for ever.
func (w *waiting) isVoid(s room.Seen) bool {
	key, err := identity.PublicOf(s.Author)
	return err == nil && w.isDead(held{s.Hash, string(key)})
}

// Get is a linked op by its id, for who wants it.
func (l *Ledger) Get(id room.OpID) (op *wire.Signed, ok bool) {
	if n := l.nodes[id]; n != nil && n != l.root() {
		return n.signed, true
	}
	return nil, false
}

// GrantOf is the op that makes p a moderator, or the host after a hand-over; nil for the founder as host and for
// everyone without authority.
func (l *Ledger) GrantOf(p peer.ID) *wire.Signed {
	if t := l.lawful().tenureOf(p); t != nil && t.start != l.root() {
		return t.start.signed
	}
	return nil
}

func (d *law) tenureOf(p peer.ID) *tenure {
	if d.host.who == p {
		return d.host
	}
	return d.current[p]
}
