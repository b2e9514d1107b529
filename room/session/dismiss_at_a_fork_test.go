package session

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

// A moderator whose first two ops have one number is dismissed: none of the two counts then either.
func TestDismissAtAFork(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, mod, l := w.stage(2, 0)
		var one, two *wire.Signed
		mod.in(func(s *Session) {
			one, _ = s.ledger.Draft(s.cfg.Key, room.Op{Kind: room.ToAudience, Targets: []peer.ID{l[0].id}}, time.Now())
			two, _ = s.ledger.Draft(s.cfg.Key, room.Op{Kind: room.ToAudience, Targets: []peer.ID{l[1].id}}, time.Now())
		})
		host.in(func(s *Session) { s.addOps([]*wire.Signed{one}, time.Now()) })
		l[0].in(func(s *Session) { s.addOps([]*wire.Signed{two}, time.Now()) })
		w.until("the fork", func() bool {
			n := 0
			host.in(func(s *Session) { n = len(s.ledger.Forks()) })
			return n > 0
		})
		w.settle(host, mod, l[0], l[1])
		host.act(room.Dismiss, mod)
		w.settle(host, mod, l[0], l[1])
		if !l[0].view().Me.OnStage || !l[1].view().Me.OnStage {
			t.Errorf("by the dismissal one of the two counts: %v, %v", l[0].view().Me.OnStage, l[1].view().Me.OnStage)
		}
	})
}
