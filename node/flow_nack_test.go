package node

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/wire"
)

// A helper of the mesh carries only the named speakers, and only as they come from themselves.
func TestRelayAssist(t *testing.T) {
	bubbleOf(t, "ana bo help lena", func(w *world, p map[string]*person) {
		w.tree()
		id := func(name string) peer.ID { return p[name].key.ID() }
		w.plans["ana"].Up = []peer.ID{id("help"), id("bo")}
		w.plans["bo"].Up = []peer.ID{id("help"), id("lena"), id("ana")}
		w.plans["help"].Up = []peer.ID{id("ana"), id("bo"), id("lena")}
		w.plans["lena"].Up = []peer.ID{id("help"), id("bo")}
		w.plans["help"].Feeds = []overlay.Feed{{Peer: id("lena"), Mode: overlay.Assist, Only: []peer.ID{id("ana")}, Direct: true}}
		w.plans["lena"].Parents = []peer.ID{id("help")}
		w.plan()
		seen := w.entries(media.Frame)
		w.talk(2*time.Second, p["ana"], p["bo"], p["help"])
		w.settle()
		for _, a := range []string{"ana", "bo", "help"} {
			w.hears(p["lena"], p[a])
			if n, most := countOf(seen, "help", "lena", p[a]); n != map[string]int{"ana": 100, "bo": 0, "help": 100}[a] || most > 1 {
				t.Errorf("%s: %d frames of the helper, one %d times", a, n, most)
			}
		}
		if n, _ := countOf(seen, "help", "ana", p["ana"]); n != 0 {
			t.Errorf("%d frames came back", n)
		}
	})
}

// From mesh to core: a peer gets my frames as one of the mesh and as a child, and brings me its own and others'. Nobody
// hears or gets anything twice.
func TestRelayMeshAndCoreAtOnce(t *testing.T) {
	bubbleOf(t, "ana bo rita rob", func(w *world, p map[string]*person) {
		w.tree("rita = rob", "rita >> ana", "rita >> bo", "rob >> ana", "rob >> bo")
		for _, a := range w.people {
			for _, b := range w.people {
				if a != b {
					w.plans[a.name].Up = append(w.plans[a.name].Up, b.key.ID())
				}
			}
		}
		w.plan()
		seen := w.entries(media.Frame)
		w.talk(2*time.Second, w.people...)
		w.settle()
		for _, a := range w.people {
			for _, b := range w.people {
				if a == b {
					continue
				}
				if h := a.ear.of(b.id()); len(h) != len(slices.Compact(slices.Sorted(slices.Values(h)))) {
					t.Errorf("%s heard frames of %s twice", a.name, b.name)
				}
				if n, most := countOf(seen, a.name, b.name, a); n != 100 || most > 1 {
					t.Errorf("%s to %s: %d own frames, one %d times", a.name, b.name, n, most)
				}
				if n, most := countOf(seen, a.name, b.name, b); n != 0 {
					t.Errorf("%s to %s: %d frames came back %d times", a.name, b.name, n, most)
				}
			}
		}
		if n, most := countOf(seen, "rita", "bo", p["ana"]); most > 1 {
			t.Errorf("%d frames forwarded, one %d times", n, most)
		}
	})
}

// Links that the plan does not name get answers to pings and nothing else, and what comes by them does not count.
func TestRelayNoRole(t *testing.T) {
	bubbleOf(t, "ana rita lena call", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "rita >> lena")
		time.Sleep(time.Second)
		to := 0
		w.onWire(func(_, to2 *person, b []byte) [][]byte {
			if to2 == p["call"] {
				to++
			}
			return [][]byte{b}
		})
		for range 50 {
			p["ana"].say()
			p["rita"].flow.Receive(p["rita"].links[p["call"].key.ID()], bundleOf(uint16(to), w.forge(p["call"], 100+uint32(len(p["ana"].said)), "hello")))
			time.Sleep(media.Tick)
		}
		w.settle()
		if to != 0 {
			t.Errorf("%d bundles went to a caller", to)
		}
		if n := len(p["lena"].ear.of(p["call"].id())) + len(p["rita"].ear.of(p["call"].id())); n != 0 {
			t.Errorf("%d frames of a caller were heard", n)
		}
		p["call"].flow.Ping(p["rita"].key.ID())
		synctest.Wait()
		if last := p["call"].pulseOf(p["rita"]).Last; to != 1 || time.Since(last) > 2*time.Second {
			t.Errorf("%d answers, pulse %v", to, last)
		}
	})
}

