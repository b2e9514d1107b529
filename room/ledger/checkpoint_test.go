package ledger

import (
	"errors"
	"fmt"
	"testing"

	"balai/room"
)

// checkpointed is a room with some history and a checkpoint that host wrote over all of it, with this state hash.
func checkpointed(t *testing.T, root room.OpID) (*rig, room.OpID) {
	r := newRig(t, open1, "mod", "ana", "eve")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.admit("mod", "ana", room.Speaker)
	r.all()
	r.about("host", room.Mute, "ana")
	s := r.draft("host", room.Op{Kind: room.Checkpoint, Root: root})
	return r, IDOf(s)
}

// A checkpoint over what a reader holds is compared: the true one is silent, a false one is told.
func TestACheckpointIsCompared(t *testing.T) {
	for _, c := range []struct {
		root room.OpID
		bad  bool
	}{{room.OpID{}, false}, {room.OpID{1}, true}} {
		r, id := checkpointed(t, c.root)
		r.all()
		for _, who := range []string{"host", "mod", "ana", "eve"} {
			got := r.logs[who].Differs()
			if (got != nil) != c.bad || c.bad && got.ID != id {
				t.Errorf("root %x: %s says %v", c.root[:1], who, got)
			}
			if n := r.logs[who].Unchecked(); n != 1 {
				t.Errorf("%d ops unchecked", n)
			}
		}
		r.about("mod", room.Unmute, "ana")
		r.all()
		if n := r.logs["eve"].Unchecked(); n != 2 {
			t.Errorf("%d ops unchecked after one more", n)
		}
	}
}

// Who holds more than the checkpoint names cannot compare, and does not.
func TestACheckpointOverOtherOps(t *testing.T) {
	r := newRig(t, open1, "mod", "ana", "eve")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.admit("mod", "ana", room.Speaker) // the host has not seen it
	r.draft("host", room.Op{Kind: room.Checkpoint, Root: room.OpID{1}})
	ops, _ := r.logs["mod"].Since(nil, 10)
	r.add("eve", ops...)
	r.meet("eve", "host")
	if r.logs["eve"].Differs() != nil {
		t.Error("compared with other ops")
	}
	if n := r.logs["eve"].Unchecked(); n != 2 {
		t.Errorf("%d ops unchecked", n)
	}
}

// The word of who is no host is no checkpoint: a moderator's, or the old host's after a transfer.
func TestACheckpointOfNoHost(t *testing.T) {
	r := newRig(t, open1, "mod", "eve")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.add("mod", r.forge("mod", r.next("mod", room.Op{Kind: room.Checkpoint, Root: room.OpID{1}})))
	r.all()
	r.hand("host", "mod")
	r.all()
	old := r.next("host", room.Op{Kind: room.Checkpoint, Root: room.OpID{1}, Grant: r.logs["host"].root().op.ID})
	r.add("host", r.forge("host", old))
	r.all()
	if d, n := r.logs["eve"].Differs(), r.logs["eve"].Unchecked(); d != nil || n != 4 {
		t.Errorf("taken from %v, %d unchecked", d, n)
	}
}

// Checkpoints in a row cost a state only now and then.
func TestManyCheckpoints(t *testing.T) {
	r := newRig(t, open1, "eve")
	for range 400 {
		r.draftUnlooked("host", room.Op{Kind: room.Checkpoint})
	}
	l, states := r.fresh(), 0
	ops, _ := r.logs["host"].Since(nil, 400)
	for _, op := range ops {
		l.Add(op)
		if l.state != nil {
			states++
		}
	}
	if states == 0 || states > 120 {
		t.Errorf("%d states for 400 checkpoints", states)
	}
}

// A checkpoint that cannot name every head is not written. One that is all the same, over more ops than are in its past,
// makes no liar of its author for who lacks just the others.
func TestACheckpointOfMoreHeadsThanFit(t *testing.T) {
	var mods []string
	for i := range maxNamed + 2 {
		mods = append(mods, fmt.Sprint("mod", i))
	}
	r := newRig(t, open1, mods...)
	for _, m := range mods {
		r.about("host", room.Appoint, m)
	}
	since, _ := r.logs["host"].Since(nil, 1000)
	for i, m := range mods {
		if i == maxNamed-1 { // the most that are named for sure
			if _, err := r.logs["host"].Draft(r.keys["host"], room.Op{Kind: room.Checkpoint}, r.now); err != nil {
				t.Fatalf("with %d heads: %v", i, err)
			}
		}
		r.add(m, since...)
		r.add("host", r.admit(m, fmt.Sprint("guest", i), room.Listener))
	}
	if _, err := r.logs["host"].Draft(r.keys["host"], room.Op{Kind: room.Checkpoint}, r.now); !errors.Is(err, ErrForbidden) {
		t.Errorf("with %d heads: %v", len(mods), err)
	}
	op := r.next("host", room.Op{Kind: room.Checkpoint, Root: r.logs["host"].Hash()})
	op.Seen = r.logs["host"].news(r.peer("host"), true)
	check := r.forge("host", op)
	named := map[room.OpID]bool{}
	for _, s := range op.Seen {
		named[s.Hash] = true
	}
	all, _ := r.logs["host"].Since(nil, 1000)
	eve := r.fresh()
	for _, s := range all {
		if id := IDOf(s); named[id] || r.logs["host"].nodes[id].byHost {
			eve.Add(s)
		}
	}
	eve.Add(check)
	if eve.nodes[IDOf(check)] == nil || len(all)+1-len(eve.order) != len(mods)-maxNamed {
		t.Fatalf("holds %d of %d", len(eve.order), len(all)+1)
	}
	if eve.Differs() != nil {
		t.Error("an honest host is called a liar")
	}
}
