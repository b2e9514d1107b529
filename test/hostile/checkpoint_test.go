package hostile_test

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"balai/node/api"
	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
	"balai/test/hostile"
)

// ledgerOf is what a member makes of the decisions that it hands out.
func ledgerOf(t *testing.T, ctx context.Context, p *hostile.Peer, a *hostile.Author, d *daemon) *ledger.Ledger {
	t.Helper()
	rep, err := p.Fetch(ctx, d.key.ID(), &wire.LedgerRequest{Room: a.Room[:]})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.New(a.Welcome.Genesis)
	if err != nil {
		t.Fatal(err)
	}
	l.Add(rep.Ops...)
	return l
}

// A room is handed to a moderator who then, as its host, signs a checkpoint: of the state as it is, and all is well; or of
// another, in which nobody else may do anything. Nobody takes a state from her: all stay with what the decisions make, go on
// talking, and each program tells its person, in the room and in the doctor.
func TestTheHostsFalseCheckpoint(t *testing.T) {
	t.Parallel()
	for _, honest := range []bool{true, false} {
		t.Run(map[bool]string{true: "true", false: "false"}[honest], func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
			defer cancel()
			first, guest, id, link := twoDaemons(t)
			at := []*daemon{first, guest}
			p, a := becomeModerator(t, ctx, link, id, at...)
			eventually(t, "the room to be hers", func() bool {
				beckon(t, ctx, a, first, id) // she is here
				_ = first.Do(ctx, http.MethodPost, "/rooms/"+id+"/transfer", map[string]string{"peer": p.ID().String()}, nil)
				return first.people(t, id)[p.ID().String()].Role == "host"
			})
			everywhere(t, "all to know their host", at, func(d *daemon) bool { return d.people(t, id)[p.ID().String()].Role == "host" })

			var op *wire.Signed
			eventually(t, "one ledger at both, and her word on it", func() bool {
				l := ledgerOf(t, ctx, p, a, first)
				if l.Hash() != ledgerOf(t, ctx, p, a, guest).Hash() {
					return false
				}
				if err := a.Look(ctx, first.key.ID()); err != nil {
					t.Fatal(err)
				}
				hash := l.Hash()
				if !honest {
					hash[0] ^= 1
				}
				op = a.Next(room.Checkpoint, "", func(o *wire.Op) { o.StateHash = hash[:] })
				return true
			})
			before := ledgerOf(t, ctx, p, a, first).State()
			held := func(d *daemon) bool {
				x, ok := d.op(t, id, op)
				return ok && !x.Void
			}
			eventually(t, "the checkpoint at both", func() bool {
				for _, d := range at {
					shout(t, ctx, a, d, id, op)
					whisper(t, ctx, a, d, id, op)
				}
				time.Sleep(200 * time.Millisecond)
				return held(first) && held(guest)
			})
			everywhere(t, "what they say of it", at, func(d *daemon) bool { return d.room(t, id).Differs == !honest })
			for _, d := range at {
				findings, err := d.Doctor(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if told := slices.ContainsFunc(findings, func(f api.Finding) bool { return f.Check == "ledger" && f.Status == "fail" }); told == honest {
					t.Errorf("the doctor tells of a fault: %v", told)
				}
				now := ledgerOf(t, ctx, p, a, d).State()
				if now.Host != before.Host || len(now.Members) != len(before.Members) || !slices.Equal(now.Stage, before.Stage) || now.Epoch != before.Epoch || now.Ended {
					t.Errorf("the state is another: %+v, before %+v", now, before)
				}
			}
			talk(t, first, guest, id)
			talk(t, guest, first, id)
		})
	}
}
