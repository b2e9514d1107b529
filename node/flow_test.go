package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/node/rtc"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/sframe"
)

var three = []string{"ana", "budi", "citra"}

func TestFlowThreePeopleHearEachOther(t *testing.T) {
	bubble(t, three, func(w *world, p []*person) {
		w.talk(3*time.Second, p...)
		w.settle()
		for _, a := range p {
			for _, b := range p {
				if a != b {
					w.hears(a, b)
				}
			}
		}
		for _, a := range p {
			used := map[int]bool{}
			for s, slot := range a.ear.slots {
				if used[slot] {
					t.Errorf("%s: slot %d used twice (%06x)", a.name, slot, s)
				}
				used[slot] = true
			}
		}
	})
}

func TestFlowReportsWhoSpeaks(t *testing.T) {
	bubble(t, three, func(w *world, p []*person) {
		w.talk(2*time.Second, p[0])
		r := p[1].report()
		if len(r.Sources) != 2 || len(r.Links) != 2 || r.Speaking || !r.Leg || !p[0].report().Speaking {
			t.Fatalf("%+v", r)
		}
		for _, s := range r.Sources {
			ana := s.Peer == p[0].key.ID()
			if s.Speaking != ana || ana && (s.Opened < 49 || s.Lost != 0 || s.Refused != 0 || s.Slot < 0 || s.Level != 25) {
				t.Errorf("%+v", s)
			}
		}
		w.talk(2*time.Second, p[1])
		for _, s := range p[2].report().Sources {
			if s.Speaking != (s.Peer == p[1].key.ID()) {
				t.Errorf("after the change: %+v", s)
			}
		}
	})
}

func TestFlowReorderedAndDoubledBundles(t *testing.T) {
	bubble(t, three[:2], func(w *world, p []*person) {
		w.set(func() {
			w.delay = func() time.Duration { return time.Duration(20+w.rand.IntN(80)) * time.Millisecond }
			w.tap = func(_, _ *person, b []byte) [][]byte { return [][]byte{b, bytes.Clone(b)} }
		})
		w.talk(4*time.Second, p[0])
		w.settle()
		seen := map[string]int{}
		for _, s := range p[1].ear.of(p[0].id()) {
			seen[s]++
		}
		for _, s := range p[0].said {
			if seen[s] != 1 {
				t.Errorf("%q heard %d times", s, seen[s])
			}
		}
	})
}

// An hour with a fifth of all bundles lost, shared by twenty listeners, in which no honest speaker is silenced (trust test
// 63). With BALAI_SOAK it is an hour for each.
func TestFlowLoss(t *testing.T) {
	long := 3 * time.Minute
	if os.Getenv("BALAI_SOAK") != "" {
		long = time.Hour
	}
	for _, c := range []struct {
		loss, least float64
		seeds       uint64
		long        time.Duration
	}{{0.05, 0.99, 10, time.Minute}, {0.2, 0.97, 20, long}} {
		for seed := range c.seeds {
			t.Run(fmt.Sprintf("%v seed %d", c.loss, seed), func(t *testing.T) {
				t.Parallel()
				lossy(t, c.loss, c.least, seed, c.long)
			})
		}
	}
}

func lossy(t *testing.T, loss, least float64, seed uint64, long time.Duration) {
	bubble(t, three[:2], func(w *world, p []*person) {
		w.set(func() {
			w.rand = rand.New(rand.NewPCG(seed, 2))
			w.loss, w.delay = loss, func() time.Duration { return 40 * time.Millisecond }
		})
		const step = 200 * time.Millisecond
		for range long / step {
			w.talk(step, p[0])
			for _, s := range p[1].report().Sources {
				if s.Silenced {
					t.Error("an honest speaker was silenced")
				}
			}
		}
		w.settle()
		heard, said := len(p[1].ear.of(p[0].id())), len(p[0].said)
		t.Logf("%.0f %% loss: %d of %d frames", 100*loss, heard, said)
		if float64(heard) < least*float64(said) {
			t.Errorf("too few")
		}
	})
}

