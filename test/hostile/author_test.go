package hostile_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
	"balai/room"
	"balai/room/ledger"
	"balai/room/session"
	"balai/room/wire"
	"balai/test/hostile"
	"balai/test/stalls"
)

// The reasons for which the ledger of the API shows an op as void.
const (
	pastTheCut = "after its author's last op that counts"
	forked     = "its author wrote two ops with one number"
)

// three are three daemons in one room, the first of them its host.
func three(t *testing.T) (all []*daemon, id, link string) {
	t.Helper()
	host, guest, id, link := twoDaemons(t)
	third := startDaemon(t, "Third")
	third.enter(t, link)
	return []*daemon{host, guest, third}, id, link
}

// becomeModerator is becomeMember for one whom the first daemon appoints then.
func becomeModerator(t *testing.T, ctx context.Context, link, id string, at ...*daemon) (*hostile.Peer, *hostile.Author) {
	t.Helper()
	p, m := becomeMember(t, ctx, link, id, at...)
	if err := at[0].Act(ctx, id, p.ID().String(), "appoint", ""); err != nil {
		t.Fatal(err)
	}
	everywhere(t, "she is a moderator", at, func(d *daemon) bool { return d.people(t, id)[p.ID().String()].Role == "moderator" })
	a := hostile.NewAuthor(m)
	if err := a.Look(ctx, at[0].key.ID()); err != nil {
		t.Fatal(err)
	}
	return p, a
}

func everywhere(t *testing.T, what string, at []*daemon, ok func(*daemon) bool) {
	t.Helper()
	eventually(t, what, func() bool { return !slices.ContainsFunc(at, func(d *daemon) bool { return !ok(d) }) })
}

// op is how the ledger of a daemon shows an op; false when it does not have it.
func (d *daemon) op(t *testing.T, id string, op *wire.Signed) (session.Decision, bool) {
	t.Helper()
	name := room.InviteID(ledger.IDOf(op)).String()
	all := d.decisions(t, id)
	i := slices.IndexFunc(all, func(x session.Decision) bool { return x.ID == name })
	if i < 0 {
		return session.Decision{}, false
	}
	return all[i], true
}

// voided tells whether a daemon has all of these ops, each void for one reason.
func (d *daemon) voided(t *testing.T, id, why string, ops ...*wire.Signed) bool {
	t.Helper()
	return !slices.ContainsFunc(ops, func(op *wire.Signed) bool {
		x, held := d.op(t, id, op)
		return !held || !x.Void || x.Why != why
	})
}

// shout tells a daemon ops by gossip, each in a message of its own.
func shout(t *testing.T, ctx context.Context, a *hostile.Author, d *daemon, id string, ops ...*wire.Signed) {
	t.Helper()
	if err := a.Follow(d.room(t, id).Epoch.Step); err != nil {
		t.Fatal(err)
	}
	_ = a.Greet(ctx, d.key.ID()) // again, if she was cut off
	for _, op := range ops {
		_ = a.GossipOps(ctx, d.key.ID(), op) // being cut off is as good
	}
}

// decides tells a daemon ops by gossip until what they decide is so everywhere: gossip may be lost.
func decides(t *testing.T, ctx context.Context, a *hostile.Author, d *daemon, id, what string, at []*daemon, ok func(*daemon) bool, ops ...*wire.Signed) {
	t.Helper()
	var last time.Time
	everywhere(t, what, at, func(at *daemon) bool {
		if ok(at) {
			return true
		}
		if time.Since(last) > 5*time.Second {
			last = time.Now()
			shout(t, ctx, a, d, id, ops...)
		}
		return false
	})
}

// whisper gives a daemon ops when it asks, and makes it ask.
func whisper(t *testing.T, ctx context.Context, a *hostile.Author, d *daemon, id string, ops ...*wire.Signed) {
	t.Helper()
	a.Answer(d.key.ID(), ops...)
	beckon(t, ctx, a, d, id)
}

func beckon(t *testing.T, ctx context.Context, a *hostile.Author, d *daemon, id string) {
	t.Helper()
	if err := a.Follow(d.room(t, id).Epoch.Step); err != nil {
		t.Fatal(err)
	}
	_ = a.Greet(ctx, d.key.ID()) // again, if she was cut off
	_ = a.Lure(ctx, d.key.ID())  // tried again
}

