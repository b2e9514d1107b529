package hostile_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room/wire"
	"balai/test/hostile"
)

// TestYesterdaysAd is trust test 26 for ads: what was said of a room before, told again by somebody who kept it, is not
// shown. New bytes around what was signed keep gossip from taking it for a copy.
func TestYesterdaysAd(t *testing.T) {
	t.Parallel()
	p := newHostile(t)
	d := startDaemon(t, "Guest", p.Addrs()[0].String())
	eventually(t, "the daemon at the hostile peer", func() bool { return p.Connected(d.key.ID()) })
	ofRoom := func() hostile.Room {
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		return hostile.NewRoom(key)
	}
	at := func(back, life time.Duration) func(*wire.Ad) {
		when := time.Now().Add(-back)
		return func(ad *wire.Ad) {
			ad.IssuedMs, ad.Seq, ad.TtlS = when.UnixMilli(), uint64(when.UnixMilli()), uint32(life/time.Second)
		}
	}
	tell := func(ad *wire.Signed) {
		_ = p.Subscribe(t.Context(), d.key.ID(), hostile.Lobby, hostile.LobbyTopic) // tried again
		signed, err := proto.Marshal(ad)
		if err != nil {
			t.Fatal(err)
		}
		b := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), binary.BigEndian.AppendUint64(nil, rand.Uint64())) // the later body counts
		_ = p.Publish(t.Context(), d.key.ID(), hostile.Lobby, hostile.LobbyTopic, append(b, signed...))                                 // tried again
	}
	shown := func(r hostile.Room) bool { return listed(t, d, r.ID().String()) }
	hear := func(what string, r hostile.Room, ad func() *wire.Signed) {
		t.Helper()
		eventually(t, what, func() bool {
			tell(ad())
			time.Sleep(200 * time.Millisecond)
			return shown(r)
		})
	}

	known, brief := ofRoom(), ofRoom()
	now := known.Ad(nil)
	hear("a room of today", known, func() *wire.Signed { return now })
	short := brief.Ad(at(0, 5*time.Second))
	hear("a room that is gone soon", brief, func() *wire.Signed { short = brief.Ad(at(0, 5*time.Second)); return short })
	eventually(t, "it is gone", func() bool { return !shown(brief) })

	old := map[string]hostile.Room{"yesterday's": ofRoom(), "older than it may be": ofRoom(), "of tomorrow": ofRoom()}
	ads := map[string]*wire.Signed{
		"yesterday's":          old["yesterday's"].Ad(at(24*time.Hour, 90*time.Second)),
		"older than it may be": old["older than it may be"].Ad(at(2*time.Minute, 48*time.Hour)),
		"of tomorrow":          old["of tomorrow"].Ad(at(-24*time.Hour, 90*time.Second)),
	}
	renamed := known.Ad(func(ad *wire.Ad) { at(time.Minute, 90*time.Second)(ad); ad.Name = "An old name" })
	for range 5 {
		for _, ad := range ads {
			tell(ad)
		}
		tell(short)
		tell(renamed)
		time.Sleep(200 * time.Millisecond)
		for name, r := range old {
			if shown(r) {
				t.Fatalf("an ad that is %s is shown", name)
			}
		}
	}
	fresh := ofRoom() // what came before it was looked at before it
	hear("a room of now", fresh, func() *wire.Signed { return fresh.Ad(nil) })
	for name, r := range old {
		if shown(r) {
			t.Errorf("an ad that is %s is shown", name)
		}
	}
	if shown(brief) {
		t.Error("an ad that has run out is shown again")
	}
	list, err := d.Hallway(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if l.Name == "An old name" {
			t.Error("an older ad replaced a newer one")
		}
	}
}
