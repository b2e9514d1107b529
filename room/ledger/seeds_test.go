package ledger

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
	"balai/test/seeded"
)

// Random rooms: the host, some moderators and a newcomer, each with a replica; who meets whom, and when, is chance.

func anyOf[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

// randomRig is a room with 1 to 3 moderators. The answers are the authorities and somebody who only reads.
func randomRig(t *testing.T, rnd *rand.Rand) (r *rig, rulers []string) {
	mods := []string{"m1", "m2", "m3"}[:1+rnd.IntN(3)]
	r = newRig(t, open1, append([]string{"reader"}, mods...)...)
	for _, m := range mods {
		r.about("host", room.Appoint, m)
	}
	r.all()
	return r, append([]string{"host"}, mods...)
}

// mingle lets some pairs meet.
func (r *rig) mingle(rnd *rand.Rand, meetings int) {
	r.t.Helper()
	names := r.names()
	for range meetings {
		if a, b := anyOf(rnd, names), anyOf(rnd, names); a != b {
			r.meet(a, b)
		}
	}
}

// spread gives ops to every replica, to each in another order and some twice.
func (r *rig) spread(rnd *rand.Rand, ops []*wire.Signed) {
	for _, n := range r.names() {
		r.add(n, shuffled(rnd, slices.Concat(ops, ops[:rnd.IntN(len(ops)+1)]))...)
	}
}

// people are n names.
func people(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint("guest", i))
	}
	return out
}

// Trust 17, 18 and the uses of 12: an invite for some uses is claimed by more people, at any authority, while who has met whom
// is chance. After the merge exactly as many are in as it has uses, and everybody who had been in and is not is told so.
func TestRandomUses(t *testing.T) {
	surplus := 0
	seeded.Each(t, func(t *testing.T, rnd *rand.Rand) {
		r, rulers := randomRig(t, rnd)
		uses, claimants := 1+rnd.IntN(3), people(2+rnd.IntN(4))
		was := map[string]bool{}
		for _, p := range shuffled(rnd, slices.Concat(claimants, claimants[:rnd.IntN(2)])) { // some come again
			at := anyOf(rnd, rulers)
			chain := []room.InviteID{root}
			if rnd.IntN(2) == 0 {
				chain = append(chain, leaf)
			}
			r.issued(at, p, "host", uint16(uses), chain...)
			was[p] = was[p] || r.logs[at].State().Role(r.peer(p)) == room.Listener
			r.mingle(rnd, rnd.IntN(3))
		}
		s := r.all()
		in := 0
		for _, p := range claimants {
			_, told := s.Removed[r.peer(p)]
			switch {
			case s.Role(r.peer(p)) == room.Listener:
				in++
			case was[p] && !told:
				t.Fatalf("%s was in, is out, and is not told", p)
			case was[p]:
				surplus++
			}
		}
		if in != min(uses, len(claimants)) || int(s.Uses[root]) != in {
			t.Fatalf("%d uses, %d came, %d are in, %d counted", uses, len(claimants), in, s.Uses[root])
		}
	})
	if t.Logf("%d were in beyond the uses before their sides met", surplus); surplus == 0 && !t.Failed() {
		t.Error("nobody was ever let in on two sides")
	}
}

// Trust 54: a single use, given on in every shape to many, who come to every authority: one is in.
func TestRandomlyGivenOn(t *testing.T) {
	seeded.Each(t, func(t *testing.T, rnd *rand.Rand) {
		r, rulers := randomRig(t, rnd)
		claimants := people(3 + rnd.IntN(8))
		for i, p := range claimants {
			a := room.Admission{Peer: r.peer(p), Role: room.Listener, Chain: []room.InviteID{root}, Uses: []uint16{1}, Issuer: r.peer("host")}
			for range rnd.IntN(3) { // by whom it was given on, who may have told another limit or none
				id := room.InviteID{9, byte(rnd.IntN(i + 1)), byte(len(a.Chain))}
				a.Chain, a.Uses = append(a.Chain, id), append(a.Uses, uint16(rnd.IntN(3)))
			}
			r.draft(anyOf(rnd, rulers), room.Op{Kind: room.Admit, Admissions: []room.Admission{a}})
			r.mingle(rnd, rnd.IntN(2))
		}
		s := r.all()
		if n := len(s.Members) - len(rulers); n != 1 || s.Uses[root] != 1 {
			t.Fatalf("%d are in by %d uses", n, s.Uses[root])
		}
	})
}

