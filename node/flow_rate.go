package node

import (
	"time"

	"balai/node/rtc"
	"balai/room/media"
)

// In a room of constant rate (docs/protocol.md, section 9) whoever is on stage sends one frame of one size in each tick of
// its own clock: what the microphone gave, or silence made here. Nothing of what is sent, and when, follows from what is
// said.
const (
	steadyPayload = 110 // bytes of each Opus packet: room for 32 kbit/s and for what a variable encoder adds to it
	steadyQueue   = 6   // frames of the microphone that may wait
	steadyStart   = 2   // and have to, after it fell silent, so that its jitter makes no holes
	steadySize    = 96  // the size of a bundle is a multiple of this

	levelTicks = 5 // the level is told anew each 100 ms
)

// silentPacket is 20 ms of silence in Opus: CELT, full band, mono.
var silentPacket = []byte{0xf8, 0xff, 0xfe}

// steady is the clock of a constant rate and what waits for it.
type steady struct {
	beat    *time.Timer
	running bool
	queue   []steadyFrame
	flowing bool
	silence [steadyPayload]byte
	level   coarseLevel
}

type steadyFrame struct {
	packet [steadyPayload]byte
	level  media.Level
}

// coarseLevel tells the loudest level of the last 100 ms in four steps (RFC 6562, section 5).
type coarseLevel struct {
	slot      uint32
	now, told media.Level
}

func (c *coarseLevel) at(ctr uint32, l media.Level) media.Level {
	if slot := ctr / levelTicks; slot != c.slot {
		c.slot, c.told, c.now = slot, c.now, media.Silence
	}
	c.now = min(c.now, l)
	switch {
	case c.told < 25:
		return 20
	case c.told < 40:
		return 35
	case c.told < speakOver:
		return 45
	}
	return media.Silence
}

// makeSteady prepares the clock; it stands still.
func makeSteady() steady {
	s := steady{beat: time.NewTimer(time.Hour), level: coarseLevel{now: media.Silence, told: media.Silence}}
	s.beat.Stop()
	if _, err := media.PadOpus(s.silence[:0], silentPacket, steadyPayload); err != nil {
		panic("impossible: " + err.Error())
	}
	return s
}

// steadily starts or stops the clock, as the plan says.
func (f *flow) steadily(now time.Time) {
	on := f.plan.ConstantRate && f.plan.Me.Allowed && f.plan.Seal >= 0 && f.sealer != nil && len(f.ups)+len(f.feeds) > 0
	switch s := &f.steady; {
	case on && !s.running:
		s.beat.Reset(f.nextTick(now))
	case !on && s.running:
		s.beat.Stop()
	}
	f.steady.running = on
}

// nextTick is how long it is to the next tick of the own source.
func (f *flow) nextTick(now time.Time) time.Duration {
	return media.Tick - now.Sub(f.start)%media.Tick
}

// enqueue lays a frame of the microphone ready for its tick. One that does not fit the constant size is not sent.
func (f *flow) enqueue(m *flowLeg, u *rtc.UpFrame, now time.Time) {
	f.gate.Lock()
	defer f.gate.Unlock()
	s := &f.steady
	was := f.mic
	if !f.open || f.sealer == nil || !f.takeMic(m, now) {
		return
	}
	if was != m {
		s.hush()
	}
	m.began = true
	q := steadyFrame{level: media.Unknown}
	if u.HasLevel {
		q.level = min(media.Level(u.Level), media.Silence)
	}
	if _, err := media.PadOpus(q.packet[:0], u.Payload, steadyPayload); err != nil || u.Ticks != 1 {
		f.report.Dropped++
		return
	}
	if !s.running { // nobody is there
		f.me.hear(q.level, now)
		return
	}
	if len(s.queue) == steadyQueue { // the microphone's clock is faster than mine
		s.queue = append(s.queue[:0], s.queue[1:]...)
		f.report.Dropped++
	}
	s.queue = append(s.queue, q)
	s.flowing = s.flowing || len(s.queue) >= steadyStart
}

// next is the frame for this tick.
func (s *steady) next() (q steadyFrame, ok bool) {
	if !s.flowing || len(s.queue) == 0 {
		s.flowing = false
		return q, false
	}
	q = s.queue[0]
	s.queue = append(s.queue[:0], s.queue[1:]...)
	return q, true
}

// hush forgets what waits.
func (s *steady) hush() { s.queue, s.flowing = s.queue[:0], false }

// steadyTick sends the frame of this tick, and with it all else that is due: there is no other clock, whose place between
// two frames could tell anything.
func (f *flow) steadyTick(now time.Time) {
	if !f.steady.running {
		return
	}
	f.steady.beat.Reset(f.nextTick(now))
	f.due(now)
	f.sendSteady(now)
	f.settle(now)
	f.sendWaiting(now)
	f.tell(now)
}

func (f *flow) sendSteady(now time.Time) {
	f.gate.Lock()
	defer f.gate.Unlock()
	s := &f.steady
	ctr := f.wall(now)
	if f.sealer.Next() > ctr || ctr > media.MaxCounter {
		return // this tick had its frame
	}
	f.forgetVoice()
	if !f.open {
		s.hush()
	}
	q, voiced := s.next()
	packet := q.packet[:]
	if !voiced {
		packet, q.level = s.silence[:], media.Silence
	}
	f.me.hear(q.level, now)
	f.emit(media.Header{Ticks: 1, Ctr: ctr, Level: s.level.at(ctr, q.level)}, packet, voiced, now)
}

// even pads a bundle of a constant rate; lack is what earlier frames, for which it is too early, would have taken.
func (f *flow) even(b *media.Builder, lack int) {
	if f.plan.ConstantRate {
		n := len(b.Bytes()) + lack + media.HeaderLen + 1
		b.Pad((n + steadySize - 1) / steadySize * steadySize)
	}
}
