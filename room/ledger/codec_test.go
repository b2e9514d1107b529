package ledger

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/wire"
)

// busyRoom is a room in which every kind of op was written.
func busyRoom(t testing.TB) *rig {
	r := newRig(t, room.Policy{Visibility: room.Closed, Name: "Böhmisch", Topic: "t", Language: "id", Tags: []string{"a", "b"}, StartsAt: day}, "mod", "m2", "ana", "bo")
	meet := func() {
		for n := range r.logs {
			r.meet("host", n)
		}
	}
	r.admit("host", "ana", room.Listener)
	r.about("host", room.Appoint, "mod")
	r.about("host", room.Appoint, "m2")
	meet()
	r.issued("mod", "bo", "host", 3, root, leaf)
	for _, k := range []room.Kind{room.ToStage, room.ToAudience, room.Mute, room.Unmute, room.Decline, room.Kick, room.Ban, room.Unban, room.Vouch, room.Unvouch} {
		r.about("mod", k, "ana")
	}
	r.draft("mod", room.Op{Kind: room.Lower, Targets: []peer.ID{r.peer("bo")}, Beat: 77, Reason: "done"})
	r.draft("mod", room.Op{Kind: room.Lock})
	r.draft("mod", room.Op{Kind: room.Unlock})
	r.draft("mod", room.Op{Kind: room.NewEpoch, Epoch: room.EpochCommit{N: 1, ID: room.EpochID{5}, Cause: 1}})
	r.draft("mod", room.Op{Kind: room.TallyUses, Invite: leaf, Count: 3, Root: room.OpID{8}})
	meet()
	r.draft("host", room.Op{Kind: room.Revoke, Invite: leaf, Branch: true})
	r.draft("host", room.Op{Kind: room.SetPolicy, Policy: &room.Policy{Visibility: room.Open, ConstantRate: true, VouchedOnly: true}})
	r.draft("host", room.Op{Kind: room.Checkpoint})
	r.about("host", room.Dismiss, "mod")
	r.hand("host", "m2")
	meet()
	if err := r.succeed("m2"); err != nil {
		t.Fatal(err)
	}
	meet()
	r.draft("m2", room.Op{Kind: room.End})
	r.all()
	return r
}

func TestOpRoundTrip(t *testing.T) {
	r := busyRoom(t)
	kinds := map[room.Kind]bool{}
	for _, e := range r.logs["host"].All() {
		kinds[e.Op.Kind] = true
		w, err := encodeOp(r.id, e.Op)
		if err != nil {
			t.Fatal(err)
		}
		var name string
		for n, k := range r.keys {
			if k.ID() == e.Op.Author {
				name = n
			}
		}
		again, id, err := ParseOp(wire.Sign(r.keys[name], wire.DomainOp, w))
		if err != nil || id != r.id || !reflect.DeepEqual(again, e.Op) {
			t.Fatalf("%v: %v\n%+v\n%+v", e.Op.Kind, err, again, e.Op)
		}
	}
	for k := room.Appoint; k <= room.Succeed; k++ {
		if !kinds[k] {
			t.Errorf("no %v was written", k)
		}
	}
}

func TestSeenRoundTrip(t *testing.T) {
	r := busyRoom(t)
	heads := r.logs["host"].Heads()
	again, err := DecodeSeen(EncodeSeen(heads))
	if err != nil || !slices.Equal(again, heads) || len(heads) < 3 {
		t.Fatal(heads, again, err)
	}
}

// Signed ops, drafted during partitions, in five orders with duplicates.
func TestSignedHistories(t *testing.T) {
	for seed := range uint64(15) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		r := newRig(t, open1, "m1", "m2", "ana", "bo")
		r.about("host", room.Appoint, "m1")
		r.about("host", room.Appoint, "m2")
		r.all()
		writers := []string{"host", "m1", "m2"}
		for range 25 {
			name, target := writers[rnd.IntN(3)], []string{"ana", "bo"}[rnd.IntN(2)]
			switch rnd.IntN(6) {
			case 0:
				r.admit(name, target, room.Listener)
			case 1:
				r.meet(writers[rnd.IntN(3)], writers[rnd.IntN(3)])
			default:
				r.about(name, []room.Kind{room.ToStage, room.ToAudience, room.Mute, room.Unmute, room.Kick, room.Decline}[rnd.IntN(6)], target)
			}
		}
		r.all()
		var ops []*wire.Signed
		for _, e := range r.logs["host"].All() {
			b, err := proto.Marshal(e.Signed)
			if err != nil {
				t.Fatal(err)
			}
			s := new(wire.Signed)
			if err := proto.Unmarshal(b, s); err != nil {
				t.Fatal(err)
			}
			ops = append(ops, s)
		}
		for range 5 {
			l := r.fresh()
			l.Add(shuffled(rnd, slices.Concat(ops, ops[:5]))...)
			if l.Hash() != r.logs["host"].Hash() {
				t.Fatalf("seed %d: another state", seed)
			}
		}
	}
}

func FuzzOp(f *testing.F) {
	r := busyRoom(f)
	host := r.keys["host"]
	for _, e := range r.logs["host"].All() {
		f.Add(e.Signed.Body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := &wire.Signed{Body: body, Key: host.Public(), Sig: host.Sign(wire.DomainOp, body)}
		op, id, err := ParseOp(s)
		l := r.fresh()
		v := l.Add(s)[0]
		if err != nil {
			if op != nil || v.Status != Refused {
				t.Fatalf("%v, but %v %v", err, op, v.Status)
			}
			return
		}
		l.State()
		w, err := encodeOp(id, op)
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := ParseOp(wire.Sign(host, wire.DomainOp, w))
		if known := op.Kind >= room.Appoint && op.Kind <= room.Succeed; err != nil && known {
			t.Fatalf("%v: %v", op.Kind, err)
		} else if known {
			again.ID, op.ID = room.OpID{}, room.OpID{}
			if !sameOp(again, op) {
				t.Fatalf("\n%+v\n%+v", again, op)
			}
		}
	})
}

// sameOp compares what the codec carries for the kind; an empty list is a missing one.
func sameOp(a, b *room.Op) bool {
	if len(a.Seen)+len(b.Seen) == 0 {
		a.Seen, b.Seen = nil, nil
	}
	if b.Kind != room.TallyUses {
		a.Count, b.Count = 0, 0
	}
	return reflect.DeepEqual(a, b)
}

func FuzzGenesis(f *testing.F) {
	r := busyRoom(f)
	host := r.keys["host"]
	f.Add(r.genesis.Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		g, err := ParseGenesis(&wire.Signed{Body: body, Key: host.Public(), Sig: host.Sign(wire.DomainGenesis, body)})
		if err != nil {
			if g != nil {
				t.Fatal("something came out")
			}
			return
		}
		p, err := DecodePolicy(EncodePolicy(g.Policy))
		if err != nil || !slices.Equal(p.Tags, g.Policy.Tags) {
			t.Fatalf("%v\n%+v\n%+v", err, p, g.Policy)
		}
		p.Tags, g.Policy.Tags = nil, nil
		if !reflect.DeepEqual(p, g.Policy) {
			t.Fatalf("\n%+v\n%+v", p, g.Policy)
		}
	})
}
