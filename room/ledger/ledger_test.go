package ledger

import (
	"errors"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

func TestAnEvening(t *testing.T) {
	r := newRig(t, open1, "mod", "ana", "bo")
	r.admit("host", "mod", room.Speaker)
	r.about("host", room.Appoint, "mod")
	r.all()
	r.admit("mod", "ana", room.Listener)
	r.about("mod", room.ToStage, "ana")
	r.admit("host", "bo", room.Listener)
	s := r.all()
	if s.Role(r.peer("host")) != room.Host || s.Role(r.peer("mod")) != room.Moderator || s.Role(r.peer("ana")) != room.Speaker || s.Role(r.peer("bo")) != room.Listener {
		t.Fatalf("roles %v", s.Members)
	}
	if m := s.Members[r.peer("mod")]; m.Name != "mod" || m.By != r.peer("host") || !m.OnStage || m.Role != room.Moderator {
		t.Fatalf("moderator %+v", m)
	}
	if h := s.Members[r.peer("host")]; !h.OnStage || h.Role != room.Host {
		t.Fatalf("host %+v", h)
	}
	if want := []peer.ID{r.peer("host"), r.peer("mod"), r.peer("ana")}; !slices.Equal(s.Stage, want) {
		t.Fatalf("stage %v", s.Stage)
	}
	r.about("mod", room.Mute, "ana")
	r.draft("mod", room.Op{Kind: room.Lower, Targets: []peer.ID{r.peer("bo")}, Beat: 9})
	r.about("host", room.Kick, "bo")
	s = r.all()
	if !s.Members[r.peer("ana")].Muted || s.Lowered[r.peer("bo")] != 9 || s.Role(r.peer("bo")) != room.NoRole || s.Removed[r.peer("bo")] == (room.OpID{}) {
		t.Fatalf("after mute, lower and kick: %+v", s)
	}
	r.admit("mod", "bo", room.Listener)
	r.about("mod", room.ToAudience, "ana")
	r.about("mod", room.Unmute, "ana")
	r.draft("mod", room.Op{Kind: room.Lock})
	s = r.all()
	if _, out := s.Removed[r.peer("bo")]; out || s.Role(r.peer("bo")) != room.Listener || s.Role(r.peer("ana")) != room.Listener || s.Members[r.peer("ana")].Muted || !s.Locked {
		t.Fatalf("after admitting again: %+v", s)
	}
	r.draft("host", room.Op{Kind: room.Unlock})
	r.draft("host", room.Op{Kind: room.End})
	if s = r.all(); s.Locked || !s.Ended {
		t.Fatal("not ended")
	}
	if _, err := r.logs["mod"].Draft(r.keys["mod"], room.Op{Kind: room.Lock}, day); !errors.Is(err, room.Ended) {
		t.Fatal(err)
	}
}

// Trust 27: a listener's ban, kick and mute, under whatever grant she names, are applied nowhere.
func TestAListenerDecidesNothing(t *testing.T) {
	r := newRig(t, open1, "mod", "eve", "ana")
	appoint := r.about("host", room.Appoint, "mod")
	r.admit("host", "eve", room.Listener)
	r.admit("host", "ana", room.Speaker)
	r.all()
	before := r.logs["host"].Hash()
	for _, grant := range []room.OpID{r.logs["host"].root().op.ID, IDOf(appoint), {7}, {}} {
		for _, kind := range []room.Kind{room.Ban, room.Kick, room.Mute, room.ToAudience, room.Appoint, room.End, room.Lock, room.Succeed} {
			op := room.Op{Kind: kind, Seq: 1, Grant: grant, Targets: []peer.ID{r.peer("ana")}}
			s := r.forge("eve", op)
			for n := range r.logs {
				if v := r.add(n, s)[0]; v.Status == Added || v.Status == Duplicate {
					t.Fatalf("%v under %x: %v", kind, grant[:2], v.Status)
				}
				if r.logs[n].Hash() != before {
					t.Fatalf("%v changed the state", kind)
				}
			}
		}
	}
	for _, kind := range []room.Kind{room.Ban, room.Kick, room.Mute} {
		if _, err := r.logs["eve"].Draft(r.keys["eve"], room.Op{Kind: kind, Targets: []peer.ID{r.peer("ana")}}, day); !errors.Is(err, ErrForbidden) {
			t.Fatalf("draft: %v", err)
		}
	}
}

// Trust 28: what a dismissed moderator writes after the cut is void, whatever date and causal past she gives it.
func TestOpsPastADismissalAreVoid(t *testing.T) {
	r := newRig(t, open1, "mod", "ana", "bo")
	r.about("host", room.Appoint, "mod")
	r.admit("host", "ana", room.Speaker)
	r.all()
	r.admit("mod", "bo", room.Listener)
	r.all()
	r.about("host", room.Dismiss, "mod")
	r.now = day.AddDate(-1, 0, 0)
	late := r.about("mod", room.Ban, "ana") // her replica has not heard of the dismissal
	v := r.add("host", late)[0]
	if v.Status != Added || !errors.Is(v.Err, ErrVoid) {
		t.Fatalf("verdict %v %v", v.Status, v.Err)
	}
	s := r.all()
	if s.Banned[r.peer("ana")] || s.Role(r.peer("ana")) != room.Speaker || s.Role(r.peer("bo")) != room.Listener || len(s.Moderators) != 0 {
		t.Fatalf("%+v", s)
	}
	if _, err := r.logs["mod"].Draft(r.keys["mod"], room.Op{Kind: room.Lock}, day); !errors.Is(err, room.Removed) {
		t.Fatalf("draft after a dismissal: %v", err)
	}
	all := r.logs["bo"].All()
	if e := all[len(all)-1]; !slices.ContainsFunc(all, func(e Entry) bool { return e.Op.ID == IDOf(late) && e.Void && e.Why != "" }) {
		t.Fatalf("not shown as void: %+v", e)
	}
	r.about("host", room.Appoint, "mod")
	r.all()
	r.about("mod", room.Mute, "ana")
	if s = r.all(); !s.Members[r.peer("ana")].Muted || s.Banned[r.peer("ana")] {
		t.Fatal("appointed again, her new ops count and the void one stays void")
	}
}

// A moderator whom the host kicks is dismissed with what the host had seen of her.
func TestKickOfAModeratorIsADismissal(t *testing.T) {
	r := newRig(t, open1, "mod", "ana", "bo")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.admit("mod", "ana", room.Listener)
	r.all()
	r.about("host", room.Kick, "mod")
	r.admit("mod", "bo", room.Listener)
	s := r.all()
	if s.Role(r.peer("mod")) != room.NoRole || s.Role(r.peer("ana")) != room.Listener || s.Role(r.peer("bo")) != room.NoRole {
		t.Fatalf("%+v", s)
	}
	if _, ok := s.Unconfirmed[r.peer("bo")]; !ok {
		t.Fatal("whom a void op admitted waits for somebody to confirm")
	}
}

func TestModeratorsCannotTouchEachOther(t *testing.T) {
	r := newRig(t, open1, "m1", "m2", "ana")
	r.about("host", room.Appoint, "m1")
	r.about("host", room.Appoint, "m2")
	r.admit("host", "ana", room.Speaker)
	r.all()
	for _, target := range []string{"m2", "host"} {
		for _, kind := range []room.Kind{room.Kick, room.Ban, room.Mute, room.ToAudience} {
			r.add("m1", r.forge("m1", r.next("m1", room.Op{Kind: kind, Targets: []peer.ID{r.peer(target)}})))
		}
	}
	r.about("m1", room.Mute, "ana") // written while the host appoints her: an authority by the state that counts
	r.about("host", room.Appoint, "ana")
	s := r.all()
	if s.Role(r.peer("m2")) != room.Moderator || s.Role(r.peer("host")) != room.Host || len(s.Banned)+len(s.Removed) != 0 || !s.Members[r.peer("host")].OnStage {
		t.Fatalf("%+v", s)
	}
	if s.Members[r.peer("ana")].Muted {
		t.Fatal("the host's appointment stands over a moderator's mute at the same time")
	}
	// Dismissing somebody does not wake what could not touch her then.
	r.about("host", room.Dismiss, "m2")
	if s = r.all(); s.Banned[r.peer("m2")] {
		t.Fatalf("an old ban woke up: %+v", s)
	}
}

func TestRestrictiveWinsWhileConcurrent(t *testing.T) {
	for _, tt := range []struct{ loose, tight room.Kind }{
		{room.Unban, room.Ban},
		{room.ToStage, room.ToAudience},
		{room.Unmute, room.Mute},
		{room.Vouch, room.Unvouch},
	} {
		r := newRig(t, open1, "m1", "m2", "ana")
		r.about("host", room.Appoint, "m1")
		r.about("host", room.Appoint, "m2")
		r.admit("host", "ana", room.Speaker)
		r.all()
		look := func(s *room.State) bool {
			m := s.Members[r.peer("ana")]
			return map[room.Kind]bool{room.Unban: s.Banned[r.peer("ana")], room.ToStage: !m.OnStage, room.Unmute: m.Muted, room.Vouch: !s.Vouched[r.peer("ana")]}[tt.loose]
		}
		r.about("m1", tt.tight, "ana")
		r.about("m2", tt.loose, "ana")
		r.about("host", tt.loose, "ana")
		if !look(r.all()) {
			t.Errorf("%v at the same time as %v: the restrictive did not win", tt.tight, tt.loose)
		}
		r.about("m2", tt.loose, "ana")
		if look(r.all()) {
			t.Errorf("%v after %v does not count", tt.loose, tt.tight)
		}
	}
}

// An author cannot hide what he named: his past holds the past of all that he names.
func TestUnderstatedSeen(t *testing.T) {
	r := newRig(t, open1, "m1", "m2", "ana")
	r.about("host", room.Appoint, "m1")
	r.about("host", room.Appoint, "m2")
	r.admit("host", "ana", room.Speaker)
	r.all()
	r.about("m1", room.Unmute, "ana")
	r.meet("m1", "host")
	r.about("host", room.Lock, "ana")
	r.meet("host", "m2")
	op := r.next("m2", room.Op{Kind: room.Mute, Targets: []peer.ID{r.peer("ana")}})
	op.Seen = slices.DeleteFunc(op.Seen, func(s room.Seen) bool { return s.Author == r.peer("m1") })
	s := r.forge("m2", op)
	r.add("m2", s)
	if n, m := r.logs["m2"].nodes[IDOf(s)], r.logs["m2"].head(r.logs["m2"].authors[r.peer("m1")]); !before(m, n) {
		t.Fatal("what the host had seen is not in the past of who saw the host")
	}
}

// Trust 55: an op with a lying "seen" is void; one that names what nobody holds stays without effect.
func TestLyingSeenIsVoid(t *testing.T) {
	r := newRig(t, open1, "mod", "ana")
	r.about("host", room.Appoint, "mod")
	r.admit("host", "ana", room.Speaker)
	r.all()
	r.about("host", room.ToStage, "ana")
	s := r.all()
	want := r.logs["host"].Hash()
	real := r.logs["host"].Heads()[0]
	for _, tt := range []struct {
		name string
		seen room.Seen
		want Status
	}{
		{"a number that the hash does not have", room.Seen{Author: real.Author, Seq: 1 << 31, Hash: real.Hash}, Void},
		{"another author's hash", room.Seen{Author: r.peer("ana"), Seq: real.Seq, Hash: real.Hash}, Void},
		{"a hash that is nobody's", room.Seen{Author: real.Author, Seq: 1 << 31, Hash: room.OpID{9}}, Pending},
	} {
		op := r.next("mod", room.Op{Kind: room.ToAudience, Targets: []peer.ID{r.peer("ana")}, Reason: tt.name})
		op.Seen = []room.Seen{tt.seen}
		lie := r.forge("mod", op)
		for n, l := range r.logs {
			v := l.Add(lie, lie)
			if v[0].Status != tt.want || l.Hash() != want || !l.State().Members[r.peer("ana")].OnStage {
				t.Fatalf("%s at %s: %v", tt.name, n, status(v))
			}
		}
	}
	if !s.Members[r.peer("ana")].OnStage {
		t.Fatal("not on stage")
	}
	w := r.logs["host"].Wanted()
	if len(w) != 1 || w[0].Hash != (room.OpID{9}) {
		t.Fatalf("wanted %v", w)
	}
}

// Trust 30, the pure part: two ops with one number void the chain from there, everywhere, and both are the proof.
func TestForkIsVoidAndShown(t *testing.T) {
	r := newRig(t, open1, "mod", "ana", "bo")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.admit("mod", "ana", room.Listener)
	r.all()
	a := r.forge("mod", r.next("mod", room.Op{Kind: room.Admit, Admissions: []room.Admission{{Peer: r.peer("bo"), Role: room.Speaker}}}))
	b := r.forge("mod", r.next("mod", room.Op{Kind: room.Ban, Targets: []peer.ID{r.peer("ana")}}))
	r.add("host", a)
	r.add("ana", b)
	s := r.all()
	for n, l := range r.logs {
		f := l.Forks()
		if len(f) != 1 || f[0].Author != r.peer("mod") || f[0].Seq != 2 || len(f[0].Ops) != 2 || f[0].Decided || !slices.Equal(l.State().Forked, []peer.ID{r.peer("mod")}) {
			t.Fatalf("%s: forks %+v", n, f)
		}
	}
	if s.Role(r.peer("ana")) != room.Listener || s.Role(r.peer("bo")) != room.NoRole || s.Unconfirmed[r.peer("bo")].Op != IDOf(a) {
		t.Fatalf("%+v", s)
	}
	r.about("host", room.Mute, "bo")
	if m := r.all().Unconfirmed[r.peer("bo")].Member; m.Role != room.Speaker || !m.OnStage || !m.Muted || m.By != r.peer("mod") {
		t.Fatalf("if it counted she would be %+v", m)
	}
	if _, err := r.logs["mod"].Draft(r.keys["mod"], room.Op{Kind: room.Lock}, day); !errors.Is(err, room.SecondDevice) {
		t.Fatalf("draft on a fork: %v", err)
	}
}

// Trust 56, the pure part: a fork at or below a cut or checkpoint is decided for the named branch; nobody that the
// named branch let in is thrown out by an old op that turns up later.
func TestForkUnderACut(t *testing.T) {
	for _, how := range []room.Kind{room.Dismiss, room.Checkpoint} {
		r := newRig(t, open1, "mod", "ana", "bo", "cy")
		r.about("host", room.Appoint, "mod")
		r.all()
		second := r.next("mod", room.Op{Kind: room.Ban, Targets: []peer.ID{r.peer("ana")}})
		r.admit("mod", "ana", room.Listener)
		r.admit("mod", "bo", room.Listener)
		r.meet("mod", "host")
		if how == room.Dismiss {
			r.about("host", how, "mod")
		} else {
			r.draft("host", room.Op{Kind: how})
		}
		r.add("cy", r.forge("mod", second))
		s := r.all()
		if s.Role(r.peer("ana")) != room.Listener || s.Role(r.peer("bo")) != room.Listener || len(s.Forked) != 1 {
			t.Fatalf("%v: %+v", how, s)
		}
		if f := r.logs["cy"].Forks(); len(f) != 1 || !f[0].Decided {
			t.Fatalf("%v: %+v", how, f)
		}
		if how == room.Checkpoint {
			r.about("mod", room.Kick, "bo")
			if s := r.all(); s.Role(r.peer("bo")) != room.NoRole {
				t.Fatal("the named branch does not go on")
			}
		}
	}
}

// Two branches as long as each other, deep in a chain that takes many replies, and a third that is shorter: sync alone brings
// everybody all of them.
func TestSyncOverForks(t *testing.T) {
	r := newRig(t, open1, "mod", "ana", "bo")
	r.about("host", room.Appoint, "mod")
	r.all()
	for range 40 {
		r.draft("mod", room.Op{Kind: room.Lock})
	}
	r.all()
	base := r.next("mod", room.Op{Kind: room.Unlock})
	branch := func(n int, at string) {
		for i, op := 0, base; i < n; i++ {
			op.Beat = uint64(n)
			s := r.forge("mod", op)
			r.add(at, s)
			op.Seq, op.Prev = op.Seq+1, IDOf(s)
		}
	}
	branch(3, "ana")
	branch(4, "ana")
	branch(2, "bo")
	for range 2 { // the one has two that are longer, the other one that is shorter
		r.meet("ana", "bo")
	}
	for _, n := range []string{"ana", "bo"} {
		if f := r.logs[n].Forks(); len(f) != 1 || len(f[0].Ops) != 3 {
			t.Fatalf("%s: %+v", n, f)
		}
	}
	r.all()
	base = r.next("host", room.Op{Kind: room.Lock})
	r.add("ana", r.forge("host", base))
	base.Kind = room.Unlock
	r.add("bo", r.forge("host", base))
	r.meet("ana", "bo")
	if f := r.logs["bo"].Forks(); len(f) != 2 {
		t.Fatalf("of equal length: %+v", f)
	}
}

// A chain with very many branches, different ones told to different people, does not keep the host's cut from
// being linked anywhere.
func TestManyBranchesDoNotStopACut(t *testing.T) {
	r := newRig(t, open1, "mod", "ana")
	r.about("host", room.Appoint, "mod")
	r.all()
	base := r.next("mod", room.Op{Kind: room.Kick, Targets: []peer.ID{r.peer("ana")}})
	var all []*wire.Signed
	for i := range 40 {
		op := base
		op.Beat = uint64(i)
		all = append(all, r.forge("mod", op))
	}
	if got := status(r.add("ana", all...)); got[len(got)-8:] != "refused " {
		t.Fatalf("no bound: %s", got)
	}
	r.add("host", all[39])
	cut := r.about("host", room.Dismiss, "mod")
	if v := r.add("ana", cut); v[0].Status != Pending {
		t.Fatalf("cut: %v", v)
	}
	if w := r.logs["ana"].Wanted(); len(w) != 1 || w[0].Hash != IDOf(all[39]) {
		t.Fatalf("wanted %v", w)
	}
	if got := status(r.add("ana", all[39])); got != "added " || len(r.logs["ana"].State().Moderators) != 0 {
		t.Fatalf("the named branch is %v, moderators %v", got, r.logs["ana"].State().Moderators)
	}
}

// A body signed by a second key has the same id; it must not take the place of the first.
func TestTheSameBodyByAnotherKey(t *testing.T) {
	r := newRig(t, open1, "mod", "eve", "ana")
	r.about("host", room.Appoint, "mod")
	r.admit("host", "ana", room.Speaker)
	r.all()
	s := r.about("mod", room.Mute, "ana")
	fake := &wire.Signed{Body: s.Body, Key: r.keys["eve"].Public(), Sig: r.keys["eve"].Sign(wire.DomainOp, s.Body)}
	if got := status(r.add("ana", fake, s, fake, s)); got != "void added void duplicate " {
		t.Fatal(got)
	}
}

func TestForeignBytes(t *testing.T) {
	r := newRig(t, open1, "mod")
	good := r.about("host", room.Appoint, "mod")
	flip := func(f func(s *wire.Signed)) *wire.Signed {
		s := &wire.Signed{Body: slices.Clone(good.Body), Sig: slices.Clone(good.Sig), Key: slices.Clone(good.Key)}
		f(s)
		return s
	}
	other := newRig(t, room.Policy{Visibility: room.Open}, "mod")
	other.genesis, _ = NewGenesis(other.keys["host"], room.Secret{2}, open1, nil, day)
	other.logs["host"], other.id = other.fresh(), other.fresh().id
	for _, tt := range []struct {
		name string
		op   *wire.Signed
		want error
	}{
		{"nothing", nil, room.Malformed},
		{"empty", &wire.Signed{}, room.Malformed},
		{"a changed body", flip(func(s *wire.Signed) { s.Body[9] ^= 1 }), room.BadSignature},
		{"a changed signature", flip(func(s *wire.Signed) { s.Sig[9] ^= 1 }), room.BadSignature},
		{"more in the envelope", flip(func(s *wire.Signed) { s.ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 1}) }), room.Malformed},
		{"a long body", flip(func(s *wire.Signed) { s.Body = make([]byte, MaxRecord+1) }), room.Malformed},
		{"another room", other.about("host", room.Appoint, "mod"), room.WrongRoom},
		{"no room", r.forge("host", room.Op{Kind: room.Kick, Seq: 0, Targets: []peer.ID{r.peer("mod")}}), room.Malformed},
		{"two appointed", r.forge("host", r.next("host", room.Op{Kind: room.Appoint, Targets: []peer.ID{r.peer("mod"), r.peer("heir")}})), room.Malformed},
		{"nobody kicked", r.forge("host", r.next("host", room.Op{Kind: room.Kick})), room.Malformed},
		{"a moderator by invite", r.forge("host", r.next("host", room.Op{Kind: room.Admit, Admissions: []room.Admission{{Peer: r.peer("mod"), Role: room.Moderator}}})), room.Malformed},
		{"a transfer without consent", r.forge("host", r.next("host", room.Op{Kind: room.Transfer, Targets: []peer.ID{r.peer("mod")}})), room.BadSignature},
		{"a reason that turns", r.forge("host", r.next("host", room.Op{Kind: room.Kick, Targets: []peer.ID{r.peer("mod")}, Reason: "a\u202eb"})), room.Malformed},
		{"a name of two lines", r.forge("host", r.next("host", room.Op{Kind: room.Admit, Admissions: []room.Admission{{Peer: r.peer("mod"), Role: room.Speaker, Name: "a\nb"}}})), room.Malformed},
		{"a topic that rings", r.forge("host", r.next("host", room.Op{Kind: room.SetPolicy, Policy: &room.Policy{Visibility: room.Closed, Topic: "\a"}})), room.Malformed},
		{"a tag that erases", r.forge("host", r.next("host", room.Op{Kind: room.SetPolicy, Policy: &room.Policy{Visibility: room.Closed, Tags: []string{"\x1b[2K"}}})), room.Malformed},
	} {
		l := r.fresh()
		if v := l.Add(tt.op)[0]; v.Status != Refused || !errors.Is(v.Err, tt.want) {
			t.Errorf("%s: %v %v, want %v", tt.name, v.Status, v.Err, tt.want)
		}
	}
}