// TestBackdatedOps is trust test 28: a moderator is dismissed, and then signs ops with dates and with a past from before
// that. They reach every daemon by gossip and by stream, also one that comes later, and are void at each.
func TestBackdatedOps(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	all, id, link := three(t)
	host, guest := all[0], all[1]
	p, a := becomeModerator(t, ctx, link, id, all...)
	honest := a.Write(room.ToStage, guest.key.ID(), nil)
	decides(t, ctx, a, host, id, "what she decides as a moderator", all, func(d *daemon) bool { return d.people(t, id)[guest.key.ID().String()].OnStage }, honest)
	if err := host.Act(ctx, id, p.ID().String(), "dismiss", ""); err != nil {
		t.Fatal(err)
	}
	everywhere(t, "the dismissal", all, func(d *daemon) bool { return d.people(t, id)[p.ID().String()].Role == "listener" })
	epoch := host.room(t, id).Epoch.N

	accomplice := visit(t, all...)
	dates := []func(*wire.Op){
		func(op *wire.Op) { op.TimeMs -= time.Hour.Milliseconds() },
		func(op *wire.Op) { op.TimeMs, op.Seen = 1, nil },
		func(op *wire.Op) { op.TimeMs += time.Hour.Milliseconds() },
	}
	var ops []*wire.Signed
	for i, kind := range []room.Kind{
		room.Kick, room.Ban, room.ToAudience, room.Mute, room.Lower, room.Lock, room.NewEpoch, room.Admit, room.Vouch, room.Unban,
	} {
		target := guest.key.ID()
		if kind == room.Lock || kind == room.NewEpoch || kind == room.Admit {
			target = ""
		}
		ops = append(ops, a.Write(kind, target, func(op *wire.Op) {
			dates[i%len(dates)](op)
			switch kind {
			case room.NewEpoch:
				op.Epoch = &wire.EpochCommit{N: epoch + 1, Id: bytes.Repeat([]byte{7}, 16), Cause: 2}
			case room.Admit:
				op.Admissions = []*wire.Admission{{Peer: []byte(accomplice.ID()), Role: uint32(room.Speaker), Name: "Eve"}}
			}
		}))
	}
	for _, d := range all {
		a.Answer(d.key.ID(), ops...)
	}
	everywhere(t, "her later ops, void", all, func(d *daemon) bool {
		if d.voided(t, id, pastTheCut, ops...) {
			return true
		}
		shout(t, ctx, a, d, id, ops...)
		beckon(t, ctx, a, d, id)
		time.Sleep(300 * time.Millisecond)
		return false
	})
	late := startDaemon(t, "Late")
	late.enter(t, link)
	all = append(all, late)
	everywhere(t, "her ops, void also at who comes later", all, func(d *daemon) bool { return d.voided(t, id, pastTheCut, ops...) })
	talk(t, host, guest, id)
	talk(t, guest, late, id)
	for _, d := range all {
		v, people := d.room(t, id), d.people(t, id)
		x := people[guest.key.ID().String()]
		if v.State != session.Live || v.Locked || v.Epoch.N != epoch || len(v.Vouched) > 0 || !x.OnStage || x.Role != "speaker" {
			t.Errorf("%s: the room is %+v, the guest %+v", v.Me.PeerID, v, x)
		}
		if _, in := people[accomplice.ID().String()]; in {
			t.Errorf("%s: the accomplice is a member", v.Me.PeerID)
		}
		if op, held := d.op(t, id, honest); !held || op.Void {
			t.Errorf("%s: what she decided as a moderator is %+v, %v", v.Me.PeerID, op, held)
		}
	}
	for _, d := range all[:3] {
		rep, err := accomplice.Fetch(ctx, d.key.ID(), &wire.LedgerRequest{Room: idBytes(t, id)})
		if err == nil && (rep.Refused == 0 || len(rep.Keys) > 0) {
			t.Errorf("the accomplice was given the ledger: %v", rep)
		}
	}
}

