package node

import (
	"bytes"
	"time"

	"balai/room/media"
	"balai/room/sframe"
	"balai/room/wire"
)

// sentBlock is a block that a peer may ask for.
type sentBlock struct {
	first, last uint32
	entry       []byte
	at          time.Time // sent first
	sent        int       // how often
}

// sentBlocks are the last of one source.
type sentBlocks []sentBlock

func (s *sentBlocks) put(b sentBlock) {
	if len(*s) == keptBlocks {
		*s = append((*s)[:0], (*s)[1:]...)
	}
	*s = append(*s, b)
}

// over is the block that lists, or passes over, ctr.
func (s sentBlocks) over(ctr uint32) []byte {
	for i := range s {
		if b := &s[i]; b.first <= ctr && ctr <= b.last {
			return b.entry
		}
	}
	return nil
}

// before is the block before entry, if it is known.
func (s sentBlocks) before(entry []byte) []byte {
	for i := 1; i < len(s); i++ {
		if bytes.Equal(s[i].entry, entry) {
			return s[i-1].entry
		}
	}
	return nil
}

// relayBlock passes on a block that verified, and its repetition by the speaker; what other parents bring meanwhile is
// the same once more.
func (f *flow) relayBlock(l *linkState, r *remote, e *media.Entry, repeated bool, hops uint8, now time.Time) {
	first, last, err := sframe.BlockSpan(e.Head, e.Body)
	if err != nil || hops > maxHops || !f.carried(r, now) {
		return
	}
	p := passing{
		raw: e.Raw, kind: media.Block, source: e.Source, remote: r, speaker: r.src.Peer,
		from: l.peer, direct: l.peer == r.src.Peer, hops: hops + 1,
	}
	if !repeated {
		r.blocks.put(sentBlock{first: first, last: last, entry: bytes.Clone(e.Raw), at: now, sent: 1})
		f.relay.add(p)
		return
	}
	for i := range r.blocks {
		b := &r.blocks[i]
		if b.sent < 2 && now.Sub(b.at) >= repeatIn/2 && bytes.Equal(b.entry, e.Raw) {
			b.sent++
			f.relay.add(p)
			return
		}
	}
}

// askBlock asks for the block over frames that were heard unsigned: their source, where there is a link, else one
// parent after the other.
func (f *flow) askBlock(r *remote, now time.Time) {
	if ctr, ok := r.verify.Wanted(now); ok {
		f.wantBlock(r, ctr, now)
	}
}

// wantBlock asks for the block over ctr: twice with askIn between, then each tick, for there is little time left.
func (f *flow) wantBlock(r *remote, ctr uint32, now time.Time) {
	again := ctr == r.askedFor
	if since := now.Sub(r.asked); since < media.Tick || since < askIn && !(again && r.askedTwice) {
		return
	}
	var parents []*linkState
	for _, l := range f.out {
		if l.peer == r.src.Peer {
			parents = append(parents[:0], l)
			break
		}
		if l.parent {
			parents = append(parents, l)
		}
	}
	if len(parents) == 0 {
		return
	}
	r.asked, r.askedFor, r.askedTwice = now, ctr, again
	r.asks++
	parents[r.asks%len(parents)].tell(&wire.LinkRecord{Record: &wire.LinkRecord_Nack{Nack: &wire.Nack{Source: r.src.ID, Unsigned: []uint32{ctr}}}})
}

// askFrames asks for the frames lost just before e, where an answer can come in time: from whoever brought e.
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

// answer sends frames and blocks again that a peer asks for; own frames only while the microphone is on.
func (f *flow) answer(l *linkState, n *wire.Nack, now time.Time) {
	if n.GetSource() != f.plan.Me.ID {
		f.answerFor(l, n, now)
		return
	}
	if f.own == nil {
		return
	}
	for _, ctr := range n.GetUnsigned() {
		if b := f.blocks.over(ctr); b != nil && l.mayAnswer(now) {
			l.waiting = append(l.waiting, b)
		}
		if l.answers > maxAnswers {
			return
		}
	}
	f.gate.Lock()
	defer f.gate.Unlock()
	f.forgetVoice()
	if f.open || f.plan.ConstantRate {
		f.answerFrames(l, f.own, n, 0, now)
	}
}

// answerFrames sends what the ring has of what is asked for, together.
func (f *flow) answerFrames(l *linkState, ring *media.Ring, n *wire.Nack, hops uint8, now time.Time) {
	for _, ctr := range n.GetCtrs() {
		if l.answers > maxAnswers {
			break
		}
		if e, ok := ring.Get(media.Frame, n.GetSource(), ctr, now); ok && l.mayAnswer(now) {
			l.waiting = append(l.waiting, e)
		}
	}
	f.send(l, nil, nil, hops, now)
}

// answerFor answers from what was passed on of another's source. A block that I have not got either is asked for
// further up; when it comes, all hear of it.
func (f *flow) answerFor(l *linkState, n *wire.Nack, now time.Time) {
	r := f.remotes[n.GetSource()]
	if r == nil || r.ring == nil || !r.src.Allowed {
		return
	}
	for _, ctr := range n.GetUnsigned() {
		if l.answers > maxAnswers {
			return
		}
		switch b := r.blocks.over(ctr); {
		case !l.mayAnswer(now):
		case b != nil:
			l.waiting = append(l.waiting, b)
		default:
			f.wantBlock(r, ctr, now)
		}
	}
	f.answerFrames(l, r.ring, n, r.hops, now)
}
