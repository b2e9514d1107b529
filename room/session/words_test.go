package session

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// What the ledger view says of each decision besides who did what to whom.
func TestDetailOf(t *testing.T) {
	one, two := room.InviteID{1}, room.InviteID{2}
	name := func(i room.InviteID) string { return i.String()[:8] }
	admit := func(chains ...[]room.InviteID) *room.Op {
		op := &room.Op{Kind: room.Admit}
		for _, c := range chains {
			op.Admissions = append(op.Admissions, room.Admission{Chain: c})
		}
		return op
	}
	for _, c := range []struct {
		op   *room.Op
		want string
	}{
		{&room.Op{Kind: room.Kick, Targets: []peer.ID{"x"}}, ""},
		{&room.Op{Kind: room.Revoke, Invite: one}, " " + name(one)},
		{&room.Op{Kind: room.Revoke, Invite: one, Branch: true}, " " + name(one) + " and put out all who came by it"},
		{&room.Op{Kind: room.TallyUses, Invite: two, Count: 41}, " " + name(two) + ": 41"},
		{&room.Op{Kind: room.NewEpoch, Epoch: room.EpochCommit{N: 7}}, ", now number 7"},
		{&room.Op{Kind: room.Ban, Targets: []peer.ID{"x"}}, ""},
		{&room.Op{Kind: room.Ban, Invite: two}, ", who came by the invite " + name(two)},
		{admit(nil), ""},
		{admit([]room.InviteID{one, two}, []room.InviteID{two}), " by the invite " + name(two)},
		{admit([]room.InviteID{one}, []room.InviteID{two}), ""},
		{admit([]room.InviteID{one}, nil), ""},
		{&room.Op{Kind: room.SetPolicy, Policy: &room.Policy{Name: "Tea", Visibility: room.Unlisted}}, ": “Tea”, unlisted"},
		{&room.Op{Kind: room.SetPolicy, Policy: &room.Policy{
			Name: "Tea", Visibility: room.Open, Topic: "leaves", Language: "id", Tags: []string{"a", "b"}, ConstantRate: true, VouchedOnly: true,
			StartsAt: time.Date(2026, 12, 24, 19, 0, 0, 0, time.UTC),
		}}, ": “Tea”, open, topic “leaves”, language id, tags a b, opens 2026-12-24 19:00 UTC, constant rate, carried by vouched nodes only"},
	} {
		if got := detailOf(c.op); got != c.want {
			t.Errorf("%v: %q, want %q", c.op.Kind, got, c.want)
		}
	}
}
