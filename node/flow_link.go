package node

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/node/p2p"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/sframe"
	"balai/room/wire"
)

const (
	heartbeatIn  = 200 * time.Millisecond
	pingIn       = time.Second
	lossWindow   = 2 * time.Second
	askIn        = 3 * media.Tick // between two requests for a block
	maxAnswers   = 25             // pongs, blocks and frames sent to one peer in a second on request
	maxUseless   = 6              // blocks of a source by one peer in a second that nothing follows from
	maxAskRTT    = 200 * time.Millisecond
	maxAskFrames = maxGap
	keptBlocks   = 8                     // of each source, for those who ask
	transitSpan  = 2 * time.Second       // a clock that was stopped is believed again after two of these
	risingBy     = 50 * time.Millisecond // a round trip this far over the best one: the delay is rising

	bestFades = 64 // round trips

	blocksAgain = 2 // earlier frames that a link asks for, from which the block before travels with each block

	// Loss in 1/1000 from which one, two, three earlier frames travel with each frame.
	lossForOne, lossForTwo, lossForThree = 1, 20, 80
)

// linkState is what the flow knows of one link.
type linkState struct {
	link mediaLink
	peer peer.ID
	via  uint32

	// What the plan says of the peer.
	role   bool          // anything at all
	up     bool          // own frames go there
	parent bool          // frames of any source are taken from it
	feed   *overlay.Feed // frames are forwarded to it, or, warm, heartbeats; nil: neither
	apart  uint64        // the last batch of which it does not get all

	waiting           [][]byte  // entries for the next bundle
	since             time.Time // the oldest of them that may wait a tick for company; zero: none may
	in, out, refused  uint64
	bytesIn, bytesOut uint64
	last              time.Time // its last bundle
	core              uint64    // the core's tick, as it says
	level             uint32
	path              [][]byte
	ahead             time.Duration
	pulsed            time.Time
	alive             time.Time // its last bundle, or what counts as one: bury
	pings             bool      // a ping waits

	began   bool
	nextSeq uint16
	missing uint64 // bundles that did not come, so far

	windowAt           time.Time
	windowIn, windowNo uint64
	loss               uint32 // of what comes in, 1/1000
	theirLoss          uint32 // of what the peer gets from me, as it says

	transit  [2]uint16 // the least of (my clock - send ms), this span and the one before
	spanAt   time.Time
	spans    int
	beat     time.Time
	pinged   time.Time
	pingID   uint64
	rtt      time.Duration
	best     time.Duration
	answerAt time.Time
	answers  int

	uselessAt time.Time
	useless   map[uint32]int // by source: blocks that cost a signature and judged nothing, in this second
}

// heard counts a bundle and tells how much later it came than the quickest of the last seconds.
func (l *linkState) heard(u *media.Bundle, ms uint16, now time.Time) (late time.Duration) {
	l.in++
	if !l.began {
		l.began, l.nextSeq = true, u.Seq
	}
	if ahead := int16(u.Seq - l.nextSeq); ahead >= 0 {
		l.missing += uint64(ahead)
		l.nextSeq = u.Seq + 1
	} else if l.missing > 0 {
		l.missing-- // late, not lost
	}
	d := ms - u.SendMs
	if l.spans == 0 || now.Sub(l.spanAt) >= transitSpan {
		l.transit[1], l.transit[0] = l.transit[0], d
		if l.spans == 0 {
			l.transit[1] = d
		}
		l.spanAt, l.spans = now, l.spans+1
	}
	if int16(d-l.transit[0]) < 0 {
		l.transit[0] = d
	}
	least := l.transit[0]
	if int16(l.transit[1]-least) < 0 {
		least = l.transit[1]
	}
	return time.Duration(max(int16(d-least), 0)) * time.Millisecond
}

// redundancy is how many earlier frames go with each: as many as the peer's loss asks for, but no more than the least
// while the delay rises, for more bytes would only make that worse.
func (l *linkState) redundancy(least int) int {
	n := least
	switch loss := l.theirLoss; {
	case l.rtt > l.best+risingBy:
	case loss >= lossForThree:
		n = max(n, 3)
	case loss >= lossForTwo:
		n = max(n, 2)
	case loss >= lossForOne:
		n = max(n, 1)
	}
	return n
}

// measure closes a loss window when it is over; loss falls by half a window so that one lost bundle is not forgotten
// at once.
func (l *linkState) measure(now time.Time) {
	if now.Sub(l.windowAt) < lossWindow {
		return
	}
	got, missed := l.in-l.windowIn, int64(l.missing-l.windowNo)
	loss := uint32(0)
	if missed > 0 {
		loss = uint32(1000 * uint64(missed) / (got + uint64(missed)))
	}
	l.loss = max(loss, l.loss/2)
	l.windowAt, l.windowIn, l.windowNo = now, l.in, l.missing
}

