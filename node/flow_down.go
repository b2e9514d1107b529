package node

import (
	"time"

	"balai/node/rtc"
	"balai/room/media"
	"balai/room/sframe"
)

// down takes a bundle: frames in the order of their counters (a redundant copy comes before its primary), then blocks
// and link records. What is new goes on to the feeds together.
func (f *flow) down(l *linkState, b []byte, now time.Time) {
	u, err := media.Parse(b)
	if err != nil {
		l.refused++
		return
	}
	late := l.heard(&u, f.millis(now), now)
	l.last, l.alive = now, now
	if s := f.latest[l.peer]; s != nil {
		s.last = now
	}
	l.bytesIn += uint64(len(b))
	n := 0
	for n < len(f.entries) && u.Next(&f.entries[n]) {
		for i := n; i > 0 && before(&f.entries[i], &f.entries[i-1]); i-- {
			f.entries[i], f.entries[i-1] = f.entries[i-1], f.entries[i]
		}
		n++
	}
	for i := range n {
		switch e := &f.entries[i]; e.Kind {
		case media.Frame:
			f.frame(l, e, late, u.Hops, now)
		case media.Block:
			f.block(l, e, u.Hops, now)
		case media.Record:
			f.record(l, e.Body, now)
		}
	}
	f.settle(now)
	f.beatBack(l, now)
	if len(l.waiting) > 0 && l.since.IsZero() && !f.steady.running {
		f.send(l, nil, nil, 0, now)
	}
}

func before(a, b *media.Entry) bool {
	if a.Kind != b.Kind {
		return a.Kind < b.Kind
	}
	return a.Kind == media.Frame && a.Source == b.Source && a.Ctr < b.Ctr
}

// accepted finds whose entry it is. Only the source's own connection and parents may bring it, and only if the source
// may speak.
func (f *flow) accepted(l *linkState, e *media.Entry) *remote {
	r := f.remotes[e.Source]
	switch {
	case r == nil || !l.role:
		l.refused++
		return nil
	case r.src.Peer != l.peer && !l.parent, !r.src.Allowed:
		r.report.Refused++
		return nil
	}
	return r
}

// frame opens one frame, plays it if its source is among the loudest, and passes it on. Without any key, or under an
// epoch that is not held, it is passed on unopened.
func (f *flow) frame(l *linkState, e *media.Entry, late time.Duration, hops uint8, now time.Time) {
	r := f.accepted(l, e)
	if r == nil {
		return
	}
	r.report.Frames++
	if r.any && e.Ctr < r.newest {
		late += time.Duration(r.newest-e.Ctr) * media.Tick
	}
	if late > maxAge || r.overtakes(l, e.Ctr, now) {
		r.report.Refused++
		return
	}
	if r.shuns(l.peer, e.Ctr) {
		if r.verify.Doubted(e.Raw, l.via, now) == sframe.Bad {
			f.deceivedLate(l, r, e.Ctr, now)
		}
		return
	}
	err := sframe.ErrNoKey
	if len(f.plan.Epochs) > 0 {
		f.plain, err = r.opener.Open(f.plain[:0], e.Head, e.Body, now)
	}
	switch {
	case err == sframe.ErrReplay, err == sframe.ErrNoKey && !r.passed.Fresh(e.Ctr):
		// A copy, or another ciphertext at this counter: the block decides.
		if r.verify.Frame(e.Raw, l.via, false, now) == sframe.Bad {
			f.deceivedLate(l, r, e.Ctr, now)
		}
		return
	case err == sframe.ErrNoKey && f.relay.serves:
		if l.peer == r.src.Peer {
			r.heard, r.heardAt = e.Ctr, now
		}
	case err != nil:
		r.report.Refused++
		return
	default:
		r.report.Opened++
		if l.peer == r.src.Peer {
			r.heard, r.heardAt = e.Ctr, now
		}
	}
	var lost uint16
	if err == nil || len(f.plan.Epochs) == 0 { // what does not open may lie about its counter
		if lost = r.follow(e, l, now); lost > 0 {
			f.askFrames(l, e, lost)
		}
	}
	play := f.audible(r, e, now) && err == nil
	pass := f.passes(l, r, e, hops, now)
	switch r.verify.Frame(e.Raw, l.via, play || pass, now) {
	case sframe.Bad:
		r.report.Refused++
		f.deceivedLate(l, r, e.Ctr, now)
		return
	case sframe.Known:
		return
	}
	if pass {
		f.pass(l, r, e, hops, now)
	}
	if !play {
		return
	}
	out := rtc.PlayFrame{
		Ctr: e.Ctr, Ticks: e.Ticks, Level: uint8(e.Level), Voice: e.Voice, Marker: e.Marker,
		Speaker: e.Source, Source: e.Source, Lost: lost, Payload: f.plain,
	}
	for _, g := range f.legs {
		_ = g.player.Play(r.report.Slot, out) // a leg that is not up plays nothing
	}
}

