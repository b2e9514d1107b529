package p2p

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The courier serves everybody, gives those who need it a sender of their own, and where it gets stuck another goes on.
func TestCourier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		served := map[*Link]int{}
		free := make(chan struct{})
		a, b, jam, silent := &Link{}, &Link{}, &Link{}, &Link{}
		var c courier
		c.init()
		c.send = func(l *Link, _ []byte) bool {
			if l == jam {
				<-free
			}
			mu.Lock()
			defer mu.Unlock()
			served[l]++
			return l != silent
		}
		var alone, stuck []*Link
		run := func() {
			l := c.run(ctx, func(l *Link) { alone = append(alone, l) })
			mu.Lock()
			defer mu.Unlock()
			if l != nil {
				stuck = append(stuck, l)
			}
		}
		give := func(ls ...*Link) {
			for _, l := range ls {
				if !l.own.Load() && c.enlist(l) {
					wg.Go(run)
				}
			}
			synctest.Wait()
		}
		wg.Go(run)
		give(a, silent, b)
		give(a, silent, b)
		if served[a] != 2 || served[b] != 2 || served[silent] != 1 || !slices.Equal(alone, []*Link{silent}) {
			t.Errorf("served %d, %d, the silent one %d; %d alone", served[a], served[b], served[silent], len(alone))
		}
		give(a, jam, b)
		if served[b] != 2 {
			t.Error("b is served behind a jam")
		}
		time.Sleep(2 * courierStuck)
		give(a)
		if served[a] != 4 || served[b] != 3 || !jam.own.Load() {
			t.Errorf("behind the jam: a %d, b %d, %v", served[a], served[b], jam.own.Load())
		}
		close(free)
		give(jam, a)
		cancel()
		wg.Wait()
		if served[a] != 5 || served[jam] != 1 || !slices.Equal(stuck, []*Link{jam}) {
			t.Errorf("at the end: a %d, jam %d, %d stuck", served[a], served[jam], len(stuck))
		}
	})
}

// Who has a sender of its own gets no second one, though the courier is held up with it.
func TestCourierMakesOneSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var c courier
		c.init()
		c.send = func(*Link, []byte) bool { return false }
		a, b := &Link{}, &Link{}
		ended := make(chan *Link, 1)
		go func() { ended <- c.run(ctx, func(*Link) { time.Sleep(4 * courierStuck) }) }()
		c.enlist(a)
		time.Sleep(2 * courierStuck) // it is starting a sender for a
		if c.enlist(b) {
			t.Error("it becomes a second one")
		}
		time.Sleep(10 * courierStuck)
		cancel()
		if l := <-ended; l != nil {
			t.Error("it became a second one")
		}
	})
}

// All who wait for a queue end with it.
func TestSendQueueEndsForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q sendQueue
		q.init()
		for range 2 {
			go func() { var b [MaxBundle]byte; q.pop(b[:]) }()
		}
		synctest.Wait()
		q.close()
		q.close()
		q.signal()
	}) // which waits for both
}

// Links that are enlisted again before all are served do not make the list grow, are served in turn, and none is kept in
// it that is not due.
func TestCourierListStaysShort(t *testing.T) {
	var c courier
	c.init()
	links := make([]*Link, 5)
	for i := range links {
		links[i] = &Link{}
		c.enlist(links[i])
	}
	for i := range 10_000 {
		l, over := c.next(c.turn)
		if over || l != links[i%len(links)] {
			t.Fatalf("turn %d: not the link whose turn it is", i)
		}
		c.at = nil // served: a slow machine is not a jam
		c.enlist(l)
	}
	if n := cap(c.due); n > 8*len(links) {
		t.Errorf("a list for %d links of %d", n, len(links))
	}
	for range links {
		c.next(c.turn)
	}
	if l, _ := c.next(c.turn); l != nil {
		t.Error("somebody is served twice")
	}
	if i := slices.IndexFunc(c.due[:cap(c.due)], func(l *Link) bool { return l != nil }); i >= 0 {
		t.Errorf("a link is kept in place %d", i)
	}
}
