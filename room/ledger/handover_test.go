package ledger

import (
	"errors"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

func TestTransfer(t *testing.T) {
	r := newRig(t, open1, "mod", "m2", "ana", "eve")
	r.admit("host", "ana", room.Listener)
	r.about("host", room.Appoint, "mod")
	r.about("host", room.Appoint, "m2")
	r.all()
	r.about("mod", room.Mute, "ana")
	r.all()
	stolen := Agree(r.keys["eve"], room.Transfer, r.id, r.keys["host"].Public(), r.logs["host"].Heads()[0].Hash)
	if _, err := r.logs["host"].Draft(r.keys["host"], room.Op{Kind: room.Transfer, Targets: []peer.ID{r.peer("mod")}, Consents: []room.Consent{stolen}}, day); !errors.Is(err, room.BadSignature) {
		t.Fatalf("countersigned by another: %v", err)
	}
	r.hand("host", "mod")
	r.about("m2", room.ToStage, "ana")
	s := r.all()
	if s.Host != r.peer("mod") || s.Role(r.peer("host")) != room.Speaker || len(s.Moderators) != 1 || !s.Members[r.peer("ana")].Muted || !s.Members[r.peer("ana")].OnStage {
		t.Fatalf("%+v", s)
	}
	if _, err := r.logs["host"].Draft(r.keys["host"], room.Op{Kind: room.End}, day); !errors.Is(err, room.Removed) {
		t.Fatalf("the old host may still write: %v", err)
	}
	old := r.next("host", room.Op{Kind: room.End, Grant: r.logs["host"].root().op.ID})
	if v := r.add("host", r.forge("host", old))[0]; !errors.Is(v.Err, ErrVoid) {
		t.Fatalf("%v %v", v.Status, v.Err)
	}
	r.about("mod", room.Dismiss, "m2")
	r.about("mod", room.Kick, "host")
	s = r.all()
	if s.Ended || len(s.Moderators) != 0 || s.Role(r.peer("host")) != room.NoRole {
		t.Fatalf("%+v", s)
	}
	r.admit("mod", "host", room.Listener)
	r.all()
	r.hand("mod", "host")
	r.all()
	r.about("host", room.Appoint, "mod")
	if s = r.all(); s.Host != r.peer("host") || s.Role(r.peer("mod")) != room.Moderator {
		t.Fatalf("back again: %+v", s)
	}
}

// A host who handed over cannot take it back with a second op at an old number.
func TestForkUnderATransfer(t *testing.T) {
	r := newRig(t, open1, "mod", "ana")
	r.about("host", room.Appoint, "mod")
	second := r.next("host", room.Op{Kind: room.Kick, Targets: []peer.ID{r.peer("mod")}})
	r.admit("host", "ana", room.Listener)
	r.all()
	r.hand("host", "mod")
	r.all()
	r.add("ana", r.forge("host", second))
	s := r.all()
	if s.Host != r.peer("mod") || s.Role(r.peer("ana")) != room.Listener || len(s.Forked) != 1 {
		t.Fatalf("%+v", s)
	}
}

// Two hand-overs on two branches prove nothing: the chain counts up to the fork.
func TestTwoTransfers(t *testing.T) {
	r := newRig(t, open1, "mod", "eve")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.hand("host", "mod")
	head := r.logs["eve"].Heads()[0]
	c := Agree(r.keys["eve"], room.Transfer, r.id, r.keys["host"].Public(), head.Hash)
	r.add("eve", r.forge("host", room.Op{
		Kind: room.Transfer, Seq: head.Seq + 1, Prev: head.Hash, Grant: r.logs["eve"].root().op.ID, Targets: []peer.ID{r.peer("eve")}, Consents: []room.Consent{c},
	}))
	if r.logs["eve"].State().Host != r.peer("eve") {
		t.Fatal("the second transfer is not good by itself")
	}
	s := r.all()
	if s.Host != r.peer("host") || len(s.Forked) != 1 || s.Role(r.peer("mod")) != room.Moderator {
		t.Fatalf("host %v, forked %v", s.Host, s.Forked)
	}
}

// succeed drafts the heir's succession with these moderators' votes, at the heir's replica.
func (r *rig) succeed(voters ...string) error {
	r.t.Helper()
	last := r.logs["heir"].LastOfHost()
	op := room.Op{Kind: room.Succeed}
	for _, v := range voters {
		op.Consents = append(op.Consents, Agree(r.keys[v], room.Succeed, r.id, r.keys["heir"].Public(), last.Hash))
	}
	s, err := r.logs["heir"].Draft(r.keys["heir"], op, day)
	if err != nil {
		return err
	}
	r.add("heir", s)
	return nil
}

func successionRig(t *testing.T) *rig {
	r := newRig(t, open1, "m1", "m2", "m3", "eve")
	for _, m := range []string{"m1", "m2", "m3"} {
		r.about("host", room.Appoint, m)
	}
	r.all()
	return r
}

func TestSuccession(t *testing.T) {
	r := successionRig(t)
	for _, few := range [][]string{{}, {"m1"}, {"m1", "m1"}, {"m1", "eve"}} {
		if err := r.succeed(few...); err != nil {
			t.Fatal(err)
		}
		if s := r.logs["heir"].State(); s.Host != r.peer("host") {
			t.Fatalf("succeeded with %v", few)
		}
	}
	if err := r.succeed("m1", "m3"); err != nil {
		t.Fatal(err)
	}
	s := r.all()
	if s.Host != r.peer("heir") || len(s.Moderators) != 3 {
		t.Fatalf("%+v", s)
	}
	// A host who comes back and only goes on does not undo it.
	r2 := successionRig(t)
	if err := r2.succeed("m1", "m3"); err != nil {
		t.Fatal(err)
	}
	r2.admit("host", "ana", room.Listener)
	if s := r2.all(); s.Host != r2.peer("heir") || s.Role(r2.peer("ana")) != room.NoRole {
		t.Fatalf("%+v", s)
	}
	r2.about("heir", room.Appoint, "eve")
	r2.about("heir", room.Dismiss, "m1")
	if s := r2.all(); s.Role(r2.peer("eve")) != room.Moderator || s.Role(r2.peer("m1")) == room.Moderator {
		t.Fatalf("the heir cannot act: %+v", s)
	}
}

// A host who is there defends the room by dismissing a voter, also afterwards, or by ending it.
func TestSuccessionAgainstALiveHost(t *testing.T) {
	for _, kind := range []room.Kind{room.Dismiss, room.Kick, room.End} {
		r := successionRig(t)
		if err := r.succeed("m1", "m3"); err != nil {
			t.Fatal(err)
		}
		if kind == room.End {
			r.draft("host", room.Op{Kind: kind})
		} else {
			r.about("host", kind, "m1")
		}
		if s := r.all(); s.Host != r.peer("host") {
			t.Fatalf("%v: host %v", kind, s.Host)
		}
	}
}

// A succession decides a fork of the lost host below its cut.
func TestSuccessionOverAFork(t *testing.T) {
	r := successionRig(t)
	second := r.next("host", room.Op{Kind: room.Lock})
	r.admit("host", "ana", room.Listener)
	r.all()
	if err := r.succeed("m2", "m3"); err != nil {
		t.Fatal(err)
	}
	r.add("m1", r.forge("host", second))
	if s := r.all(); s.Host != r.peer("heir") || s.Role(r.peer("ana")) != room.Listener || s.Locked {
		t.Fatalf("%+v", s)
	}
}

// A heir keeps the votes of a week in which the host was away, and uses them a year after she came back: those who have
// worked under her since have taken theirs back.
func TestVotesFromBeforeTheHostCameBack(t *testing.T) {
	for _, c := range []struct {
		works []string // after the host's return
		host  string
	}{{nil, "heir"}, {[]string{"m2"}, "heir"}, {[]string{"m1"}, "host"}, {[]string{"m1", "m2", "m3"}, "host"}} {
		r := successionRig(t)
		last := r.logs["heir"].LastOfHost()
		op := room.Op{Kind: room.Succeed, CutSeq: last.Seq, CutHash: last.Hash}
		for _, v := range []string{"m1", "m3"} {
			op.Consents = append(op.Consents, Agree(r.keys[v], room.Succeed, r.id, r.keys["heir"].Public(), last.Hash))
		}
		r.admit("m3", "bo", room.Listener) // before she is back: says nothing
		r.draft("host", room.Op{Kind: room.Lock})
		r.all()
		for _, m := range c.works {
			r.about(m, room.Ban, "eve")
		}
		r.all()
		r.draft("heir", op)
		if s := r.all(); s.Host != r.peer(c.host) || s.Locked != (c.host == "host") || s.Banned[r.peer("eve")] != (len(c.works) > 0) {
			t.Errorf("%v worked under the host: host %v, locked %v, banned %v", c.works, s.Host, s.Locked, s.Banned)
		}
	}
}

// Who has seen the succession takes nothing back any more; who has not, does, whenever her op comes.
func TestAVoteIsTakenBackOnlyInIgnorance(t *testing.T) {
	for _, knows := range []bool{true, false} {
		r := successionRig(t)
		if err := r.succeed("m1", "m3"); err != nil {
			t.Fatal(err)
		}
		r.admit("host", "ana", room.Listener) // she does not know yet
		var works *wire.Signed
		if knows {
			r.meet("heir", "m1")
			r.meet("host", "m1")
			works = r.draft("m1", room.Op{Kind: room.Lock})
		} else {
			r.meet("host", "m1")
			works = r.draft("m1", room.Op{Kind: room.Lock})
		}
		r.meet("host", "heir")
		if s := r.logs["heir"].State(); s.Host != r.peer("heir") { // with the law made: the op that comes now is judged apart
			t.Fatalf("host %v before it comes", s.Host)
		}
		r.add("heir", works)
		r.all()
		if s := r.logs["heir"].State(); (s.Host == r.peer("heir")) != knows || (s.Role(r.peer("ana")) == room.NoRole) != knows {
			t.Errorf("knows %v: host %v", knows, s.Host)
		}
	}
}

// A voter who worked under the host who is back does not make her vote stand again by a second op at an old number.
func TestAForkBringsNoVoteBack(t *testing.T) {
	r := successionRig(t)
	last := r.logs["heir"].LastOfHost()
	var votes []room.Consent
	for _, v := range []string{"m1", "m3"} {
		votes = append(votes, Agree(r.keys[v], room.Succeed, r.id, r.keys["heir"].Public(), last.Hash))
	}
	second := r.next("m1", room.Op{Kind: room.Lock})
	r.draft("host", room.Op{Kind: room.Lock})
	r.meet("host", "m1")
	r.about("m1", room.Ban, "eve")
	r.add("heir", r.forge("m1", second)) // there it comes first
	r.all()
	r.draft("heir", room.Op{Kind: room.Succeed, CutSeq: last.Seq, CutHash: last.Hash, Consents: votes})
	if s := r.all(); s.Host != r.peer("host") || len(s.Forked) != 1 {
		t.Errorf("host %v, forked %v", s.Host, s.Forked)
	}
}
