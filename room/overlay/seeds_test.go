package overlay

import (
	"math/rand/v2"
	"testing"
	"time"

	"balai/room"
	"balai/test/seeded"
)

// Trust 57 and 34, as places go: in rooms of any shape somebody is kicked while he hears, asks for a place or goes from one to
// another. A second later nobody carries anything to him, however often he asks, and all others hear on.
func TestRandomKicks(t *testing.T) {
	tried := 0
	all := seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		w := simOf(t, 1+r.Uint64N(16), r)
		for range 1 + r.IntN(3) {
			w.add(0, true)
		}
		w.talks = true
		for range 2 + r.IntN(3) {
			w.add(8+r.IntN(20), false)
		}
		first := len(w.nodes)
		for range 3 + r.IntN(10) {
			w.after(time.Duration(r.IntN(1500))*time.Millisecond, func() { w.add(r.IntN(2)*r.IntN(6), false) })
		}
		w.run(time.Duration(1600+r.IntN(1500)) * time.Millisecond)
		bad := w.nodes[first+r.IntN(len(w.nodes)-first)]
		w.state.Removed[bad.id] = room.OpID{1}
		w.run(time.Second)
		count := func() (n int64) {
			for _, c := range bad.count {
				n += c
			}
			return n
		}
		before := count()
		w.run(2 * time.Second)
		if n := count() - before; n != 0 {
			t.Fatalf("%d frames after a second", n)
		}
		for _, n := range w.nodes {
			tried += n.refused
			if n.o.kids[bad.id] != nil || n.links[bad.id] {
				t.Fatalf("node %d holds it", n.i)
			}
			if n == bad || n.speaks {
				continue
			}
			for _, s := range w.nodes {
				if last := n.lastAt[s.i]; s.speaks && w.now().Sub(last) > longerWay {
					t.Fatalf("node %d has not heard speaker %d for %v\n%s", n.i, s.i, w.now().Sub(last), w.tell(n))
				}
			}
		}
	})
	if t.Logf("%d JOINs refused", tried); all && tried == 0 {
		t.Error("nobody asked again")
	}
}
