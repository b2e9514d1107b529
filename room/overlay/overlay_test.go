package overlay

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room/election"
	"balai/room/wire"
	"balai/test/seeded"
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
	w.measured = w.now().Add(-3 * time.Second)
	for _, n := range w.nodes {
		clear(n.gap)
		clear(n.count)
		n.moves = 0
	}
}

// worst is the longest time that somebody did not hear a speaker since reset, up to now.
func (w *sim) worst() (gap time.Duration, who *simNode) {
	for _, n := range w.nodes {
		if !n.alive || n.since.After(w.measured) { // newcomers are joining
			continue
		}
		for _, s := range w.nodes {
			if !s.speaks || !s.alive || s == n {
				continue
			}
			last, ok := n.lastAt[s.i]
			if !ok {
				last = n.since
			}
			g := max(n.gap[s.i], w.now().Sub(last))
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
	w.countedOnce()
}

// countedOnce fails for those below the core whom not exactly one parent counts.
func (w *sim) countedOnce() {
	w.t.Helper()
	by := map[peer.ID]int{}
	for _, n := range w.nodes {
		if n.alive {
			for _, f := range n.o.Plan().Feeds {
				if f.Counted {
					by[f.Peer]++
				}
			}
		}
	}
	for _, n := range w.nodes {
		if n.alive && !n.o.Plan().Core && by[n.id] != 1 {
			w.t.Errorf("node %d counts with %d parents: %+v", n.i, by[n.id], n.o.Parents())
		}
	}
}

// A relay in use is killed at a random moment, again and again, and comes back as a new process some seconds later.
func TestRelayKilledAgainAndAgain(t *testing.T) {
	w := talkRoom(t, 6, 120, 100)
	var all []time.Duration
	for range seeded.Count(30, 100) {
		w.reset()
		w.run(time.Duration(1000+w.rng.IntN(2000)) * time.Millisecond)
		if gap, n := w.worst(); gap > 600*time.Millisecond {
			t.Fatalf("a gap of %v at %d with nobody killed; since %v now %v\n%s", gap, n.i, n.since.Sub(simStart), w.now().Sub(simStart), w.tell(n))
		}
		var core []*simNode
		for _, n := range w.nodes {
			if n.alive && n.o.Plan().Core {
				core = append(core, n)
			}
		}
		victim := core[w.rng.IntN(len(core))]
		w.reset()
		victim.kill()
		w.run(2 * time.Second)
		gap, n := w.worst()
		if gap > time.Second {
			t.Errorf("relay %d killed: %v without audio at %d, parents %+v", victim.i, gap, n.i, n.o.Parents())
		}
		all = append(all, gap)
		w.after(time.Duration(2000+w.rng.IntN(4000))*time.Millisecond, victim.start)
	}
	w.run(10 * time.Second)
	w.countedOnce()
	slices.Sort(all)
	t.Logf("longest gap of anybody at a kill: median %v, most %v, of %d", all[len(all)/2], all[len(all)-1], len(all))
}

// The chair does not carry audio: when it dies, nobody changes a parent.
func TestChairKilled(t *testing.T) {
	w := talkRoom(t, 5, 110, 200)
	w.state.Moderators = append(w.state.Moderators, w.nodes[1].id)
	w.run(10 * time.Second) // who came last has chosen its silent parent
	w.reset()
	w.nodes[0].kill()
	w.run(60 * time.Second)
	for _, n := range w.nodes[1:] {
		if n.moves > 0 {
			t.Errorf("node %d changed its parents %d times", n.i, n.moves)
		}
	}
	if gap, n := w.worst(); gap > 500*time.Millisecond {
		t.Errorf("a gap of %v at %d", gap, n.i)
	}
	if l := w.nodes[150].force.Lease(); l.By != w.nodes[1].id {
		t.Errorf("a listener follows the lease of %v", w.byID[l.By].i)
	}
}

func TestRelayAndChairInOneKilled(t *testing.T) {
	w := newSim(t, *simSeed)
	host := w.add(110, false)
	w.talks = true
	for range 3 {
		w.add(0, true)
	}
	other := w.add(110, false)
	for range 60 {
		w.add(0, false)
	}
	w.run(20 * time.Second)
	if !host.o.Plan().Core || host.leader() != host.id || len(host.o.kids) == 0 {
		t.Fatalf("the host is not relay and chair: %+v", host.force.Lease())
	}
	w.reset()
	host.kill()
	w.run(20 * time.Second)
	gap, n := w.worst()
	t.Logf("longest gap %v", gap)
	if gap > 2*time.Second {
		t.Errorf("%v without audio at %d", gap, n.i)
	}
	if l := other.force.Lease(); l.Holds(host.id) || !l.Holds(other.id) || l.By != w.nodes[1].id {
		t.Errorf("core %v by %d", l.Core(), w.byID[l.By].i)
	}
}

// tell shows a node, for a failure.
func (w *sim) tell(n *simNode) string {
	b := fmt.Sprintf("core %v, %d children, %d links, last %v\n", n.o.Plan().Core, len(n.o.kids), len(n.links), w.now().Sub(n.lastAt[0]))
	if n.o.lease != nil {
		for _, p := range n.o.lease.Core() {
			b += fmt.Sprintf("core member %d\n", w.byID[p].i)
		}
	}
	for p, e := range n.o.peers {
		b += fmt.Sprintf("equal %d: linked %v, silent for %v, its feeds %d\n", w.byID[p].i, e.missed.IsZero(), w.now().Sub(e.last), len(w.byID[p].o.Plan().Feeds))
	}
	for p, a := range n.o.parents {
		b += fmt.Sprintf("parent %d: held %v mode %d suspect %v age %v\n", w.byID[p].i, a.held, a.mode, a.suspect(), w.now().Sub(a.began))
	}
	for p, f := range n.o.known {
		b += fmt.Sprintf("failed %d: again in %v\n", w.byID[p].i, f.next.Sub(w.now()))
	}
	for _, s := range w.nodes[:4] {
		b += fmt.Sprintf("speaker %d -> %d: ", s.i, n.i)
		for _, p := range s.o.Parents() {
			b += fmt.Sprintf("%d/%d/%v ", w.byID[p.Peer].i, p.Mode, p.Suspect)
		}
		b += "\n"
	}
	return b
}

// A silent child that asks for frames where all places are taken is told of the children that would relay: with silent
// parents enough it asks nobody else, and would hear nothing.
func TestASilentChildIsSentBelow(t *testing.T) {
	w := newSim(t, *simSeed)
	me, relay, now := simKey(t, 1, 1).ID(), simKey(t, 1, 2), simStart
	silent := simKey(t, 1, 3).ID()
	ad := election.Ad{Room: w.state.Room, Seq: 1, Reach: election.ReachPublic, Cap: 6_000, Slots: 40, Issued: now}.Sign(relay)
	o := New(Config{Me: me, Room: w.state.Room})
	o.Step(Situation{Slots: 1}, now)
	o.Step(Leased{w.leaseOf(t, me)}, now)
	tell := func(from peer.ID, r *wire.LinkRecord) (answers []*wire.LinkRecord) {
		for _, a := range o.Step(Got{Peer: from, Record: r}, now) {
			if tl, ok := a.(Tell); ok && tl.Peer == from {
				answers = append(answers, tl.Record)
			}
		}
		return answers
	}
	for _, c := range []struct {
		id   peer.ID
		join *wire.Join
	}{
		{relay.ID(), &wire.Join{Room: w.state.Room[:], Mode: uint32(Single), Ad: ad}},
		{silent, &wire.Join{Room: w.state.Room[:], Mode: uint32(Warm)}},
	} {
		o.Step(Linked{c.id}, now)
		if got := tell(c.id, &wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: c.join}}); len(got) != 1 || got[0].GetAdmit() == nil {
			t.Fatalf("not admitted: %v", got)
		}
	}
	got := tell(silent, &wire.LinkRecord{Record: &wire.LinkRecord_Feed{Feed: &wire.Feed{Mode: uint32(Single)}}})
	if len(got) != 1 || len(got[0].GetBusy().GetAds()) != 1 || !proto.Equal(got[0].GetBusy().Ads[0], ad) {
		t.Errorf("answered %v", got)
	}
	if k := o.kids[silent]; k == nil || k.mode != Warm {
		t.Error("the silent child was not kept as it was")
	}
}
