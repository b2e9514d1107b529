package node

import (
	"fmt"
	"slices"
	"testing"

	"balai/node/api"
	"balai/room"
	"balai/room/session"
)

// crowd opens a room of n people, the first s of whom are on stage.
func crowd(t *testing.T, n, s int) (people []*soul, rooms []api.Room) {
	t.Helper()
	host := newPerson(t, "Host")
	people, rooms = append(people, host), append(rooms, host.open("unlisted"))
	link := inviteTo(t, rooms[0], session.InviteTerms{Role: room.Listener})
	for i := range n - 1 {
		p := newPerson(t, fmt.Sprint("Person ", i+1))
		people, rooms = append(people, p), append(rooms, p.enter(link))
		until(t, rooms[i+1], "entry", func(v session.View) bool { return v.State == session.Live })
	}
	for i := 1; i < s; i++ {
		if err := rooms[0].Act(t.Context(), room.ToStage, people[i].id(), ""); err != nil {
			t.Fatal(err)
		}
	}
	return people, rooms
}

// usesOf are the relays of a view by what they are to me.
func usesOf(v session.View, use string) (out []string) {
	for _, r := range v.Relays {
		if r.Use == use {
			out = append(out, r.PeerID)
		}
	}
	return out
}

// With the seventh person real daemons choose a core by themselves, and everybody hears by it.
func TestACore(t *testing.T) {
	people, rooms := crowd(t, 9, 3)
	for i, r := range rooms {
		me := people[i].id().String()
		until(t, r, "the core and a parent", func(v session.View) bool {
			core := rooms[0].View().Core                               // while ads still come in, it may be another than a moment ago
			carried := v.Carrier == "relay" || v.Carrier == "degraded" // over TCP, where the machine was too busy for a QUIC handshake
			return len(core) >= 2 && slices.Equal(v.Core, core) && carried && (slices.Contains(core, me) || len(usesOf(v, "parent")) > 0)
		})
	}
	for i, r := range rooms {
		me := people[i].id().String()
		until(t, r, "the end of the mesh", func(v session.View) bool {
			return slices.Contains(v.Core, me) || len(people[i].Stats(mustRoom(t, r)).Links) <= 3
		})
	}
}

func mustRoom(t *testing.T, r api.Room) room.ID {
	t.Helper()
	id, err := room.ParseID(r.View().ID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A room whose people relay nothing is carried by the community node that it vouches for, which holds no key.
func TestACommunityCarries(t *testing.T) {
	boot := newCommunity(t)
	people := []*soul{relayless(t, "Host", boot...)}
	rooms := []api.Room{people[0].open("unlisted")}
	link := inviteTo(t, rooms[0], session.InviteTerms{Role: room.Listener})
	node := people[0].boot[0].ID
	if err := rooms[0].Act(t.Context(), room.Vouch, node, ""); err != nil {
		t.Fatal(err)
	}
	for i := range 7 {
		p := relayless(t, fmt.Sprint("Person ", i+1), boot...)
		people, rooms = append(people, p), append(rooms, p.enter(link))
	}
	for _, r := range rooms {
		v := until(t, r, "the community node as a parent", func(v session.View) bool {
			return slices.Equal(v.Core, []string{node.String()}) && slices.Equal(usesOf(v, "parent"), v.Core)
		})
		if c := v.Relays[0]; c.Kind != "community" || c.HoldsKey || !c.Vouched {
			t.Errorf("the relay shows as %+v", c)
		}
	}
	if err := rooms[0].Act(t.Context(), room.Unvouch, node, ""); err != nil {
		t.Fatal(err)
	}
	until(t, rooms[1], "nobody vouched for", func(v session.View) bool { return len(v.Vouched) == 0 })
}

// relayless is a person whose daemon passes on nobody's audio.
func relayless(t *testing.T, name string, bootstrap ...string) *soul {
	t.Helper()
	d, err := newDaemon(t.Context(), Config{
		Data: t.TempDir(), API: "127.0.0.1:0", Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}, Bootstrap: bootstrap,
		NoMDNS: true, Name: name, Relay: "never", Log: testLog().With("who", name), Version: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &soul{daemon: d, t: t}
	t.Cleanup(p.halt)
	return p
}