// TestLyingSeen is trust test 55: a moderator wants a decision of hers to come after the host's, and says that it has
// seen ops that never were. None of these ops counts anywhere. That an honest one does shows that the test can fail.
func TestLyingSeen(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	all, id, link := three(t)
	host, guest := all[0], all[1]
	_, a := becomeModerator(t, ctx, link, id, all...)
	onStage := func(d *daemon) bool { return d.people(t, id)[guest.key.ID().String()].OnStage }
	for _, action := range []string{"stage", "audience"} {
		if err := host.Act(ctx, id, guest.key.ID().String(), action, ""); err != nil {
			t.Fatal(err)
		}
		everywhere(t, action, all, func(d *daemon) bool { return onStage(d) == (action == "stage") })
	}
	// She has seen nothing of that. Each of the lies would put it into her past, or her op above all.
	lies := []func(*wire.Seen){
		func(s *wire.Seen) { s.Seq = 1 << 31 },
		func(s *wire.Seen) { s.Seq++ },
		func(s *wire.Seen) { s.Seq-- },
		func(s *wire.Seen) { s.Key = guest.key.Public() },
		func(s *wire.Seen) { s.Seq, s.Hash = 1<<31, bytes.Repeat([]byte{9}, 32) },
		func(s *wire.Seen) { s.Seq, s.Hash = s.Seq+2, bytes.Repeat([]byte{8}, 32) },
	}
	var ops []*wire.Signed
	for _, lie := range lies {
		ops = append(ops, a.Next(room.ToStage, guest.key.ID(), func(op *wire.Op) {
			for _, s := range op.Seen {
				if string(s.Key) == string(host.key.Public()) {
					lie(s)
				}
			}
		}))
	}
	concurrent := a.Write(room.ToStage, guest.key.ID(), nil) // the tighter holds
	lock := a.Write(room.Lock, "", nil)
	for _, d := range all {
		shout(t, ctx, a, d, id, append(ops, concurrent, lock)...)
		whisper(t, ctx, a, d, id, append(ops, concurrent, lock)...)
	}
	everywhere(t, "the honest ops that follow", all, func(d *daemon) bool {
		if d.room(t, id).Locked && a.Asked(d.key.ID()) > 0 {
			return true
		}
		beckon(t, ctx, a, d, id)
		time.Sleep(300 * time.Millisecond)
		return false
	})
	talk(t, host, guest, id)
	for _, d := range all {
		if onStage(d) {
			t.Errorf("%s: the guest is on stage", d.room(t, id).Me.PeerID)
		}
		for i, op := range ops {
			if x, held := d.op(t, id, op); held {
				t.Errorf("%s: lie %d is in the ledger: %+v", d.room(t, id).Me.PeerID, i, x)
			}
		}
		for _, op := range []*wire.Signed{concurrent, lock} {
			if x, held := d.op(t, id, op); !held || x.Void {
				t.Errorf("%s: an honest op is %+v, %v", d.room(t, id).Me.PeerID, x, held)
			}
		}
	}
	if err := a.Look(ctx, host.key.ID()); err != nil {
		t.Fatal(err)
	}
	decides(t, ctx, a, host, id, "a decision that has truly seen the host's", all, onStage, a.Write(room.ToStage, guest.key.ID(), nil))
}

// forkLimit is how soon everybody has to know of two ops with one number.
const forkLimit = 5 * time.Second

// TestEquivocation is trust test 30: a moderator signs two ops with one number and tells one daemon each, the third none.
// Within five seconds all three show both as the proof, and neither counts.
func TestEquivocation(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	all, id, link := three(t)
	host, guest, third := all[0], all[1], all[2]
	for name, tell := range map[string]func(*testing.T, context.Context, *hostile.Author, *daemon, string, ...*wire.Signed){"gossip": shout, "stream": whisper} {
		_, a := becomeModerator(t, ctx, link, id, all...)
		honest := a.Write(room.ToStage, third.key.ID(), nil)
		decides(t, ctx, a, host, id, name+": what she decided before", all, func(d *daemon) bool { return d.people(t, id)[third.key.ID().String()].OnStage }, honest)
		one, two := a.Next(room.ToStage, guest.key.ID(), nil), a.Next(room.ToAudience, third.key.ID(), nil)
		began := time.Now()
		tell(t, ctx, a, host, id, one)
		tell(t, ctx, a, guest, id, two)
		everywhere(t, name+": both ops, void, everywhere", all, func(d *daemon) bool { return d.voided(t, id, forked, one, two) })
		took := stalls.Took(began)
		t.Logf("%s: the fork is shown everywhere after %v", name, took.Round(10*time.Millisecond))
		if took > forkLimit {
			t.Errorf("%s: the fork was shown everywhere after %v", name, took)
		}
		more := a.Next(room.Lock, "", func(op *wire.Op) { // on one of the branches
			id := ledger.IDOf(one)
			op.Seq, op.Prev = op.Seq+1, id[:]
		})
		decides(t, ctx, a, host, id, name+": what follows the fork, void", all, func(d *daemon) bool { return d.voided(t, id, forked, more) }, more)
		for _, d := range all {
			v, people := d.room(t, id), d.people(t, id)
			if x, y := people[guest.key.ID().String()], people[third.key.ID().String()]; x.OnStage || !y.OnStage || v.Locked {
				t.Errorf("%s: %s sees the guest %+v, the third %+v, locked %v", name, v.Me.PeerID, x, y, v.Locked)
			}
			if x, held := d.op(t, id, honest); !held || x.Void {
				t.Errorf("%s: %s has her op before the fork as %+v", name, v.Me.PeerID, x)
			}
		}
		if err := host.Act(ctx, id, third.key.ID().String(), "audience", ""); err != nil { // for the next way
			t.Fatal(err)
		}
		everywhere(t, name+": the host's decision", all, func(d *daemon) bool { return !d.people(t, id)[third.key.ID().String()].OnStage })
	}
	talk(t, host, third, id)
}

