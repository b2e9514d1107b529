package overlay

import (
	"flag"
	"testing"
	"time"
)

var simSeed = flag.Uint64("seed", 1, "seed of the simulations")

// talkRoom is a host with two more speakers, relays that do not speak, and listeners.
func talkRoom(t *testing.T, relays, slots, listeners int) *sim {
	w := newSim(t, *simSeed)
	for range 3 {
		w.add(0, true)
	}
	w.talks = true
	for range relays {
		w.add(slots, false)
	}
	for i := range listeners {
		w.after(time.Duration(i*10)*time.Millisecond, func() { w.add(0, false) })
	}
	w.run(time.Duration(listeners*10)*time.Millisecond + 5*time.Second)
	return w
}

// reset begins to measure.
func (w *sim) reset() {
	for _, n := range w.nodes {
		clear(n.gap)
		clear(n.count)
		n.moves = 0
	}
}

// settle counts what has not come since then as a gap up to now.
func (w *sim) worst() (gap time.Duration, who *simNode) {
	for _, n := range w.nodes {
		if !n.alive {
			continue
		}
		for _, s := range w.nodes {
			if !s.speaks || !s.alive || s == n {
				continue
			}
			g := max(n.gap[s.i], w.now().Sub(n.lastAt[s.i]))
			if g > gap {
				gap, who = g, n
			}
		}
	}
	return gap, who
}

func TestTwoHundredHearEveryFrame(t *testing.T) {
	w := talkRoom(t, 5, 110, 200)
	w.reset()
	before := w.frames
	var sent [3]int32
	for i := range sent {
		sent[i] = w.nodes[i].ctr
	}
	w.run(10 * time.Second)
	w.talks = false
	w.run(time.Second)
	want := int64(0)
	for i, s := range w.nodes[:3] {
		want += int64(s.ctr-sent[i]) * int64(len(w.nodes)-1)
		for _, n := range w.nodes {
			if n != s && n.count[s.i] < int64(s.ctr-sent[i]) {
				t.Errorf("node %d has %d of %d frames of %d", n.i, n.count[s.i], s.ctr-sent[i], i)
			}
		}
	}
	t.Logf("%d frames delivered, %d sent to all (and those under way at the start)", w.frames-before, want)
	core := 0
	for _, n := range w.nodes {
		if n.o.Plan().Core {
			core++
			t.Logf("core %d: %d children", n.i, len(n.o.kids))
		}
	}
	if core != 3 {
		t.Errorf("core of %d", core)
	}
}
