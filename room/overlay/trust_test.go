package overlay

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

// longerWay is the gap of a frame that comes by up to three links of 40 ms after one that came by one of 5 ms: nothing is
// lost.
const longerWay = 20*time.Millisecond + 3*40*time.Millisecond

// Six people are a mesh; the seventh makes it a core; at four it is a mesh again. Nobody misses more than a frame or two.
func TestMeshToCoreAndBack(t *testing.T) {
	w := newSim(t, *simSeed)
	w.talks = true
	for i := range 6 {
		w.add(40, i < 3)
	}
	w.run(3 * time.Second)
	for _, n := range w.nodes {
		if pl := n.o.Plan(); len(pl.Up) != 5 || len(pl.Feeds) != 0 {
			t.Fatalf("node %d in the mesh sends to %d, forwards to %d", n.i, len(pl.Up), len(pl.Feeds))
		}
	}
	w.run(time.Second)
	w.reset()
	late := []*simNode{w.add(40, false), w.add(40, false)}
	w.run(30 * time.Second)
	for _, n := range w.nodes {
		if n.o.meshMode() || len(n.o.mesh) > 0 {
			t.Errorf("node %d still has %d neighbours in the core, mesh %v", n.i, len(n.o.mesh), n.o.meshMode())
		}
	}
	if gap, n := w.worst(); gap > longerWay {
		t.Errorf("mesh to core: a gap of %v at %d\n%s", gap, n.i, w.tell(n))
	}
	for _, n := range append(late, w.nodes[4], w.nodes[5]) {
		n.o.Step(Quit{}, w.now())
	}
	w.run(time.Second)
	for _, n := range append(late, w.nodes[4], w.nodes[5]) {
		n.kill()
	}
	w.run(2 * time.Second)
	w.reset()
	w.run(110 * time.Second)
	for _, n := range w.nodes[:4] {
		if pl := n.o.Plan(); !n.o.meshMode() || len(pl.Up) != 3 || len(pl.Feeds) != 0 || len(n.o.parents) != 0 {
			t.Errorf("node %d back in the mesh: up %d, feeds %+v, parents %d", n.i, len(pl.Up), pl.Feeds, len(n.o.parents))
		}
	}
	if gap, n := w.worst(); gap > longerWay {
		t.Errorf("core to mesh: a gap of %v at %d\n%s", gap, n.i, w.tell(n))
	}
}

// Two who cannot reach each other hear by a third.
func TestAssistInTheMesh(t *testing.T) {
	w := newSim(t, *simSeed)
	w.talks = true
	w.block[[2]int32{0, 1}] = true
	for range 3 {
		w.add(10, true)
	}
	w.run(8 * time.Second)
	w.reset()
	w.run(10 * time.Second)
	if gap, n := w.worst(); gap > 100*time.Millisecond {
		t.Errorf("a gap of %v at %d", gap, n.i)
	}
	if f := w.nodes[2].o.Plan().Feeds; len(f) != 2 || f[0].Mode != Assist || len(f[0].Only) != 1 {
		t.Errorf("the third forwards %+v", f)
	}
	delete(w.block, [2]int32{0, 1})
	w.run(20 * time.Second)
	if f := w.nodes[2].o.Plan().Feeds; len(f) != 0 {
		t.Errorf("linked at last, and the third still forwards %+v", f)
	}
}

// Trust 57: a kicked listener, pass or not, among two hundred: no relay takes it, and those that have it let it go.
func TestKickedListenerIsTakenByNobody(t *testing.T) {
	w := talkRoom(t, 5, 110, 200)
	bad := w.nodes[len(w.nodes)-1]
	w.state.Removed[bad.id] = room.OpID{1}
	w.reset()
	w.run(time.Second)
	count := bad.count[0]
	w.run(30 * time.Second)
	if bad.count[0] != count {
		t.Errorf("%d frames after a second", bad.count[0]-count)
	}
	tried := 0
	for _, n := range w.nodes {
		tried += n.refused
		if n.o.kids[bad.id] != nil || n.links[bad.id] {
			t.Errorf("node %d holds it", n.i)
		}
	}
	t.Logf("%d JOINs refused", tried)
}

