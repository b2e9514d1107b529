package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/node/rtc"
	"balai/room"
	"balai/room/media"
	"balai/room/session"
	"balai/room/sframe"
)

// world is some people in one room whose flows are joined by links in memory.
type world struct {
	t      testing.TB
	room   room.ID
	people []*person
	epochs []sframe.Epoch
	seal   int

	mu    sync.Mutex
	rand  *rand.Rand
	tap   func(from, to *person, bundle []byte) [][]byte // what arrives instead; nil: all
	delay func() time.Duration
	loss  float64
}

type person struct {
	w       *world
	name    string
	key     *identity.Key
	salt    [8]byte
	send    bool
	allowed bool
	flow    *flow
	leg     *flowLeg
	ear     *ear
	links   map[peer.ID]*wireLink
	clock   uint32   // of the leg
	said    []string // payloads

	mu  sync.Mutex
	rep session.Report
}

// ear remembers what was played.
type ear struct {
	mu     sync.Mutex
	heard  map[uint32][]string // by source
	frames []rtc.PlayFrame
	slots  map[uint32]int
}

func (e *ear) Play(slot int, f rtc.PlayFrame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard[f.Source] = append(e.heard[f.Source], string(f.Payload))
	e.slots[f.Source] = slot
	f.Payload = nil
	e.frames = append(e.frames, f)
	return nil
}

func (e *ear) of(source uint32) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.heard[source]...)
}

// wireLink is one direction's end of a link: what is sent arrives at to.
type wireLink struct {
	w        *world
	from, to *person
	seq      uint16
}

func (l *wireLink) Remote() peer.ID { return l.to.key.ID() }
func (l *wireLink) Handle() uint32  { return 300 }
func (l *wireLink) Seq() uint16     { l.seq++; return l.seq - 1 }

func (l *wireLink) Send(b []byte) bool {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.loss > 0 && w.rand.Float64() < w.loss {
		return true
	}
	arrive := [][]byte{bytes.Clone(b)}
	if w.tap != nil {
		arrive = w.tap(l.from, l.to, arrive[0])
	}
	for _, a := range arrive {
		back := l.to.links[l.from.key.ID()]
		if d := w.delay; d != nil {
			time.AfterFunc(d(), func() { l.to.flow.Receive(back, a) })
			continue
		}
		l.to.flow.Receive(back, a)
	}
	return true
}

func newWorld(t testing.TB, names ...string) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(1, 2)), epochs: []sframe.Epoch{sframe.NewEpoch(1)}}
	w.room[0] = 9
	for _, n := range names {
		k, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		p := &person{w: w, name: n, key: k, send: true, allowed: true, links: map[peer.ID]*wireLink{}, ear: &ear{heard: map[uint32][]string{}, slots: map[uint32]int{}}}
		copy(p.salt[:], n)
		p.flow = newFlow(flowConfig{Sign: k.Sign, Report: p.take, Log: slog.New(slog.DiscardHandler)})
		p.leg = p.flow.Attach()
		p.leg.SetPlayer(p.ear)
		w.people = append(w.people, p)
	}
	for _, p := range w.people {
		for _, q := range w.people {
			if p != q {
				p.links[q.key.ID()] = &wireLink{w: w, from: p, to: q}
			}
		}
	}
	for _, p := range w.people {
		for _, l := range p.links {
			p.flow.AddLink(l)
		}
	}
	w.plan()
	return w
}

func (p *person) take(r session.Report) { p.mu.Lock(); p.rep = r; p.mu.Unlock() }

func (p *person) report() session.Report { p.mu.Lock(); defer p.mu.Unlock(); return p.rep }

func (p *person) owner() sframe.Owner {
	return sframe.Owner{Room: p.w.room, Peer: string(p.key.ID()), Salt: p.salt}
}

func (p *person) source() session.Source {
	return session.Source{Peer: p.key.ID(), ID: p.owner().Source(), Salt: p.salt, Allowed: p.allowed}
}

func (p *person) id() uint32 { return p.owner().Source() }

// plan tells everybody how things are now.
func (w *world) plan() {
	for _, p := range w.people {
		w.tell(p)
	}
	synctest.Wait()
}

