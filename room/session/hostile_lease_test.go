package session

import (
	"math"
	"testing"
	"time"

	"balai/room"
	"balai/room/wire"
)

// A speaker who is not the chair signs the room's first lease, with the last term there is or with a possible one: the
// chair goes on, and nobody follows it.
func TestFirstLeaseIsTheChairs(t *testing.T) {
	for _, term := range []uint64{math.MaxUint64, 1} {
		simulate(t, 1, func(t *testing.T, w *world) {
			host, stage, rest := w.crowd(5)
			w.after(5 * time.Second)
			bad := stage[1]
			lease := &wire.CoreLease{Room: bad.room[:], Term: term, Version: 1, Params: &wire.CoreParams{Slots: 3}, IssuedMs: time.Now().UnixMilli(), TtlS: 30}
			ad := generous
			ad.Room, ad.Issued = bad.room, time.Now()
			lease.Core, lease.Ads = [][]byte{[]byte(bad.id)}, []*wire.Signed{ad.Sign(bad.key)}
			signed := wire.Sign(bad.key, wire.DomainCoreLease, lease)
			s := bad.session()
			_ = s.call(t.Context(), func() error {
				s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Lease{Lease: signed}})
				return nil
			})
			w.after(3 * time.Second)
			for _, p := range append(rest, host) {
				if core := p.view().Core; len(core) > 0 {
					t.Errorf("%s follows %v", p.name, core)
				}
			}
			link := host.invites(InviteTerms{Role: room.Listener})
			for range 3 {
				p := w.person("Late")
				p.come(link)
			}
			w.within(30*time.Second, "the chair's core", func() bool {
				l, by := host.session().View().Core, host.view().Chair
				return len(l) >= 2 && by == host.id.String()
			})
		})
	}
}