// Trust 60: a relay that lost its parents asks those below it: they refuse; and one that says yes in spite of it is left.
func TestNoLoop(t *testing.T) {
	w := newSim(t, *simSeed)
	me, below, now := simKey(t, 1, 1).ID(), simKey(t, 1, 2).ID(), simStart
	o := New(Config{Me: below, Room: w.state.Room})
	o.Step(Situation{Slots: 10}, now)
	o.Step(Leased{w.leaseOf(t, me)}, now)
	o.Step(Linked{me}, now)
	mine := shortOf(me)
	o.Step(Got{Peer: me, Record: &wire.LinkRecord{Record: &wire.LinkRecord_Admit{Admit: &wire.JoinAnswer{
		Mode: uint32(Single), Path: [][]byte{mine[:]},
	}}}}, now)
	if len(o.Parents()) != 1 {
		t.Fatal("not admitted")
	}
	join := Got{Peer: me, Record: &wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: &wire.Join{Room: w.state.Room[:], Mode: uint32(Single)}}}}
	busy := false
	for _, a := range o.Step(join, now) {
		if tl, ok := a.(Tell); ok {
			busy = busy || tl.Record.GetBusy() != nil
			if tl.Record.GetAdmit() != nil {
				t.Error("a parent was admitted as a child")
			}
		}
	}
	if !busy || o.kids[me] != nil {
		t.Error("a parent that asks to be a child was not refused")
	}
	// A child that is not named in the path it tells, and one whose path shows me later.
	for _, path := range [][]peer.ID{{below, me}, {me}, {}} {
		var raw [][]byte
		for _, p := range path {
			s := shortOf(p)
			raw = append(raw, s[:])
		}
		q := New(Config{Me: below, Room: w.state.Room})
		q.Step(Situation{Slots: 10}, now)
		q.Step(Leased{w.leaseOf(t, me)}, now)
		q.Step(Linked{me}, now)
		q.Step(Got{Peer: me, Record: &wire.LinkRecord{Record: &wire.LinkRecord_Admit{Admit: &wire.JoinAnswer{Mode: 1, Path: raw}}}}, now)
		want := 0
		if len(path) == 1 {
			want = 1
		}
		if len(q.Parents()) != want {
			t.Errorf("path %v: %d parents", path, len(q.Parents()))
		}
	}
	// One that hides the loop: its tick stands still.
	at := now
	for range 12 {
		at = at.Add(100 * time.Millisecond)
		o.Step(nil, at, Pulse{Peer: me, Last: at, Tick: 5, Path: [][]byte{mine[:]}})
	}
	if len(o.Parents()) != 0 {
		t.Error("a parent whose tick stands still is kept")
	}
}

// Trust 61: chair, lease and the whole core gone at once.
func TestAllGoneAtOnce(t *testing.T) {
	w := newSim(t, *simSeed)
	w.add(110, false)
	w.talks = true
	for range 3 {
		w.add(0, true)
	}
	for range 5 {
		w.add(110, false)
	}
	for range 100 {
		w.add(0, false)
	}
	w.run(20 * time.Second)
	w.reset()
	dead := 0
	for i, n := range w.nodes {
		if i == 0 || n.o.Plan().Core {
			n.kill()
			dead++
		}
	}
	w.run(10 * time.Second)
	gap, n := w.worst()
	t.Logf("%d killed, longest gap %v", dead, gap)
	if gap > 5*time.Second {
		t.Errorf("%v without audio at %d\n%s", gap, n.i, w.tell(n))
	}
}