// What is lost on any hop is asked for there, or came twice from the start; nobody is silenced.
func TestRelayLoss(t *testing.T) {
	for _, c := range []struct {
		name    string
		keyless bool
		without func(*wire.LinkRecord) bool
		least   float64
	}{
		{"asked for", false, func(r *wire.LinkRecord) bool { return r.GetHeartbeat() != nil }, 0.97}, // no heartbeat tells a loss: no copies
		{"asked for, keyless", true, func(r *wire.LinkRecord) bool { return r.GetHeartbeat() != nil }, 0.97},
		{"copies", false, func(r *wire.LinkRecord) bool { return r.GetNack().GetCtrs() != nil }, 0.985},
		{"both", true, nil, 0.99},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubbleOf(t, "ana rita rob lena", func(w *world, p map[string]*person) {
				p["rob"].keyless = c.keyless
				w.tree("ana > rita", "rita >> rob", "rob >> lena")
				w.set(func() { w.delay = func() time.Duration { return 15 * time.Millisecond } })
				time.Sleep(2 * time.Second) // round trips are measured
				w.onWire(func(_, _ *person, b []byte) [][]byte {
					if w.rand.Float64() < 0.05 {
						return nil
					}
					return [][]byte{rebuild(b, func(e *media.Entry) bool {
						var r wire.LinkRecord
						return e.Kind != media.Record || c.without == nil || proto.Unmarshal(e.Body, &r) != nil || !c.without(&r)
					})}
				})
				for range 30 {
					w.talk(time.Second, p["ana"])
					if anySilenced(p["lena"].report()) {
						t.Error("silenced")
					}
				}
				w.settle()
				heard, said := len(p["lena"].ear.of(p["ana"].id())), len(p["ana"].said)
				t.Logf("%d of %d over three hops with 5 %% loss each", heard, said)
				if float64(heard) < c.least*float64(said) {
					t.Error("too few")
				}
			})
		})
	}
}

// A short gap behind a relay is a hole, a long one is silence.
func TestRelayGap(t *testing.T) {
	bubbleOf(t, "ana rita lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "rita >> lena")
		w.talk(time.Second, p["ana"])
		p["ana"].clock += 20
		time.Sleep(20 * media.Tick)
		w.talk(time.Second, p["ana"])
		w.cut(p["ana"])
		w.talk(5*media.Tick, p["ana"])
		w.set(func() { w.tap = nil })
		w.talk(time.Second, p["ana"])
		w.settle()
		var lost []uint16
		for _, f := range p["lena"].ear.played() {
			if f.Lost > 0 {
				lost = append(lost, f.Lost)
			}
		}
		if len(lost) != 1 || lost[0] != 5 {
			t.Errorf("holes %v, want one of 5", lost)
		}
	})
}

// Blocks go on, each at most twice, and what a relay missed itself it asks for when a child does.
func TestRelayBlocks(t *testing.T) {
	bubbleOf(t, "ana rita rob lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "ana > rob", "rita = rob", "rita >> lena", "rob >> lena")
		seen := w.entries(media.Block)
		w.talk(2*time.Second, p["ana"])
		w.settle()
		for _, c := range [][2]string{{"rita", "lena"}, {"rob", "lena"}, {"rita", "rob"}} {
			if n, most := countOf(seen, c[0], c[1], p["ana"]); n != 10 || most != 2 {
				t.Errorf("%v: %d blocks, one %d times", c, n, most)
			}
		}
	})
	bubbleOf(t, "ana rita lena", func(w *world, p map[string]*person) {
		p["rita"].keyless = true
		w.tree("ana > rita", "rita >> lena")
		w.talk(time.Second, p["ana"])
		lost := map[string]int{}
		w.onWire(func(from, _ *person, b []byte) [][]byte {
			if from != p["ana"] {
				return [][]byte{b}
			}
			return [][]byte{rebuild(b, func(e *media.Entry) bool {
				if e.Kind == media.Block && lost[string(e.Raw)] < 2 { // with its repetition
					lost[string(e.Raw)]++
					return false
				}
				return true
			})}
		})
		w.talk(3*time.Second, p["ana"])
		w.settle()
		w.hears(p["lena"], p["ana"])
		for _, s := range p["lena"].report().Sources {
			if s.Silenced {
				t.Errorf("%+v", s)
			}
		}
	})
}