func (w *world) tell(p *person) {
	m := session.Media{Room: w.room, Me: p.source(), Send: p.send, Epochs: append([]sframe.Epoch(nil), w.epochs...), Seal: w.seal}
	for _, q := range w.people {
		if q != p {
			m.Sources = append(m.Sources, q.source())
			m.Peers = append(m.Peers, q.key.ID())
		}
	}
	p.flow.Plan(m)
}

func (w *world) close() {
	for _, p := range w.people {
		p.flow.Close()
	}
	time.Sleep(time.Second) // what is still on its way arrives at closed flows
}

// onWire lets tap see, change or drop what passes.
func (w *world) onWire(tap func(from, to *person, bundle []byte) [][]byte) {
	w.set(func() { w.tap = tap })
}

// set changes the links while they are in use.
func (w *world) set(do func()) { w.mu.Lock(); do(); w.mu.Unlock() }

func (e *ear) forget() { e.mu.Lock(); e.heard = map[uint32][]string{}; e.mu.Unlock() }

func (e *ear) played() []rtc.PlayFrame {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]rtc.PlayFrame(nil), e.frames...)
}

// say lets a microphone send one frame of 20 ms.
func (p *person) say() {
	text := fmt.Sprintf("%s %d", p.name, len(p.said))
	p.said = append(p.said, text)
	p.clock++
	p.leg.Up(rtc.UpFrame{Ctr: p.clock, Ticks: 1, Level: 25, HasLevel: true, Payload: []byte(text)})
}

// talk lets people speak together for d.
func (w *world) talk(d time.Duration, people ...*person) {
	for range d / media.Tick {
		for _, p := range people {
			p.say()
		}
		time.Sleep(media.Tick)
	}
}

func (w *world) settle() { time.Sleep(300 * time.Millisecond); synctest.Wait() }

// hears checks that p heard exactly what q said, each once.
func (w *world) hears(p, q *person) {
	w.t.Helper()
	got := p.ear.of(q.id())
	if fmt.Sprint(got) != fmt.Sprint(q.said) {
		w.t.Errorf("%s heard of %s %d frames of %d: %.300s", p.name, q.name, len(got), len(q.said), fmt.Sprint(got))
	}
}

// bubble runs a test in virtual time; it fails if a goroutine is left behind.
func bubble(t *testing.T, names []string, do func(w *world, p []*person)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, names...)
		defer w.close()
		do(w, w.people)
	})
}

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

