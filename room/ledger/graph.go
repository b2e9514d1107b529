package ledger

import (
	"bytes"
	"cmp"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

// node is a linked op: all that it names is held and matches. Links never change; whether the op counts does.
type node struct {
	op     *room.Op
	signed *wire.Signed
	author *author
	parent *node   // the author's op before; at seq 1 the root
	next   *node   // the author's first op after
	grant  *node   // what made the author an authority
	cut    *node   // dismiss, transfer, succeed: the named op; nil at seq 0
	names  []*node // checkpoint: what it saw
	past   []uint32
	lane   int32
	depth  uint32 // 1 + the greatest of what it names
	epochs uint64 // the next epoch's number after this op and its past, 0 when there is none yet
	byHost bool   // acts under a host's grant
	turn   bool   // an epoch in turn
	void   why    // set by law
	note   why    // set by fold: why a counting op changes nothing
}

// author is one chain: usually a line, a tree after a fork. A lane is one line of it, named by a number that
// only this ledger knows.
type author struct {
	id    peer.ID
	root  *node // the founder's is the genesis; the others' stands for the empty hash
	lanes []int32
	forks map[*node][]*node // parent -> its two or more next ops
}

// before tells whether a is in the causal past of b: named by it, directly or through what it names. The
// past is taken from the ops themselves, so that nobody can hide what he named.
func before(a, b *node) bool {
	if a.lane < 0 { // the root of a chain
		return b.author == a.author && b != a
	}
	return a != b && int(a.lane) < len(b.past) && b.past[a.lane] >= uint32(a.op.Seq) && (a.op.Seq > 0 || a.lane == 0)
}

// ledgerOrder sorts ops so that each follows its past, the same everywhere: by depth, host before moderator,
// id.
func ledgerOrder(a, b *node) int {
	if c := cmp.Compare(a.depth, b.depth); c != 0 {
		return c
	}
	if a.byHost != b.byHost {
		if a.byHost {
			return -1
		}
		return 1
	}
	return bytes.Compare(a.op.ID[:], b.op.ID[:])
}

// join adds a node to its author's chain and merges the past of all that it names.
func (l *Ledger) join(n *node, named []*node) {
	a := n.author
	fork := n.parent.next != nil
	switch {
	case fork || n.parent.lane < 0:
		n.lane = int32(len(l.tips))
		l.tips = append(l.tips, n)
		a.lanes = append(a.lanes, n.lane)
	default:
		n.lane = n.parent.lane
		l.tips[n.lane] = n
	}
	if fork {
		if a.forks == nil {
			a.forks = map[*node][]*node{}
		}
		if len(a.forks[n.parent]) == 0 {
			a.forks[n.parent] = []*node{n.parent.next}
		}
		a.forks[n.parent] = append(a.forks[n.parent], n)
	} else {
		n.parent.next = n
	}
	n.merge(named)
}

// merge computes past, depth and epochs.
func (n *node) merge(named []*node) {
	size := int(n.lane) + 1
	for _, m := range named {
		size = max(size, len(m.past))
	}
	n.past = make([]uint32, size)
	for _, m := range named {
		for i, seq := range m.past {
			n.past[i] = max(n.past[i], seq)
		}
		n.depth, n.epochs = max(n.depth, m.depth), max(n.epochs, m.epochs)
	}
	n.past[n.lane] = uint32(n.op.Seq)
	n.depth++
	if n.turn = n.op.Kind == room.NewEpoch && n.inTurn(); n.turn {
		n.epochs = max(n.epochs, n.op.Epoch.N+1)
	}
}

// inTurn tells whether an epoch's number is at most one above the last of its past: a leap would leave no room for
// later ones.
func (n *node) inTurn() bool { return n.op.Epoch.N <= max(n.epochs, 1) }
