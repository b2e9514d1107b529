package ledger

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/wire"
)

var update = flag.Bool("update", false, "write testdata anew")

// The vectors are for other programs too. Lines of "name: value"; records are Signed messages in hex. A room vector:
// the genesis, each op in the order given with the status it gets, then the state that all make.
func TestVectors(t *testing.T) {
	if *update {
		vectorT = t
		writeVectors(t)
	}
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatal(len(files), err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) { runVector(t, f) })
	}
}

func runVector(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var l *Ledger
	expect, state := "ok", ""
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		name, value, _ := strings.Cut(sc.Text(), ": ")
		switch name {
		case "comment":
		case "expect":
			expect = value
		case "genesis":
			if l, err = New(unhex(t, value)); reason(err) != expect {
				t.Fatalf("genesis: %v, want %s", err, expect)
			}
		case "op":
			record, want, _ := strings.Cut(value, " ")
			v := l.Add(unhex(t, record))[0]
			if got := v.Status.String(); got != want {
				t.Fatalf("op %x: %s, want %s", v.ID[:4], got, want)
			}
		default:
			state += sc.Text() + "\n"
		}
	}
	if expect == "ok" && describe(l) != state {
		t.Fatalf("state\n%s\nwant\n%s", describe(l), state)
	}
}

func reason(err error) string {
	var r room.Reason
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &r):
		return r.String()
	}
	return err.Error()
}

func unhex(t *testing.T, s string) *wire.Signed {
	t.Helper()
	b, err := hex.DecodeString(s)
	r := new(wire.Signed)
	if err != nil || proto.Unmarshal(b, r) != nil {
		t.Fatalf("record %.20s: %v", s, err)
	}
	return r
}

func describe(l *Ledger) string {
	s := l.State()
	h := l.Hash()
	out := fmt.Sprintf("room: %v\nhash: %x\nhost: %v\nvisibility: %v\nepoch: %d %x\nlocked: %v\nended: %v\n", s.Room, h, s.Host, s.Policy.Visibility, s.Epoch.N, s.Epoch.ID, s.Locked, s.Ended)
	list := func(name string, ids []peer.ID) {
		for _, p := range ids {
			out += fmt.Sprintf("%s: %v\n", name, p)
		}
	}
	list("moderator", s.Moderators)
	list("stage", s.Stage)
	list("forked", s.Forked)
	var lines []string
	for p, m := range s.Members {
		lines = append(lines, fmt.Sprintf("member: %v %v muted=%v\n", p, m.Role, m.Muted))
	}
	for p := range s.Removed {
		lines = append(lines, fmt.Sprintf("removed: %v banned=%v\n", p, s.Banned[p]))
	}
	slices.Sort(lines)
	return out + strings.Join(lines, "")
}

func writeVectors(t *testing.T) {
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	rooms := map[string]func() (string, *rig, []*wire.Signed){
		"evening": vectorEvening, "fork": vectorFork, "cut": vectorCut, "lying-seen": vectorLie, "one-use": vectorUse, "transfer": vectorTransfer,
		"succession": vectorSuccession, "old-votes": vectorOldVotes,
	}
	for name, f := range rooms {
		comment, r, ops := f()
		r.t = t
		l := r.fresh()
		out := "comment: " + comment + "\ngenesis: " + enhex(r.genesis) + "\n"
		for _, s := range ops {
			out += "op: " + enhex(s) + " " + l.Add(s)[0].Status.String() + "\n"
		}
		save(t, name, out+describe(l))
	}
	r := newRig(t, open1)
	sign := func(f func(g *wire.Genesis)) string {
		var g wire.Genesis
		if err := proto.Unmarshal(r.genesis.Body, &g); err != nil {
			t.Fatal(err)
		}
		f(&g)
		return "genesis: " + enhex(wire.Sign(r.keys["host"], wire.DomainGenesis, &g)) + "\n"
	}
	save(t, "genesis-newer", "comment: the room wants a newer protocol\nexpect: needs_newer\n"+sign(func(g *wire.Genesis) { g.Policy.MinVersion = 2 }))
	save(t, "genesis-nonce", "comment: a nonce of 15 bytes\nexpect: malformed\n"+sign(func(g *wire.Genesis) { g.Nonce = g.Nonce[1:] }))
	save(t, "genesis-visibility", "comment: a visibility that does not exist\nexpect: malformed\n"+sign(func(g *wire.Genesis) { g.Policy.Visibility = 4 }))
	save(t, "genesis-other-host", "comment: signed by another than its host\nexpect: bad_signature\n"+sign(func(g *wire.Genesis) { g.Host = r.keys["heir"].Public() }))
}

func enhex(s *wire.Signed) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(s)
	if err != nil {
		panic(err)
	}
	return hex.EncodeToString(b)
}

