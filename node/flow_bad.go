package node

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/media"
	"balai/room/overlay"
	"balai/room/wire"
)

const (
	badWait   = 300 * time.Millisecond // how long a parent may take to say that it was deceived itself
	badWiden  = media.Tick             // after which another parent is asked to send meanwhile
	badMemory = time.Minute            // excuses are counted that far back
	badClosed = 2 * badMemory          // a lying speaker's source is not passed on: longer than her relay's excuses are counted
	badExcuse = 2                      // of a parent of the core; one more for each level: who is nearer to a liar leaves it first
	badAgain  = 2 * media.Tick         // between the times that BAD is said
	badTimes  = 6                      // within badWait: one has to arrive, or an honest relay is left
	maxBad    = 128                    // counters in a record: as many frames as are remembered
	maxSaid   = 2 * maxBad             // and of a parent's records
	maxDoubts = 8                      // parents of one source
)

// doubt is about a parent that brought frames of a source which their speaker did not sign: it lies, or was lied to.
type doubt struct {
	peer    peer.ID
	at      time.Time // the last of them was found false
	since   time.Time // the first that it has not excused was; zero: none
	ctr     uint32    // of that one
	widened bool      // another parent was asked to send
	shunned bool      // its frames are neither played nor passed on
	excused int
	said    []uint32 // counters that it said were false
	saidAt  time.Time
}

// toldBad is a record that waits to be said again.
type toldBad struct {
	record *wire.LinkRecord
	at     time.Time
	left   int
}

func (r *remote) doubtOf(p peer.ID) *doubt {
	for i := range r.doubts {
		if r.doubts[i].peer == p {
			return &r.doubts[i]
		}
	}
	return nil
}

// doubtAbout is doubtOf, or a new one.
func (r *remote) doubtAbout(p peer.ID) *doubt {
	if d := r.doubtOf(p); d != nil {
		return d
	}
	if len(r.doubts) == maxDoubts {
		r.doubts = slices.Delete(r.doubts, 0, 1)
	}
	r.doubts = append(r.doubts, doubt{peer: p})
	return &r.doubts[len(r.doubts)-1]
}

// shuns tells whether a frame by p is neither played nor passed on: p is not trusted, or says so itself.
func (r *remote) shuns(p peer.ID, ctr uint32) bool {
	d := r.doubtOf(p)
	return d != nil && (d.shunned || d.excused > 0 && slices.Contains(d.said, ctr))
}

// judge looks at whom the block that has just verified proves false, and true.
func (f *flow) judge(r *remote, now time.Time) {
	f.bad = f.bad[:0]
	liars, honest := map[peer.ID]uint32{}, map[peer.ID]bool{}
	r.verify.Judged(func(via, ctr uint32, good bool) {
		p := f.behindVia[via]
		if good {
			honest[p] = true
			return
		}
		f.bad = append(f.bad, ctr)
		if c, ok := liars[p]; !ok || ctr < c {
			liars[p] = ctr
		}
	})
	for p, ctr := range liars {
		if p != "" {
			f.deceived(p, r, ctr, now)
		}
	}
	for i := range r.doubts {
		d := &r.doubts[i]
		if _, lied := liars[d.peer]; !lied && honest[d.peer] && d.since.IsZero() {
			d.shunned = false
		}
	}
	f.tellBad(r, now)
}

// deceived takes back what p brought of a source, for a frame of it is false. The speaker's own link lies for the speaker:
// nobody else is to blame. A parent is left if it does not say in time that it was deceived too.
func (f *flow) deceived(p peer.ID, r *remote, ctr uint32, now time.Time) {
	if p == r.src.Peer {
		r.closed = now.Add(badClosed)
		f.withdraw(r, p)
		return
	}
	d := r.doubtAbout(p)
	if !d.shunned {
		d.shunned = true
		f.withdraw(r, p)
		f.distrust(r, p)
	}
	d.at = now
	if d.since.IsZero() {
		d.since, d.ctr, d.widened = now, ctr, false
	}
	if slices.Contains(d.said, d.ctr) {
		f.excuse(d)
	}
}

func (f *flow) distrust(r *remote, p peer.ID) {
	for via, by := range f.behindVia {
		if by != p {
			continue
		}
		r.verify.Distrust(via, func(ctr uint32) {
			r.opener.Forget(ctr)
			r.passed.Drop(ctr)
			f.bad = append(f.bad, ctr)
		})
	}
	r.any = false
}