// A frame that never came is a hole; silence that was never sent is none.
func TestFlowTellsLossFromSilence(t *testing.T) {
	bubble(t, three[:2], func(w *world, p []*person) {
		w.talk(200*time.Millisecond, p[0])
		p[0].clock += 20
		time.Sleep(400 * time.Millisecond)
		w.talk(200*time.Millisecond, p[0])
		w.set(func() {
			w.loss = 1
		})
		w.talk(60*time.Millisecond, p[0])
		w.set(func() {
			w.loss = 0
		})
		w.talk(40*time.Millisecond, p[0])
		w.settle()
		var lost []uint16
		for _, f := range p[1].ear.played() {
			if f.Lost > 0 {
				lost = append(lost, f.Lost)
			}
		}
		if len(lost) != 1 || lost[0] != 3 {
			t.Errorf("holes %v, want one of 3", lost)
		}
	})
}

// Half a minute of silence with discontinuous transmission, then speech, heard from the first word (trust test 64).
func TestFlowSpeechAfterLongSilence(t *testing.T) {
	bubble(t, three[:2], func(w *world, p []*person) {
		w.talk(time.Second, p[0])
		for range 75 {
			p[0].clock += 19
			p[0].say()
			time.Sleep(400 * time.Millisecond)
		}
		p[0].clock += 1500 // and half a minute without any frame
		time.Sleep(30 * time.Second)
		w.talk(time.Second, p[0])
		w.settle()
		w.hears(p[1], p[0])
		for _, f := range p[1].ear.played() {
			if f.Lost != 0 {
				t.Errorf("a hole of %d at %d", f.Lost, f.Ctr)
			}
		}
	})
}

