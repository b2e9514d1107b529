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
	core := until(t, rooms[0], "a core", func(v session.View) bool { return len(v.Core) >= 2 }).Core
	for i, r := range rooms {
		me := people[i].id().String()
		v := until(t, r, "the core and a parent", func(v session.View) bool {
			return slices.Equal(v.Core, core) && (slices.Contains(core, me) || len(usesOf(v, "parent")) > 0)
		})
		if v.Carrier != "relay" {
			t.Errorf("%s: carrier %s", people[i].cfg.Name, v.Carrier)
		}
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
