package rtc

import (
	"errors"
	"testing"
	"time"

	"github.com/pion/rtp"
)

// played records what a slot writes.
type played struct{ all []rtp.Header }

func (p *played) WriteRTP(h *rtp.Header, b []byte) (int, error) {
	p.all = append(p.all, h.Clone())
	return len(b), nil
}
func (p *played) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

func newTestSlot(c *clock) (*slot, *played) {
	w := &played{}
	t := newSlot("slot-0", section{opus: 111, levelID: 1, midID: 2, mid: "m"}, c.now)
	t.writer, t.ssrc = w, 99
	return t, w
}

// step is one frame and where it must go: seq relative to the first frame's, -1 for ErrLate; stamp in ticks.
type step struct {
	wait   time.Duration
	ctr    uint32
	lost   uint16
	source uint32
	seq    int
	stamp  int
	marker bool
}

func TestPlace(t *testing.T) {
	for name, steps := range map[string][]step{
		"speech":            {{0, 5, 0, 1, 0, 0, true}, {Tick, 6, 0, 1, 1, 1, false}, {Tick, 7, 0, 1, 2, 2, false}},
		"loss is a hole":    {{0, 5, 0, 1, 0, 0, true}, {Tick, 8, 2, 1, 3, 3, false}, {Tick, 9, 0, 1, 4, 4, false}},
		"silence is none":   {{0, 5, 0, 1, 0, 0, true}, {20 * Tick, 25, 0, 1, 1, 20, true}, {Tick, 26, 0, 1, 2, 21, false}},
		"lost more than is": {{0, 5, 0, 1, 0, 0, true}, {Tick, 7, 60000, 1, 2, 2, false}},
		"lost without gap":  {{0, 5, 0, 1, 0, 0, true}, {Tick, 6, 9, 1, 1, 1, false}},
		"loss in silence":   {{0, 5, 0, 1, 0, 0, true}, {40 * Tick, 45, 1, 1, 2, 40, false}},
		"switch": {
			{0, 5, 0, 1, 0, 0, true},
			{Tick, 6, 0, 1, 1, 1, false},
			{Tick, 900000, 3, 2, 2, 2, true},
			{Tick, 900001, 0, 2, 3, 3, false},
		},
		"switch after a pause":    {{0, 5, 0, 1, 0, 0, true}, {50 * Tick, 9, 0, 2, 1, 50, true}},
		"switch in a hurry":       {{0, 5, 0, 1, 0, 0, true}, {0, 9, 0, 2, 1, 1, true}, {0, 1, 0, 3, 2, 2, true}},
		"switch there and back":   {{0, 5, 0, 1, 0, 0, true}, {Tick, 9, 0, 2, 1, 1, true}, {Tick, 7, 0, 1, 2, 2, true}},
		"clock steps back":        {{0, 5, 0, 1, 0, 0, true}, {-time.Hour, 9, 0, 2, 1, 1, true}},
		"late into its hole":      {{0, 5, 0, 1, 0, 0, true}, {Tick, 7, 1, 1, 2, 2, false}, {0, 6, 0, 1, 1, 1, false}, {Tick, 8, 0, 1, 3, 3, false}},
		"stripe dead":             {{0, 5, 0, 1, 0, 0, true}, {0, 7, 1, 1, 2, 2, false}, {0, 6, 0, 1, 1, 1, false}, {0, 9, 1, 1, 4, 4, false}, {0, 8, 0, 1, 3, 3, false}},
		"late, three holes":       {{0, 5, 0, 1, 0, 0, true}, {Tick, 9, 3, 1, 4, 4, false}, {0, 8, 0, 1, 3, 3, false}, {0, 6, 0, 1, 1, 1, false}, {0, 7, 0, 1, 2, 2, false}},
		"late, twice":             {{0, 5, 0, 1, 0, 0, true}, {Tick, 7, 1, 1, 2, 2, false}, {0, 6, 0, 1, 1, 1, false}, {0, 6, 0, 1, -1, 0, false}},
		"duplicate":               {{0, 5, 0, 1, 0, 0, true}, {0, 5, 0, 1, -1, 0, false}},
		"late without a hole":     {{0, 5, 0, 1, 0, 0, true}, {Tick, 7, 0, 1, 1, 2, true}, {0, 6, 0, 1, -1, 0, false}},
		"before the first":        {{0, 5, 0, 1, 0, 0, true}, {0, 4, 0, 1, -1, 0, false}},
		"late by more than 1 s":   {{0, 5, 0, 1, 0, 0, true}, {Tick, 7, 1, 1, 2, 2, false}, {Tick, 58, 0, 1, 3, 53, true}, {0, 6, 0, 1, -1, 0, false}},
		"the ctr wraps":           {{0, 1<<32 - 1, 0, 1, 0, 0, true}, {Tick, 1, 1, 1, 2, 2, false}, {0, 0, 0, 1, 1, 1, false}},
		"of another source, late": {{0, 5, 0, 1, 0, 0, true}, {Tick, 7, 1, 1, 2, 2, false}, {0, 100, 0, 2, 3, 3, true}, {0, 99, 0, 2, -1, 0, false}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			s, w := newTestSlot(c)
			for i, st := range steps {
				c.wait(st.wait)
				n := len(w.all)
				err := s.play(&PlayFrame{Ctr: st.ctr, Ticks: 1, Lost: st.lost, Source: st.source, Payload: opus20})
				if st.seq < 0 {
					if !errors.Is(err, ErrLate) || len(w.all) != n {
						t.Fatalf("step %d: %v", i, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				h, first := w.all[n], w.all[0]
				if got := int(int16(h.SequenceNumber - first.SequenceNumber)); got != st.seq {
					t.Errorf("step %d: sequence %d, want %d", i, got, st.seq)
				}
				if got := h.Timestamp - first.Timestamp; got != samples(st.stamp) {
					t.Errorf("step %d: timestamp %d ticks, want %d", i, int32(got)/TickSamples, st.stamp)
				}
				if h.Marker != st.marker || h.SSRC != 99 || h.PayloadType != 111 {
					t.Errorf("step %d: marker %v, want %v", i, h.Marker, st.marker)
				}
			}
		})
	}
}

func TestPlace60ms(t *testing.T) {
	s, w := newTestSlot(newClock())
	for _, ctr := range []uint32{0, 9, 6, 3} { // two lost, then both come late
		if err := s.play(&PlayFrame{Ctr: ctr, Ticks: 3, Lost: 2, Payload: opus60}); err != nil {
			t.Fatal(ctr, err)
		}
	}
	for i, want := range []uint16{0, 3, 2, 1} {
		if got := w.all[i].SequenceNumber - w.all[0].SequenceNumber; got != want {
			t.Errorf("frame %d: %d, want %d", i, got, want)
		}
	}
	if err := s.play(&PlayFrame{Ctr: 10, Ticks: 3, Payload: opus60}); !errors.Is(err, ErrLate) {
		t.Fatal("a frame that overlaps the newest was played")
	}
}

func TestPlayTellsWhoSpeaks(t *testing.T) {
	s, w := newTestSlot(newClock())
	_ = s.play(&PlayFrame{Ctr: 1, Ticks: 1, Level: 20, Voice: true, Speaker: 77, Payload: opus20})
	_ = s.play(&PlayFrame{Ctr: 2, Ticks: 1, Level: 255, Payload: opus20})
	if h := w.all[0]; len(h.CSRC) != 1 || h.CSRC[0] != 77 || h.GetExtension(1)[0] != 0x80|20 || string(h.GetExtension(2)) != "m" {
		t.Fatalf("%+v", h)
	}
	if h := w.all[1]; len(h.CSRC) != 0 {
		t.Fatalf("%+v", h)
	}
}

// FuzzPlace plays frames in any order: every frame played has a sequence number of its own, ordered as the ctrs are.
func FuzzPlace(f *testing.F) {
	f.Add([]byte{0, 2, 1, 4, 3}, []byte{0, 1, 0, 1, 0})
	f.Add([]byte{50, 0, 200, 10}, []byte{9})
	f.Fuzz(func(t *testing.T, ctrs, losts []byte) {
		c := newClock()
		s, w := newTestSlot(c)
		place := map[uint16]uint32{}
		for i, ctr := range ctrs {
			var lost byte
			if len(losts) > 0 {
				lost = losts[i%len(losts)]
			}
			if s.play(&PlayFrame{Ctr: uint32(ctr), Ticks: 1, Lost: uint16(lost), Payload: opus20}) != nil {
				continue
			}
			h := w.all[len(w.all)-1]
			if was, ok := place[h.SequenceNumber]; ok {
				t.Fatalf("ctr %d and %d share a sequence number", was, ctr)
			}
			for seq, other := range place {
				if int16(h.SequenceNumber-seq) < 0 != (uint32(ctr) < other) {
					t.Fatalf("ctr %d and %d change places", other, ctr)
				}
			}
			place[h.SequenceNumber] = uint32(ctr)
		}
	})
}

func BenchmarkPlace(b *testing.B) {
	c := newClock()
	s, _ := newTestSlot(c)
	s.writer = discard{}
	f := PlayFrame{Ticks: 1, Level: 30, Voice: true, Speaker: 1, Source: 1, Payload: opus20}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.Ctr = uint32(i)
		if err := s.play(&f); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) WriteRTP(_ *rtp.Header, b []byte) (int, error) { return len(b), nil }
func (discard) Write(b []byte) (int, error)                   { return len(b), nil }

// BenchmarkPlay is the whole way to the socket; BenchmarkPion the same without the slot, so that the difference is ours.
// The receiving client runs in the same process: its allocations are in both.
func BenchmarkPlay(b *testing.B) {
	leg := benchLeg(b)
	f := PlayFrame{Ticks: 1, Level: 30, Voice: true, Speaker: 1, Source: 1, Payload: make([]byte, 80)}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.Ctr = uint32(i)
		if err := leg.Play(0, f); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPion(b *testing.B) {
	leg := benchLeg(b)
	s, payload := leg.slots[0], make([]byte, 80)
	_ = leg.Play(0, PlayFrame{Ticks: 1, Speaker: 1, Payload: payload})
	b.ReportAllocs()
	for b.Loop() {
		s.header.SequenceNumber++
		s.header.Timestamp += TickSamples
		if _, err := s.writer.WriteRTP(&s.header, payload); err != nil {
			b.Fatal(err)
		}
	}
}

func benchLeg(b *testing.B) *Leg {
	e, c := newEngine(b), newClient(b, true, Slots)
	leg := c.connect(e, LegConfig{})
	go func() {
		for {
			select {
			case <-c.heard:
			case <-c.stop:
				return
			}
		}
	}()
	return leg
}