// overtakes: while a speaker is heard on its own link, nobody else can have frames of it that are newer than that by more
// than links differ, nor, ever, newer than its newest block and the time since by more than blocks come late. A relay that
// forges one cannot make the true ones look late.
func (r *remote) overtakes(l *linkState, ctr uint32, now time.Time) bool {
	if l.peer == r.src.Peer {
		return false
	}
	since := now.Sub(r.heardAt)
	return since < heardFresh && int64(ctr)-int64(r.heard) > int64((since+maxAge/2)/media.Tick) ||
		!r.signedAt.IsZero() && int64(ctr)-r.wall(now) > int64(signedLead/media.Tick)
}

// wall is where a speaker's counter is, by the block that came soonest after it was made.
func (r *remote) wall(now time.Time) int64 {
	return int64(r.signed) + int64(now.Sub(r.signedAt)/media.Tick)
}

const (
	heardFresh = time.Second
	signedLead = 2*maxDrift*media.Tick + maxAge/2 // a microphone's clock may go from one end of its drift to the other
)

// audible gives the source its slot, and tells whether it is to be played.
func (f *flow) audible(r *remote, e *media.Entry, now time.Time) bool {
	r.voice.hear(e.Level, now)
	silenced := r.verify.Muted(now)
	if silenced {
		f.loudest.Remove(e.Source)
	} else {
		f.loudest.Hear(e.Source, e.Level, now)
	}
	if slot := f.loudest.Slot(e.Source); slot != r.report.Slot {
		r.report.Slot, f.changed = slot, true
	}
	return !silenced && r.report.Slot >= 0 && len(f.legs) > 0
}

// block lets a source's signature block judge its frames, and passes it on if its speaker signed it: twice at most.
func (f *flow) block(l *linkState, e *media.Entry, hops uint8, now time.Time) {
	r := f.accepted(l, e)
	if r == nil {
		return
	}
	if l.peer != r.src.Peer && !l.mayJudge(e.Source, now) {
		r.report.Refused++
		return
	}
	v, err := r.verify.Block(e.Head, e.Body, now)
	if err == sframe.ErrForged || err == nil && v == (sframe.Verdict{}) {
		l.useless[e.Source]++
	}
	if err != nil {
		r.report.Refused++
		return
	}
	if v.Bad > 0 {
		r.report.Refused += uint64(v.Bad)
		f.cfg.Log.Debug("frames that their speaker did not sign", "peer", r.src.Peer, "frames", v.Bad)
	}
	switch {
	case v.Forked: // two blocks of one speaker over the same frames: no relay is to blame
		r.closed, r.doubts = now.Add(badClosed), nil
		f.cfg.Log.Debug("a speaker signs two blocks over the same frames", "peer", r.src.Peer)
	case v.Bad > 0, len(r.doubts) > 0 && !v.Repeated:
		f.judge(r, now)
	}
	if !v.Repeated {
		f.learnCounter(r, e, now)
	}
	if f.relay.serves {
		f.relayBlock(l, r, e, v.Repeated, hops, now)
	}
}

// learnCounter learns from a block where the counter is. A frame that was not opened may have claimed any, and have made the
// true ones look old: a signed block that lies far behind proves it.
func (f *flow) learnCounter(r *remote, e *media.Entry, now time.Time) {
	_, last, err := sframe.BlockSpan(e.Head, e.Body)
	if err != nil {
		return
	}
	if r.signedAt.IsZero() || int64(last) > r.wall(now) {
		r.signed, r.signedAt = last, now
	}
	if r.top < last+media.WindowSize/2 {
		return
	}
	r.passed, r.top = media.Window{}, 0
	if len(f.plan.Epochs) == 0 {
		r.any = false
	}
}