// TestForkUnderACut is trust test 56 with everything real: whom a moderator has let in stays when, after her dismissal, she
// signs another op with the number of that admission.
func TestForkUnderACut(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	host, guest, id, link := twoDaemons(t)
	cy := startDaemon(t, "Cy")
	two := []*daemon{host, guest}
	p, a := becomeModerator(t, ctx, link, id, two...)
	in := func(d *daemon) bool { _, in := d.people(t, id)[cy.key.ID().String()]; return in }
	old := a.Next(room.ToStage, guest.key.ID(), nil)
	admit := a.Write(room.Admit, "", func(op *wire.Op) {
		op.Admissions = []*wire.Admission{{Peer: []byte(cy.key.ID()), Role: uint32(room.Listener), Name: "Cy"}}
	})
	decides(t, ctx, a, host, id, "her admission", two, in, admit)
	cy.enter(t, link)
	all := append(two, cy)
	if err := host.Act(ctx, id, p.ID().String(), "dismiss", ""); err != nil {
		t.Fatal(err)
	}
	everywhere(t, "the dismissal", all, func(d *daemon) bool { return d.people(t, id)[p.ID().String()].Role != "moderator" })
	for _, d := range all {
		a.Answer(d.key.ID(), old)
	}
	everywhere(t, "the other op with that number, void", all, func(d *daemon) bool {
		if d.voided(t, id, forked, old) {
			return true
		}
		shout(t, ctx, a, d, id, old)
		beckon(t, ctx, a, d, id)
		time.Sleep(300 * time.Millisecond)
		return false
	})
	talk(t, host, cy, id)
	talk(t, cy, guest, id)
	for _, d := range all {
		v := d.room(t, id)
		if x, held := d.op(t, id, admit); !held || x.Void || !in(d) || v.State != session.Live || d.people(t, id)[guest.key.ID().String()].OnStage {
			t.Errorf("%s: the room is %s, the admission %+v, Cy in it: %v", v.Me.PeerID, v.State, x, in(d))
		}
		for _, x := range d.decisions(t, id) {
			if x.Kind == room.Admit.String() && x.Author != p.ID().String() && slices.Contains(x.Targets, cy.key.ID().String()) {
				t.Errorf("%s: Cy was let in by %s too: the test shows nothing", v.Me.PeerID, x.Author)
			}
		}
	}
}

// TestKnockForOneUse: a link for one use with a knock, given on. Two knock, one is let in, and the other is told.
func TestKnockForOneUse(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	host := startDaemon(t, "Host")
	r := host.open(t, "A", "unlisted")
	link := host.link(t, r.ID, api.InviteRequest{Uses: 1, Knock: true, Depth: 1})
	ends := make(chan error, 2)
	var knocking []peer.ID
	for range 2 {
		f := mustParse(t, link)
		b := f.Last()
		b.Depth = 0
		f.Delegate(b)
		p := visit(t, host)
		knocking = append(knocking, p.ID())
		go func() {
			_, err := p.Join(ctx, host.key.ID(), f.Entry(p.ID()))
			ends <- err
		}()
	}
	eventually(t, "both knocks", func() bool { return len(host.room(t, r.ID).Knocks) == 2 })
	if err := host.Act(ctx, r.ID, knocking[0].String(), "admit", ""); err != nil {
		t.Fatal(err)
	}
	one, two := <-ends, <-ends
	if one != nil {
		one, two = two, one
	}
	if one != nil || !errors.Is(two, room.UsedUp) {
		t.Errorf("the two were answered %v and %v", one, two)
	}
	if err := host.Act(ctx, r.ID, knocking[1].String(), "admit", ""); err == nil {
		t.Error("the second is let in by name")
	}
	if v := host.room(t, r.ID); len(v.Knocks) != 0 || len(host.people(t, r.ID)) != 2 {
		t.Errorf("%d knocks, %d members", len(v.Knocks), len(host.people(t, r.ID)))
	}
}