// deceivedLate is deceived by a frame whose block was here before it: nobody hears it.
func (f *flow) deceivedLate(l *linkState, r *remote, ctr uint32, now time.Time) {
	if d := r.doubtOf(l.peer); l.peer == r.src.Peer || d != nil && slices.Contains(d.said, ctr) {
		return
	}
	f.bad = f.bad[:0]
	f.deceived(l.peer, r, ctr, now)
	f.tellBad(r, now)
}

// withdraw takes back what waits to be passed on, or would be again.
func (f *flow) withdraw(r *remote, from peer.ID) {
	f.relay.fresh = slices.DeleteFunc(f.relay.fresh, func(p passing) bool {
		return p.remote == r && p.from == from && p.kind == media.Frame
	})
	if r.ring != nil {
		r.ring = media.NewRing(ringSize)
	}
}

// excuse takes a parent's word that it was deceived. The first time it is trusted at once, for it has left whoever
// deceived it; then when a block proves it true; and one excuse too many is none.
func (f *flow) excuse(d *doubt) {
	d.since = time.Time{}
	d.excused++
	if d.excused == 1 {
		d.shunned = false
	}
	if d.excused > badExcuse+int(f.plan.Plan.Level) {
		f.prove(d)
	}
}

// prove says that a parent lies.
func (f *flow) prove(d *doubt) {
	d.since = time.Time{}
	f.cfg.Log.Warn("a relay brought frames that their speaker did not sign: it is left", "peer", d.peer)
	f.cfg.Lied(overlay.Lied{Peer: d.peer, Proven: true})
}

// heardBad is a parent's word that it was deceived. It excuses nobody else, and nothing is silenced for it.
func (f *flow) heardBad(l *linkState, b *wire.Bad, now time.Time) {
	r := f.remotes[b.GetSource()]
	if r == nil || !l.parent || l.peer == r.src.Peer {
		return
	}
	d := r.doubtAbout(l.peer)
	ctrs := b.GetCtrs()
	d.saidAt = now
	for _, ctr := range ctrs[:min(len(ctrs), maxBad)] {
		if !slices.Contains(d.said, ctr) {
			d.said = append(d.said, ctr)
		}
	}
	d.said = slices.Delete(d.said, 0, max(0, len(d.said)-maxSaid))
	if !d.since.IsZero() && slices.Contains(d.said, d.ctr) {
		f.excuse(d)
	}
}

// tellBad says to those who hear by me that I was deceived, so that they do not leave me: what is false, and what was
// taken back for it.
func (f *flow) tellBad(r *remote, now time.Time) {
	if len(f.feeds) == 0 || len(f.bad) == 0 {
		return
	}
	slices.Sort(f.bad)
	ctrs := slices.Clone(slices.Compact(f.bad))
	t := toldBad{at: now, left: badTimes}
	t.record = &wire.LinkRecord{Record: &wire.LinkRecord_Bad{Bad: &wire.Bad{Source: r.src.ID, Ctrs: ctrs[:min(len(ctrs), maxBad)]}}}
	f.sayBad(&t)
	f.bads = append(f.bads, t)
}

func (f *flow) sayBad(t *toldBad) {
	for _, l := range f.feeds {
		l.tell(t.record)
	}
	t.at, t.left = t.at.Add(badAgain), t.left-1
}

// tickBad says again what is due, and judges those who have not excused themselves.
func (f *flow) tickBad(now time.Time) {
	for i := range f.bads {
		if t := &f.bads[i]; !t.at.After(now) {
			f.sayBad(t)
		}
	}
	f.bads = slices.DeleteFunc(f.bads, func(t toldBad) bool { return t.left == 0 })
	for _, r := range f.remotes {
		r.doubts = slices.DeleteFunc(r.doubts, func(d doubt) bool { return now.Sub(d.at) >= badMemory && now.Sub(d.saidAt) >= badMemory })
		for i := range r.doubts {
			d := &r.doubts[i]
			switch waited := now.Sub(d.since); {
			case d.since.IsZero():
			case waited >= badWait:
				f.prove(d)
			case waited >= badWiden && !d.widened:
				d.widened = true
				f.cfg.Lied(overlay.Lied{Peer: d.peer})
			}
		}
	}
}