// Trust 19: a tree of invites, its people let in anywhere; one branch is revoked while more come by it elsewhere. All who
// came by that branch are out, nobody else is, and nobody comes in by it again.
func TestRandomBranches(t *testing.T) {
	out := 0
	seeded.Each(t, func(t *testing.T, rnd *rand.Rand) {
		r, rulers := randomRig(t, rnd)
		issuer := anyOf(rnd, rulers)
		tree := [][]room.InviteID{{{1}}, {{2}}}
		for i := range 2 + rnd.IntN(4) {
			if parent := anyOf(rnd, tree); len(parent) < 3 {
				tree = append(tree, append(slices.Clone(parent), room.InviteID{3, byte(i)}))
			}
		}
		came := map[string][]room.InviteID{}
		cut := anyOf(rnd, anyOf(rnd, tree))
		admit := func(p string) {
			came[p] = anyOf(rnd, tree)
			r.issued(anyOf(rnd, rulers), p, issuer, 0, came[p]...)
			r.mingle(rnd, rnd.IntN(2))
		}
		guests := people(5 + rnd.IntN(4))
		when := 1 + rnd.IntN(len(guests)-1)
		for i, p := range guests {
			if i == when {
				if s := r.logs[issuer].State(); !slices.ContainsFunc(tree, func(c []room.InviteID) bool {
					return slices.Contains(c, cut) && slices.ContainsFunc(guests[:i], func(q string) bool {
						return slices.Equal(came[q], c) && s.Role(r.peer(q)) != room.NoRole
					})
				}) {
					r.all()
				}
				r.draft(anyOf(rnd, []string{issuer, "host"}), room.Op{Kind: room.Revoke, Invite: cut, Branch: true})
				r.mingle(rnd, rnd.IntN(3))
			}
			admit(p)
		}
		check := func() {
			t.Helper()
			s := r.all()
			for p, chain := range came {
				if gone := s.Role(r.peer(p)) == room.NoRole; gone != slices.Contains(chain, cut) {
					t.Fatalf("%s came by %x, the branch is %x, out %v", p, chain, cut[:2], gone)
				} else if gone {
					out++
				}
			}
		}
		check()
		for _, p := range guests { // once more, by the same links
			if slices.Contains(came[p], cut) {
				r.issued(anyOf(rnd, rulers), p, issuer, 0, came[p]...)
			}
		}
		check()
	})
	if t.Logf("%d out", out); out == 0 && !t.Failed() {
		t.Error("nobody was on the branch")
	}
}

// decisions are what those want to do who may not.
var decisions = []room.Kind{
	room.Ban, room.Kick, room.Mute, room.Unmute, room.ToAudience, room.ToStage, room.Lower, room.Unban, room.Decline, room.Lock, room.Unlock, room.End,
	room.Appoint, room.Dismiss, room.Succeed, room.Vouch, room.Checkpoint,
}