// Heartbeats carry tick, path, level and what is held; the session gets them as pulses, of a silent peer too.
func TestRelayPulse(t *testing.T) {
	bubbleOf(t, "ana rita rob lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "ana > rob", "rita = rob", "rita >> lena", "rob .. lena")
		w.talk(2*time.Second, p["ana"])
		u := p["lena"].pulseOf(p["rita"])
		short := identity.ShortID(p["rita"].key.ID())
		if now := uint64(time.Now().UnixMilli() / 20); u.Level != 0 || len(u.Path) != 1 || !bytes.Equal(u.Path[0], short[:]) || now-u.Tick > 12 || u.Ahead != 0 || time.Since(u.Last) > heartbeatIn+media.Tick {
			t.Errorf("%+v at %d", u, now)
		}
		w.onWire(func(from, to *person, b []byte) [][]byte { // rita goes on, but nothing of ana's comes by her
			if from == p["rita"] {
				b = rebuild(b, func(e *media.Entry) bool { return e.Kind == media.Record })
			}
			return [][]byte{b}
		})
		w.talk(500*time.Millisecond, p["ana"])
		if u := p["lena"].pulseOf(p["rob"]); u.Ahead < 120*time.Millisecond || u.Ahead > 600*time.Millisecond {
			t.Errorf("the silent parent is ahead by %v", u.Ahead)
		}
		w.set(func() { w.tap = nil })
		w.talk(time.Second, p["ana"])
		if u := p["lena"].pulseOf(p["rob"]); u.Ahead != 0 {
			t.Errorf("still ahead by %v", u.Ahead)
		}
		p["ana"].clock += 500
		time.Sleep(10 * time.Second)
		w.set(func() { // after silence the silent parent's heartbeat may come before the first frame
			w.delay = func() time.Duration { return time.Duration(w.rand.IntN(100)) * time.Millisecond }
		})
		n := len(p["lena"].pulsesFrom(0))
		w.talk(3*time.Second, p["ana"])
		for _, u := range p["lena"].pulsesFrom(n) {
			if u.Ahead >= 300*time.Millisecond {
				t.Errorf("ahead by %v after silence", u.Ahead)
			}
		}
		w.cut(p["rita"])
		last := time.Now().Add(100 * time.Millisecond) // of what is on its way
		n = len(p["lena"].pulsesFrom(0))
		time.Sleep(3500 * time.Millisecond)
		told := 0
		for _, u := range p["lena"].pulsesFrom(n) {
			if u.Peer == p["rita"].key.ID() {
				told++
			}
		}
		if now := p["lena"].pulseOf(p["rita"]).Last; told < 3 || now.After(last) {
			t.Errorf("%d pulses of a dead peer, the last from %v", told, now)
		}
	})
}

// A relay that is not in the core tells the tick that came down to it, and none of its own.
func TestRelayTick(t *testing.T) {
	bubbleOf(t, "rita mid lena", func(w *world, p map[string]*person) {
		w.tree("rita >> mid", "mid >> lena")
		w.plans["mid"].Path = []overlay.Short{identity.ShortID(p["rita"].key.ID()), identity.ShortID(p["mid"].key.ID())}
		w.plans["mid"].Level = 1
		w.plan()
		time.Sleep(2 * time.Second)
		u := p["lena"].pulseOf(p["mid"])
		if now := uint64(time.Now().UnixMilli() / 20); now-u.Tick > 40 || u.Level != 1 || len(u.Path) != 2 {
			t.Errorf("%+v at %d", u, now)
		}
		w.cut(p["rita"])
		time.Sleep(time.Second)
		before := p["lena"].pulseOf(p["mid"]).Tick
		time.Sleep(time.Second)
		if after := p["lena"].pulseOf(p["mid"]).Tick; after != before {
			t.Errorf("went on from %d to %d by itself", before, after)
		}
	})
}

