package ledger

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

// Entry is one linked op as the ledger view shows it. Void tells that it changes nothing, Why the reason in words, Host that
// it acts under a host's grant.
type Entry struct {
	Op     *room.Op
	Signed *wire.Signed
	Void   bool
	Why    string
	Host   bool
}

// All are the linked ops in ledger order: each after all that it names.
func (l *Ledger) All() []Entry {
	l.State()
	out := make([]Entry, len(l.order))
	for i, n := range l.order {
		w := n.void
		if w == whyNot {
			w = n.note
		}
		out[i] = Entry{Op: n.op, Signed: n.signed, Void: w != whyNot, Why: w.String(), Host: n.byHost}
	}
	return out
}

// Fork is the proof that somebody signed two ops with one number.
type Fork struct {
	Author  peer.ID
	Seq     uint64
	Ops     []*wire.Signed // two or more
	Decided bool           // a cut or checkpoint named one of them; else none counts
}

// Forks are all forks held, sorted by author and number.
func (l *Ledger) Forks() []Fork {
	var out []Fork
	for _, id := range l.people() {
		a := l.authors[id]
		start := len(out)
		for parent, ops := range a.forks {
			f := Fork{Author: id, Seq: parent.op.Seq + 1, Decided: l.lawful().chosen[parent] != nil}
			for _, n := range slices.SortedFunc(slices.Values(ops), ledgerOrder) {
				f.Ops = append(f.Ops, n.signed)
			}
			out = append(out, f)
		}
		slices.SortFunc(out[start:], func(x, y Fork) int {
			if x.Seq != y.Seq {
				return int(x.Seq) - int(y.Seq)
			}
			return slices.Compare(x.Ops[0].Body, y.Ops[0].Body)
		})
	}
	return out
}
