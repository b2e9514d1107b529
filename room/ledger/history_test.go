package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

// world makes random histories: partitions, backdating, forks, lies about what was seen, usurpers, cuts on any
// branch, hand-overs and successions. Its ops skip signatures (TestSignedHistories has them), so that many
// thousands are cheap.
type world struct {
	rnd    *rand.Rand
	rig    *rig
	logs   map[string]*Ledger
	all    []*aside
	counts map[string]int
}

var (
	actors  = []string{"host", "heir", "m1", "m2", "m3", "eve"}
	guests  = []string{"ana", "bo", "cy", "dee", "m1", "m2", "m3", "host"}
	invites = []room.InviteID{{1}, {2}, {3}, {4}}
	acts    = []room.Kind{
		room.Admit, room.Admit, room.Admit, room.Decline, room.Kick, room.Ban, room.Unban, room.ToStage, room.ToAudience, room.Mute, room.Unmute,
		room.Lower, room.Revoke, room.Vouch, room.Unvouch, room.Lock, room.Unlock, room.NewEpoch, room.TallyUses, 777,
	}
)

// play makes one history.
func play(r *rig, seed uint64) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 29)), rig: r, logs: map[string]*Ledger{}, counts: map[string]int{}}
	for _, n := range actors {
		w.logs[n] = r.fresh()
	}
	start := []room.Op{w.appoint("m1"), w.appoint("m2"), w.appoint("m3")}[:w.rnd.IntN(4)]
	for steps := 20 + w.rnd.IntN(60); steps > 0; steps-- {
		name := w.pick(actors)
		var op room.Op
		if len(start) > 0 {
			name, op, start = "host", start[0], start[1:]
		} else {
			op = w.decision(name)
		}
		w.links(name, &op)
		w.spoil(name, &op)
		x := w.sign(name, op)
		w.all = append(w.all, x)
		w.give(name, x)
		for _, n := range actors { // most of it gets around, out of order
			if w.rnd.IntN(3) > 0 {
				w.give(n, x)
			}
			w.give(n, w.all[w.rnd.IntN(len(w.all))])
		}
	}
	return w
}

func (w *world) pick(from []string) string { return from[w.rnd.IntN(len(from))] }

func (w *world) sign(name string, op room.Op) *aside {
	op.Author, op.Time = w.rig.peer(name), day
	body := binary.BigEndian.AppendUint64([]byte(name), uint64(len(w.all))<<32|w.rnd.Uint64()>>32)
	op.ID = sha256.Sum256(body)
	key := w.rig.keys[name].Public()
	return &aside{op: &op, signed: &wire.Signed{Body: body, Key: key}, key: held{op.ID, string(key)}}
}

// inject is Add without the codec.
func inject(l *Ledger, x *aside) Status {
	if v, known := l.known(x.key); known {
		return v.Status
	}
	status, _ := l.enter(&aside{op: x.op, signed: x.signed, key: x.key})
	return status
}

func (w *world) give(name string, x *aside) { w.counts[inject(w.logs[name], x).String()]++ }

func (w *world) appoint(name string) room.Op {
	return room.Op{Kind: room.Appoint, Targets: []peer.ID{w.rig.peer(name)}}
}

func (w *world) decision(name string) room.Op {
	l := w.logs[name]
	head := w.rnd.IntN(12) == 0 || name == l.hostName(w)
	switch x := w.rnd.IntN(40); {
	case head && x < 5:
		return w.appoint(w.pick([]string{"m1", "m2", "m3"}))
	case head && x < 9:
		return room.Op{Kind: room.Dismiss, Targets: []peer.ID{w.rig.peer(w.pick([]string{"m1", "m2", "m3"}))}}
	case head && x == 9:
		to := w.pick([]string{"m1", "m2", "host"})
		return room.Op{Kind: room.Transfer, Targets: []peer.ID{w.rig.peer(to)}, Consents: []room.Consent{{By: w.rig.peer(to)}}}
	case head && x < 12:
		return room.Op{Kind: room.Checkpoint}
	case head && x < 14:
		return room.Op{Kind: room.SetPolicy, Policy: &room.Policy{Visibility: room.Visibility(1 + w.rnd.IntN(3)), Name: fmt.Sprint(x, len(w.all))}}
	case head && x == 15 && w.rnd.IntN(10) == 0:
		return room.Op{Kind: room.End}
	case name == "heir" && x < 5:
		op := room.Op{Kind: room.Succeed}
		for _, m := range []string{"m1", "m2", "m3"} {
			if w.rnd.IntN(3) > 0 {
				op.Consents = append(op.Consents, room.Consent{By: w.rig.peer(m)})
			}
		}
		return op
	}
	return w.act(name)
}

