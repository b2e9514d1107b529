package node

import (
	"bytes"
	"testing"
	"time"

	"balai/node/rtc"
	"balai/room/media"
	"balai/room/sframe"
)

// Nothing goes to its own speaker or to whoever brought it, by whatever way it came; the core passes on to the core only
// what came from speakers.
func TestRelayNeverBack(t *testing.T) {
	bubbleOf(t, "ana rita rob ron mid", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "rita = rob", "rob = ron", "ron = rita", "rob >> ana", "rita >> mid", "mid >> rita", "mid >> ron")
		w.plans["rita"].Core, w.plans["ron"].Core = true, true
		w.plan()
		seen := w.entries(media.Frame, media.Block)
		w.talk(time.Second, p["ana"])
		w.settle()
		for _, c := range []struct {
			from, to string
			least    int
		}{
			{"rita", "rob", 55},
			{"rita", "ron", 55},
			{"rita", "mid", 55},
			{"mid", "ron", 55},
			{"rob", "ana", 0}, // her own, by rita
			{"rob", "ron", 0}, // not from ana herself
			{"ron", "rob", 0},
			{"mid", "rita", 0}, // rita's
		} {
			if n, _ := countOf(seen, c.from, c.to, nil); n < c.least || c.least == 0 && n > 0 {
				t.Errorf("%s to %s: %d entries", c.from, c.to, n)
			}
		}
	})
}

// frames are the frames of the last bundle that a child got, with its hops.
func (l *sinkLink) frames(t *testing.T) (out []media.Entry, hops uint8) {
	if len(l.last) == 0 {
		return nil, 0
	}
	u, err := media.Parse(bytes.Clone(l.last))
	if err != nil {
		t.Fatal(err)
	}
	for e := (media.Entry{}); u.Next(&e); {
		if e.Kind == media.Frame {
			out = append(out, e)
		}
	}
	return out, u.Hops
}

func TestForwardHops(t *testing.T) {
	m := newMill(t, 1, 1, false)
	m.hops = maxHops
	m.turn()
	if f, hops := m.kids[0].frames(t); len(f) != 1 || hops != maxHops+1 {
		t.Errorf("%d frames, %d hops", len(f), hops)
	}
	m.hops++
	m.kids[0].last = nil
	m.turn()
	if f, _ := m.kids[0].frames(t); len(f) != 0 {
		t.Error("forwarded without end")
	}
}

// What went on unopened, for its epoch was not held yet, does not go on again when it opens.
func TestForwardUnopenedOnce(t *testing.T) {
	m := newMill(t, 1, 1, false)
	n := m.flow.next
	key := n.Epochs
	n.Epochs = []sframe.Epoch{sframe.NewEpoch(2)}
	for id, r := range m.flow.remotes { // one that never held the first
		m.flow.remotes[id].opener = sframe.NewOpener(sframe.Owner{Room: n.Room, Peer: string(r.src.Peer), Salt: r.src.Salt}, 0)
	}
	m.flow.next = n
	m.flow.apply(m.now)
	m.turn()
	kid := m.kids[0]
	if f, _ := kid.frames(t); len(f) != 1 {
		t.Fatalf("%d frames went on unopened", len(f))
	}
	was := kid.bundles
	n.Epochs = append(n.Epochs, key...)
	m.flow.next = n
	m.flow.apply(m.now)
	m.flow.down(m.links[0], m.bundles[0], m.now)
	m.flow.forward(m.now)
	if kid.bundles != was {
		t.Error("went on again when it opened")
	}
	m.turn()
	if kid.bundles != was+1 {
		t.Error("the next did not go on")
	}
}

// From the return of Plan on, nothing of the microphone leaves that still waits for other speakers' frames; nor when
// the microphone is on again at once.
func TestForwardGate(t *testing.T) {
	for _, again := range []bool{false, true} {
		m := newMill(t, 1, 1, false)
		n := m.flow.next
		n.Send, n.Seal = true, 0
		m.flow.next = n
		m.flow.apply(m.now)
		m.turn() // somebody speaks, so that own frames wait
		leg := &flowLeg{flow: m.flow}
		was := m.kids[0].bundles
		m.now = m.now.Add(media.Tick)
		m.flow.up(leg, &rtc.UpFrame{Ctr: 1, Ticks: 1, Level: 20, HasLevel: true, Payload: []byte("secret")}, m.now)
		if m.kids[0].bundles != was || len(m.flow.relay.fresh) != 1 {
			t.Fatal("the own frame does not wait")
		}
		n.Send = false
		m.flow.Plan(n)
		if again {
			n.Send = true
			m.flow.Plan(n)
			m.flow.apply(m.now)
		}
		m.flow.forward(m.now)
		m.turn()
		m.flow.forward(m.now)
		if f, _ := m.kids[0].frames(t); len(f) != 1 || f[0].Source == m.flow.plan.Me.ID || m.kids[0].bundles != was+1 {
			t.Errorf("again %v: %d frames in %d bundles", again, len(f), m.kids[0].bundles-was)
		}
	}
}

// What another holds and I do not counts as it is while its speaker speaks on; after silence only once it has been known
// for a while; and not at all if as many others as can be heard are.
func TestBehind(t *testing.T) {
	now := time.Now()
	f := &flow{remotes: map[uint32]*remote{}}
	r := &remote{any: true, dense: true, newest: 1000}
	r.report.LastHeard = now
	f.remotes[1] = r
	later := func(d time.Duration) time.Time { return now.Add(d) }
	if d := f.behindOf(r, 1000, now); d != 0 {
		t.Errorf("level: %v", d)
	}
	if d := f.behindOf(r, 1007, later(140*time.Millisecond)); d != 140*time.Millisecond {
		t.Errorf("speaking on: %v", d)
	}
	r.toldAt = time.Time{}
	if d := f.behindOf(r, 4000, later(time.Minute)); d != 0 {
		t.Errorf("first frame after silence: %v", d)
	}
	if d := f.behindOf(r, 4010, later(time.Minute+200*time.Millisecond)); d != 200*time.Millisecond {
		t.Errorf("it does not come: %v", d)
	}
	r.newest, r.dense = 4010, false
	r.report.LastHeard = later(time.Minute + 210*time.Millisecond)
	if d := f.behindOf(r, 4030, later(time.Minute+600*time.Millisecond)); d != 0 {
		t.Errorf("a frame each 400 ms: %v", d)
	}
	for id := uint32(2); id < 5; id++ {
		o := &remote{any: true}
		o.report.LastHeard = later(time.Minute + 800*time.Millisecond)
		f.remotes[id] = o
	}
	if d := f.behindOf(r, 4040, later(time.Minute+900*time.Millisecond)); d != 0 {
		t.Errorf("not among the loudest here: %v", d)
	}
}
