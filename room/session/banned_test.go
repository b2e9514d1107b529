package session

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/election"
	"balai/room/wire"
)

// A guest who hears of her removal by a digest alone, before the op comes, is told whether it was a ban; by a digest of an
// older program, which does not say so, that she was removed.
func TestADigestTellsABan(t *testing.T) {
	for _, c := range []struct {
		kind room.Kind
		old  bool
		want string
	}{{room.Ban, false, "banned"}, {room.Kick, false, "removed"}, {room.Ban, true, "removed"}} {
		simulate(t, 1, func(t *testing.T, w *world) {
			w.limit = 9
			host, stage, _ := w.crowd(8)
			link := host.invites(InviteTerms{Role: room.Listener})
			var guests []*soul
			for range 3 {
				g := w.person("Guest")
				g.gives = election.Ad{}
				g.come(link)
				guests = append(guests, g)
			}
			w.within(20*time.Second, "all to hear", func() bool { return carried(append(guests, stage[0])) })
			var d *wire.Digest
			host.in(func(s *Session) {
				for i, g := range guests[:2] { // the second and last by the tested decision, the first by the other
					kind := c.kind
					if i == 0 {
						kind = room.Ban + room.Kick - c.kind
					}
					if _, err := s.appendOp(room.Op{Kind: kind, Targets: []peer.ID{g.id}}, time.Now(), true); err != nil {
						t.Error(err)
					}
				}
				if d = s.makeDigest(time.Now()); c.old {
					d.Banned = 0
				}
			})
			out := guests[1]
			out.in(func(s *Session) {
				if _, known := s.state.Removed[out.id]; known {
					t.Error("the op has come before the digest")
				}
				s.takeDigest(host.id, wire.Sign(host.key, wire.DomainDigest, d), d, time.Now())
			})
			w.until("an answer", func() bool { return out.view().State.Over() })
			if got := out.reason(); got != c.want {
				t.Errorf("after a %v, old %v: %s", c.kind, c.old, got)
			}
			if v := guests[2].view(); v.State != Live {
				t.Errorf("another guest is %s", v.State)
			}
		})
	}
}

// Many put out by one decision stand in the digest in one order: what is told soon is what changed.
func TestADigestStandsStill(t *testing.T) {
	s := still(t)
	var out []peer.ID
	for range 12 {
		out = append(out, mustKey(t).ID())
	}
	s.write(t, room.Op{Kind: room.Ban, Targets: out})
	key := digestKey(s.makeDigest(time.Now()))
	for range 20 {
		if digestKey(s.makeDigest(time.Now())) != key {
			t.Fatal("it changes although nothing has")
		}
	}
}