// Trust 27: whoever holds no authority signs any decision, with any grant, number, past and date, alone or in a chain: it
// counts nowhere.
func TestRandomUsurpers(t *testing.T) {
	seeded.Each(t, func(t *testing.T, rnd *rand.Rand) {
		r, rulers := randomRig(t, rnd)
		for _, n := range []string{"eve", "ana", "bo"} {
			r.keys[n] = testKey(t, n)
		}
		r.admit("host", "ana", room.Speaker)
		r.admit(anyOf(rnd, rulers), "eve", anyOf(rnd, []room.Role{room.Listener, room.Speaker}))
		r.admit("host", "bo", room.Listener)
		r.all()
		want := r.logs["host"].Hash()
		var grants []room.OpID
		for _, e := range r.logs["host"].All() {
			grants = append(grants, e.Op.ID)
		}
		grants = append(grants, r.logs["host"].root().op.ID, room.OpID{}, room.OpID{7})
		var all []*wire.Signed
		prev, seq := room.OpID{}, uint64(1)
		for range 1 + rnd.IntN(3) {
			op := room.Op{Kind: anyOf(rnd, decisions), Seq: seq, Prev: prev, Grant: anyOf(rnd, grants), Beat: rnd.Uint64N(9)}
			if rnd.IntN(4) == 0 {
				op.Prev, op.Seq = anyOf(rnd, grants), 1+rnd.Uint64N(3)
			}
			if !slices.Contains([]room.Kind{room.End, room.Lock, room.Unlock, room.Checkpoint, room.Succeed}, op.Kind) {
				op.Targets = []peer.ID{r.peer(anyOf(rnd, []string{"ana", "bo", "m1", "host", "eve"}))}
			}
			if rnd.IntN(2) == 0 {
				op.Seen = r.logs["host"].Heads()
			}
			if op.Kind == room.Succeed {
				op.Consents = []room.Consent{Agree(r.keys["bo"], room.Succeed, r.id, r.keys["host"].Public(), prev)}
			}
			r.now = day.AddDate(0, 0, rnd.IntN(60)-30)
			s := r.forge(anyOf(rnd, []string{"eve", "eve", "ana", "stranger"}[:3]), op)
			all, prev, seq = append(all, s), IDOf(s), seq+1
		}
		r.spread(rnd, all)
		for n, l := range r.logs {
			for _, v := range l.Add(all...) {
				if v.Status == Added || v.Status == Duplicate && len(l.order) > len(grants)-3 {
					t.Fatalf("at %s %v %v", n, v.Op.Kind, v.Status)
				}
			}
			if l.Hash() != want {
				t.Fatalf("%s has another state", n)
			}
		}
		r.all()
	})
}

// Trust 28: a moderator is dismissed by a host who had seen some of her decisions. What she had written beyond these, and what
// she writes later, under whatever date, past and number, is void: also as a second branch below the cut.
func TestRandomBackdating(t *testing.T) {
	seeded.Each(t, func(t *testing.T, rnd *rand.Rand) {
		r, _ := randomRig(t, rnd)
		victims := people(6)
		for _, p := range victims {
			r.admit("host", p, room.Speaker)
		}
		r.all()
		seen, more := 1+rnd.IntN(3), rnd.IntN(3)
		var hers []*wire.Signed
		for i := range seen + more {
			hers = append(hers, r.about("m1", room.Mute, victims[i]))
		}
		r.add("host", hers[:seen]...)
		r.about("host", anyOf(rnd, []room.Kind{room.Dismiss, room.Dismiss, room.Kick}), "m1")
		if rnd.IntN(2) == 0 {
			r.meet("host", "reader")
		}
		for i := seen + more; i < len(victims); i++ {
			op := r.next("m1", room.Op{Kind: anyOf(rnd, []room.Kind{room.Mute, room.Ban, room.Kick}), Targets: []peer.ID{r.peer(victims[i])}})
			if rnd.IntN(3) == 0 { // from an earlier op of hers
				k := rnd.IntN(len(hers))
				op.Seq, op.Prev = uint64(k+2), IDOf(hers[k])
			}
			if rnd.IntN(2) == 0 {
				op.Seen = nil
			}
			r.now = day.Add(time.Duration(rnd.IntN(2000)-1000) * time.Hour)
			s := r.forge("m1", op)
			r.add("m1", s)
			hers = append(hers, s)
		}
		r.now = day
		r.spread(rnd, hers)
		s := r.all()
		for i, p := range victims {
			if m := s.Members[r.peer(p)]; m.Role != room.Speaker || m.Muted != (i < seen) || s.Banned[r.peer(p)] {
				t.Fatalf("%s, the %d. of %d: %+v", p, i+1, seen, m)
			}
		}
		if slices.Contains(s.Moderators, r.peer("m1")) {
			t.Fatal("she is a moderator still")
		}
	})
}