func TestFlowLoss(t *testing.T) {
	for _, c := range []struct{ loss, least float64 }{{0.05, 0.99}, {0.2, 0.97}} {
		t.Run(fmt.Sprint(c.loss), func(t *testing.T) {
			bubble(t, three[:2], func(w *world, p []*person) {
				w.set(func() { w.loss, w.delay = c.loss, func() time.Duration { return 40 * time.Millisecond } })
				for range 60 {
					w.talk(time.Second, p[0])
					for _, s := range p[1].report().Sources {
						if s.Silenced {
							t.Error("an honest speaker was silenced")
						}
					}
				}
				w.settle()
				heard, said := len(p[1].ear.of(p[0].id())), len(p[0].said)
				t.Logf("%.0f %% loss: %d of %d frames", 100*c.loss, heard, said)
				if float64(heard) < c.least*float64(said) {
					t.Errorf("too few")
				}
			})
		})
	}
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

// count counts the entries of a kind and source that pass from one person.
func (w *world) count(from *person, kind media.Kind) *int {
	n := new(int)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tap = func(a, _ *person, b []byte) [][]byte {
		if a == from {
			u, err := media.Parse(b)
			if err != nil {
				w.t.Error(err)
			}
			for e := (media.Entry{}); u.Next(&e); {
				if e.Kind == kind {
					*n++
				}
			}
		}
		return [][]byte{b}
	}
	return n
}

// While muted not one frame of the microphone leaves, after a new leg and a new link too (trust test 39).
func TestFlowMuted(t *testing.T) {
	bubble(t, three[:2], func(w *world, p []*person) {
		w.set(func() { w.loss = 0.05 }) // so that there is redundancy, which must not leave either
		w.talk(5*time.Second, p[0])
		p[0].send = false
		w.tell(p[0]) // from its return on
		n := w.count(p[0], media.Frame)
		w.talk(2*time.Second, p[0])
		p[0].leg.Close()
		p[0].leg = p[0].flow.Attach()
		p[0].leg.SetPlayer(p[0].ear)
		l := p[0].links[p[1].key.ID()]
		p[0].flow.RemoveLink(l)
		p[0].flow.AddLink(l)
		w.talk(2*time.Second, p[0])
		w.plan()
		w.talk(time.Second, p[0])
		synctest.Wait()
		if *n != 0 {
			t.Fatalf("%d frames left while muted", *n)
		}
		w.set(func() { w.loss = 0 })
		p[0].send = true
		w.plan()
		p[0].said = nil
		p[1].ear.forget()
		w.talk(time.Second, p[0])
		w.settle()
		w.hears(p[1], p[0])
	})
}

// New legs, overlapping legs and legs whose clock starts anywhere: the own counter only grows (trust test 42).
func TestFlowCounterOnlyGrowsOverLegs(t *testing.T) {
	bubble(t, three[:2], func(w *world, p []*person) {
		next, bad := uint32(0), 0
		w.onWire(func(from, _ *person, b []byte) [][]byte {
			u, _ := media.Parse(b)
			for e := (media.Entry{}); from == p[0] && u.Next(&e); {
				if e.Kind == media.Frame {
					if e.Ctr < next {
						bad++
					}
					next = e.Ctr + uint32(e.Ticks)
				}
			}
			return [][]byte{b}
		})
		for i := range 10 {
			w.talk(400*time.Millisecond, p[0])
			old := p[0].leg
			p[0].leg = p[0].flow.Attach()
			p[0].clock = uint32(i%3) * 0x7fffff00
			w.talk(100*time.Millisecond, p[0])
			old.Up(rtc.UpFrame{Ctr: 5, Ticks: 6, Payload: []byte("old")})
			if i%2 == 0 {
				old.Close()
			}
			for range 5 { // a burst, faster than time
				p[0].leg.Up(rtc.UpFrame{Ctr: p[0].clock, Ticks: 6, Payload: []byte("burst")})
			}
			time.Sleep(time.Duration(i) * 300 * time.Millisecond)
		}
		synctest.Wait()
		if bad != 0 {
			t.Errorf("%d counters were used again", bad)
		}
		if wall := uint32(time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) / media.Tick); next > wall+maxDrift+media.MaxTicks {
			t.Errorf("counter %d ran ahead of %d ticks", next, wall)
		}
		if r := p[1].report(); len(r.Sources) != 1 || r.Sources[0].Refused != 0 {
			t.Errorf("%+v", r.Sources)
		}
	})
}

// rebuild makes a bundle again from the entries that keep lets through.
func rebuild(b []byte, keep func(e *media.Entry) bool) []byte {
	u, err := media.Parse(b)
	if err != nil {
		return nil
	}
	var w media.Builder
	w.Begin(u, media.MaxBundle)
	for e := (media.Entry{}); u.Next(&e); {
		if keep(&e) {
			w.Add(e.Raw)
		}
	}
	return bytes.Clone(w.Bytes())
}

// Without signature blocks a source is silenced within 0.6 s; the others are heard on; with blocks it comes back
// (trust test 36, missing block).
func TestFlowMissingBlocks(t *testing.T) {
	bubble(t, three, func(w *world, p []*person) {
		w.talk(time.Second, p[0], p[2])
		w.set(func() {
			w.tap = func(from, _ *person, b []byte) [][]byte {
				return [][]byte{rebuild(b, func(e *media.Entry) bool { return from != p[0] || e.Kind != media.Block })}
			}
		})
		before := len(p[1].ear.of(p[0].id()))
		w.talk(3*time.Second, p[0], p[2])
		got := time.Duration(len(p[1].ear.of(p[0].id()))-before) * media.Tick
		if got > sframe.UnsignedLimit+media.Tick {
			t.Errorf("played %v unsigned", got)
		}
		w.settle()
		w.hears(p[1], p[2])
		silenced := map[peer.ID]bool{}
		for _, s := range p[1].report().Sources {
			silenced[s.Peer] = s.Silenced
		}
		if !silenced[p[0].key.ID()] || silenced[p[2].key.ID()] {
			t.Errorf("silenced: %v", silenced)
		}
		w.set(func() {
			w.tap = nil
		})
		w.talk(time.Second, p[0], p[2])
		p[0].said = nil
		p[1].ear.forget()
		w.talk(time.Second, p[0], p[2])
		w.settle()
		w.hears(p[1], p[0])
	})
}

