package media

import (
	"testing"
	"time"
)

// crowd speaks in ticks of 20 ms.
type crowd struct {
	l   Loudest
	now time.Time
}

// speak lets each source be heard at its level (as -dBov) for d.
func (c *crowd) speak(d time.Duration, levels map[uint32]Level) {
	for range d / Tick {
		c.now = c.now.Add(Tick)
		for s := range uint32(10) {
			if v, ok := levels[s]; ok {
				c.l.Hear(s, v, c.now)
			}
		}
	}
}

func (c *crowd) in(s uint32) bool { return c.l.Slot(s) >= 0 }

func TestUpToThreeAllGoOn(t *testing.T) {
	c := &crowd{now: t0}
	c.speak(Tick, map[uint32]Level{1: 10, 2: 127, 3: Unknown})
	for s := uint32(1); s <= 3; s++ {
		if !c.in(s) {
			t.Errorf("%d has no slot", s)
		}
	}
	c.speak(time.Second, map[uint32]Level{1: 10})
	if !c.in(2) || !c.in(3) {
		t.Error("a slot was taken though nobody needed it")
	}
}

func TestFourthEntersBySixDecibels(t *testing.T) {
	c := &crowd{now: t0}
	three := map[uint32]Level{1: 20, 2: 25, 3: 40}
	c.speak(2*time.Second, three)
	with := func(l Level) map[uint32]Level { return map[uint32]Level{1: 20, 2: 25, 3: 40, 4: l} }
	c.speak(5*time.Second, with(35))
	if c.in(4) {
		t.Error("5 dB over the weakest was enough")
	}
	c.speak(40*time.Millisecond, with(28))
	if c.in(4) {
		t.Error("in before 60 ms")
	}
	slot := c.l.Slot(3)
	c.speak(200*time.Millisecond, with(28))
	if !c.in(4) || c.in(3) || c.l.Slot(4) != slot || !c.in(1) || !c.in(2) {
		t.Errorf("slots 1:%d 2:%d 3:%d 4:%d", c.l.Slot(1), c.l.Slot(2), c.l.Slot(3), c.l.Slot(4))
	}
	c.speak(700*time.Millisecond, map[uint32]Level{1: 20, 2: 25, 3: 21, 4: 28})
	if !c.in(4) {
		t.Error("put out within its first second")
	}
	c.speak(time.Second, map[uint32]Level{1: 20, 2: 25, 3: 21, 4: 28})
	if c.in(4) || !c.in(3) {
		t.Error("7 dB over the weakest was not enough after the hold")
	}
}

func TestDominantIsInAtOnce(t *testing.T) {
	c := &crowd{now: t0}
	c.speak(100*time.Millisecond, map[uint32]Level{1: 30, 2: 31, 3: 32})
	c.speak(200*time.Millisecond, map[uint32]Level{1: 30, 2: 31, 3: 32, 4: 10})
	if d, ok := c.l.Dominant(); !ok || d != 4 || !c.in(4) {
		t.Errorf("dominant %d %v, slot %d", d, ok, c.l.Slot(4))
	}
}

func TestSilentOneGivesWay(t *testing.T) {
	c := &crowd{now: t0}
	c.speak(2*time.Second, map[uint32]Level{1: 20, 2: 20, 3: 20})
	c.speak(400*time.Millisecond, map[uint32]Level{1: 20, 2: 20, 4: 60})
	if !c.in(4) || c.in(3) {
		t.Error("a quiet speaker did not get the slot of a silent one")
	}
}

func TestRemoveFreesTheSlot(t *testing.T) {
	c := &crowd{now: t0}
	all := map[uint32]Level{1: 20, 2: 20, 3: 20, 4: 20}
	c.speak(time.Second, all)
	for s := uint32(1); s <= 4; s++ {
		if c.in(s) {
			c.l.Remove(s)
			delete(all, s)
			break
		}
	}
	c.speak(Tick, all)
	for s := range all {
		if !c.in(s) {
			t.Errorf("%d has no slot among three", s)
		}
	}
}

// Several who are clearly louder than a quiet leader do not stop each other from leading.
func TestSeveralChallengers(t *testing.T) {
	c := &crowd{now: t0}
	c.speak(Tick, map[uint32]Level{9: 50})
	c.speak(2*time.Second, map[uint32]Level{1: 20, 2: 21, 3: 40, 9: 50})
	if d, _ := c.l.Dominant(); d == 9 || c.in(9) || !c.in(3) {
		t.Errorf("the quietest of four leads: %d, slot %d", d, c.l.Slot(9))
	}
}

// Equal voices do not throw each other out.
func TestEqualVoicesDoNotFlap(t *testing.T) {
	c := &crowd{now: t0}
	levels := map[uint32]Level{1: 30, 2: 30, 3: 30, 4: 30, 5: 30, 6: 30}
	c.speak(Tick, levels)
	before := c.l.slots
	for i := range 500 {
		for s := range levels {
			levels[s] = Level(28 + (int(s)*7+i*3)%5)
		}
		c.speak(Tick, levels)
		for k := range before {
			if c.l.slots[k].source != before[k].source {
				t.Fatalf("tick %d: slot %d changed from %d to %d", i, k, before[k].source, c.l.slots[k].source)
			}
		}
	}
}