func (w *world) act(name string) room.Op {
	op := room.Op{Kind: acts[w.rnd.IntN(len(acts))], Targets: []peer.ID{w.rig.peer(w.pick(guests))}, Beat: w.rnd.Uint64N(50)}
	id := invites[w.rnd.IntN(len(invites))]
	switch op.Kind {
	case room.Admit:
		op.Targets = nil
		for range 1 + w.rnd.IntN(2) {
			a := room.Admission{Peer: w.rig.peer(w.pick(guests)), Role: room.Role(1 + w.rnd.IntN(2)), Name: "x"}
			if w.rnd.IntN(3) > 0 {
				a.Chain, a.Uses, a.Issuer = []room.InviteID{id}, []uint16{uint16(w.rnd.IntN(3))}, w.rig.peer(w.pick(actors))
				if w.rnd.IntN(2) == 0 {
					a.Chain, a.Uses = append(a.Chain, room.InviteID{9, byte(w.rnd.IntN(3))}), append(a.Uses, 0)
				}
			}
			op.Admissions = append(op.Admissions, a)
		}
	case room.Revoke, room.TallyUses:
		op.Targets, op.Invite, op.Branch, op.Count = nil, id, w.rnd.IntN(2) == 0, w.rnd.Uint64N(9)
	case room.NewEpoch:
		op.Epoch = room.EpochCommit{N: w.logs[name].State().Epoch.N + w.rnd.Uint64N(3), ID: room.EpochID{byte(w.rnd.IntN(256))}}
	}
	return op
}

func (l *Ledger) hostName(w *world) string {
	for _, n := range actors {
		if w.rig.peer(n) == l.lawful().host.who {
			return n
		}
	}
	return ""
}

// links fills what Draft would, on any own branch.
func (w *world) links(name string, op *room.Op) {
	l, me := w.logs[name], w.rig.peer(name)
	op.Seq = 1
	a := l.authors[me]
	switch {
	case a == nil:
	case len(a.forks) > 0 || w.rnd.IntN(25) == 0: // goes on anywhere, which may be a new fork
		n := l.tips[a.lanes[w.rnd.IntN(len(a.lanes))]]
		for w.rnd.IntN(3) == 0 && n != a.root {
			n = n.parent
		}
		op.Seq, op.Prev = n.op.Seq+1, n.op.ID
	case l.head(a) != nil:
		op.Seq, op.Prev = l.head(a).op.Seq+1, l.head(a).op.ID
	case a.root == l.root():
		op.Prev = a.root.op.ID
	}
	if t := l.lawful().tenureOf(me); t != nil && op.Kind != room.Succeed {
		op.Grant = t.start.op.ID
	} else if op.Kind == room.Succeed || name == "host" {
		op.Grant = l.root().op.ID
	}
	op.Seen = l.news(me, op.Kind == room.Checkpoint)
	w.cut(l, op)
}

func (w *world) cut(l *Ledger, op *room.Op) {
	switch op.Kind {
	case room.Dismiss, room.Transfer:
		if a := l.authors[op.Targets[0]]; a != nil {
			n := l.tips[a.lanes[w.rnd.IntN(len(a.lanes))]]
			for w.rnd.IntN(3) == 0 && n != a.root {
				n = n.parent
			}
			if n.op.Seq > 0 {
				op.CutSeq, op.CutHash = n.op.Seq, n.op.ID
			}
		}
	case room.Succeed:
		last := l.LastOfHost()
		op.CutSeq, op.CutHash = last.Seq, last.Hash
	}
}

// spoil makes some ops lie.
func (w *world) spoil(name string, op *room.Op) {
	l := w.logs[name]
	switch w.rnd.IntN(16) {
	case 0: // a number that the hash does not have
		if len(op.Seen) > 0 {
			op.Seen[0].Seq += 1 << 20
		}
	case 1: // understate
		op.Seen = nil
	case 2: // some other grant
		if n := len(l.order); n > 0 {
			op.Grant = l.order[w.rnd.IntN(n)].op.ID
		}
	case 3: // name an old or losing op
		if n := len(l.order); n > 0 {
			op.Seen = []room.Seen{seenOf(l.order[w.rnd.IntN(n)])}
		}
	case 4:
		if w.rnd.IntN(4) == 0 {
			op.Prev = room.OpID{1}
		}
	}
}

