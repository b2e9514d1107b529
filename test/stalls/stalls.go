// Package stalls knows when nobody could run on this machine: a process that watches asks to be woken each 20 ms, and remembers
// when it was woken late. A figure of design/quality is compared with the time that is left without that: what a busy or a stopped
// machine adds is nobody's fault who is tested. It knows nothing of what is tested.
package stalls

import (
	"sync"
	"time"
)

const tick = 20 * time.Millisecond

// Usual is by how much one is woken late on any machine, and much more than that tells of one that is too busy.
const (
	Usual = 20 * time.Millisecond
	Much  = 100 * time.Millisecond
)

// stall is from when somebody was due to run to when it did.
type stall struct{ due, woke time.Time }

var (
	mu  sync.Mutex
	all []stall
)

// Watch takes notice from now on until the end that it returns is called. Two who watch at once would count a stall twice.
func Watch() (end func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			due := time.Now().Add(tick)
			select {
			case <-over:
				return
			case <-time.After(tick):
			}
			if woke := time.Now(); woke.Sub(due) > Usual {
				mu.Lock()
				all = append(all, stall{due, woke})
				mu.Unlock()
			}
		}
	}()
	return func() { close(over); <-ended }
}

// Stood is for how long the machine stood still between two moments.
func Stood(from, to time.Time) (sum time.Duration) {
	mu.Lock()
	defer mu.Unlock()
	for _, x := range all {
		if x.due.Before(from) {
			x.due = from
		}
		if x.woke.After(to) {
			x.woke = to
		}
		sum += max(0, x.woke.Sub(x.due))
	}
	return sum
}

// Ran is the time between two moments in which the machine ran.
func Ran(from, to time.Time) time.Duration { return to.Sub(from) - Stood(from, to) }

// Took is that since a moment.
func Took(from time.Time) time.Duration { return Ran(from, time.Now()) }
