package election

import (
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// What Take answers besides the reasons of Check. ErrOlder: I have that one or a newer one of the same signer.
// ErrNotChair: a better one of another signer is in force here; it may be right elsewhere or later. ErrTerm: its term is
// beyond all that a chair could have. ErrReach: a speaker may only replace core members, not add, and not send home.
var (
	ErrOlder    = errors.New("election: an older lease")
	ErrNotChair = errors.New("election: not by the chair")
	ErrTerm     = errors.New("election: a term from nowhere")
	ErrReach    = errors.New("election: more than a speaker may change")
)

// Force knows which lease of a room is in force. It keeps one after its time: losing the chair never stops audio. The
// zero value has none. It is not safe for concurrent use.
type Force struct {
	lease   *Lease
	term    uint64
	foreign *Lease    // another signer's with another core, seen while mine was fresh: two halves have met
	met     time.Time // when
}

// Lease is the lease in force, nil before the first.
func (f *Force) Lease() *Lease { return f.lease }

// Term is the highest term that was ever in force.
func (f *Force) Term() uint64 { return f.term }

// Foreign is a lease with another core that was fresh when the two halves of a partition met at the time since; nil
// when there is none.
func (f *Force) Foreign() (l *Lease, since time.Time) { return f.foreign, f.met }

// Take puts l in force if it is the one to follow. ranked is the order of succession, chair who leads by the beats
// that I heard, empty while nobody does. The error is one of Check's, ErrOlder, ErrNotChair, ErrTerm or ErrReach.
func (f *Force) Take(l *Lease, s *room.State, ranked []peer.ID, chair peer.ID, now time.Time) error {
	if err := l.Check(s); err != nil {
		return err
	}
	old := f.lease
	if old == nil && chair != "" && chair != l.By {
		return ErrNotChair // the first one is not for whoever is quicker
	}
	if old != nil {
		if err := f.succeeds(l, old, s, ranked, chair, now); err != nil {
			if errors.Is(err, ErrNotChair) {
				f.meet(l, old, now)
			}
			return err
		}
		if l.By != old.By {
			f.meet(old, l, now)
		}
	}
	f.lease, f.term = l, max(f.term, l.Term)
	return nil
}

// succeeds tells whether l follows old. Leases of one signer are ordered by (term, version). Between two signers the
// lower rank wins whatever its term; a higher rank only while it is the one whose beats are heard, or, while none are,
// with a term after all others.
func (f *Force) succeeds(l, old *Lease, s *room.State, ranked []peer.ID, chair peer.ID, now time.Time) error {
	rank, was := slices.Index(ranked, l.By), slices.Index(ranked, old.By)
	switch {
	case l.ID == old.ID:
		return ErrOlder
	case l.Term > f.term+1 && (old.Fresh(now) || chair != l.By):
		return ErrTerm // who was away for some chairs believes the one whose beats it hears, once its own lease is old
	case l.By == old.By:
		if l.Term < old.Term || l.Term == old.Term && l.Version <= old.Version {
			return ErrOlder
		}
	case rank < 0:
		return ErrNotChair
	case chair != "" && chair != l.By:
		return ErrNotChair
	case chair == "" && was >= 0 && was < rank && l.Term <= f.term:
		return ErrNotChair
	}
	if !s.Role(l.By).Authority() && !onlyReplaces(l, old) {
		return ErrReach
	}
	return nil
}

// onlyReplaces tells whether l's core is old's with some members put in the place of others.
func onlyReplaces(l, old *Lease) bool {
	return len(l.Ads) <= len(old.Ads) && (len(l.Ads) > 0) == (len(old.Ads) > 0) && l.NoRelay == old.NoRelay
}

// meet remembers the other side's core after a partition.
func (f *Force) meet(other, mine *Lease, now time.Time) {
	if other.By == mine.By || !other.Fresh(now) || !mine.Fresh(now) || len(other.Ads) == 0 || subset(other, mine) {
		return
	}
	if f.foreign == nil || now.Sub(f.met) > MergeTime {
		f.met = now
	}
	f.foreign = other
}

func subset(a, b *Lease) bool {
	for _, ad := range a.Ads {
		if !b.Holds(ad.Peer) {
			return false
		}
	}
	return true
}