// Changed headers and ciphertexts on the way are not heard; what is honest is (trust test 36).
func TestFlowChangedOnTheWay(t *testing.T) {
	for name, at := range map[string]int{"level": 5, "marker": 0, "counter": 8, "ciphertext": 12} {
		t.Run(name, func(t *testing.T) {
			bubble(t, three, func(w *world, p []*person) {
				n := 0
				w.onWire(func(from, to *person, b []byte) [][]byte {
					if n++; from != p[0] || to != p[1] || n%3 != 0 {
						return [][]byte{b}
					}
					return [][]byte{rebuild(b, func(e *media.Entry) bool {
						if e.Kind == media.Frame {
							e.Raw[at] ^= 2
						}
						return true
					})}
				})
				w.talk(2*time.Second, p[0], p[2])
				w.settle()
				said := map[string]bool{}
				for _, s := range p[0].said {
					said[s] = true
				}
				for _, s := range p[1].ear.of(p[0].id()) {
					if !said[s] {
						t.Errorf("heard %q", s)
					}
				}
				if n := len(p[1].ear.of(p[0].id())); n < len(p[0].said)/2 {
					t.Errorf("%d of %d honest frames were heard: %+v", n, len(p[0].said), p[1].report())
				}
				w.hears(p[1], p[2])
				w.hears(p[2], p[0])
			})
		})
	}
}

// forge seals a frame in q's name: any member can, for all hold the key.
func (w *world) forge(q *person, ctr uint32, text string) []byte {
	s := sframe.NewSealer(q.owner(), 0)
	e := w.epochs[w.seal]
	s.Rekey(e)
	var h [media.HeaderLen]byte
	(&media.Header{Ticks: 1, Source: q.id(), Epoch: uint8(e.N & 15), Step: uint8(e.Step & 15), Level: 5, Ctr: ctr}).Put(&h)
	body, err := s.Seal(nil, h[:], []byte(text))
	if err != nil {
		w.t.Fatal(err)
	}
	return media.AppendEntry(nil, &h, body)
}

func bundleOf(seq uint16, entries ...[]byte) []byte {
	var w media.Builder
	w.Begin(media.Bundle{Handle: 300, Seq: seq, SendMs: uint16(time.Now().UnixMilli())}, media.MaxBundle)
	w.Fill(entries, nil, nil)
	return bytes.Clone(w.Bytes())
}

// A member who sends frames in another's name by its own connection is not heard, the honest speaker is.
func TestFlowForgedByAnotherMember(t *testing.T) {
	bubble(t, three, func(w *world, p []*person) {
		for i := range uint16(100) {
			p[0].say()
			p[1].flow.Receive(p[1].links[p[2].key.ID()], bundleOf(i, w.forge(p[0], 100+uint32(i), "forged")))
			time.Sleep(media.Tick)
		}
		w.settle()
		w.hears(p[1], p[0])
	})
}

// Somebody on the way who holds the key puts own words in the place of the speaker's: silenced within 0.6 s, and the
// other speaker goes on.
func TestFlowForgedOnTheWay(t *testing.T) {
	bubble(t, three, func(w *world, p []*person) {
		w.talk(time.Second, p[0], p[2])
		w.set(func() {
			w.tap = func(from, to *person, b []byte) [][]byte {
				if from != p[0] || to != p[1] {
					return [][]byte{b}
				}
				return [][]byte{rebuild(b, func(e *media.Entry) bool {
					if e.Kind == media.Frame {
						e.Raw = w.forge(p[0], e.Ctr, "forged")
					}
					return true
				})}
			}
		})
		w.talk(5*time.Second, p[0], p[2])
		w.settle()
		forged := time.Duration(0)
		for _, s := range p[1].ear.of(p[0].id()) {
			if s == "forged" {
				forged += media.Tick
			}
		}
		if forged == 0 || forged > sframe.UnsignedLimit {
			t.Errorf("%v of the forgery were heard", forged)
		}
		w.hears(p[1], p[2])
	})
}

