package node

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/media"
	"balai/room/overlay"
)

const (
	maxHops     = 12                   // a bundle that has come further is not passed on
	coreHold    = 5 * time.Millisecond // how long the core lets a frame wait for those of other speakers
	bigHall     = 20                   // children; with more it waits bigHallHold, so that a tick is one datagram for each
	bigHallHold = 18 * time.Millisecond
	talkHold    = 3 * media.Tick // who was heard that lately is waited for
	carryHold   = time.Second    // a block of a source that left the loudest still goes on for so long
	maxGap      = 8              // frames: a longer gap behind a relay is silence
	longHandle  = 1<<32 - 1      // a head with it is as long as any
)

// relay is what goes on to the feeds. Entries wait in fresh until the bundle that brought them is done, or, in the
// core, until the other speakers' are there.
type relay struct {
	serves bool // the plan feeds somebody, be it with heartbeats only
	fresh  []passing
	frames int // own ones in fresh: they need the gate
	mine   int // own frames and blocks in fresh
	batch  uint64
	hold   *time.Timer
	held   bool // hold is running
	chosen media.Loudest
	byPeer map[peer.ID]*linkState // of feeds
	heard  time.Time              // when own frames last went to the feeds
	sentAt time.Time              // when anything last did
	count  uint64                 // entries sent

	shared []media.Builder // the batch as most children get it
	frame  [][]byte
	block  [][]byte
	copies [][]byte
	one    [][]byte
}

// passing is an entry on its way to the feeds. Raw points into the bundle that brought it, or into the own ring.
type passing struct {
	raw     []byte
	kind    media.Kind
	source  uint32
	ctr     uint32
	remote  *remote // nil: it is mine
	speaker peer.ID
	from    peer.ID
	direct  bool // by its speaker's own link
	hops    uint8
	voiced  bool // mine, and from the microphone
}

func (q *relay) add(p passing) { q.fresh = append(q.fresh, p) }

// gets tells whether the feed l is to have p.
func (l *linkState) gets(p *passing) bool {
	switch {
	case p.speaker == l.peer, p.from == l.peer, l.up && p.remote == nil:
		return false
	case l.feed.Only != nil && !slices.Contains(l.feed.Only, p.speaker):
		return false
	}
	return p.direct || !l.feed.Direct && l.feed.Mode != overlay.Assist
}

// picky tells whether the feed does not simply get everything.
func (l *linkState) picky() bool {
	return l.feed.Direct || l.feed.Only != nil || l.feed.Mode == overlay.Assist
}

// passes tells whether a frame is to be passed on: it is the first copy, and, in the core, of one of the loudest.
func (f *flow) passes(l *linkState, r *remote, e *media.Entry, hops uint8, now time.Time) bool {
	if !r.passed.Take(e.Ctr) {
		return false
	}
	r.top = max(r.top, e.Ctr)
	if !f.relay.serves || hops > maxHops || now.Before(r.closed) {
		return false
	}
	if l.peer == r.src.Peer {
		r.direct = now
	}
	if f.plan.Plan.Core {
		f.relay.chosen.Hear(e.Source, e.Level, now)
		if f.relay.chosen.Slot(e.Source) < 0 {
			return false
		}
	}
	return true
}

func (f *flow) pass(l *linkState, r *remote, e *media.Entry, hops uint8, now time.Time) {
	r.carried, r.batch, r.hops = now, f.relay.batch, hops+1
	f.relay.add(passing{
		raw: e.Raw, kind: media.Frame, source: e.Source, ctr: e.Ctr, remote: r,
		speaker: r.src.Peer, from: l.peer, direct: l.peer == r.src.Peer, hops: hops + 1,
	})
}

// carried tells whether frames of the source went on lately, so that their blocks must; outside the core all do.
func (f *flow) carried(r *remote, now time.Time) bool {
	return f.relay.serves && (!f.plan.Plan.Core || now.Sub(r.carried) < carryHold)
}

