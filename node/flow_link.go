package node

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/node/p2p"
	"balai/room/media"
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
	maxAskRTT    = 200 * time.Millisecond
	maxAskFrames = 5
	keptOwn      = 8                     // own blocks kept for those who ask
	transitSpan  = 2 * time.Second       // a clock that was stopped is believed again after two of these
	risingBy     = 50 * time.Millisecond // a round trip this far over the best one: the delay is rising

	bestFades = 64 // round trips

	// Loss in 1/1000 from which one, two, three earlier frames travel with each frame.
	lossForOne, lossForTwo, lossForThree = 1, 20, 80
)

// linkState is what the flow knows of one link.
type linkState struct {
	link mediaLink
	peer peer.ID
	via  uint32
	mesh bool // the plan names the peer

	waiting          [][]byte // entries for the next bundle
	in, out, refused uint64

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

func (l *linkState) report() session.LinkReport {
	r := session.LinkReport{Peer: l.peer, RTT: l.rtt, In: l.in, Out: l.out, Lost: l.missing}
	if c, ok := l.link.(interface{ Carrier() p2p.Carrier }); ok {
		r.Degraded = c.Carrier() != p2p.Datagram
	}
	return r
}

// tick does what is due: blocks, heartbeats, pings, requests, the report. It returns when to look again.
func (f *flow) tick(now time.Time) time.Duration {
	f.signDue(now)
	if f.repeat != nil && !now.Before(f.again) {
		f.enqueue(f.repeat)
		f.repeat = nil
	}
	for _, l := range f.out {
		l.measure(now)
		l.keepalive(now)
	}
	busy := f.repeat != nil || f.signer != nil && f.signer.Pending() > 0
	for _, r := range f.remotes {
		f.askBlock(r, now)
		busy = busy || now.Sub(r.report.LastHeard) < time.Second
	}
	f.sendWaiting(now)
	f.tell(now)
	if busy {
		return flowBusy
	}
	return flowIdle
}

// enqueue puts an entry into the next bundle of every link of the mesh.
func (f *flow) enqueue(entry []byte) {
	for _, l := range f.out {
		l.waiting = append(l.waiting, entry)
	}
}

// sendWaiting sends what waits: one bundle for each link that has something.
func (f *flow) sendWaiting(now time.Time) {
	for _, l := range f.out {
		if len(l.waiting) > 0 {
			f.send(l, nil, nil, now)
		}
	}
}

// keepalive queues the heartbeat and, each second, a ping.
func (l *linkState) keepalive(now time.Time) {
	if now.Sub(l.beat) < heartbeatIn {
		return
	}
	l.beat = now
	tick := uint64(now.UnixMilli() / media.Tick.Milliseconds())
	l.tell(&wire.LinkRecord{Record: &wire.LinkRecord_Heartbeat{Heartbeat: &wire.LinkHeartbeat{Tick: tick, Loss: l.loss}}})
	if now.Sub(l.pinged) >= pingIn {
		l.pinged = now
		l.pingID++
		l.tell(&wire.LinkRecord{Record: &wire.LinkRecord_Ping{Ping: &wire.LinkPing{Id: l.pingID, TimeMs: now.UnixMilli()}}})
	}
}

// tell queues a record.
func (l *linkState) tell(r *wire.LinkRecord) {
	b, err := proto.Marshal(r)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	var h [media.HeaderLen]byte
	(&media.Header{Kind: media.Record}).Put(&h)
	l.waiting = append(l.waiting, media.AppendEntry(nil, &h, b))
}

// record takes a link record. What it does not know, it ignores.
func (f *flow) record(l *linkState, body []byte, now time.Time) {
	var m wire.LinkRecord
	if proto.Unmarshal(body, &m) != nil {
		l.refused++
		return
	}
	switch r := m.GetRecord().(type) {
	case *wire.LinkRecord_Heartbeat:
		l.theirLoss = min(r.Heartbeat.GetLoss(), 1000)
	case *wire.LinkRecord_Ping:
		if l.mayAnswer(now) {
			l.tell(&wire.LinkRecord{Record: &wire.LinkRecord_Pong{Pong: &wire.LinkPing{Id: r.Ping.GetId(), TimeMs: r.Ping.GetTimeMs()}}})
		}
	case *wire.LinkRecord_Pong:
		if r.Pong.GetId() == l.pingID && l.pingID > 0 {
			l.roundTrip(now.Sub(l.pinged))
		}
	case *wire.LinkRecord_Nack:
		f.answer(l, r.Nack, now)
	}
}

func (l *linkState) roundTrip(d time.Duration) {
	if l.rtt == 0 {
		l.rtt, l.best = d, d
	}
	l.rtt += (d - l.rtt) / 4
	l.best = min(l.best+(l.rtt-l.best)/bestFades, d) // a longer path becomes the usual one in a minute or so
}

// sentBlock is an own block that a peer may ask for.
type sentBlock struct {
	first, last uint32
	entry       []byte
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
	if len(f.blocks) == keptOwn {
		f.blocks = append(f.blocks[:0], f.blocks[1:]...)
	}
	f.blocks = append(f.blocks, sentBlock{first, last, e})
	if f.repeat != nil { // the one before has not had its second time
		f.enqueue(f.repeat)
	}
	f.enqueue(e)
	f.repeat, f.again = e, now.Add(repeatIn)
}

// askBlock asks the source of frames that were played unsigned for their block.
func (f *flow) askBlock(r *remote, now time.Time) {
	ctr, ok := r.verify.Wanted(now)
	if !ok || now.Sub(r.asked) < askIn {
		return
	}
	for _, l := range f.out {
		if l.peer == r.src.Peer {
			r.asked = now
			l.tell(&wire.LinkRecord{Record: &wire.LinkRecord_Nack{Nack: &wire.Nack{Source: r.src.ID, Unsigned: []uint32{ctr}}}})
		}
	}
}

// askFrames asks for the frames lost just before e, where an answer can come in time.
func (f *flow) askFrames(l *linkState, e *media.Entry, lost uint16) {
	if l.rtt == 0 || l.rtt > maxAskRTT || lost > maxAskFrames {
		return
	}
	n := &wire.Nack{Source: e.Source}
	for i := range uint32(lost) {
		if back := (i + 1) * uint32(e.Ticks); back <= e.Ctr {
			n.Ctrs = append(n.Ctrs, e.Ctr-back)
		}
	}
	l.tell(&wire.LinkRecord{Record: &wire.LinkRecord_Nack{Nack: n}})
}

// answer sends own frames and blocks again that a peer asks for; frames only while the microphone is on.
func (f *flow) answer(l *linkState, n *wire.Nack, now time.Time) {
	if n.GetSource() != f.plan.Me.ID || !l.mesh || f.own == nil {
		return
	}
	for _, ctr := range n.GetUnsigned() {
		for i := range f.blocks {
			if b := &f.blocks[i]; b.first <= ctr && ctr <= b.last && l.mayAnswer(now) {
				l.waiting = append(l.waiting, b.entry)
				break
			}
		}
		if l.answers > maxAnswers {
			return
		}
	}
	f.gate.Lock()
	defer f.gate.Unlock()
	for _, ctr := range n.GetCtrs() {
		if !f.open || l.answers > maxAnswers {
			return
		}
		if e, ok := f.own.Get(media.Frame, n.GetSource(), ctr, now); ok && l.mayAnswer(now) {
			f.send(l, e, nil, now)
		}
	}
}
