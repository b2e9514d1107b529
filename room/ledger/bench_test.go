package ledger

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// longLog is a room of n ops by a host and two moderators: admissions by invites, and moves, mutes and kicks.
func longLog(b *testing.B, n int) (*rig, []*wire.Signed) {
	r := newRig(b, open1, "m1", "m2")
	r.about("host", room.Appoint, "m1")
	r.about("host", room.Appoint, "m2")
	r.all()
	guests := make([]peer.ID, n/5)
	for i := range guests {
		guests[i] = testKey(b, fmt.Sprint("guest", i)).ID()
	}
	kinds := []room.Kind{room.Admit, room.ToStage, room.Mute, room.ToAudience, room.Kick}
	for i := range n - 2 {
		name, p := []string{"host", "m1", "m2"}[i/7%3], guests[i/5%len(guests)]
		op := room.Op{Kind: kinds[i%5], Targets: []peer.ID{p}}
		if op.Kind == room.Admit {
			op.Targets, op.Admissions = nil, []room.Admission{{Peer: p, Role: room.Listener, Name: "Somebody", Chain: []room.InviteID{leaf}, Uses: []uint16{0}}}
		} else if op.Kind == room.Kick && i%3 > 0 {
			op.Kind = room.Unmute
		}
		if i%7 == 0 {
			r.meet("m1", "host")
			r.meet("m2", "host")
			r.meet("m1", "host")
		}
		r.draftUnlooked(name, op)
	}
	r.meet("m1", "host")
	r.meet("m2", "host")
	ops, _ := r.logs["host"].Since(nil, n+1)
	if len(ops) != n {
		b.Fatal(len(ops))
	}
	return r, ops
}

// draftUnlooked is draft without the state that Draft looks at, which would make a long log slow to make.
func (r *rig) draftUnlooked(name string, op room.Op) {
	s := r.forge(name, r.next(name, op))
	r.add(name, s)
}

const benchOps = 10_000

// BenchmarkReplay replays a ledger of 10,000 ops and makes its state; verify/ is the bare signature checks of the
// same ops, the baseline.
func BenchmarkReplay(b *testing.B) {
	r, ops := longLog(b, benchOps)
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			for _, s := range ops {
				if !identity.Verify(s.Key, wire.DomainOp, s.Body, s.Sig) {
					b.Fatal("bad signature")
				}
			}
		}
	})
	b.Run("replay", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l := r.fresh()
			l.Add(ops...)
			l.State()
		}
	})
	b.Run("replay-by-100", func(b *testing.B) { // as a sync in pieces, looking at the state after each
		for b.Loop() {
			l := r.fresh()
			for i := 0; i < len(ops); i += 100 {
				l.Add(ops[i : i+100]...)
				l.State()
			}
		}
	})
	b.Run("next-op", func(b *testing.B) { // one more op and the state, on a full ledger
		l := r.fresh()
		l.Add(ops...)
		for b.Loop() {
			l.state = nil
			l.State()
		}
	})
	b.Run("derive", func(b *testing.B) {
		l := r.fresh()
		l.Add(ops...)
		for b.Loop() {
			l.derive()
		}
	})
	b.Run("memory", func(b *testing.B) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var l *Ledger
		for b.Loop() {
			l = r.fresh()
			l.Add(ops...)
			l.State()
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/benchOps, "heapB/op")
		runtime.KeepAlive(l)
	})
}