// Trust 30: a moderator writes two or three ops with one number, anywhere in her chain, and goes on from each; different people
// get different ones. As soon as somebody holds two he says so and counts none of them, and after the merge all do; what
// she wrote before stands.
func TestRandomForks(t *testing.T) {
	seeded.Each(t, func(t *testing.T, rnd *rand.Rand) {
		r, _ := randomRig(t, rnd)
		victims := people(9)
		for _, p := range victims {
			r.admit("host", p, room.Speaker)
		}
		r.all()
		base := rnd.IntN(4)
		for _, p := range victims[:base] {
			r.about("m1", room.Mute, p)
		}
		r.all()
		mute := func(p string) room.Op {
			return r.next("m1", room.Op{Kind: room.Mute, Targets: []peer.ID{r.peer(p)}})
		}
		branches := 2 + rnd.IntN(2)
		var all []*wire.Signed
		var firsts []room.OpID
		for b := range branches {
			op := mute(victims[base+b])
			s := r.forge("m1", op)
			all, firsts = append(all, s), append(firsts, IDOf(s))
			if rnd.IntN(2) == 0 {
				op.Seq, op.Prev, op.Targets = op.Seq+1, IDOf(s), []peer.ID{r.peer(victims[8])}
				all = append(all, r.forge("m1", op))
			}
		}
		for _, s := range shuffled(rnd, all) {
			r.add(anyOf(rnd, r.names()), s)
			r.mingle(rnd, rnd.IntN(2))
			for n, l := range r.logs {
				held := 0
				for _, id := range firsts {
					if l.nodes[id] != nil {
						held++
					}
				}
				if f := l.Forks(); (len(f) == 1) != (held > 1) || held > 1 && (f[0].Author != r.peer("m1") || int(f[0].Seq) != base+1 || len(f[0].Ops) != held) {
					t.Fatalf("%s holds %d of them: %+v", n, held, f)
				}
			}
		}
		s := r.all()
		for i, p := range victims {
			if s.Members[r.peer(p)].Muted != (i < base) {
				t.Fatalf("%s, the %d. with %d before the fork: %+v", p, i+1, base, s.Members[r.peer(p)])
			}
		}
		if !slices.Equal(s.Forked, []peer.ID{r.peer("m1")}) {
			t.Fatalf("forked: %v", s.Forked)
		}
	})
}

// Trust 55: an op that lies about what it has seen, in any way, has no effect wherever and in whatever order it comes.
func TestRandomLies(t *testing.T) {
	counts := map[Status]int{}
	all := seeded.Each(t, func(t *testing.T, rnd *rand.Rand) {
		r, rulers := randomRig(t, rnd)
		r.admit("host", "ana", room.Speaker)
		r.all()
		for range rnd.IntN(4) {
			r.draft(anyOf(rnd, rulers), room.Op{Kind: anyOf(rnd, []room.Kind{room.Lock, room.Unlock})})
			r.mingle(rnd, rnd.IntN(2))
		}
		r.all()
		want := r.logs["host"].Hash()
		var lies []*wire.Signed
		for range 1 + rnd.IntN(3) {
			by := anyOf(rnd, rulers[1:])
			op := r.next(by, room.Op{Kind: anyOf(rnd, []room.Kind{room.ToAudience, room.Ban, room.Mute}), Targets: []peer.ID{r.peer("ana")}, Beat: rnd.Uint64N(99)})
			seen := anyOf(rnd, r.logs[by].Heads())
			switch rnd.IntN(3) {
			case 0:
				seen.Seq += 1 + rnd.Uint64N(1<<31)
			case 1:
				seen.Author = r.peer(anyOf(rnd, []string{"ana", "reader", "nobody"}))
			default:
				seen.Hash[rnd.IntN(32)] ^= 1 << rnd.IntN(8)
			}
			op.Seen = append(slices.DeleteFunc(op.Seen, func(s room.Seen) bool { return s.Author == seen.Author }), seen)
			lies = append(lies, r.forge(by, op))
		}
		for n, l := range r.logs {
			for _, v := range l.Add(shuffled(rnd, slices.Concat(lies, lies))...) {
				if counts[v.Status]++; v.Status == Added {
					t.Fatalf("%s at %s: added", v.Op.Kind, n)
				}
			}
			if m := l.State().Members[r.peer("ana")]; l.Hash() != want || !m.OnStage || m.Muted {
				t.Fatalf("a lie counts at %s", n)
			}
		}
	})
	if t.Log(counts); all && (counts[Void] == 0 || counts[Pending] == 0) {
		t.Error("the lies are all alike")
	}
}

