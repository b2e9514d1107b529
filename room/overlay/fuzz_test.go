package overlay

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"balai/room/wire"
)

// FuzzStep lets a peer say whatever it likes, in the core and below it.
func FuzzStep(f *testing.F) {
	for _, r := range []*wire.LinkRecord{
		{Record: &wire.LinkRecord_Join{Join: &wire.Join{Room: make([]byte, 32), Mode: 1, Only: [][]byte{make([]byte, 8)}}}},
		{Record: &wire.LinkRecord_Join{Join: &wire.Join{Room: make([]byte, 32), Mode: 6, Only: [][]byte{make([]byte, 8)}}}},
		{Record: &wire.LinkRecord_Admit{Admit: &wire.JoinAnswer{Mode: 1, Path: [][]byte{make([]byte, 8)}, Lease: &wire.Signed{}}}},
		{Record: &wire.LinkRecord_Redirect{Redirect: &wire.Redirect{Ads: []*wire.Signed{{}, nil}, Lease: &wire.Signed{}}}},
		{Record: &wire.LinkRecord_Busy{Busy: &wire.Busy{RetryMs: 1 << 31}}},
		{Record: &wire.LinkRecord_Leave{Leave: &wire.LinkLeave{As: 1, AfterMs: 1 << 31}}},
		{Record: &wire.LinkRecord_Feed{Feed: &wire.Feed{Mode: 4}}},
		{Record: &wire.LinkRecord_Join{}},
		{Record: &wire.LinkRecord_Admit{}},
		{Record: &wire.LinkRecord_Feed{}},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false, []byte("12345678"), uint32(3))
		f.Add(b, true, []byte{}, uint32(1<<31))
	}
	f.Fuzz(func(t *testing.T, b []byte, core bool, hop []byte, level uint32) {
		var r wire.LinkRecord
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		w := &sim{t: t}
		parent, me := simKey(t, 1, 1).ID(), simKey(t, 1, 2).ID()
		peer := parent
		if core {
			parent, me = me, parent
			peer = parent
		}
		o, now := New(Config{Me: me}), simStart
		events := []Event{Situation{Slots: 2}, Leased{w.roomless().leaseOf(t, "")}, Linked{peer}, Got{Peer: peer, Record: &r}, Got{Peer: peer, Record: &r}}
		events = append(events, nil, Unlinked{peer}, Got{Peer: peer, Record: &r})
		for _, e := range events {
			var seen []Pulse
			if now = now.Add(50 * time.Millisecond); e == nil {
				seen = []Pulse{{Peer: peer, Last: now, Level: level, Path: [][]byte{hop, hop}}}
			}
			for _, a := range o.Step(e, now, seen...) {
				if a, ok := a.(Tell); ok && a.Record == nil {
					t.Fatal("an empty record")
				}
			}
			if pl := o.Plan(); len(pl.Path) == 0 || len(pl.Path) > maxPath || pl.Level > maxPath {
				t.Fatalf("path of %d, level %d", len(pl.Path), pl.Level)
			}
		}
		if len(o.kids)+len(o.parents)+len(o.pending)+len(o.waiting) > 4 {
			t.Fatal("one peer takes several places")
		}
	})
}
