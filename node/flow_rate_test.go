package node

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"balai/node/rtc"
	"balai/room/media"
	"balai/room/session"
)

// seen is one datagram as somebody who watches the network sees it.
type seen struct {
	at   time.Duration // since the phase began
	size int
}

// utter lets a microphone send a frame of a size and a level of its own.
func (p *person) utter(size int, level uint8) {
	p.clock++
	packet := append([]byte{0x78}, bytes.Repeat([]byte{byte(p.clock)}, size-1)...)
	p.said = append(p.said, string(packet))
	p.leg.Up(rtc.UpFrame{Ctr: p.clock, Ticks: 1, Level: level, HasLevel: true, Voice: level < 40, Marker: size%3 == 0, Payload: packet})
}

// doings are what somebody on stage may do for a while; all have to look the same.
var doings = []struct {
	name  string
	mutes time.Duration // when an open microphone is closed
	do    func(w *world, p *person, d time.Duration)
}{
	{"says nothing, without a page", 0, func(_ *world, _ *person, d time.Duration) { time.Sleep(d) }},
	{"talks", 0, func(_ *world, p *person, d time.Duration) {
		for range d / media.Tick {
			p.utter(80, 25)
			time.Sleep(media.Tick)
		}
	}},
	{"is muted", 0, func(w *world, p *person, d time.Duration) {
		p.send = false
		w.tell(p)
		time.Sleep(d)
		p.send = true
		w.tell(p)
	}},
	{"talks with a variable rate and much jitter, then shouts, then pauses", 0, func(w *world, p *person, d time.Duration) {
		for i := range int(d / (2 * media.Tick)) {
			p.utter(3+w.rand.IntN(steadyPayload-3), uint8(w.rand.IntN(128)))
			time.Sleep(time.Duration(w.rand.IntN(30)) * time.Millisecond)
			if i%50 > 40 {
				time.Sleep(media.Tick)
			}
		}
	}},
	{"is muted in the middle of a word", watchedFor / 2, func(w *world, p *person, d time.Duration) {
		for range d / 2 / media.Tick {
			p.utter(90, 10)
			time.Sleep(media.Tick)
		}
		p.send = false
		w.tell(p)
		for range d / 2 / media.Tick {
			p.utter(90, 10)
			time.Sleep(media.Tick)
		}
		p.send = true
		w.tell(p)
	}},
}

const (
	watchedFor = 12 * time.Second
	// muteShows is how long after a mute a lossy line shows it: what the microphone gave before is neither repeated nor sent
	// when asked for again. A receiver asks at once and has the answer a round trip later; copies go along with the next frames.
	muteShows = 200 * time.Millisecond
)

// without leaves out what was sent for a while.
func without(all []seen, from, d time.Duration) []seen {
	return slices.DeleteFunc(slices.Clone(all), func(s seen) bool { return s.at >= from && s.at < from+d })
}

// In a room of constant rate nobody learns from sizes and times whether somebody on stage speaks: not who watches a link of
// hers in a mesh, nor who watches the relay that carries her, nor her own children when she is a relay herself. The same
// room is lived through once for each doing; what is seen is the same to the byte and the nanosecond, also where the network
// loses bundles, which are asked for again and sent twice. Then the moment of a mute shows, and nothing else.
func TestFlowConstantRate(t *testing.T) {
	for _, c := range []struct {
		name string
		tree []string
	}{
		{"a mesh", nil},
		{"by a relay", []string{"ana > budi", "budi >> citra"}},
		{"as a relay", []string{"ana >> citra", "ana = budi"}},
	} {
		for _, loss := range []float64{0, .05, .2} {
			first := map[string][]seen{}
			for i, x := range doings {
				bubbleOf(t, "ana budi citra", func(w *world, p map[string]*person) {
					w.steady = true
					w.far = map[string]time.Duration{"ana": 3 * time.Millisecond, "budi": 4 * time.Millisecond, "citra": 6 * time.Millisecond} // nothing meets by chance
					p["citra"].allowed, p["citra"].send = false, false                                                                         // a listener
					if w.plan(); c.tree != nil {
						w.tree(c.tree...)
					}
					all, began := map[string][]seen{}, time.Now()
					w.onWire(func(from, to *person, bundle []byte) [][]byte {
						way := from.name + " to " + to.name
						all[way] = append(all[way], seen{time.Since(began), len(bundle)})
						if lostOnTheWay(way, all[way], loss) {
							return nil
						}
						return [][]byte{bundle}
					})
					time.Sleep(7 * time.Millisecond) // between two ticks
					x.do(w, p["ana"], watchedFor)
					time.Sleep(time.Until(began.Add(watchedFor + time.Second + 7*time.Millisecond)))
					w.onWire(nil)
					if i == 0 {
						first = all
					}
					for way := range first {
						if loss > 0 && x.mutes > 0 {
							first, all := without(first[way], x.mutes, muteShows), without(all[way], x.mutes, muteShows)
							if !slices.Equal(first, all) {
								t.Errorf("%s, loss %g, %s: before or after the mute: %s", c.name, loss, way, difference(first, all))
							}
							continue
						}
						if !slices.Equal(first[way], all[way]) {
							t.Errorf("%s, loss %g, %s: when ana %s: %s", c.name, loss, way, x.name, difference(first[way], all[way]))
						}
					}
					if n := len(first["ana to budi"]); n < int(watchedFor/media.Tick) {
						t.Errorf("%s: %d bundles in %v", c.name, n, watchedFor)
					}
				})
			}
		}
	}
}

