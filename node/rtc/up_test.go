package rtc

import (
	"bytes"
	"slices"
	"testing"
	"time"
)

// bench clock for the pure parts.
type clock struct{ t time.Time }

func newClock() *clock                { return &clock{time.Unix(1_800_000_000, 0)} }
func (c *clock) now() time.Time       { return c.t }
func (c *clock) wait(d time.Duration) { c.t = c.t.Add(d) }
func samples(ticks int) uint32        { return uint32(ticks * TickSamples) }
func newUpstream(c *clock) (*upstream, *[]UpFrame) {
	out := &[]UpFrame{}
	return &upstream{payloadType: 111, levelID: 1, now: c.now, count: &counters{}, up: func(f UpFrame) {
		f.Payload = slices.Clone(f.Payload)
		*out = append(*out, f)
	}}, out
}

var (
	opus20 = []byte{0xfc, 1, 2}     // CELT fullband 20 ms, one frame
	opus60 = []byte{0x1c<<0 | 0x18} // SILK 60 ms, one frame
)

func TestTicksOf(t *testing.T) {
	for _, c := range []struct {
		name string
		p    []byte
		want uint8
	}{
		{"empty", nil, 0},
		{"silk 10 ms", []byte{0 << 3}, 0},
		{"silk 2x10 ms", []byte{0<<3 | 1, 1, 2}, 1},
		{"silk 20 ms", []byte{1 << 3}, 1},
		{"silk 40 ms", []byte{2 << 3}, 2},
		{"silk 60 ms", []byte{3 << 3}, 3},
		{"silk 2x60 ms", []byte{3<<3 | 2, 0}, 6},
		{"silk 3x60 ms", []byte{3<<3 | 3, 3}, 0},
		{"hybrid 10 ms", []byte{12 << 3}, 0},
		{"hybrid 20 ms", []byte{13 << 3}, 1},
		{"celt 2.5 ms", []byte{16 << 3}, 0},
		{"celt 8x2.5 ms", []byte{16<<3 | 3, 8}, 1},
		{"celt 20 ms", []byte{31 << 3}, 1},
		{"celt 20 ms stereo", []byte{31<<3 | 4}, 1},
		{"celt 5x20 ms padded", []byte{31<<3 | 3, 0x40 | 5}, 5},
		{"celt 7x20 ms", []byte{31<<3 | 3, 7}, 0},
		{"celt 3x10 ms", []byte{30<<3 | 3, 3}, 0},
		{"code 3 without its count", []byte{31<<3 | 3}, 0},
		{"code 3 of none", []byte{31<<3 | 3, 0}, 0},
	} {
		if got := ticksOf(c.p); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestUpCtr(t *testing.T) {
	const ssrc = 7
	type step struct {
		wait    time.Duration
		seq     uint16
		stamp   uint32
		payload []byte
		ctr     int // -1: dropped
	}
	for name, steps := range map[string][]step{
		"speech":         {{0, 1, 100, opus20, 0}, {Tick, 2, 100 + samples(1), opus20, 1}, {Tick, 3, 100 + samples(2), opus20, 2}},
		"60 ms":          {{0, 1, 0, opus60, 0}, {3 * Tick, 2, samples(3), opus60, 3}, {3 * Tick, 3, samples(6), opus20, 6}},
		"silence":        {{0, 1, 0, opus20, 0}, {20 * Tick, 2, samples(20), opus20, 20}, {20 * Tick, 3, samples(40), opus20, 40}},
		"loss":           {{0, 1, 0, opus20, 0}, {3 * Tick, 4, samples(3), opus20, 3}},
		"burst":          {{0, 1, 0, opus20, 0}, {0, 2, samples(1), opus20, 1}, {0, 3, samples(2), opus20, 2}},
		"wraps":          {{0, 65535, 1<<32 - 960, opus20, 0}, {Tick, 0, 0, opus20, 1}, {Tick, 1, 960, opus20, 2}},
		"off the grid":   {{0, 1, 0, opus20, 0}, {Tick, 2, 960 + 479, opus20, 1}, {Tick, 3, 1920 + 479, opus20, 2}, {Tick, 4, 2880, opus20, 3}},
		"half a tick on": {{0, 1, 0, opus20, 0}, {Tick, 2, 960 + 480, opus20, 2}, {Tick, 3, 1920 + 480, opus20, 3}},
		"duplicate":      {{0, 1, 0, opus20, 0}, {0, 1, 0, opus20, -1}, {Tick, 2, 960, opus20, 1}},
		"late":           {{0, 1, 0, opus20, 0}, {2 * Tick, 3, samples(2), opus20, 2}, {0, 2, samples(1), opus20, -1}, {Tick, 4, samples(3), opus20, 3}},
		"short steps never share a ctr": {
			{0, 1, 0, opus20, 0}, {0, 2, 1, opus20, 1}, {0, 3, 2, opus20, 2}, {Tick, 4, samples(1), opus60, 3}, {0, 5, samples(1) + 1, opus20, 6},
		},
		"a frame inside the last one":    {{0, 1, 0, opus60, 0}, {Tick, 2, samples(1), opus20, 3}, {3 * Tick, 3, samples(4), opus20, 4}},
		"timestamp steps back":           {{0, 1, 10_000_000, opus20, 0}, {5 * Tick, 2, 0, opus20, 5}, {Tick, 3, 960, opus20, 6}},
		"timestamp leaps an hour":        {{0, 1, 0, opus20, 0}, {5 * Tick, 2, 3600 * 48000, opus20, 5}, {Tick, 3, 3600*48000 + 960, opus20, 6}},
		"clock steps back":               {{0, 1, 0, opus20, 0}, {-time.Hour, 2, 960, opus20, 1}, {Tick, 3, 1920, opus20, 2}},
		"sender begins anew, two in row": {{0, 9000, 0, opus20, 0}, {Tick, 5, 777, opus20, -1}, {Tick, 6, 777 + 960, opus20, 2}, {Tick, 7, 777 + 1920, opus20, 3}},
		"half a tick is no frame":        {{0, 1, 0, []byte{30 << 3}, -1}, {0, 2, 0, opus20, 0}},
		"too large":                      {{0, 1, 0, bytes.Repeat(opus20, 334), -1}, {0, 2, 0, bytes.Repeat([]byte{0xfc}, MaxPayload), 0}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			u, out := newUpstream(c)
			for i, s := range steps {
				c.wait(s.wait)
				before := len(*out)
				u.packet(rtpBytes(111, s.seq, s.stamp, ssrc, s.payload))
				switch {
				case s.ctr < 0:
					if len(*out) != before {
						t.Fatalf("step %d was handed up as %d", i, (*out)[before].Ctr)
					}
				case len(*out) != before+1:
					t.Fatalf("step %d was dropped: %+v", i, u.count.stats())
				case (*out)[before].Ctr != uint32(s.ctr):
					t.Fatalf("step %d has ctr %d, want %d", i, (*out)[before].Ctr, s.ctr)
				case !bytes.Equal((*out)[before].Payload, s.payload):
					t.Fatalf("step %d is altered", i)
				}
			}
		})
	}
}

func TestUpDropsByReason(t *testing.T) {
	c := newClock()
	u, out := newUpstream(c)
	good := rtpBytes(111, 1, 0, 7, opus20)
	u.packet(good)
	with := func(i int, v byte) []byte {
		b := slices.Clone(good)
		b[i] = v
		b[3]++ // not a duplicate
		return b
	}
	padded := func(n byte, tail int) []byte {
		b := append(with(0, 0xa0), make([]byte, tail)...)
		b[len(b)-1] = n
		return b
	}
	for _, s := range []struct {
		name string
		b    []byte
		want Drop
	}{
		{"short", good[:11], DropMalformed},
		{"version 1", with(0, 0x40), DropMalformed},
		{"15 CSRCs of none", with(0, 0x8f), DropMalformed},
		{"extension cut short", with(0, 0x90), DropMalformed},
		{"padding 0", padded(0, 1), DropPadding},
		{"padding 255", padded(255, 1), DropPadding},
		{"nothing but padding", padded(byte(len(opus20)+4), 4), DropPadding},
		{"empty", good[:12], DropPadding},
		{"other codec", with(1, 0), DropCodec},
		{"other stream", with(11, 8), DropStream},
		{"duplicate", good, DropOld},
		{"10 ms", with(12, 30<<3), DropDuration},
	} {
		before := u.count.dropped[s.want].Load()
		u.packet(s.b)
		if len(*out) != 1 {
			t.Fatalf("%s was handed up", s.name)
		}
		if u.count.dropped[s.want].Load() != before+1 {
			t.Errorf("%s: %v, want %v", s.name, u.count.stats().Dropped, s.want)
		}
	}
	u.packet(padded(4, 4))
	if len(*out) != 2 || !bytes.Equal((*out)[1].Payload, opus20) {
		t.Fatalf("padding is not stripped: %v", *out)
	}
}

func TestUpFollowsANewStreamAfterSilence(t *testing.T) {
	c := newClock()
	u, out := newUpstream(c)
	u.expect(7, c.now())
	u.packet(rtpBytes(111, 1, 0, 8, opus20))
	if len(*out) != 0 {
		t.Fatal("an undeclared stream was taken at once")
	}
	u.packet(rtpBytes(111, 1, 0, 7, opus20))
	c.wait(streamSilence)
	u.packet(rtpBytes(111, 40000, 12345, 8, opus20))
	if len(*out) != 2 || (*out)[1].Ctr != uint32(streamSilence/Tick) {
		t.Fatalf("%+v", *out)
	}
}

func TestUpExtensions(t *testing.T) {
	build := func(profile uint16, ext ...byte) []byte {
		for len(ext)%4 != 0 {
			ext = append(ext, 0)
		}
		b := rtpBytes(111, 1, 0, 7, nil)
		b[0] |= 0x10
		b = append(b, byte(profile>>8), byte(profile), 0, byte(len(ext)/4))
		return append(append(b, ext...), opus20...)
	}
	for _, s := range []struct {
		name  string
		b     []byte
		has   bool
		level uint8
		voice bool
	}{
		{"one byte", build(0xbede, 0x10, 0x85), true, 5, true},
		{"behind another and padding", build(0xbede, 0x21, 9, 9, 0, 0x10, 0x7f), true, 127, false},
		{"two bytes", build(0x1000, 2, 0, 1, 1, 0x81), true, 1, true},
		{"two bytes, empty", build(0x1000, 1, 0), false, 0, false},
		{"stop", build(0xbede, 0xf0, 0x10, 0x05), false, 0, false},
		{"cut short", build(0xbede, 0x20, 1, 0, 0x13), false, 0, false},
		{"unknown profile", build(0x1234, 0x10, 0x05), false, 0, false},
	} {
		u, out := newUpstream(newClock())
		u.packet(s.b)
		if len(*out) != 1 {
			t.Fatalf("%s: dropped", s.name)
		}
		f := (*out)[0]
		if f.HasLevel != s.has || f.Level != s.level || f.Voice != s.voice || !bytes.Equal(f.Payload, opus20) {
			t.Errorf("%s: %+v", s.name, f)
		}
	}
}

// FuzzUp feeds packets to one leg: nothing panics, and what goes up keeps the rules whatever came.
func FuzzUp(f *testing.F) {
	f.Add(rtpBytes(111, 1, 2, 3, opus20), rtpBytes(111, 2, 962, 3, opus60), uint16(20))
	f.Add(rtpBytes(111, 1, 2, 3, opus20), append([]byte{0xbf, 111}, make([]byte, 80)...), uint16(0))
	f.Fuzz(func(t *testing.T, a, b []byte, wait uint16) {
		c := newClock()
		u, out := newUpstream(c)
		for range 4 {
			u.packet(a)
			c.wait(time.Duration(wait) * time.Millisecond)
			u.packet(b)
		}
		next := uint32(0)
		for _, f := range *out {
			if f.Ctr < next || f.Ticks < 1 || f.Ticks > 6 || len(f.Payload) == 0 || len(f.Payload) > MaxPayload || f.Level > 127 {
				t.Fatalf("%+v after %d", f, next)
			}
			next = f.Ctr + uint32(f.Ticks)
		}
	})
}

func BenchmarkUp(b *testing.B) {
	var n int
	u := &upstream{payloadType: 111, levelID: 1, now: time.Now, count: &counters{}, up: func(f UpFrame) { n += len(f.Payload) }}
	p := rtpBytes(111, 0, 0, 7, make([]byte, 80))
	p[rtpHeader] = 0xfc
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p[2], p[3] = byte(i>>8), byte(i)
		u.packet(p)
	}
	if n == 0 {
		b.Fatal("nothing went up")
	}
}
