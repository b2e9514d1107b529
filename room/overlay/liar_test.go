package overlay

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/wire"
)

// activeOf is the parent that sends to n.
func activeOf(n *simNode) (out []peer.ID) {
	for _, p := range n.o.Parents() {
		if p.Mode.active() {
			out = append(out, p.Peer)
		}
	}
	return out
}

func holds(n *simNode, p peer.ID) bool {
	return slices.ContainsFunc(n.o.Parents(), func(q Parent) bool { return q.Peer == p })
}

// Trust 36: a parent that may lie gets company at once and is kept; one that is proved a liar is left, and not asked again.
func TestLiarIsLeft(t *testing.T) {
	w := talkRoom(t, 4, 110, 60)
	n := w.nodes[len(w.nodes)-1]
	p := activeOf(n)[0]
	w.reset()
	n.step(Lied{Peer: p})
	if len(activeOf(n)) != 2 {
		t.Errorf("another parent was not told to send: %+v", n.o.Parents())
	}
	w.run(4 * time.Second)
	if !holds(n, p) || len(activeOf(n)) != 1 {
		t.Errorf("after a doubt that came to nothing: %+v", n.o.Parents())
	}
	p = activeOf(n)[0]
	n.step(Lied{Peer: p, Proven: true})
	for range 600 {
		w.run(100 * time.Millisecond)
		if holds(n, p) || slices.Contains(n.o.Plan().Dial, p) {
			t.Fatal("a liar is asked again")
		}
	}
	if len(n.o.Parents()) != 2 {
		t.Errorf("%+v", n.o.Parents())
	}
	if gap, who := w.worst(); gap > 2*longerWay {
		t.Errorf("a gap of %v at %d", gap, who.i)
	}
}

// In the core nothing is taken from a liar, and it is told as one that does not serve.
func TestLiarInTheCore(t *testing.T) {
	w := talkRoom(t, 4, 110, 60)
	i := slices.IndexFunc(w.nodes, func(n *simNode) bool { return n.o.Plan().Core })
	n := w.nodes[i]
	p := n.o.Plan().Parents[0]
	if out := n.o.Step(Lied{Peer: p}, w.now()); slices.ContainsFunc(out, func(a Action) bool { _, ok := a.(Dead); return ok }) {
		t.Error("a doubt is told as a death")
	}
	out := n.o.Step(Lied{Peer: p, Proven: true}, w.now())
	if !slices.Contains(out, Action(Dead{p})) {
		t.Error("the chair does not hear of it")
	}
	pl := n.o.Plan()
	if slices.Contains(pl.Parents, p) || !slices.ContainsFunc(pl.Feeds, func(f Feed) bool { return f.Peer == p }) {
		t.Errorf("taken from %v, given to %+v", pl.Parents, pl.Feeds)
	}
}

// Who has nobody else asks the liar again, after a while.
func TestLiarOrSilence(t *testing.T) {
	w := newSim(t, *simSeed)
	only, me, now := simKey(t, 1, 1).ID(), simKey(t, 1, 2).ID(), simStart
	o := New(Config{Me: me, Room: w.state.Room})
	o.Step(Situation{}, now)
	o.Step(Leased{w.leaseOf(t, only)}, now)
	o.Step(Linked{only}, now)
	short := shortOf(only)
	o.Step(Got{Peer: only, Record: &wire.LinkRecord{Record: &wire.LinkRecord_Admit{Admit: &wire.JoinAnswer{Mode: 1, Path: [][]byte{short[:]}}}}}, now)
	if len(o.Parents()) != 1 {
		t.Fatal("not admitted")
	}
	o.Step(Lied{Peer: only, Proven: true}, now)
	var asked time.Duration
	for d := time.Duration(0); d < 2*liarAlone && asked == 0; d += 50 * time.Millisecond {
		o.Step(nil, now.Add(d))
		if slices.Contains(o.Plan().Dial, only) {
			asked = d
		}
	}
	if asked < liarAlone || asked > liarAlone+time.Second {
		t.Errorf("asked again after %v", asked)
	}
}