// story is all that a ledger says, for comparison.
func story(l *Ledger) string {
	s := fmt.Sprintf("%x", l.Hash())
	for _, e := range l.All() {
		s += fmt.Sprintf("\n%x %v %d %v %s", e.Op.ID[:4], e.Op.Kind, e.Op.Seq, e.Void, e.Why)
	}
	for _, f := range l.Forks() {
		s += fmt.Sprintf("\nfork %d of %d, %v", f.Seq, len(f.Ops), f.Decided)
	}
	return s
}

// checkSafe holds what no history may break.
func (w *world) checkSafe(t *testing.T, seed uint64, l *Ledger) {
	t.Helper()
	s := l.State()
	for p, m := range s.Members {
		_, removed := s.Removed[p]
		_, authority := s.Rank(p)
		if p == w.rig.peer("eve") || removed || s.Banned[p] || m.Role.Authority() != authority || m.OnStage != slices.Contains(s.Stage, p) {
			t.Fatalf("seed %d: member %+v, removed %v, authority %v", seed, m, removed, authority)
		}
	}
	if _, ok := s.Members[s.Host]; !ok {
		t.Fatalf("seed %d: the host is no member", seed)
	}
	for _, m := range append([]peer.ID{s.Host}, s.Moderators...) {
		if m == w.rig.peer("eve") {
			t.Fatalf("seed %d: an outsider rules", seed)
		}
	}
}

// Trust 29: the same ops in five orders with duplicates make one state. 10,000 histories, 100,000 with BALAI_SOAK=1.
func TestRandomHistories(t *testing.T) {
	r := newRig(t, open1, actors[2:]...)
	histories := uint64(10_000)
	if os.Getenv("BALAI_SOAK") != "" {
		histories = 100_000
	}
	ops, forks, hosts, first := 0, 0, 0, uint64(1)
	counts := map[string]int{}
	for seed := first; seed < first+histories; seed++ {
		w := play(r, seed)
		want := ""
		for order := range 5 {
			l := r.fresh()
			for i, x := range shuffled(w.rnd, slices.Concat(w.all, w.all[:len(w.all)/2])) {
				counts[inject(l, x).String()]++
				if i%(order+2) == order {
					l.State() // looking in between must change nothing
				}
			}
			got := story(l)
			if want == "" {
				want = got
				for _, f := range l.Forks() {
					forks++
					counts["decided"] += int(bit(f.Decided))
				}
				for _, e := range l.All() {
					counts["linked"]++
					counts["why: "+e.Why]++
				}
				counts["succession"] += int(bit(l.State().Host == r.peer("heir")))
				if l.State().Host != r.peer("host") {
					hosts++
				}
				w.checkSafe(t, seed, l)
			}
			if got != want {
				t.Fatalf("seed %d: order %d differs\n%s\n\n%s", seed, order, got, want)
			}
		}
		ops += len(w.all)
	}
	if forks == 0 || hosts == 0 || counts["void"] == 0 || counts["pending"] == 0 {
		t.Fatalf("the histories are tame: %d forks, %d new hosts, %v", forks, hosts, counts)
	}
	t.Logf("seeds %d to %d: %d ops, %d forks, %d rooms with another host, %v; one state in 5 orders each", first, first+histories-1, ops, forks, hosts, counts)
}

// Replicas of a random history that sync by Heads and Since alone end with one state, as far as sync can bring
// them: all ops that link anywhere.
func TestRandomHistoriesBySync(t *testing.T) {
	r := newRig(t, open1, actors[2:]...)
	for seed := uint64(50_001); seed <= 50_300; seed++ {
		w := play(r, seed)
		for round := range 8 {
			for i, n := range actors {
				w.exchange(w.logs[n], w.logs[actors[(i+1+round)%len(actors)]])
			}
		}
		for _, n := range actors {
			if story(w.logs[n]) != story(w.logs["host"]) {
				t.Fatalf("seed %d: %s differs\n%s\n\n%s", seed, n, story(w.logs[n]), story(w.logs["host"]))
			}
		}
	}
}

func (w *world) exchange(a, b *Ledger) {
	byBody := map[string]*aside{}
	for _, x := range w.all {
		byBody[string(x.signed.Body)] = x
	}
	for more := true; more; {
		ops, m := a.Since(b.Heads(), 7)
		for _, s := range ops {
			inject(b, byBody[string(s.Body)])
		}
		more = m
	}
}