// passOwn lays an own frame ready for the feeds; e is in the own ring already. The gate is held.
func (f *flow) passOwn(e *media.Entry, voiced bool, now time.Time) {
	if len(f.feeds) == 0 {
		return
	}
	if f.plan.Plan.Core {
		f.relay.chosen.Hear(e.Source, e.Level, now)
		if f.relay.chosen.Slot(e.Source) < 0 {
			return
		}
	}
	raw, ok := f.own.Get(media.Frame, e.Source, e.Ctr, now)
	if !ok {
		return
	}
	f.relay.heard = now
	f.relay.frames++
	f.relay.mine++
	f.relay.add(passing{raw: raw, kind: media.Frame, source: e.Source, ctr: e.Ctr, speaker: f.plan.Me.Peer, direct: true, voiced: voiced})
}

// passBlock puts an own block into the next bundles; where much is lost, the one before too.
func (f *flow) passBlock(entry []byte, now time.Time) {
	before := f.blocks.before(entry)
	for _, l := range f.ups {
		l.waiting, l.since = append(l.waiting, entry), time.Time{}
		if before != nil && l.redundancy(f.cfg.Redundancy) >= blocksAgain {
			l.waiting = append(l.waiting, before)
		}
	}
	if len(f.feeds) > 0 && (!f.plan.Plan.Core || now.Sub(f.relay.heard) < carryHold) {
		f.relay.mine++
		f.relay.add(passing{raw: entry, kind: media.Block, source: f.plan.Me.ID, speaker: f.plan.Me.Peer, direct: true})
	}
}

// settle sends what is fresh, at once or, in the core, when those who speak are all in it or the wait is over.
func (f *flow) settle(now time.Time) {
	q := &f.relay
	switch {
	case len(q.fresh) == 0:
	case !f.waits(now):
		f.forward(now)
	case !q.held:
		q.held = true
		q.hold.Reset(f.holdFor())
	}
}

func (f *flow) holdFor() time.Duration {
	if len(f.feeds) > bigHall {
		return bigHallHold
	}
	return coreHold
}

// waits tells whether a speaker whose frame should come any moment is missing.
func (f *flow) waits(now time.Time) bool {
	q := &f.relay
	if !f.plan.Plan.Core {
		return false
	}
	for i := range q.fresh {
		if p := &q.fresh[i]; p.kind == media.Frame && !p.direct {
			return false
		}
	}
	if q.frames == 0 && now.Sub(q.heard) < talkHold {
		return true
	}
	for id, r := range f.remotes {
		if r.batch != q.batch && now.Sub(r.direct) < talkHold && q.chosen.Slot(id) >= 0 {
			return true
		}
	}
	return false
}

// forward sends what is fresh to the feeds and keeps it to be sent again. Own frames go only while the gate is open.
func (f *flow) forward(now time.Time) {
	q := &f.relay
	if q.held {
		q.held = false
		q.hold.Stop()
	}
	if len(q.fresh) == 0 {
		return
	}
	if q.frames > 0 {
		f.gate.Lock()
		defer f.gate.Unlock()
		f.forgetVoice() // copies of it too, that would go with a frame of silence
	}
	f.feed(now)
	for i := range q.fresh {
		p := &q.fresh[i]
		if p.remote == nil || p.kind != media.Frame {
			continue
		}
		if p.remote.ring == nil {
			p.remote.ring = media.NewRing(ringSize)
		}
		e := media.Entry{Header: media.Header{Source: p.source, Ctr: p.ctr}, Raw: p.raw}
		p.remote.ring.Put(&e, now)
	}
	clear(q.fresh)
	q.fresh, q.frames, q.mine = q.fresh[:0], 0, 0
	q.batch++
}

// dropOwn takes the own frames that come from the microphone out of what is fresh.
func (q *relay) dropOwn() {
	before := len(q.fresh)
	q.fresh = slices.DeleteFunc(q.fresh, func(p passing) bool { return p.remote == nil && p.kind == media.Frame && p.voiced })
	q.mine, q.frames = q.mine-before+len(q.fresh), q.frames-before+len(q.fresh)
}

