package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

var day = time.Date(2026, 11, 1, 19, 0, 0, 0, time.UTC)

// rig is a room with its host and people, each with a replica of the ledger.
type rig struct {
	t       testing.TB
	genesis *wire.Signed
	id      room.ID
	keys    map[string]*identity.Key
	logs    map[string]*Ledger
	now     time.Time
}

var open1 = room.Policy{Visibility: room.Unlisted, Name: "Evening"}

// newRig opens a room by "host" with "heir" as heir; the others are anybody.
func newRig(t testing.TB, policy room.Policy, names ...string) *rig {
	t.Helper()
	r := &rig{t: t, keys: map[string]*identity.Key{}, logs: map[string]*Ledger{}, now: day}
	for _, n := range append([]string{"host", "heir"}, names...) {
		r.keys[n] = testKey(t, n)
	}
	var err error
	if r.genesis, err = NewGenesis(r.keys["host"], room.Secret{1}, policy, r.keys["heir"].Public(), day); err != nil {
		t.Fatal(err)
	}
	for n := range r.keys {
		r.logs[n] = r.fresh()
	}
	r.id = r.logs["host"].id
	return r
}

func (r *rig) fresh() *Ledger {
	l, err := New(r.genesis)
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

// testKey is the same for the same name, so that seeds alone repeat a test.
func testKey(t testing.TB, name string) *identity.Key {
	t.Helper()
	if k := testKeys[name]; k != nil {
		return k
	}
	seed := sha256.Sum256([]byte(name))
	id, err := identity.PeerOf(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	block := &pem.Block{Type: "BALAI PRIVATE KEY", Headers: map[string]string{"Version": "1", "Peer": id.String()}, Bytes: seed[:]}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := identity.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	testKeys[name] = k
	return k
}

// testKeys keeps them; tests here do not run in parallel.
var testKeys = map[string]*identity.Key{}

func (r *rig) peer(name string) peer.ID {
	if k := r.keys[name]; k != nil {
		return k.ID()
	}
	return testKey(r.t, name).ID()
}

// draft writes an op at name's replica and adds it there.
func (r *rig) draft(name string, op room.Op) *wire.Signed {
	r.t.Helper()
	s, err := r.logs[name].Draft(r.keys[name], op, r.now)
	if err != nil {
		r.t.Fatalf("%s drafts %v: %v", name, op.Kind, err)
	}
	r.add(name, s)
	return s
}

// about is draft for ops on one person.
func (r *rig) about(name string, kind room.Kind, target string) *wire.Signed {
	r.t.Helper()
	return r.draft(name, room.Op{Kind: kind, Targets: []peer.ID{r.peer(target)}})
}

func (r *rig) admit(name, target string, role room.Role) *wire.Signed {
	r.t.Helper()
	return r.draft(name, room.Op{Kind: room.Admit, Admissions: []room.Admission{{Peer: r.peer(target), Role: role, Name: target}}})
}

func (r *rig) add(name string, ops ...*wire.Signed) []Verdict { return r.logs[name].Add(ops...) }

// meet brings two replicas to the same ops by sync, in small pieces.
func (r *rig) meet(a, b string) {
	r.t.Helper()
	for i := 0; ; i++ {
		x, moreX := r.logs[a].Since(r.logs[b].Locator(), 5)
		y, moreY := r.logs[b].Since(r.logs[a].Locator(), 5)
		r.add(b, x...)
		r.add(a, y...)
		if !moreX && !moreY {
			break
		}
		if i > 1000 {
			r.t.Fatal("sync does not end")
		}
	}
}

// all brings every replica together and checks that they agree.
func (r *rig) all() *room.State {
	r.t.Helper()
	for range 3 { // a branch may need a meeting more than a line
		for _, n := range r.names() {
			r.meet("host", n)
		}
	}
	want := r.logs["host"].Hash()
	for n, l := range r.logs {
		if l.Hash() != want {
			r.t.Fatalf("%s has another state", n)
		}
	}
	return r.logs["host"].State()
}

// names are all who have a replica, in one order.
func (r *rig) names() []string { return slices.Sorted(maps.Keys(r.logs)) }

// forge signs an op as its author pleases: every field as given.
func (r *rig) forge(name string, op room.Op) *wire.Signed {
	r.t.Helper()
	op.Time = r.now
	w, err := encodeOp(r.id, &op)
	if err != nil {
		r.t.Fatal(err)
	}
	return wire.Sign(r.keys[name], wire.DomainOp, w)
}

// next fills an op's links as Draft does but without asking whether it is allowed.
func (r *rig) next(name string, op room.Op) room.Op {
	l := r.logs[name]
	op.Seq, op.Prev = 1, room.OpID{}
	a := l.authors[r.peer(name)]
	if n := l.head(a); n != nil {
		op.Seq, op.Prev = n.op.Seq+1, n.op.ID
	} else if a != nil && a.root == l.root() {
		op.Prev = a.root.op.ID
	}
	if t := l.lawful().tenureOf(r.peer(name)); t != nil && op.Grant == (room.OpID{}) {
		op.Grant = t.start.op.ID
	}
	op.Seen = l.news(r.peer(name), false)
	return op
}

func status(vs []Verdict) string {
	s := ""
	for _, v := range vs {
		s += fmt.Sprint(v.Status, " ")
	}
	return s
}

func shuffled[T any](rnd *rand.Rand, in []T) []T {
	out := append([]T(nil), in...)
	rnd.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}