func save(t *testing.T, name, text string) {
	if err := os.WriteFile(filepath.Join("testdata", name+".txt"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

var vectorT testing.TB

func opsOf(r *rig) (ops []*wire.Signed) {
	ops, _ = r.logs["host"].Since(nil, 1000)
	return ops
}

func vectorEvening() (string, *rig, []*wire.Signed) {
	r := newRig(vectorT, open1, "mod", "ana", "bo")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.admit("mod", "ana", room.Speaker)
	r.admit("mod", "bo", room.Listener)
	r.draft("host", room.Op{Kind: room.NewEpoch, Epoch: room.EpochCommit{N: 1, ID: room.EpochID{1}, Cause: 1}})
	r.all()
	r.about("mod", room.Mute, "ana")
	r.about("host", room.Ban, "bo")
	r.draft("mod", room.Op{Kind: room.Lock})
	r.all()
	return "admit, mute, ban, lock, an epoch", r, opsOf(r)
}

func vectorFork() (string, *rig, []*wire.Signed) {
	r := newRig(vectorT, open1, "mod")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.admit("mod", "ana", room.Listener)
	a := r.forge("mod", r.next("mod", room.Op{Kind: room.Kick, Targets: []peer.ID{r.peer("ana")}}))
	b := r.forge("mod", r.next("mod", room.Op{Kind: room.Lock}))
	r.all()
	return "a moderator signs two ops with number 2: neither counts, number 1 does", r, append(opsOf(r), a, b)
}

func vectorCut() (string, *rig, []*wire.Signed) {
	r := newRig(vectorT, open1, "mod")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.admit("mod", "ana", room.Listener)
	r.meet("mod", "host")
	r.about("host", room.Dismiss, "mod")
	late := r.about("mod", room.Kick, "ana")
	return "an op past the cut of a dismissal is held and does not count", r, append(opsOf(r), late)
}

func vectorLie() (string, *rig, []*wire.Signed) {
	r := newRig(vectorT, open1, "mod")
	r.about("host", room.Appoint, "mod")
	r.admit("host", "ana", room.Speaker)
	r.all()
	op := r.next("mod", room.Op{Kind: room.Kick, Targets: []peer.ID{r.peer("ana")}})
	op.Seen[0].Seq = 1 << 31
	lie := r.forge("mod", op)
	op.Seen[0].Hash = room.OpID{1}
	return "a seen whose number is not its hash's is void; one that names an unknown hash is pending for ever", r, append(opsOf(r), lie, r.forge("mod", op))
}

func vectorUse() (string, *rig, []*wire.Signed) {
	r := newRig(vectorT, open1, "m1", "m2")
	r.about("host", room.Appoint, "m1")
	r.about("host", room.Appoint, "m2")
	r.all()
	r.issued("m1", "ana", "host", 1, leaf)
	r.issued("m2", "bo", "host", 1, leaf)
	r.all()
	return "one use claimed at two moderators at once: one is in, by ledger order", r, opsOf(r)
}

func vectorTransfer() (string, *rig, []*wire.Signed) {
	r := newRig(vectorT, open1, "mod")
	r.about("host", room.Appoint, "mod")
	r.all()
	r.hand("host", "mod")
	r.all()
	r.admit("mod", "ana", room.Listener)
	r.all()
	return "the host hands the room to a moderator, who goes on as host", r, opsOf(r)
}

func vectorSuccession() (string, *rig, []*wire.Signed) {
	r, succeed := withVote()
	r.draft("host", room.Op{Kind: room.Lock})
	r.meet("host", "mod")
	r.meet("host", "heir")
	r.draft("heir", succeed)
	r.all()
	return "the heir takes the room with the vote of the only moderator, who wrote nothing under the host who is back: what the host wrote past the cut is void", r, opsOf(r)
}

func vectorOldVotes() (string, *rig, []*wire.Signed) {
	r, succeed := withVote()
	r.draft("host", room.Op{Kind: room.Lock})
	r.meet("host", "mod")
	r.admit("mod", "ana", room.Listener)
	r.all()
	r.draft("heir", succeed)
	r.all()
	return "the moderator wrote under the host who is back before she knew of the succession: her vote falls, and the succession with it", r, opsOf(r)
}

// withVote is a room with one moderator, and the heir's op with her vote.
func withVote() (*rig, room.Op) {
	r := newRig(vectorT, open1, "mod")
	r.about("host", room.Appoint, "mod")
	r.all()
	last := r.logs["heir"].LastOfHost()
	vote := Agree(r.keys["mod"], room.Succeed, r.id, r.keys["heir"].Public(), last.Hash)
	return r, room.Op{Kind: room.Succeed, CutSeq: last.Seq, CutHash: last.Hash, Consents: []room.Consent{vote}}
}
