package rtc

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"
)

const (
	// recentTicks is how far back a frame may come and still find its place.
	recentTicks = 50
	recentMax   = 64 // frames remembered for that; more than recentTicks
)

// sent is a frame already played: where its ctr went in the RTP sequence.
type sent struct {
	ctr   uint32
	ticks uint8
	seq   uint16
}

// slot is one track to the other side, with an SSRC that never changes. It is a webrtc.TrackLocal.
type slot struct {
	id          string
	payloadType uint8
	levelID     uint8
	now         func() time.Time

	mu      sync.Mutex
	ssrc    uint32
	writer  webrtc.TrackLocalWriter
	header  rtp.Header
	level   [1]byte
	speaker [1]uint32

	started bool
	source  uint32
	base    uint32 // timestamp of ctr 0 of the source
	end     uint32 // timestamp after the newest frame
	at      time.Time
	seq     uint16 // of the newest frame
	recent  []sent // the source's last frames by ctr
}

func newSlot(id string, s section, now func() time.Time) *slot {
	t := &slot{id: id, payloadType: s.opus, levelID: s.levelID, now: now, recent: make([]sent, 0, recentMax)}
	t.seq, t.end = uint16(rand.Uint32()), rand.Uint32()
	t.header = rtp.Header{Version: 2, PayloadType: s.opus}
	if s.midID != 0 {
		_ = t.header.SetExtension(s.midID, []byte(s.mid)) // a mid that does not fit stays out: the SSRC is in the answer
	}
	if s.levelID != 0 {
		_ = t.header.SetExtension(s.levelID, t.level[:])
	}
	return t
}

// play sends one frame. Errors: ErrLate, or what the transport says.
func (t *slot) play(f *PlayFrame) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.writer == nil {
		return ErrNotConnected
	}
	seq, marker, ok := t.place(f)
	if !ok {
		return ErrLate
	}
	t.header.SequenceNumber, t.header.Timestamp = seq, t.base+f.Ctr*TickSamples
	t.header.Marker, t.header.SSRC = f.Marker || marker, t.ssrc
	t.header.CSRC = nil
	if t.speaker[0] = f.Speaker; f.Speaker != 0 {
		t.header.CSRC = t.speaker[:]
	}
	t.level[0] = min(f.Level, 127)
	if f.Voice {
		t.level[0] |= 0x80
	}
	_, err := t.writer.WriteRTP(&t.header, f.Payload)
	return err
}

// place gives a frame its sequence number, and says whether it begins a talkspurt. Where a frame was lost it leaves a
// hole, which the jitter buffer conceals and a late frame may still fill; over silence and a switch it counts on by one.
func (t *slot) place(f *PlayFrame) (seq uint16, marker, ok bool) {
	now := t.now()
	if !t.started || f.Source != t.source {
		t.change(f, now)
		marker = true
	}
	if len(t.recent) == 0 {
		t.seq++
		t.append(f, now)
		return t.seq, marker, true
	}
	last := t.recent[len(t.recent)-1]
	ahead := int32(f.Ctr - last.ctr)
	if ahead <= 0 {
		seq, ok = t.fill(f)
		return seq, false, ok
	}
	gap := ahead - int32(last.ticks)
	if gap < 0 {
		return 0, false, false // overlaps the newest: two frames of one source cannot
	}
	lost := min(int32(f.Lost), gap)
	t.seq += 1 + uint16(lost)
	t.append(f, now)
	return t.seq, gap > 0 && lost == 0, true
}

// change begins another source: the timestamp goes on by the clock, never back.
func (t *slot) change(f *PlayFrame, now time.Time) {
	next := t.end
	if t.started {
		if idle := now.Sub(t.at) - Tick; idle > 0 {
			next += uint32(idle * TickSamples / Tick)
		}
	}
	t.started, t.source, t.base = true, f.Source, next-f.Ctr*TickSamples
	t.recent = t.recent[:0]
}

func (t *slot) append(f *PlayFrame, now time.Time) {
	if len(t.recent) == recentMax {
		copy(t.recent, t.recent[1:])
		t.recent = t.recent[:recentMax-1]
	}
	t.recent = append(t.recent, sent{f.Ctr, f.Ticks, t.seq})
	t.end, t.at = t.base+(f.Ctr+uint32(f.Ticks))*TickSamples, now
}

// fill finds the hole in the sequence that an old frame left.
func (t *slot) fill(f *PlayFrame) (uint16, bool) {
	newest := t.recent[len(t.recent)-1]
	if int32(newest.ctr-f.Ctr) > recentTicks {
		return 0, false
	}
	i := len(t.recent) // first remembered frame after f
	for i > 0 && int32(t.recent[i-1].ctr-f.Ctr) > 0 {
		i--
	}
	if i == 0 || i == len(t.recent) { // before all that is remembered, or the newest again
		return 0, false
	}
	before, after := t.recent[i-1], t.recent[i]
	into := int32(f.Ctr - before.ctr - uint32(before.ticks))
	holes := int32(after.seq-before.seq) - 1
	if into < 0 || holes < 1 || int32(after.ctr-f.Ctr) < int32(f.Ticks) {
		return 0, false
	}
	at := min(into/int32(f.Ticks), holes-1)
	s := sent{f.Ctr, f.Ticks, before.seq + 1 + uint16(at)}
	if len(t.recent) == recentMax {
		copy(t.recent, t.recent[1:])
		t.recent, i = t.recent[:recentMax-1], i-1
	}
	t.recent = slices.Insert(t.recent, i, s)
	return s.seq, true
}

// Bind gives the track its writer (webrtc.TrackLocal).
func (t *slot) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writer, t.ssrc = c.WriteStream(), uint32(c.SSRC())
	return webrtc.RTPCodecParameters{RTPCodecCapability: opusCapability, PayloadType: webrtc.PayloadType(t.payloadType)}, nil
}

// Unbind takes it away (webrtc.TrackLocal).
func (t *slot) Unbind(webrtc.TrackLocalContext) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writer = nil
	return nil
}

func (t *slot) ID() string                { return t.id }
func (t *slot) RID() string               { return "" }
func (t *slot) StreamID() string          { return t.id }
func (t *slot) Kind() webrtc.RTPCodecType { return webrtc.RTPCodecTypeAudio }
