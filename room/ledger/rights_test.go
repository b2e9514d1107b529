package ledger

import (
	"errors"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// What only the host may do is void by a moderator's hand.
func TestModeratorsAreNotTheHost(t *testing.T) {
	r := newRig(t, open1, "mod", "m2", "eve")
	r.about("host", room.Appoint, "mod")
	r.about("host", room.Appoint, "m2")
	r.all()
	want := r.logs["host"].Hash()
	consent := Agree(r.keys["eve"], room.Transfer, r.id, r.keys["mod"].Public(), room.OpID{})
	for _, op := range []room.Op{
		{Kind: room.End},
		{Kind: room.SetPolicy, Policy: &room.Policy{Visibility: room.Open}},
		{Kind: room.Appoint, Targets: []peer.ID{r.peer("eve")}},
		{Kind: room.Dismiss, Targets: []peer.ID{r.peer("m2")}},
		{Kind: room.Checkpoint},
		{Kind: room.Transfer, Targets: []peer.ID{r.peer("eve")}, Consents: []room.Consent{consent}},
	} {
		if _, err := r.logs["mod"].Draft(r.keys["mod"], op, day); !errors.Is(err, ErrForbidden) {
			t.Errorf("draft of %v: %v", op.Kind, err)
		}
		if op.Kind == room.Transfer { // its consent names the op before
			op.Consents[0] = Agree(r.keys["eve"], room.Transfer, r.id, r.keys["mod"].Public(), r.next("mod", op).Prev)
		}
		if v := r.add("mod", r.forge("mod", r.next("mod", op)))[0]; v.Status != Added || !errors.Is(v.Err, ErrVoid) {
			t.Errorf("%v: %v %v", op.Kind, v.Status, v.Err)
		}
	}
	if r.all(); r.logs["eve"].Hash() != want {
		t.Fatalf("%+v", r.logs["eve"].State())
	}
}

func TestAuthoritiesAboutThemselves(t *testing.T) {
	r := newRig(t, open1, "mod")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.about("mod", room.ToStage, "mod")
	r.about("host", room.ToAudience, "host")
	for _, kind := range []room.Kind{room.Kick, room.Ban} {
		for _, n := range []string{"mod", "host"} {
			if _, err := r.logs[n].Draft(r.keys[n], room.Op{Kind: kind, Targets: []peer.ID{r.peer(n)}}, day); !errors.Is(err, ErrForbidden) {
				t.Errorf("%s may %v herself: %v", n, kind, err)
			}
			r.add(n, r.forge(n, r.next(n, room.Op{Kind: kind, Targets: []peer.ID{r.peer(n)}})))
		}
	}
	s := r.all()
	if !s.Members[r.peer("mod")].OnStage || s.Members[r.peer("host")].OnStage || len(s.Banned)+len(s.Removed) != 0 || len(s.Moderators) != 1 {
		t.Fatalf("%+v", s)
	}
}

// A consent is for one place in the chain: it cannot be kept and used later.
func TestOldConsent(t *testing.T) {
	r := newRig(t, open1, "mod", "ana")
	old := Agree(r.keys["mod"], room.Transfer, r.id, r.keys["host"].Public(), r.logs["host"].root().op.ID)
	r.admit("host", "ana", room.Listener)
	op := room.Op{Kind: room.Transfer, Targets: []peer.ID{r.peer("mod")}, Consents: []room.Consent{old}}
	if _, err := r.logs["host"].Draft(r.keys["host"], op, day); !errors.Is(err, room.BadSignature) {
		t.Fatal(err)
	}
	vote := Agree(r.keys["mod"], room.Succeed, r.id, r.keys["host"].Public(), r.logs["host"].Heads()[0].Hash)
	op.Consents[0] = vote
	if _, err := r.logs["host"].Draft(r.keys["host"], op, day); !errors.Is(err, room.BadSignature) {
		t.Fatalf("a vote passed for a consent: %v", err)
	}
}

// What names a void op waits for ever, but nobody is asked for it.
func TestVoidOpsAreNotWanted(t *testing.T) {
	r := newRig(t, open1, "mod")
	r.about("host", room.Appoint, "mod")
	r.all()
	op := r.next("mod", room.Op{Kind: room.Lock})
	op.Seen[0].Seq++
	lie := r.forge("mod", op)
	after := r.next("mod", room.Op{Kind: room.Lock})
	after.Seq, after.Prev = 2, IDOf(lie)
	if got := status(r.add("host", lie, r.forge("mod", after))); got != "void pending " {
		t.Fatal(got)
	}
	if w := r.logs["host"].Wanted(); len(w) != 0 {
		t.Fatalf("wanted %v", w)
	}
}

// A person who was removed and let in again by the same single use is not another use.
func TestBackByTheSameUse(t *testing.T) {
	r := newRig(t, open1)
	r.through("host", "ana", 1, leaf)
	r.about("host", room.Kick, "ana")
	r.through("host", "ana", 1, leaf)
	if s := r.all(); s.Role(r.peer("ana")) != room.Listener || s.Uses[leaf] != 1 {
		t.Fatalf("%+v", s)
	}
}

// The host of a moderator's two-machine accident names one branch; she goes on from it after a new appointment.
func TestAForkedModeratorIsTakenBack(t *testing.T) {
	r := newRig(t, open1, "mod")
	r.about("host", room.Appoint, "mod")
	r.all()
	a := r.forge("mod", r.next("mod", room.Op{Kind: room.Lock}))
	b := r.forge("mod", r.next("mod", room.Op{Kind: room.Kick, Targets: []peer.ID{r.peer("ana")}}))
	r.add("host", a, b)
	r.draft("host", room.Op{Kind: room.Dismiss, Targets: []peer.ID{r.peer("mod")}, CutSeq: 1, CutHash: IDOf(a)})
	r.about("host", room.Appoint, "mod")
	if s := r.all(); !s.Locked || len(s.Removed) != 0 {
		t.Fatalf("%+v", s)
	}
	r.draft("mod", room.Op{Kind: room.Unlock})
	if r.all().Locked {
		t.Fatal("her ops do not count again")
	}
}
