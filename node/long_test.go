package node

import (
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/node/store"
	"balai/room"
	"balai/room/ledger"
	"balai/room/session"
	"balai/room/wire"
)

// A newcomer of a room with a long history comes in, fetches it in several replies, stores all of it, and takes it up again. With
// BALAI_SOAK it is 10,000 decisions, the figure of ADR 11.
func TestALongLedger(t *testing.T) {
	n := 2500 // more than one reply holds
	if os.Getenv("BALAI_SOAK") != "" {
		n = 10_000
	}
	dir := t.TempDir()
	ana := startPerson(t, dir, "Ana")
	id, err := room.ParseID(ana.open("unlisted").View().ID)
	if err != nil {
		t.Fatal(err)
	}
	ana.halt()
	bytes := lengthen(t, dir, ana.key, id, n)
	ana = startPerson(t, dir, "Ana")
	j := ana.joinedRoom(id)
	if err := j.await(t.Context(), func(v session.View) bool { return v.State == session.Live }); err != nil {
		t.Fatal(err)
	}
	link := inviteTo(t, j.api(), session.InviteTerms{Role: room.Listener})
	budi := newPerson(t, "Budi")
	start := time.Now()
	r, err := budi.JoinLink(t.Context(), link, true)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := budi.joinedRoom(id).await(ctx, func(v session.View) bool { return v.State == session.Live }); err != nil || r.View().State != session.Live {
		t.Fatalf("%v: %s %s", err, r.View().State, r.View().Reason)
	}
	t.Logf("%d decisions, %d kB: in after %v", n, bytes/1000, time.Since(start).Round(10*time.Millisecond))
	list, err := r.Ledger(t.Context())
	if err != nil || len(list) <= n {
		t.Errorf("%d decisions of %d, %v", len(list), n, err)
	}
	stored, err := budi.store.List(t.Context(), store.Ledger(id.String()))
	if err != nil || len(stored) < n {
		t.Errorf("%d decisions stored of %d, %v", len(stored), n, err)
	}
}

// lengthen writes n decisions of the host into the folder of a daemon that is stopped: people let in, moved, muted and kicked.
func lengthen(t *testing.T, dir string, k *identity.Key, id room.ID, n int) (size int) {
	t.Helper()
	st, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	held, err := st.List(t.Context(), store.Rooms.ChildString(id.String()))
	if err != nil {
		t.Fatal(err)
	}
	var grant, prev room.OpID
	seq := uint64(0)
	for _, e := range held {
		var signed wire.Signed
		switch {
		case strings.HasSuffix(e.Key, "/genesis"):
			if err := proto.Unmarshal(e.Value, &signed); err != nil {
				t.Fatal(err)
			}
			grant = identity.RecordID(wire.DomainGenesis, signed.Body)
		case strings.Contains(e.Key, "/ledger/"):
			if err := proto.Unmarshal(e.Value, &signed); err != nil {
				t.Fatal(err)
			}
			if op, _, err := ledger.ParseOp(&signed); err == nil && op.Seq > seq {
				seq, prev = op.Seq, op.ID
			}
		}
	}
	b, err := st.Datastore(ds.NewKey("/")).Batch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kinds, guest := []room.Kind{room.Admit, room.ToStage, room.Mute, room.ToAudience, room.Kick}, []byte(nil)
	for i := range n {
		op := &wire.Op{Room: id[:], Seq: seq + uint64(i) + 1, Prev: prev[:], Grant: grant[:], Kind: uint32(kinds[i%5]), TimeMs: time.Now().UnixMilli()}
		if i%5 == 0 {
			other, err := identity.Generate()
			if err != nil {
				t.Fatal(err)
			}
			guest = []byte(other.ID())
			op.Admissions = []*wire.Admission{{Peer: guest, Role: uint32(room.Listener), Name: "Somebody", Chain: [][]byte{make([]byte, 32)}, MaxUses: []uint32{0}}}
		} else {
			op.Targets = [][]byte{guest}
		}
		signed := wire.Sign(k, wire.DomainOp, op)
		prev = ledger.IDOf(signed)
		data, err := proto.Marshal(signed)
		if err != nil {
			t.Fatal(err)
		}
		size += len(data)
		if err := b.Put(t.Context(), store.Ledger(id.String()).ChildString(hex.EncodeToString(prev[:])), data); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return size
}