// While media flows, heartbeats to children travel with it.
func TestRelayHeartbeatsCostNoDatagram(t *testing.T) {
	bubbleOf(t, "ana rita lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "rita >> lena")
		w.talk(time.Second, p["ana"])
		alone, beats := 0, 0
		w.onWire(func(from, to *person, b []byte) [][]byte {
			if from == p["rita"] && to == p["lena"] {
				u, _ := media.Parse(b)
				frames, records := 0, 0
				for e := (media.Entry{}); u.Next(&e); {
					switch e.Kind {
					case media.Frame:
						frames++
					case media.Record:
						records++
					}
				}
				beats += records
				if frames == 0 && records > 0 {
					alone++
				}
			}
			return [][]byte{b}
		})
		w.talk(4*time.Second, p["ana"])
		synctest.Wait()
		if beats < 20 || alone > 5 { // answers to pings do not wait
			t.Errorf("%d records, %d in bundles without a frame", beats, alone)
		}
	})
}

// A child that has nothing to say but that it lives says so when its relay has just spoken to it, so that a relay of many
// is woken once for all; when nothing comes it says so by the clock.
func TestRelayChildBeatsWithItsParent(t *testing.T) {
	bubbleOf(t, "ana rita lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "rita >> lena")
		time.Sleep(time.Second)
		var down, up time.Time // the last bundle of either side
		var longest time.Duration
		beats, deaf := 0, false
		w.onWire(func(from, to *person, b []byte) [][]byte {
			switch now := time.Now(); {
			case from == p["rita"] && to == p["lena"]:
				if down = now; deaf {
					return nil
				}
			case from == p["lena"] && to == p["rita"]:
				if after := now.Sub(down); !deaf && after > 50*time.Millisecond {
					t.Errorf("a bundle %v after one of the relay", after)
				}
				if !up.IsZero() {
					longest = max(longest, now.Sub(up))
				}
				up = now
				beats++
			}
			return [][]byte{b}
		})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if beats < 20 || beats > 28 || longest > 650*time.Millisecond {
			t.Errorf("silence: %d bundles, at the most %v apart", beats, longest)
		}
		beats = 0
		w.talk(10*time.Second, p["ana"])
		synctest.Wait()
		if beats < 20 || beats > 28 || longest > 650*time.Millisecond {
			t.Errorf("speech: %d bundles, at the most %v apart", beats, longest)
		}
		beats, deaf = 0, true
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if beats < 12 || beats > 30 || longest > 750*time.Millisecond {
			t.Errorf("nothing comes: %d bundles, at the most %v apart", beats, longest)
		}
	})
}

// While muted nothing of a relay's own microphone leaves: not from the bundle that waits for others, not again on
// request.
func TestRelayMuted(t *testing.T) {
	bubbleOf(t, "ana rita rob lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "ana > rob", "rita = rob", "rita >> lena", "rob >> lena")
		w.set(func() { w.loss = 0.05 })
		for range 20 {
			w.talk(200*time.Millisecond, p["ana"], p["rita"])
			p["ana"].say()
			synctest.Wait()
			p["rita"].say() // waits for nobody, or for ana's next
			time.Sleep(media.Tick)
			p["rita"].say() // waits for ana, who was heard lately
			synctest.Wait()
			p["rita"].send = false
			w.tell(p["rita"])
			mine := 0
			w.set(func() {
				w.tap = func(from, _ *person, b []byte) [][]byte {
					u, _ := media.Parse(b)
					for e := (media.Entry{}); u.Next(&e); {
						if from == p["rita"] && e.Kind == media.Frame && e.Source == p["rita"].id() {
							mine++
						}
					}
					return [][]byte{b}
				}
			})
			w.talk(100*time.Millisecond, p["rita"], p["ana"])
			synctest.Wait()
			if mine != 0 {
				t.Fatalf("%d frames left while muted", mine)
			}
			w.set(func() { w.tap = nil })
			p["rita"].send = true
			w.plan()
		}
		w.set(func() { w.loss = 0 })
		p["rita"].said = nil
		p["lena"].ear.forget()
		w.talk(time.Second, p["rita"])
		w.settle()
		w.hears(p["lena"], p["rita"])
	})
}