func TestFlowEpochAndStepChangeLoseNothing(t *testing.T) {
	bubble(t, three[:2], func(w *world, p []*person) {
		w.set(func() { w.delay = func() time.Duration { return 60 * time.Millisecond } })
		for step := uint32(1); step < 20; step++ {
			e, err := w.epochs[w.seal].Advance(step)
			if err != nil {
				t.Fatal(err)
			}
			w.epochs[w.seal] = e
			w.tell(p[step%2]) // now the speaker is ahead, now the listener
			w.talk(500*time.Millisecond, p[0])
			w.tell(p[1-step%2])
			w.talk(500*time.Millisecond, p[0])
			if step%5 == 0 {
				w.epochs = append(w.epochs, sframe.NewEpoch(uint64(1+step)))
				w.epochs[len(w.epochs)-1], _ = w.epochs[len(w.epochs)-1].Advance(step)
				w.plan() // all hold it before anybody seals with it
				w.talk(300*time.Millisecond, p[0])
				w.seal = len(w.epochs) - 1
				w.plan()
			}
		}
		w.settle()
		w.hears(p[1], p[0])
		for _, s := range p[1].report().Sources {
			if s.Silenced || s.Refused != 0 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// With more than three unmuted each daemon plays its own loudest three.
func TestFlowLoudestThree(t *testing.T) {
	bubble(t, []string{"ana", "budi", "citra", "dewi", "eka"}, func(w *world, p []*person) {
		levels := []uint8{20, 30, 40, 50}
		say := func(n int) {
			for range n {
				for i, q := range p[:4] {
					q.clock++
					q.leg.Up(rtc.UpFrame{Ctr: q.clock, Ticks: 1, Level: levels[i], HasLevel: true, Payload: []byte{1}})
				}
				time.Sleep(media.Tick)
			}
		}
		say(100)
		slots := func() map[string]int {
			m := map[string]int{}
			for _, s := range p[4].report().Sources {
				for _, q := range p {
					if q.id() == s.ID {
						m[q.name] = s.Slot
					}
				}
			}
			return m
		}
		if s := slots(); s["ana"] < 0 || s["budi"] < 0 || s["citra"] < 0 || s["dewi"] >= 0 {
			t.Errorf("slots %v", s)
		}
		levels[3] = 15
		say(100)
		if s := slots(); s["dewi"] < 0 || s["citra"] >= 0 {
			t.Errorf("after the fourth grew loud: %v", s)
		}
	})
}

func TestFlowMeasuresRoundTrip(t *testing.T) {
	bubble(t, three[:2], func(w *world, p []*person) {
		w.set(func() { w.delay = func() time.Duration { return 35 * time.Millisecond } })
		time.Sleep(5 * time.Second)
		for _, l := range p[0].report().Links {
			if l.RTT != 70*time.Millisecond || l.Lost != 0 || l.In == 0 || l.Out == 0 {
				t.Errorf("%+v", l)
			}
		}
	})
}

// newBench makes two flows that are driven without their goroutines: what the first sends is kept in end.
func newBench(tb testing.TB, now time.Time) (flows [2]*flow, end *benchEnd) {
	w := &world{t: tb, epochs: []sframe.Epoch{sframe.NewEpoch(1)}}
	end = &benchEnd{}
	var people [2]*person
	for i := range people {
		k, err := identity.Generate()
		if err != nil {
			tb.Fatal(err)
		}
		people[i] = &person{w: w, key: k, allowed: true, send: true}
		flows[i] = newFlow(flowConfig{Sign: k.Sign, Log: slog.New(slog.DiscardHandler)})
		people[i].flow = flows[i]
		flows[i].Close()
	}
	for i, p := range people {
		q := people[1-i]
		flows[i].next = session.Media{Me: p.source(), Send: true, Epochs: w.epochs, Sources: []session.Source{q.source()}, Plan: &overlay.Plan{Up: []peer.ID{q.key.ID()}}}
		flows[i].apply(now)
		flows[i].addLink(&benchLink{remote: q.key.ID(), end: end})
	}
	flows[1].legs = append(flows[1].legs, &flowLeg{flow: flows[1], player: end})
	return flows, end
}

// BenchmarkFlow takes a frame from microphone to player through two flows: seal, bundle, parse, open, judge.
func BenchmarkFlow(b *testing.B) {
	now := time.Now()
	flows, end := newBench(b, now)
	leg, in := &flowLeg{flow: flows[0]}, flows[1].out[0]
	u := rtc.UpFrame{Ticks: 1, Level: 30, HasLevel: true, Payload: make([]byte, 80)}
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(media.Tick)
		u.Ctr++
		binary.BigEndian.PutUint32(u.Payload, u.Ctr)
		flows[0].up(leg, &u, now)
		flows[1].down(in, end.bundle, now)
	}
	if end.played < b.N*99/100 {
		b.Fatalf("played %d of %d", end.played, b.N)
	}
}

// FuzzFlow feeds a flow with what a peer might make of an honest bundle: the payload that is played is the honest one
// or none.
func FuzzFlow(f *testing.F) {
	now := time.Now()
	flows, end := newBench(f, now)
	leg, in := &flowLeg{flow: flows[0]}, flows[1].out[0]
	f.Add([]byte{}, uint16(0), byte(0))
	f.Add([]byte{0x0A, 0, 1, 0, 0, 0, 0, 0}, uint16(12), byte(1))
	f.Fuzz(func(t *testing.T, raw []byte, at uint16, bit byte) {
		now = now.Add(media.Tick)
		flows[1].down(in, raw, now)
		played := end.played
		flows[0].up(leg, &rtc.UpFrame{Ctr: uint32(played), Ticks: 1, Payload: []byte("honest")}, now)
		b := end.bundle
		b[int(at)%len(b)] ^= bit
		flows[1].down(in, b, now)
		if bit == 0 {
			return
		}
		if end.played != played && end.last != "honest" {
			t.Fatalf("played %q", end.last)
		}
	})
}

type benchEnd struct {
	bundle []byte
	played int
	last   string
}

func (e *benchEnd) Play(_ int, f rtc.PlayFrame) error {
	e.played++
	e.last = string(f.Payload)
	return nil
}

type benchLink struct {
	remote peer.ID
	end    *benchEnd
	seq    uint16
}

func (l *benchLink) Remote() peer.ID { return l.remote }
func (l *benchLink) Handle() uint32  { return 300 }
func (l *benchLink) Seq() uint16     { l.seq++; return l.seq - 1 }
func (l *benchLink) Send(b []byte) bool {
	l.end.bundle = append(l.end.bundle[:0], b...)
	return true
}

// A sender whose clock stood still for a while (a computer that slept) is heard again within seconds.
func TestFlowSenderSlept(t *testing.T) {
	bubble(t, three[:2], func(w *world, p []*person) {
		w.talk(5*time.Second, p[0])
		w.onWire(func(from, _ *person, b []byte) [][]byte {
			if from == p[0] {
				u, err := media.Parse(b)
				if err != nil {
					t.Error(err)
				}
				u.SendMs -= 20_000
				b = rebundle(u)
			}
			return [][]byte{b}
		})
		w.talk(5*time.Second, p[0])
		p[0].said = nil
		p[1].ear.forget()
		w.talk(time.Second, p[0])
		w.settle()
		w.hears(p[1], p[0])
	})
}