// feed sends the batch: to those who get all of it the same bundle, each with its own head.
func (f *flow) feed(now time.Time) {
	q := &f.relay
	if len(f.feeds) == 0 || len(q.fresh) == 0 {
		return
	}
	q.sentAt = now
	hops := uint8(0)
	for i := range q.fresh {
		p := &q.fresh[i]
		hops = max(hops, p.hops)
		q.setApart(p.speaker)
		q.setApart(p.from)
	}
	bundles := 0
	for _, l := range f.feeds {
		handle, n := l.link.Handle(), l.redundancy(f.cfg.Redundancy)
		switch {
		case handle == 0:
			l.drain()
		case l.apart == q.batch+1, n > 0, len(l.waiting) > 0, l.picky(), l.up && q.mine > 0:
			f.feedApart(l, n, hops, now)
		default:
			if bundles == 0 {
				bundles = q.build(hops)
			}
			for i := range bundles {
				b := &q.shared[i]
				b.Rehead(media.Bundle{Handle: handle, Seq: l.link.Seq(), SendMs: f.millis(now), Hops: hops})
				f.post(l, b)
			}
			q.count += uint64(len(q.fresh))
		}
	}
}

// setApart marks the feed p, for it does not get all of this batch.
func (q *relay) setApart(p peer.ID) {
	if l := q.byPeer[p]; l != nil {
		l.apart = q.batch + 1
	}
}

// build writes the whole batch into the shared bundles and returns how many there are.
func (q *relay) build(hops uint8) (bundles int) {
	q.frame, q.block = q.frame[:0], q.block[:0]
	for i := range q.fresh {
		q.sort(&q.fresh[i])
	}
	for frames, blocks := q.frame, q.block; len(frames)+len(blocks) > 0; bundles++ {
		if bundles == len(q.shared) {
			q.shared = append(q.shared, media.Builder{})
		}
		b := &q.shared[bundles]
		b.Begin(media.Bundle{Handle: longHandle, Hops: hops}, media.MaxBundle)
		nf, nb := b.Fill(frames, blocks, nil)
		if nf+nb == 0 {
			return bundles // impossible: every entry fits into an empty bundle
		}
		frames, blocks = frames[nf:], blocks[nb:]
	}
	return bundles
}

func (q *relay) sort(p *passing) {
	if p.kind == media.Frame {
		q.frame = append(q.frame, p.raw)
	} else {
		q.block = append(q.block, p.raw)
	}
}

// feedApart sends what l is to have of the batch, with what waits for it and with earlier frames as its loss asks for.
func (f *flow) feedApart(l *linkState, redundancy int, hops uint8, now time.Time) {
	q := &f.relay
	q.frame, q.block, q.copies = q.frame[:0], q.block[:0], q.copies[:0]
	for i := range q.fresh {
		if l.gets(&q.fresh[i]) {
			q.sort(&q.fresh[i])
		}
	}
	n := len(q.frame) + len(q.block)
	if n == 0 {
		return
	}
	q.count += uint64(n)
	for k := range redundancy {
		f.copiesFor(l, k, now)
	}
	if redundancy >= blocksAgain {
		f.blocksBefore(l)
	}
	q.block = append(q.block, l.waiting...)
	f.bundle(l, q.frame, q.block, q.copies, hops, now)
}

// blocksBefore adds, of each source with a block in the batch, the block before.
func (f *flow) blocksBefore(l *linkState) {
	for i := range f.relay.fresh {
		p := &f.relay.fresh[i]
		if p.kind != media.Block || !l.gets(p) {
			continue
		}
		blocks := f.blocks
		if p.remote != nil {
			blocks = p.remote.blocks
		}
		if b := blocks.before(p.raw); b != nil {
			f.relay.block = append(f.relay.block, b)
		}
	}
}

// copiesFor adds, of each source in the batch, the k-th frame before its newest.
func (f *flow) copiesFor(l *linkState, k int, now time.Time) {
	q := &f.relay
	for i := range q.fresh {
		p := &q.fresh[i]
		last := p.kind == media.Frame && l.gets(p)
		for j := i + 1; j < len(q.fresh) && last; j++ {
			last = q.fresh[j].kind != media.Frame || q.fresh[j].source != p.source
		}
		ring := f.own
		if p.remote != nil {
			ring = p.remote.ring
		}
		if !last || ring == nil {
			continue
		}
		if q.one = ring.Newest(q.one[:0], p.source, p.ctr, k+1, now); len(q.one) == k+1 {
			q.copies = append(q.copies, q.one[k])
		}
	}
}
