package session

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"balai/room"
)

// A seed makes a run: told twice, the same keys and decisions come of it, and the same is said by the same people at the same
// moments. The last holds but for what Go's scheduler decides, as goroutines that wake at one moment have no order: so of all
// seeds one has to repeat itself to the nanosecond.
func TestASeedRepeatsItself(t *testing.T) {
	story := func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 3)
		w.weather(.1, .1)
		if err := l[1].s.RaiseHand(context.Background(), true); err != nil {
			t.Fatal(err)
		}
		host.act(room.ToStage, l[2])
		mod.act(room.Kick, l[3])
		w.after(12 * time.Second)
		mod.act(room.Mute, l[1])
		w.weather(0, 0)
		w.settle(host, mod, l[0], l[1], l[2])
	}
	same := 0
	for seed := uint64(1); seed <= 3; seed++ {
		var told, said [2]string
		for i := range told {
			t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
				tell(t, seed, func(t *testing.T, w *world) {
					story(t, w)
					told[i], said[i] = w.trace()
				})
			})
		}
		if told[0] != told[1] {
			t.Errorf("seed %d:\n%s\n\n%s", seed, told[0], told[1])
		}
		if said[0] == said[1] {
			same++
		}
	}
	if t.Logf("%d of 3 to the nanosecond", same); same == 0 {
		t.Error("no seed repeats what is said")
	}
}

// trace is the state and keys that everybody has, and what was said, by whom and when.
func (w *world) trace() (s, said string) {
	h := sha256.New()
	for _, m := range w.recorded() {
		fmt.Fprintln(h, m.at.UnixNano(), m.by.n, m.topic, len(m.data))
	}
	for _, p := range w.all {
		if p.session() == nil {
			continue
		}
		e, _ := p.sealing()
		s += fmt.Sprintf("\n%s: %x, epoch %d.%d %v", p.id, p.hash(), e.N, e.Step, e.ID)
	}
	return s, fmt.Sprintf("%x", h.Sum(nil))
}
