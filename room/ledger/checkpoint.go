package ledger

import "balai/room"

// A checkpoint is the host's word what state all that it names makes. Who holds just that compares: a difference is a fault of a
// program, or a host who lies. One that names as many heads as fit may be of more ops than are in its past: it is not
// written, and not compared.

// checks is what is known of checkpoints.
type checks struct {
	covered int      // ops in the past of the host's checkpoint that covers most
	looked  int      // of the one looked at last
	differs *room.Op // the first whose state is another here
}

// Checkpoints in a row must not cost a state each: one is looked at when the ledger has grown by a part, or by so many ops, since.
const (
	grown = 16
	apart = 1000
)

// check counts what the checkpoint n covers, and compares its state when that is all that is held.
func (l *Ledger) check(n *node) {
	if !n.byHost { // before the walk: anybody may write such an op
		return
	}
	covers := 0
	for _, m := range l.order {
		if before(m, n) {
			covers++
		}
	}
	if covers-l.checks.looked < min(covers/grown, apart) {
		return
	}
	l.checks.looked = covers
	if l.judge(n) != whyNot {
		return
	}
	l.checks.covered = max(l.checks.covered, covers)
	whole := len(n.op.Seen) < maxNamed // else it may not name all that its author held
	if whole && covers+1 == len(l.order) && len(l.State().Forked) == 0 && n.op.Root != l.Hash() && l.checks.differs == nil {
		l.checks.differs = n.op
	}
}

// Unchecked counts the linked ops that no checkpoint of the host covers.
func (l *Ledger) Unchecked() int { return len(l.order) - l.checks.covered }

// Differs is the first checkpoint whose state is not the one that the same ops make here; nil: none.
func (l *Ledger) Differs() *room.Op { return l.checks.differs }
