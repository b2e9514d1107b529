package overlay

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/wire"
)

// childOf is an overlay that knows a core, linked with all of it.
func childOf(t *testing.T, core ...peer.ID) (o *Overlay, now time.Time) {
	w := newSim(t, *simSeed)
	o, now = New(Config{Me: simKey(t, 1, 9).ID(), Room: w.state.Room}), simStart
	o.Step(Situation{}, now)
	o.Step(Leased{w.leaseOf(t, core[0])}, now)
	for _, p := range core {
		o.Step(Linked{p}, now)
	}
	return o, now
}

func admits(o *Overlay, p peer.ID, mode Mode, now time.Time) {
	short := shortOf(p)
	o.Step(Got{Peer: p, Record: &wire.LinkRecord{Record: &wire.LinkRecord_Admit{Admit: &wire.JoinAnswer{Mode: uint32(mode), Path: [][]byte{short[:]}}}}}, now)
}

// Where relays fall silent again and again because all is slow, nobody goes from one to the next each time.
func TestSlowRelaysAreKept(t *testing.T) {
	w := talkRoom(t, 4, 110, 60)
	stalls := func() (given int) {
		for range 10 {
			w.still = true
			w.run(1300 * time.Millisecond)
			w.still = false
			w.run(1200 * time.Millisecond)
		}
		for _, n := range w.nodes {
			given += n.given
			n.given = 0
		}
		return given
	}
	first, then := stalls(), stalls()
	t.Logf("%d parents given up in ten stalls, %d in the ten after", first, then)
	if listeners := 60; first > 8*listeners || then > 7*listeners { // by whom each stall moves twice: 900 in ten
		t.Errorf("%d listeners gave up so many", listeners)
	}
	w.run(calmAfter + 5*time.Second)
	w.reset()
	for _, n := range w.nodes {
		if n.o.Plan().Core && !n.speaks {
			n.kill()
			break
		}
	}
	w.run(5 * time.Second)
	if gap, who := w.worst(); gap > 3*time.Second {
		t.Errorf("after a quiet time a relay that died was missed for %v by %d", gap, who.i)
	}
}

// Who stood still has not been looking: nobody is given up for that.
func TestWhoStoodStillBlamesNobody(t *testing.T) {
	only := simKey(t, 1, 1).ID()
	o, now := childOf(t, only)
	admits(o, only, Single, now)
	for range 3 {
		now = now.Add(200 * time.Millisecond)
		o.Step(nil, now, Pulse{Peer: only, Last: now, Tick: uint64(now.UnixMilli())})
	}
	now = now.Add(5 * time.Second)
	o.Step(nil, now)
	if len(o.Parents()) != 1 {
		t.Error("a parent was given up for what was not looked at")
	}
	for range 20 {
		now = now.Add(100 * time.Millisecond)
		o.Step(nil, now)
	}
	if slices.ContainsFunc(o.Parents(), func(p Parent) bool { return p.Mode.active() }) {
		t.Error("a parent that stays silent was kept")
	}
}

// Who stands still each time looks at them for all that, in the end.
func TestStandingStillIsNotForgivenForEver(t *testing.T) {
	only := simKey(t, 1, 1).ID()
	o, now := childOf(t, only)
	admits(o, only, Single, now)
	for range 2 * maxStood {
		now = now.Add(stoodStill)
		o.Step(nil, now)
	}
	if slices.ContainsFunc(o.Parents(), func(p Parent) bool { return p.Peer == only && p.Mode.active() && !p.Suspect }) {
		t.Error("a parent that stays silent is not doubted")
	}
}

// One that fails again and again makes no more patient with the others than if it had failed once.
func TestOneThatFailsAgainAndAgain(t *testing.T) {
	only := simKey(t, 1, 1).ID()
	o, now := childOf(t, only)
	for range 5 {
		now = now.Add(3 * time.Second)
		o.Step(nil, now)
		o.gaveUp(only)
	}
	if o.patience() != 2 {
		t.Errorf("patience is %d", o.patience())
	}
	o.now = now.Add(time.Second)
	if o.gaveUp(simKey(t, 1, 2).ID()); o.patience() != 4 {
		t.Errorf("after another patience is %d", o.patience())
	}
	o.now = o.now.Add(calmAfter)
	if o.patience() != 1 {
		t.Errorf("when all is calm patience is %d", o.patience())
	}
}

