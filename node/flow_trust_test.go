package node

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/node/rtc"
	"balai/room/media"
	"balai/room/sframe"
)

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

// rebundle writes the entries of u under its changed head.
func rebundle(u media.Bundle) []byte {
	var w media.Builder
	w.Begin(u, media.MaxBundle)
	for e := (media.Entry{}); u.Next(&e); {
		w.Add(e.Raw)
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

// A word that a relay holds back while its speaker is silent, over a new epoch whose coming keeps the old step open, is not
// heard half a minute later as an answer to something else: what the speaker has signed since tells its age. Nor is it
// without a sign in the report. The speaker is heard on.
func TestFlowHeldBack(t *testing.T) {
	for _, told := range []bool{false, true} {
		bubble(t, three[:2], func(w *world, p []*person) {
			var held [][]byte
			w.talk(time.Second, p[0])
			w.settle()
			honest := len(p[1].ear.of(p[0].id()))
			w.onWire(func(from, _ *person, b []byte) [][]byte {
				if u, err := media.Parse(b); err == nil && from == p[0] && u.Count > 0 {
					held = append(held, b)
					return nil
				}
				return [][]byte{b}
			})
			w.talk(100*time.Millisecond, p[0])
			time.Sleep(time.Second)
			w.epochs = append(w.epochs, sframe.NewEpoch(2))
			w.seal = 1
			w.plan()
			time.Sleep(30 * time.Second)
			w.set(func() { w.tap = nil })
			if told {
				p[0].signed = p[0].report().Ctr
				w.plan()
			}
			refused := p[1].report().Sources[0].Refused
			now := uint16(p[1].flow.millis(time.Now()))
			for _, b := range held {
				u, _ := media.Parse(b)
				u.SendMs = now // the relay's own word
				p[1].flow.Receive(p[1].links[p[0].key.ID()], rebundle(u))
			}
			synctest.Wait()
			heard := len(p[1].ear.of(p[0].id())) - honest
			if heard > 0 == told {
				t.Errorf("told %v, %d frames held back are heard", told, heard)
			}
			if !told {
				return // it takes the owner's word: the keys and the window keep nothing out
			}
			p[0].said = nil
			p[1].ear.forget()
			p[0].clock += 1500
			w.talk(time.Second, p[0])
			time.Sleep(time.Second)
			w.hears(p[1], p[0])
			if s := p[1].report().Sources[0]; s.Silenced || s.Refused < refused+5 {
				t.Errorf("the report: %+v, %d refused before", s, refused)
			}
		})
	}
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
