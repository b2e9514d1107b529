package ledger

import (
	"fmt"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

var (
	leaf = room.InviteID{1}
	root = room.InviteID{2}
	twig = room.InviteID{3}
)

// through admits target at name by an invite chain; uses is the limit of each block.
func (r *rig) through(name, target string, uses uint16, chain ...room.InviteID) {
	r.t.Helper()
	r.issued(name, target, name, uses, chain...)
}

func (r *rig) issued(name, target, issuer string, uses uint16, chain ...room.InviteID) {
	r.t.Helper()
	a := room.Admission{Peer: r.peer(target), Role: room.Listener, Chain: chain, Issuer: r.peer(issuer)}
	for range chain {
		a.Uses = append(a.Uses, uses)
	}
	r.draft(name, room.Op{Kind: room.Admit, Admissions: []room.Admission{a}})
}

// Trust 17 and 18, the pure part: one use claimed on two sides lets exactly one in after the merge.
func TestOneUseTwoSides(t *testing.T) {
	r := newRig(t, open1, "m1", "m2")
	r.about("host", room.Appoint, "m1")
	r.about("host", room.Appoint, "m2")
	r.all()
	r.issued("m1", "ana", "host", 1, leaf)
	r.issued("m2", "bo", "host", 1, leaf)
	s := r.all()
	in, out := "ana", "bo"
	if s.Role(r.peer(in)) == room.NoRole {
		in, out = out, in
	}
	if s.Role(r.peer(in)) != room.Listener || s.Role(r.peer(out)) != room.NoRole || s.Uses[leaf] != 1 {
		t.Fatalf("uses %v, members %v", s.Uses, s.Members)
	}
	if _, ok := s.Removed[r.peer(out)]; !ok {
		t.Fatal("the surplus is not told as removed")
	}
	r.issued("m1", in, "host", 1, leaf) // coming back is not another use
	if s = r.all(); s.Role(r.peer(in)) != room.Listener || s.Uses[leaf] != 1 {
		t.Fatalf("coming back: %v", s.Uses)
	}
}

// Trust 54, the pure part: a use is charged to every block, so delegating a single-use invite admits one in all.
func TestDelegatedUsesAreCharged(t *testing.T) {
	r := newRig(t, open1)
	for i := range 1000 {
		r.issued("host", fmt.Sprint("guest", i), "host", 1, root, room.InviteID{9, byte(i), byte(i >> 8)})
	}
	if s := r.all(); len(s.Members) != 2 || s.Uses[root] != 1 {
		t.Fatalf("%d members, uses %v", len(s.Members), s.Uses)
	}
}

// Trust 19, the pure part: a revoked branch is out, also who came by a delegation of it, and stays out.
func TestRevokeABranch(t *testing.T) {
	r := newRig(t, open1, "mod", "other")
	r.about("host", room.Appoint, "mod")
	r.about("host", room.Appoint, "other")
	r.all()
	r.through("mod", "ana", 0, root)
	r.through("mod", "bo", 0, root, leaf)
	r.through("mod", "cy", 0, twig)
	s := r.all()
	if len(s.Members) != 6 {
		t.Fatalf("%v", s.Members)
	}
	r.draft("other", room.Op{Kind: room.Revoke, Invite: twig, Branch: true})
	if s = r.all(); s.Role(r.peer("cy")) == room.NoRole {
		t.Fatal("a moderator revoked another's invite")
	}
	r.draft("mod", room.Op{Kind: room.Revoke, Invite: root, Branch: true})
	s = r.all()
	if s.Role(r.peer("ana")) != room.NoRole || s.Role(r.peer("bo")) != room.NoRole || s.Role(r.peer("cy")) != room.Listener || !s.Closed[root][r.peer("mod")] {
		t.Fatalf("%v", s.Members)
	}
	r.issued("other", "bo", "mod", 0, root, leaf)
	if s = r.all(); s.Role(r.peer("bo")) != room.NoRole {
		t.Fatal("back by the revoked branch")
	}
	r.admit("host", "bo", room.Listener)
	if s = r.all(); s.Role(r.peer("bo")) != room.Listener {
		t.Fatal("the host cannot admit by name")
	}
}

func TestRevokeOne(t *testing.T) {
	r := newRig(t, open1)
	r.through("host", "ana", 0, leaf)
	r.draft("host", room.Op{Kind: room.Revoke, Invite: leaf})
	r.through("host", "bo", 0, leaf)
	s := r.all()
	if branch, revoked := s.Revoked[leaf]; branch || !revoked || s.Role(r.peer("ana")) != room.Listener || s.Role(r.peer("bo")) != room.NoRole {
		t.Fatalf("%+v", s)
	}
}

// A ban closes the invite that the person came by; no other.
func TestBanClosesTheInvite(t *testing.T) {
	r := newRig(t, open1)
	r.through("host", "ana", 0, root, leaf)
	r.about("host", room.Ban, "ana")
	s := r.all()
	if _, closed := s.Revoked[leaf]; !closed || !s.Banned[r.peer("ana")] {
		t.Fatalf("%+v", s)
	}
	if _, closed := s.Revoked[root]; closed {
		t.Fatal("the parent block was closed too")
	}
	r.about("host", room.Unban, "ana")
	if s = r.all(); len(s.Revoked) != 0 || s.Role(r.peer("ana")) != room.NoRole {
		t.Fatalf("%+v", s)
	}
	r.draft("host", room.Op{Kind: room.Ban, Targets: []peer.ID{r.peer("bo")}, Invite: twig}) // a guest, whom no admission names
	if branch, closed := r.all().Revoked[twig]; !closed || branch {
		t.Fatal("the invite that the ban names is not closed")
	}
	r.through("host", "cy", 0, twig)
	r.about("host", room.Unban, "bo")
	if s = r.all(); len(s.Revoked) != 0 || s.Role(r.peer("cy")) != room.Listener {
		t.Fatal("after the ban was lifted it is still closed, or somebody else is out by it")
	}
}

// What a moderator closes, by whatever decision and whatever admissions she writes to make it look like hers, stays open
// if the host issued it, and is closed if she did.
func TestAModeratorClosesHerOwnOnly(t *testing.T) {
	r := newRig(t, open1, "mod")
	r.about("host", room.Appoint, "mod")
	host, mod := r.peer("host"), r.peer("mod")
	is := func(id room.InviteID, issuer peer.ID, branch, closed bool) {
		t.Helper()
		if b, c := r.all().IsRevoked(id, issuer); b != branch || c != closed {
			t.Errorf("invite %d: branch %v, closed %v", id[0], b, c)
		}
	}
	r.all()
	r.issued("mod", "friend", "host", 0, root, leaf)
	r.about("mod", room.Ban, "friend")
	r.issued("mod", "helper", "mod", 1, root, leaf) // says that it is hers, and for one
	r.about("mod", room.Ban, "helper")
	r.draft("mod", room.Op{Kind: room.Ban, Targets: []peer.ID{r.peer("nobody")}, Invite: leaf})
	r.draft("mod", room.Op{Kind: room.Revoke, Invite: root, Branch: true})
	r.draft("mod", room.Op{Kind: room.Revoke, Invite: twig})
	for _, id := range []room.InviteID{root, leaf, twig} {
		is(id, host, false, false)
	}
	is(root, mod, true, true)
	is(leaf, mod, false, true)
	r.issued("host", "ana", "host", 0, root, leaf)
	r.issued("host", "bo", "host", 0, root, leaf)
	if s := r.all(); s.Role(r.peer("ana")) != room.Listener || s.Role(r.peer("bo")) != room.Listener || !s.Banned[r.peer("friend")] {
		t.Fatalf("who came by the host's link: %v", s.Members)
	}

	r.about("host", room.Ban, "ana") // the host closes it, and a later ban by a moderator does not open it
	r.about("mod", room.Ban, "ana")
	is(leaf, host, false, true)
	r.about("mod", room.Unban, "ana") // as she may
	is(leaf, host, false, false)
	r.about("mod", room.Ban, "ana") // the host's is lifted for good
	is(leaf, host, false, false)
}

// What a moderator writes after a host's ban, or beside it, does not make that ban close another invite.
func TestABanClosesWhatItsAuthorKnew(t *testing.T) {
	r := newRig(t, open1, "mod", "other")
	r.about("host", room.Appoint, "mod")
	r.about("host", room.Appoint, "other")
	r.all()
	r.issued("other", "troll", "host", 0, twig)
	r.meet("host", "other")
	claim := func(id room.InviteID) { // as her own program would not: it refuses who is banned
		a := room.Admission{Peer: r.peer("troll"), Role: room.Listener, Chain: []room.InviteID{id}, Uses: []uint16{0}, Issuer: r.peer("host")}
		r.add("mod", r.forge("mod", r.next("mod", room.Op{Kind: room.Admit, Admissions: []room.Admission{a}})))
	}
	claim(root)
	r.about("host", room.Ban, "troll")
	r.all()
	claim(leaf)
	s := r.all()
	if len(s.Uses) != 3 || !s.Banned[r.peer("troll")] {
		t.Fatalf("uses %v, banned %v", s.Uses, s.Banned)
	}
	for id, want := range map[room.InviteID]bool{twig: true, root: false, leaf: false} {
		if _, closed := s.IsRevoked(id, r.peer("host")); closed != want {
			t.Errorf("invite %d: closed %v", id[0], closed)
		}
	}
}

// A moderator names the host's invite when she lets in an accomplice whom the host bans later: nobody can tell her from one who
// did come by it, so it is closed. A kick instead closes nothing, and it is open again when the moderator is dismissed with a
// cut before that admission.
func TestAFalseInviteThatTheHostKnew(t *testing.T) {
	for _, kind := range []room.Kind{room.Kick, room.Ban} {
		r := newRig(t, open1, "mod")
		r.about("host", room.Appoint, "mod")
		r.all()
		r.admit("mod", "ana", room.Listener)
		last := r.logs["mod"].Heads()
		r.issued("mod", "friend", "host", 0, leaf)
		r.all()
		r.about("host", kind, "friend")
		closed := func() bool { _, c := r.all().IsRevoked(leaf, r.peer("host")); return c }
		if got := closed(); got != (kind == room.Ban) {
			t.Errorf("after a %v: closed %v", kind, got)
		}
		i := slices.IndexFunc(last, func(s room.Seen) bool { return s.Author == r.peer("mod") })
		r.draft("host", room.Op{Kind: room.Dismiss, Targets: []peer.ID{r.peer("mod")}, CutSeq: last[i].Seq, CutHash: last[i].Hash})
		if closed() {
			t.Errorf("after a %v and the dismissal the host's invite is still closed", kind)
		}
		if s := r.all(); s.Role(r.peer("ana")) != room.Listener || s.Role(r.peer("friend")) != room.NoRole {
			t.Errorf("after a %v: %v", kind, s.Members)
		}
	}
}

// How often an invite may be used is each admission's own word: a made-up one does not throw out others.
func TestAFalseLimit(t *testing.T) {
	r := newRig(t, open1, "mod")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.issued("host", "ana", "host", 0, leaf)
	r.issued("host", "bo", "host", 0, leaf)
	r.issued("mod", "nobody", "host", 1, leaf)
	r.issued("host", "cy", "host", 0, leaf)
	if s := r.all(); len(s.Members) != 5 || s.Role(r.peer("nobody")) != room.NoRole {
		t.Fatalf("%v", s.Members)
	}
}

// A dismissal voids the moderator's invites that nobody used before it.
func TestDismissalVoidsInvites(t *testing.T) {
	r := newRig(t, open1, "mod")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.through("mod", "ana", 0, leaf)
	r.all()
	r.about("host", room.Dismiss, "mod")
	r.issued("host", "bo", "mod", 0, leaf)
	s := r.all()
	if s.Role(r.peer("ana")) != room.Listener || s.Role(r.peer("bo")) != room.NoRole {
		t.Fatalf("%v", s.Members)
	}
}

func TestTally(t *testing.T) {
	r := newRig(t, open1, "mod")
	r.about("host", room.Appoint, "mod")
	r.all()
	for _, n := range []uint64{3, 9} {
		r.draft("host", room.Op{Kind: room.TallyUses, Invite: leaf, Count: n})
	}
	r.draft("mod", room.Op{Kind: room.TallyUses, Invite: leaf, Count: 5})
	r.through("mod", "ana", 0, leaf)
	if s := r.all(); s.Uses[leaf] != 15 {
		t.Fatalf("uses %v", s.Uses)
	}
}

// Trust 53, the pure part: two epochs with one number, and numbers out of turn.
func TestEpochs(t *testing.T) {
	r := newRig(t, open1, "m1", "m2")
	r.about("host", room.Appoint, "m1")
	r.about("host", room.Appoint, "m2")
	r.all()
	commit := func(name string, n uint64, id byte) {
		t.Helper()
		r.draft(name, room.Op{Kind: room.NewEpoch, Epoch: room.EpochCommit{N: n, ID: room.EpochID{id}, Cause: 2}})
	}
	commit("m2", 1, 1)
	commit("m1", 1, 7)
	if s := r.all(); s.Epoch.ID != (room.EpochID{7}) || len(s.Epochs) != 2 {
		t.Fatalf("the lower rank does not hold: %+v", s.Epoch)
	}
	commit("m1", 2, 9)
	commit("host", 2, 12)
	commit("m2", 2, 3)
	if s := r.all(); s.Epoch != (room.EpochCommit{N: 2, ID: room.EpochID{12}, Cause: 2}) {
		t.Fatalf("%+v", s.Epoch)
	}
	commit("m2", 1<<40, 5)
	commit("m1", 3, 4)
	if s := r.all(); s.Epoch.N != 3 {
		t.Fatalf("a leap: %+v", s.Epoch)
	}
	commit("m2", 4, 6)
	if s := r.all(); s.Epoch.N != 4 {
		t.Fatalf("%+v", s.Epoch)
	}
}

func TestDecline(t *testing.T) {
	r := newRig(t, room.Policy{Visibility: room.Closed}, "m1", "m2")
	r.about("host", room.Appoint, "m1")
	r.about("host", room.Appoint, "m2")
	r.all()
	r.about("m1", room.Decline, "ana")
	r.admit("m2", "ana", room.Listener)
	if s := r.all(); s.Role(r.peer("ana")) != room.NoRole || s.Declined[r.peer("ana")] == (room.OpID{}) {
		t.Fatal("declined and admitted at once: admitted")
	}
	r.admit("m2", "ana", room.Listener)
	if s := r.all(); s.Role(r.peer("ana")) != room.Listener || len(s.Declined) != 0 {
		t.Fatal("admitted after a decline, but out")
	}
}

// hand moves the room from a to b with b's consent.
func (r *rig) hand(a, b string) {
	r.t.Helper()
	prev := r.logs[a].root().op.ID
	if n := r.logs[a].head(r.logs[a].authors[r.peer(a)]); n != nil {
		prev = n.op.ID
	}
	c := Agree(r.keys[b], room.Transfer, r.id, r.keys[a].Public(), prev)
	r.draft(a, room.Op{Kind: room.Transfer, Targets: []peer.ID{r.peer(b)}, Consents: []room.Consent{c}})
}