// Trust 62 in small: a thousand come within a minute, and the core alone cannot hold them.
func TestThousandJoin(t *testing.T) {
	w := newSim(t, *simSeed)
	for range 3 {
		w.add(0, true)
	}
	w.talks = true
	for range 3 {
		w.add(150, false)
	}
	for range 5 {
		w.add(0, false)
	}
	w.run(5 * time.Second)
	for i := range 1000 {
		slots := 0
		if i%10 == 0 {
			slots = 20
		}
		w.after(time.Duration(w.rng.IntN(15_000))*time.Millisecond, func() { w.add(slots, false) })
	}
	w.run(25 * time.Second)
	deaf, worst, deepest := 0, time.Duration(0), uint32(0)
	for _, n := range w.nodes[11:] {
		for s := range int32(3) {
			if n.count[s] == 0 {
				deaf++
			}
		}
		worst = max(worst, n.first)
		deepest = max(deepest, n.o.level())
	}
	t.Logf("%d do not hear; first frame after at most %v; deepest level %d", deaf, worst, deepest)
	if deaf > 0 || worst > 5*time.Second {
		t.Errorf("%d deaf, first frame after %v", deaf, worst)
	}
}

// A thousand joins and leaves leave nothing behind.
func TestChurnLeavesNothing(t *testing.T) {
	w := talkRoom(t, 3, 60, 20)
	size := func() (n int) {
		for _, m := range w.nodes[:6] {
			o := m.o
			n += len(o.links) + len(o.pending) + len(o.parents) + len(o.kids) + len(o.mesh) + len(o.former) + len(o.peers) + len(o.helpers) + len(o.helped) + len(o.hints) + len(o.found)
			if len(o.known) > maxKnown {
				t.Errorf("%d failures remembered", len(o.known))
			}
		}
		return n
	}
	before := size()
	for i := range 1000 {
		n := w.nodes[6+i%20]
		if n.alive {
			n.leave()
		} else {
			n.start()
		}
		w.run(50 * time.Millisecond)
	}
	for _, n := range w.nodes {
		if !n.alive {
			n.start()
		}
	}
	w.run(15 * time.Second)
	runtime.GC()
	if after := size(); after > before+10 {
		t.Errorf("state of %d before, %d after", before, after)
	}
	w.reset()
	w.run(2 * time.Second)
	if gap, n := w.worst(); gap > 100*time.Millisecond {
		t.Errorf("a gap of %v at %d\n%s", gap, n.i, w.tell(n))
	}
}

// Who cannot reach the core is served by the mesh that was there before.
func TestMeshServesWhoHasNoCore(t *testing.T) {
	w := newSim(t, *simSeed)
	w.talks = true
	for _, relay := range []int32{3, 4, 6, 7} {
		w.block[[2]int32{min(5, relay), max(5, relay)}] = true
	}
	for i := range 6 {
		slots := 40
		if i < 3 || i == 5 {
			slots = 0
		}
		w.add(slots, i < 3)
	}
	w.run(5 * time.Second)
	w.add(40, false)
	w.add(40, false)
	w.run(3 * time.Second)
	w.reset()
	w.run(60 * time.Second)
	if w.nodes[5].o.meshMode() || len(w.nodes[5].o.Parents()) > 0 {
		t.Fatal("the node reaches a core, or there is none")
	}
	for s := range int32(3) {
		if gap := max(w.nodes[5].gap[s], w.now().Sub(w.nodes[5].lastAt[s])); gap > 100*time.Millisecond {
			t.Errorf("a gap of %v from speaker %d", gap, s)
		}
	}
}

// A relay tells the reason to whom it refuses, and lets go of a child that was removed.
func TestRefusedByReason(t *testing.T) {
	w := newSim(t, *simSeed)
	me, other, now := simKey(t, 1, 1).ID(), simKey(t, 1, 2).ID(), simStart
	for _, reason := range []room.Reason{room.Removed, room.Expired, room.Banned, 0} {
		o := New(Config{Me: me, Room: w.state.Room})
		o.Step(Situation{Slots: 10}, now)
		o.Step(Leased{w.leaseOf(t, me)}, now)
		o.Step(Linked{other}, now)
		join := &wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: &wire.Join{Room: w.state.Room[:], Mode: uint32(Single)}}}
		var told room.Reason
		for _, a := range o.Step(Got{Peer: other, Record: join, Refused: reason}, now) {
			if tl, ok := a.(Tell); ok {
				told = room.Reason(tl.Record.GetClose().GetReason())
			}
		}
		if feeds := o.Plan().Feeds; told != reason || (reason == 0) != (len(feeds) == 1) {
			t.Errorf("%v: told %v, feeds %v", reason, told, feeds)
		}
		o.Step(Situation{Slots: 10, Removed: map[Short]bool{shortOf(other): true}}, now)
		if pl := o.Plan(); len(pl.Feeds) > 0 || len(pl.Links) > 0 {
			t.Errorf("removed, and still %+v", pl)
		}
	}
}

