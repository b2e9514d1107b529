package node

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"balai/node/api"
	"balai/room"
	"balai/room/session"
)

func TestATypedCommunityNode(t *testing.T) {
	at := newCommunity(t)
	ana, budi := newPerson(t, "Ana"), newPerson(t, "Budi")
	id := at[0][strings.LastIndex(at[0], "/")+1:]
	nobody := strings.Replace(at[0], id, budi.key.ID().String(), 1)
	for _, tt := range []struct {
		addr string
		want error
	}{
		{"nonsense", room.Malformed},
		{"/ip4/127.0.0.1/tcp/1", room.Malformed},
		{"/p2p/" + id, room.Malformed},
		{"/ip4/127.0.0.1/tcp/1/p2p/" + ana.key.ID().String(), room.Malformed},
		{nobody, api.ErrUnanswered},
		{addrStrings(budi.host.Addrs())[0], api.ErrUnanswered}, // answers, but is no community node
		{at[0], nil}, // private, and dialled all the same
		{" " + at[0] + " ", nil},
	} {
		if err := ana.Reach(t.Context(), tt.addr); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.addr, err)
		}
	}
	if got := ana.Communities(); len(got) != 1 || got[0].PeerID != id || !slices.Equal(got[0].Addrs, []string{strings.TrimSpace(at[0])}) {
		t.Errorf("communities: %+v", got)
	}
	if got := budi.Communities(); got == nil || len(got) != 0 {
		t.Errorf("nobody's communities: %+v", got)
	}
	dewi := newPerson(t, "Dewi", at...)
	eventually(t, "the community node of the settings", func() bool { return len(dewi.Communities()) == 1 })
	if got := dewi.Communities()[0]; got.PeerID != id || len(got.Addrs) != len(at) || !slices.Contains(got.Addrs, at[0]) {
		t.Errorf("of the settings: %+v", got)
	}
}

func TestVouching(t *testing.T) {
	at := newCommunity(t)
	ana := newPerson(t, "Ana")
	r := ana.open("unlisted")
	if err := ana.Reach(t.Context(), at[0]); err != nil {
		t.Fatal(err)
	}
	node := ana.host.CommunityNodes()[0]
	for _, kind := range []room.Kind{room.Vouch, room.Unvouch} {
		if err := r.Act(t.Context(), kind, node, ""); err != nil {
			t.Errorf("%v: %v", kind, err)
		}
	}
	until(t, r, "the room", func(v session.View) bool { return v.State == session.Live && v.Relays != nil && v.Vouched != nil })
}

func TestParentsInTheStats(t *testing.T) {
	got := parentStats([]session.RelayView{{PeerID: "a", Use: "parent"}, {PeerID: "b", Use: "warm"}, {PeerID: "c", Use: "suspect"}, {PeerID: "d"}})
	if len(got) != 3 || got[0].State != "active" || got[1].State != "warm" || got[2].State != "suspect" {
		t.Errorf("%+v", got)
	}
}
