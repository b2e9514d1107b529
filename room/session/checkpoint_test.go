package session

import (
	"context"
	"testing"
	"time"

	"balai/room"
)

// The host writes a checkpoint when there are many new decisions, one, and all others find it true, newcomers too.
func TestCheckpoints(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		written := func() (n int) {
			list, err := l[0].s.Ledger(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range list {
				if d.Kind == room.Checkpoint.String() {
					n++
				}
			}
			return n
		}
		const every = 12
		for _, p := range []*soul{host, mod, l[0]} {
			p.in(func(s *Session) { s.checkEvery = every })
		}
		for i := range 40 {
			if written() > 0 {
				break
			}
			if i%2 == 0 {
				mod.act(room.Mute, l[0])
			} else {
				mod.act(room.Unmute, l[0])
			}
			w.after(3 * time.Second)
		}
		w.settle(host, mod, l[0])
		w.after(10 * time.Second)
		if n := written(); n != 1 {
			t.Fatalf("%d checkpoints", n)
		}
		late := w.person("Late")
		late.come(mod.invites(InviteTerms{Role: room.Listener}))
		l[0].restart()
		w.settle(host, mod, l[0], late)
		for _, p := range []*soul{host, mod, l[0], late} {
			var n int
			p.in(func(s *Session) { n = s.ledger.Unchecked() })
			if p.view().Differs || n > every {
				t.Errorf("%s: differs %v, %d unchecked", p.name, p.view().Differs, n)
			}
		}
	})
}

// A checkpoint that is not true is shown as a fault by everybody who can compare.
func TestAFalseCheckpoint(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 1)
		host.in(func(s *Session) {
			if _, err := s.appendOp(room.Op{Kind: room.Checkpoint, Root: room.OpID{1}}, time.Now(), true); err != nil {
				t.Error(err)
			}
		})
		w.within(10*time.Second, "the fault to be shown", func() bool {
			return mod.view().Differs && l[0].view().Differs && l[1].view().Differs
		})
	})
}