// A silent member of the core is told to be dead by the others, and its link is opened anew.
func TestSilentEqualIsCut(t *testing.T) {
	w := newSim(t, *simSeed)
	w.talks = true
	for range 3 {
		w.add(0, true)
	}
	for range 6 {
		w.add(40, false)
	}
	w.run(10 * time.Second)
	var core []*simNode
	for _, n := range w.nodes {
		if n.o.Plan().Core {
			core = append(core, n)
		}
	}
	if len(core) < 2 {
		t.Fatalf("core of %d", len(core))
	}
	o, p, now := core[0].o, core[1].id, w.now()
	dead := false
	for range 40 {
		now = now.Add(50 * time.Millisecond)
		for _, a := range o.Step(nil, now) {
			if d, ok := a.(Dead); ok && d.Peer == p {
				dead = true
			}
		}
	}
	if _, open := o.links[p]; !dead || open {
		t.Errorf("dead %v, link open %v", dead, open)
	}
	if pl := o.Plan(); !slices.Contains(pl.Links, p) {
		t.Error("its link is not opened again")
	}
}

// A node that only carries while the lease names it looks for no parent and sends who asks to the core.
func TestCoreOnlyIsIdle(t *testing.T) {
	w := newSim(t, *simSeed)
	core, me, other, now := simKey(t, 1, 1).ID(), simKey(t, 1, 2).ID(), simKey(t, 1, 3).ID(), simStart
	for _, only := range []bool{true, false} {
		o := New(Config{Me: me, Room: w.state.Room})
		o.Step(Situation{Slots: 10, Stage: []peer.ID{core, other}, CoreOnly: only}, now)
		lost := len(o.Plan().Dial) > 0
		lease := w.leaseOf(t, core)
		o.Step(Leased{lease}, now)
		for range 100 {
			now = now.Add(50 * time.Millisecond)
			o.Step(nil, now)
			lost = lost || len(o.Plan().Dial) > 0
		}
		if lost == only {
			t.Errorf("core only %v, and looked for a parent: %v", only, lost)
		}
		o.Step(Linked{other}, now)
		join := &wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: &wire.Join{Room: w.state.Room[:], Mode: uint32(Single)}}}
		redirected := false
		for _, a := range o.Step(Got{Peer: other, Record: join}, now) {
			if tl, ok := a.(Tell); ok {
				r := tl.Record.GetRedirect()
				redirected = len(r.GetAds()) == 1 && r.GetLease() == lease.Signed
			}
		}
		if !redirected {
			t.Error("a JOIN is not sent to the core")
		}
	}
}

// A lease is heard from whom I asked for a place; a stranger's word is not even judged.
func TestLeaseOfAStranger(t *testing.T) {
	w := newSim(t, *simSeed)
	core, me, other, now := simKey(t, 1, 1).ID(), simKey(t, 1, 2).ID(), simKey(t, 1, 3).ID(), simStart
	o := New(Config{Me: me, Room: w.state.Room})
	o.Step(Situation{Stage: []peer.ID{core}}, now)
	lease := w.leaseOf(t, core)
	told := &wire.LinkRecord{Record: &wire.LinkRecord_Lease{Lease: lease.Signed}}
	learns := func(p peer.ID) bool {
		o.Step(Linked{p}, now)
		return slices.ContainsFunc(o.Step(Got{Peer: p, Record: told}, now), func(a Action) bool { _, ok := a.(Learn); return ok })
	}
	if learns(other) {
		t.Error("a stranger's lease is judged")
	}
	o.Step(Leased{lease}, now)
	if o.Step(nil, now); o.parents[core] == nil || !learns(core) {
		t.Error("the lease of whom I asked is not judged")
	}
}