// Who did not answer in time gets longer the next time: else nobody who is slow would ever be heard out.
func TestTheSlowAreHeardOut(t *testing.T) {
	only := simKey(t, 1, 1).ID()
	o, now := childOf(t, only)
	var asked time.Time
	var took []time.Duration
	for range 1000 {
		now = now.Add(50 * time.Millisecond)
		o.Step(Linked{only}, now)
		p := o.parents[only]
		switch {
		case p != nil && asked.IsZero():
			asked = now
		case p == nil && !asked.IsZero():
			took, asked = append(took, now.Sub(asked)), time.Time{}
		}
	}
	if len(took) < 5 || took[0] > answerEnds+100*time.Millisecond || took[4] < 8*answerEnds-100*time.Millisecond || took[4] > 8*answerEnds+100*time.Millisecond {
		t.Errorf("waited %v for answers", took)
	}
}

// One of two parents in doubt is no reason to ask a third before it is known what becomes of it, nor are both at once.
func TestADoubtAsksNobodyElse(t *testing.T) {
	for _, both := range []bool{false, true} {
		w := talkRoom(t, 4, 110, 60)
		n := w.nodes[len(w.nodes)-1]
		now := w.now().Add(100 * time.Millisecond)
		for _, p := range n.o.parents {
			p.last, p.ticked = now, now
			if both || p.mode.active() {
				p.last = now.Add(-missedBeats * heartbeat)
			}
		}
		n.o.Step(nil, now)
		if len(n.o.parents) != 2 {
			t.Errorf("both %t: a third is asked", both)
		}
	}
}

// A child that nobody answers asks ever more rarely, and is quick again once somebody did.
func TestAsksInVainAreSpaced(t *testing.T) {
	w := talkRoom(t, 4, 110, 60)
	n := w.nodes[len(w.nodes)-1]
	o, now := n.o, w.now()
	asks := func(d time.Duration) (begun int) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(50 * time.Millisecond)
			o.Step(nil, now)
			for p, a := range o.parents {
				if begun++; a.began.Before(now) {
					begun--
				}
				if !a.held && now.Sub(a.began) >= 100*time.Millisecond {
					o.Step(Unlinked{p}, now) // nobody there
				}
			}
		}
		return begun
	}
	for p := range o.parents {
		o.Step(Unlinked{p}, now)
	}
	var all []peer.ID
	for _, m := range w.nodes {
		all = append(all, m.id)
	}
	o.Step(Found{Peers: all}, now)
	first := asks(2 * time.Second)
	asks(10 * time.Second)
	then := asks(16 * time.Second)
	if first < 4 || then < 2 || then > 6 {
		t.Errorf("asked %d in the first two seconds, later %d in sixteen", first, then)
	}
	var p peer.ID
	for p == "" {
		asks(50 * time.Millisecond)
		for id := range o.parents {
			p = id
		}
	}
	o.Step(Linked{p}, now)
	admits(o, p, Single, now)
	if o.pace() != joinPatience {
		t.Error("it is not quick again")
	}
}

// One of the core that does not answer once is not objected to; the second time it is.
func TestOneSilenceIsNoObjection(t *testing.T) {
	only := simKey(t, 1, 1).ID()
	o, now := childOf(t, only)
	var objected []int
	asked := len(o.parents)
	for range 200 {
		now = now.Add(50 * time.Millisecond)
		was := o.parents[only] != nil
		out := o.Step(Linked{only}, now)
		if !was && o.parents[only] != nil {
			asked++
		}
		if slices.Contains(out, Action(Dead{only})) {
			objected = append(objected, asked)
		}
	}
	if len(objected) == 0 || objected[0] != 2 {
		t.Errorf("objections after these attempts: %v", objected)
	}
}

// Of those in the core, too, each that fell silent lately makes more patient with the next.
func TestPatienceInTheCore(t *testing.T) {
	w := talkRoom(t, 4, 110, 60)
	n := w.nodes[slices.IndexFunc(w.nodes, func(n *simNode) bool { return n.o.Plan().Core })]
	o, now := n.o, w.now()
	silence := func() (d time.Duration) {
		began := now
		for p := range o.peers {
			o.Step(Linked{p}, now)
			o.peers[p].last, o.peers[p].cut = now, time.Time{}
		}
		for ; d < 20*time.Second; d = now.Sub(began) {
			now = now.Add(100 * time.Millisecond)
			for _, a := range o.Step(nil, now) {
				if _, dead := a.(Dead); dead {
					return now.Sub(began)
				}
			}
		}
		return d
	}
	first, second := silence(), silence()
	if first > silenceLimit+200*time.Millisecond || second < 2*silenceLimit {
		t.Errorf("objected to after %v, then after %v", first, second)
	}
}