func TestUnknownKindsCountInTheirChain(t *testing.T) {
	r := newRig(t, open1, "mod", "ana")
	r.about("host", room.Appoint, "mod")
	r.admit("host", "ana", room.Speaker)
	r.all()
	before := r.logs["host"].Hash()
	for _, n := range []string{"mod", "host"} {
		if v := r.add(n, r.forge(n, r.next(n, room.Op{Kind: 999, Targets: []peer.ID{r.peer("ana")}})))[0]; v.Status != Added || v.Err != nil {
			t.Fatalf("%v %v", v.Status, v.Err)
		}
	}
	if r.all(); r.logs["ana"].Hash() != before {
		t.Fatal("an unknown kind changed the state")
	}
	r.about("mod", room.Mute, "ana")
	if !r.all().Members[r.peer("ana")].Muted {
		t.Fatal("the chain stopped")
	}
}

func TestPolicy(t *testing.T) {
	r := newRig(t, room.Policy{Visibility: room.Closed, Name: "a"}, "mod")
	set := func(p room.Policy) error {
		s, err := r.logs["host"].Draft(r.keys["host"], room.Op{Kind: room.SetPolicy, Policy: &p}, day)
		if err == nil {
			r.add("host", s)
		}
		return err
	}
	if err := set(room.Policy{Visibility: room.Open, Name: "b", Tags: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	if err := set(room.Policy{Visibility: room.Closed}); !errors.Is(err, ErrForbidden) {
		t.Fatal(err)
	}
	p := room.Policy{Visibility: room.Unlisted, Name: "c"}
	r.add("host", r.forge("host", r.next("host", room.Op{Kind: room.SetPolicy, Policy: &p})))
	if s := r.all(); s.Policy.Visibility != room.Open || s.Policy.Name != "b" {
		t.Fatalf("an open room was closed: %+v", s.Policy)
	}
	for _, tt := range []struct {
		p    room.Policy
		want error
	}{{room.Policy{}, room.Malformed}, {room.Policy{Visibility: room.Open, MinVersion: Version + 1}, room.NeedsNewer}} {
		if _, err := NewGenesis(r.keys["host"], room.Secret{}, tt.p, nil, day); !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt.p, err)
		}
	}
}