// A listener who sends audio is not heard (trust test 38), nor one who is not in the room.
func TestFlowListenerAndStranger(t *testing.T) {
	bubble(t, three, func(w *world, p []*person) {
		p[0].allowed = false
		w.plan()
		w.talk(time.Second, p[0])
		stranger, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		s := &person{w: w, name: "x", key: stranger}
		l := &wireLink{w: w, from: p[1], to: s}
		p[1].flow.AddLink(l)
		for i := range uint16(20) {
			p[1].flow.Receive(l, bundleOf(i, w.forge(p[2], uint32(i)+50, "forged"), w.forge(s, uint32(i)+50, "forged")))
			time.Sleep(media.Tick)
		}
		w.settle()
		if n := len(p[1].ear.played()); n != 0 {
			t.Errorf("%d frames played", n)
		}
	})
}

// Frames that come again 10 s later, or more than 400 ms late, are not played (trust test 37).
func TestFlowReplayAndLate(t *testing.T) {
	bubble(t, three[:2], func(w *world, p []*person) {
		var taped [][]byte
		w.onWire(func(from, _ *person, b []byte) [][]byte {
			if from == p[0] {
				taped = append(taped, bytes.Clone(b))
			}
			return [][]byte{b}
		})
		w.talk(2*time.Second, p[0])
		w.settle()
		w.hears(p[1], p[0])
		time.Sleep(10 * time.Second)
		w.set(func() { w.tap = nil })
		for _, b := range taped {
			p[1].flow.Receive(p[1].links[p[0].key.ID()], b)
		}
		synctest.Wait()
		w.hears(p[1], p[0])
		n := len(p[1].ear.played())
		w.set(func() { w.delay = func() time.Duration { return 500 * time.Millisecond } }) // a path that stalls
		w.talk(100*time.Millisecond, p[0])
		time.Sleep(time.Second)
		if len(p[1].ear.played()) != n {
			t.Error("frames 500 ms late were played")
		}
	})
}

// A speaker who starts again comes with another source and is heard.
func TestFlowSpeakerRestarts(t *testing.T) {
	bubble(t, three[:2], func(w *world, p []*person) {
		w.talk(time.Second, p[0])
		old := p[0].id()
		p[0].salt[7]++
		w.plan()
		p[0].said = nil
		w.talk(time.Second, p[0])
		w.settle()
		w.hears(p[1], p[0])
		if p[0].id() == old {
			t.Error("same source")
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

// Nothing that a peer sends makes the flow stumble, and the honest are heard through it.
func TestFlowJunk(t *testing.T) {
	bubble(t, three, func(w *world, p []*person) {
		r := rand.New(rand.NewPCG(3, 4))
		for i := range 200 {
			p[0].say()
			for range 5 {
				b := make([]byte, r.IntN(media.MaxBundle))
				for k := range b {
					b[k] = byte(r.Uint32())
				}
				if r.IntN(2) == 0 && len(b) > 30 {
					b = bundleOf(uint16(i), w.forge(p[2], uint32(r.IntN(1<<24)), "junk"))
					b[r.IntN(len(b))] ^= byte(r.IntN(256))
				}
				p[1].flow.Receive(p[1].links[p[2].key.ID()], b)
			}
			time.Sleep(media.Tick)
		}
		w.settle()
		w.hears(p[1], p[0])
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

// BenchmarkFlow takes a frame from microphone to player through two flows: seal, bundle, parse, open, judge.
func BenchmarkFlow(b *testing.B) {
	w := &world{t: b, epochs: []sframe.Epoch{sframe.NewEpoch(1)}}
	now := time.Now()
	end := &benchEnd{}
	var flows [2]*flow
	var people [2]*person
	for i := range people {
		k, err := identity.Generate()
		if err != nil {
			b.Fatal(err)
		}
		people[i] = &person{w: w, key: k, allowed: true, send: true}
		people[i].flow = newFlow(flowConfig{Sign: k.Sign})
		people[i].flow.Close() // driven from here, without its goroutine
		flows[i] = people[i].flow
	}
	for i, p := range people {
		q := people[1-i]
		flows[i].next = session.Media{Me: p.source(), Send: true, Epochs: w.epochs, Sources: []session.Source{q.source()}, Peers: []peer.ID{q.key.ID()}}
		flows[i].apply(now)
		flows[i].addLink(&benchLink{remote: q.key.ID(), end: end})
	}
	leg := &flowLeg{flow: flows[0]}
	flows[1].legs = append(flows[1].legs, &flowLeg{flow: flows[1], player: end})
	in := flows[1].out[0]
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

type benchEnd struct {
	bundle []byte
	played int
}

func (e *benchEnd) Play(int, rtc.PlayFrame) error { e.played++; return nil }

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