// mayAnswer limits what a peer can make this daemon send.
func (l *linkState) mayAnswer(now time.Time) bool {
	if now.Sub(l.answerAt) >= time.Second {
		l.answerAt, l.answers = now, 0
	}
	l.answers++
	return l.answers <= maxAnswers
}

// mayJudge limits what blocks by a link that are forged, or old, may cost: those by others are still verified. Each source
// counts for itself. An honest relay goes on with the blocks of some that are not among the loudest any more, which judge
// nothing here, and with whatever blocks a speaker signs: neither may cost another source its own.
func (l *linkState) mayJudge(source uint32, now time.Time) bool {
	if now.Sub(l.uselessAt) >= time.Second {
		l.uselessAt = now
		clear(l.useless)
	}
	return l.useless[source] < maxUseless
}

func (l *linkState) report() session.LinkReport {
	r := session.LinkReport{Peer: l.peer, RTT: l.rtt, In: l.in, Out: l.out, InBytes: l.bytesIn, OutBytes: l.bytesOut, Lost: l.missing}
	if c, ok := l.link.(interface{ Carrier() p2p.Carrier }); ok {
		r.Degraded = c.Carrier() != p2p.Datagram
	}
	return r
}

// tick does what is due and returns when to look again.
func (f *flow) tick(now time.Time) time.Duration {
	if f.steady.running {
		return flowIdle // the clock of the constant rate does it
	}
	busy := f.due(now)
	f.settle(now)
	busy = f.sendWaiting(now) || busy
	f.tell(now)
	if busy {
		return flowBusy
	}
	return flowIdle
}

// due does what is due of blocks, heartbeats, pings and requests; it reports whether there is more soon.
func (f *flow) due(now time.Time) (busy bool) {
	f.signDue(now)
	if f.repeat != nil && !now.Before(f.again) {
		f.passBlock(f.repeat, now)
		f.repeat = nil
	}
	f.beat(now)
	f.bury(now)
	f.tickBad(now)
	busy = f.repeat != nil || f.signer != nil && f.signer.Pending() > 0
	for _, r := range f.remotes {
		f.askBlock(r, now)
		busy = busy || now.Sub(r.report.LastHeard) < time.Second
	}
	return busy
}

// sendWaiting sends what waits: one bundle for each link that has something. Heartbeats wait a tick for frames to go
// with, while there are any; it reports whether some do.
func (f *flow) sendWaiting(now time.Time) (more bool) {
	for _, l := range f.out {
		switch {
		case len(l.waiting) == 0:
		case !l.since.IsZero() && now.Sub(l.since) < media.Tick:
			more = true
		default:
			f.send(l, nil, nil, 0, now)
		}
	}
	return more
}

// drain forgets what waits.
func (l *linkState) drain() { l.waiting, l.since, l.pings = l.waiting[:0], time.Time{}, false }

// tell queues a record.
func (l *linkState) tell(r *wire.LinkRecord) {
	b, err := proto.Marshal(r)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	var h [media.HeaderLen]byte
	(&media.Header{Kind: media.Record}).Put(&h)
	l.waiting, l.since = append(l.waiting, media.AppendEntry(nil, &h, b)), time.Time{}
}

func (l *linkState) roundTrip(d time.Duration) {
	if l.rtt == 0 {
		l.rtt, l.best = d, d
	}
	l.rtt += (d - l.rtt) / 4
	l.best = min(l.best+(l.rtt-l.best)/bestFades, d) // a longer path becomes the usual one in a minute or so
}

// signDue signs when it is time.
func (f *flow) signDue(now time.Time) {
	if f.signer == nil {
		return
	}
	if due, ok := f.signer.Due(); ok && !due.After(now) {
		f.sign(now)
	}
}

// sign makes the block over the pending frames, puts it into the next bundles, keeps it for those who ask and plans
// its repetition.
func (f *flow) sign(now time.Time) {
	h, body, err := f.signer.Block(nil, now)
	if err != nil {
		return
	}
	e := media.AppendEntry(nil, &h, body)
	first, last, err := sframe.BlockSpan(h[:], body)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	f.blocks.put(sentBlock{first: first, last: last, entry: e, at: now, sent: 2})
	if f.repeat != nil { // the one before has not had its second time
		f.passBlock(f.repeat, now)
	}
	f.passBlock(e, now)
	f.repeat, f.again = e, now.Add(repeatIn)
}
