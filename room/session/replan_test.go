package session

import (
	"testing"
	"time"
)

// A plan that was drawn anew and says the same is taken over once, and not compared again at each event.
func TestSamePlaceIsSettled(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, _, _ := w.crowd(3)
		w.after(10 * time.Second)
		host.in(func(s *Session) {
			again := *s.plan.Plan
			s.plan.Plan, s.dirty = &again, true
		})
		w.after(time.Second)
		host.in(func(s *Session) {
			if s.plan.Plan != s.carry.overlay.Plan() {
				t.Error("the plan in force is not the overlay's")
			}
		})
	})
}