// lostOnTheWay tells whether a network drops the last of what is seen on a way: by when it is sent, so the same in each run.
func lostOnTheWay(way string, all []seen, loss float64) bool {
	at, together := all[len(all)-1].at, 0
	for i := len(all) - 1; i >= 0 && all[i].at == at; i-- {
		together++
	}
	h := fnv.New64a()
	fmt.Fprint(h, way, at, together)
	return rand.New(rand.NewPCG(h.Sum64(), 1)).Float64() < loss
}

// And yet somebody is heard: each frame once and whole, silence between, and nothing of what was said muted.
func TestFlowConstantRateIsHeard(t *testing.T) {
	for _, tree := range [][]string{nil, {"ana > rita", "rita >> budi"}, {"ana >> budi"}} {
		bubbleOf(t, "ana budi rita", func(w *world, p map[string]*person) {
			w.steady = true
			if w.plan(); tree != nil {
				w.tree(tree...)
			}
			time.Sleep(7 * time.Millisecond) // between two ticks
			ana := p["ana"]
			for range 100 {
				ana.utter(80, 25)
				time.Sleep(media.Tick)
			}
			time.Sleep(time.Second)
			ana.utter(81, 25)
			ana.utter(81, 25)
			ana.send = false // before its tick
			w.tell(ana)
			ana.utter(82, 25)
			w.settle()
			silence, heard := 0, 0
			for _, got := range p["budi"].ear.of(ana.id()) {
				switch {
				case len(got) != steadyPayload:
					t.Fatalf("%v: %x was played", tree, got)
				case strings.Contains(got, string(silentPacket[1:])):
					silence++
				case heard == 100 || got != padded(t, ana.said[heard]):
					t.Fatalf("%v: after %d frames: %x", tree, heard, got)
				default:
					heard++
				}
			}
			if heard != 100 || silence < 40 {
				t.Errorf("%v: %d frames of 100 and %d of silence were heard", tree, heard, silence)
			}
			if r := p["budi"].report(); r.Sources[slices.IndexFunc(r.Sources, func(s session.SourceReport) bool { return s.ID == ana.id() })].Refused != 0 {
				t.Errorf("%v: %+v", tree, r.Sources)
			}
		})
	}
}

func padded(t *testing.T, packet string) string {
	b, err := media.PadOpus(nil, []byte(packet), steadyPayload)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What a header says besides: no voice bit, no mark at the begin of speech, and four levels that change each 100 ms.
func TestFlowConstantRateHeaders(t *testing.T) {
	bubbleOf(t, "ana budi", func(w *world, p map[string]*person) {
		w.steady = true
		w.plan()
		levels, changes, last := map[media.Level]bool{}, map[uint32]bool{}, media.Level(0)
		w.onWire(func(from, _ *person, bundle []byte) [][]byte {
			u, err := media.Parse(bundle)
			if err != nil {
				t.Error(err)
			}
			for e := (media.Entry{}); u.Next(&e); {
				if e.Kind != media.Frame || from != p["ana"] {
					continue
				}
				if e.Voice || e.Marker || e.Ticks != 1 || len(e.Body) != steadyPayload+16 {
					t.Errorf("%+v of %d bytes", e.Header, len(e.Body))
				}
				if e.Level != last && last != 0 {
					changes[e.Ctr%levelTicks] = true
				}
				last, levels[e.Level] = e.Level, true
			}
			return [][]byte{bundle}
		})
		for i := range 500 {
			p["ana"].utter(80, uint8(i*7%128))
			time.Sleep(media.Tick)
		}
		p["ana"].send = false
		w.tell(p["ana"])
		time.Sleep(time.Second)
		synctest.Wait()
		if len(levels) > 4 || len(levels) < 2 || len(changes) != 1 || !changes[0] {
			t.Errorf("levels %v, changed at %v of each 100 ms", levels, changes)
		}
	})
}

// A frame of silence that waits in the core while the microphone is muted takes no copies of what was said along.
func TestFlowConstantRateMutedCopies(t *testing.T) {
	bubbleOf(t, "ana budi", func(w *world, p map[string]*person) {
		w.steady = true
		w.tree("ana >> budi")
		ana := p["ana"]
		var sent []uint32 // counters of ana's frames
		w.onWire(func(from, _ *person, b []byte) [][]byte {
			u, err := media.Parse(b)
			if err != nil {
				t.Error(err)
			}
			for e := (media.Entry{}); u.Next(&e); {
				if from == ana && e.Kind == media.Frame {
					sent = append(sent, e.Ctr)
				}
			}
			return [][]byte{b}
		})
		time.Sleep(time.Second)
		ana.flow.call(func() {
			f, now := ana.flow, time.Now()
			f.feeds[0].theirLoss = lossForThree
			emit := func(voiced bool) uint32 {
				f.gate.Lock()
				defer f.gate.Unlock()
				ctr := f.sealer.Next()
				f.emit(media.Header{Ticks: 1, Ctr: ctr, Level: media.Silence}, f.steady.silence[:], voiced, now)
				return ctr
			}
			said := emit(true)
			f.forward(now)
			silent := emit(false)
			w.set(func() { sent = nil })
			m := f.plan
			m.Send = false
			f.Plan(m)      // the gate is closed, the rest is not in force yet
			f.forward(now) // the hold is over
			w.set(func() {
				if !slices.Contains(sent, silent) || slices.Contains(sent, said) {
					t.Errorf("after the mute %v were sent; %d was said, %d is silence", sent, said, silent)
				}
			})
		})
	})
}

func difference(a, b []seen) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("at %d of %d and %d: %v, %v", i, len(a), len(b), a[max(i-2, 0):min(i+3, len(a))], b[max(i-2, 0):min(i+3, len(b))])
		}
	}
	return fmt.Sprintf("%d and %d bundles", len(a), len(b))
}