// Trust 56: a moderator lets people in; the host names how far that counts, by a dismissal or a checkpoint. A second branch
// from anywhere below turns up at anybody: nobody whom the named branch let in is thrown out.
func TestRandomForksUnderACut(t *testing.T) {
	seeded.Each(t, func(t *testing.T, rnd *rand.Rand) {
		r, _ := randomRig(t, rnd)
		guests := people(1 + rnd.IntN(5))
		var second []*wire.Signed
		at := rnd.IntN(len(guests))
		for i, p := range guests {
			if i == at {
				op := r.next("m1", room.Op{Kind: anyOf(rnd, []room.Kind{room.Ban, room.Kick}), Targets: []peer.ID{r.peer(anyOf(rnd, guests))}})
				second = append(second, r.forge("m1", op))
				if rnd.IntN(2) == 0 {
					op.Seq, op.Prev, op.Targets = op.Seq+1, IDOf(second[0]), []peer.ID{r.peer(anyOf(rnd, guests))}
					second = append(second, r.forge("m1", op))
				}
			}
			r.admit("m1", p, room.Listener)
		}
		r.meet("m1", "host")
		how := anyOf(rnd, []room.Kind{room.Dismiss, room.Checkpoint})
		if how == room.Dismiss {
			r.about("host", how, "m1")
		} else {
			r.draft("host", room.Op{Kind: how})
		}
		for _, s := range shuffled(rnd, slices.Concat(second, second)) {
			r.add(anyOf(rnd, r.names()), s)
			r.mingle(rnd, rnd.IntN(3))
		}
		r.spread(rnd, second)
		s := r.all()
		for _, p := range guests {
			if s.Role(r.peer(p)) != room.Listener {
				t.Fatalf("%v of %d, fork at %d: %s is out", how, len(guests), at, p)
			}
		}
		if f := r.logs["reader"].Forks(); len(f) != 1 || !f[0].Decided {
			t.Fatalf("%+v", f)
		}
	})
}

// Trust 53: authorities let people in and draw new keys at once and in partitions. After the merge one epoch is in force, as
// late as any side had, and every key of its number is named, so that whoever seals by another of them is opened; all who
// were let in are in.
func TestRandomEpochs(t *testing.T) {
	rivals := 0
	all := seeded.Each(t, func(t *testing.T, rnd *rand.Rand) {
		r, rulers := randomRig(t, rnd)
		drawn, in, last := map[room.EpochID]uint64{}, []string{}, uint64(0)
		for i := range 3 + rnd.IntN(6) {
			by := anyOf(rnd, rulers)
			if rnd.IntN(3) == 0 {
				p := fmt.Sprint("guest", i)
				r.admit(by, p, room.Listener)
				in = append(in, p)
			}
			id := room.EpochID{byte(rnd.Uint32()), byte(rnd.Uint32()), byte(i + 1)}
			n := r.logs[by].State().Epoch.N + 1
			r.draft(by, room.Op{Kind: room.NewEpoch, Epoch: room.EpochCommit{N: n, ID: id, Cause: 2}})
			drawn[id] = n
			if s := r.logs[by].State(); s.Epoch.N != n {
				t.Fatalf("%s draws epoch %d and is in %d", by, n, s.Epoch.N)
			}
			last = max(last, n)
			r.mingle(rnd, rnd.IntN(3))
		}
		s := r.all()
		if s.Epoch.N != last || drawn[s.Epoch.ID] != last {
			t.Fatalf("in force %+v, the last drawn is %d", s.Epoch, last)
		}
		for id, n := range drawn {
			if _, named := s.Epochs[id]; !named && n == last {
				t.Fatalf("epoch %d %x is not named", n, id[:3])
			} else if n == last && id != s.Epoch.ID {
				rivals++
			}
		}
		for _, p := range in {
			if s.Role(r.peer(p)) != room.Listener {
				t.Fatalf("%s is not in", p)
			}
		}
	})
	if t.Logf("%d rivals of the epoch in force", rivals); all && rivals == 0 {
		t.Error("no two were drawn at once")
	}
}
