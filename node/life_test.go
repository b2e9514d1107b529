package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"

	"balai/node/api"
	"balai/node/p2p"
	"balai/node/store"
	"balai/room"
	"balai/room/ledger"
	"balai/room/session"
)

// newEntry is a room that p could open.
func (p *soul) newEntry() entry {
	p.t.Helper()
	secret := room.NewSecret()
	g, err := ledger.NewGenesis(p.key, secret, room.Policy{Visibility: room.Unlisted, Name: "Tea"}, nil, time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	return entry{id: room.IDOf(p.key.Public(), secret.Nonce()), secret: secret, local: true, genesis: g, fresh: true}
}

// roomKey is where a value of a room is stored.
func roomKey(id room.ID, name string) ds.Key {
	return store.Rooms.ChildString(id.String()).ChildString(name)
}

func TestStartsOfOneRoomAreOne(t *testing.T) {
	ana, budi := newPerson(t, "Ana"), newPerson(t, "Budi")
	link := inviteTo(t, ana.open("unlisted"), session.InviteTerms{Role: room.Listener})
	ana.halt() // budi finds nobody: the room is joining for a while
	var wg sync.WaitGroup
	rooms := make([]api.Room, 8)
	for i := range rooms {
		wg.Go(func() {
			var err error
			if rooms[i], err = budi.JoinLink(t.Context(), link, true); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, r := range rooms {
		if r != rooms[0] {
			t.Fatal("two sessions of one room")
		}
	}
	if n := len(budi.Rooms()); n != 1 {
		t.Fatalf("%d rooms", n)
	}
}

func TestAStartThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	ana := startPerson(t, dir, "Ana")
	e := ana.newEntry()
	taken, err := ana.host.Members().Join(e.secret.Name(session.StageTopic), p2p.TopicConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ana.start(t.Context(), e); err == nil {
		t.Fatal("started without its topic")
	}
	if ana.joinedRoom(e.id) != nil {
		t.Error("the room that failed is there")
	}
	for _, name := range []string{"meta", "genesis"} {
		if _, err := ana.store.Get(t.Context(), roomKey(e.id, name)); !errors.Is(err, ds.ErrNotFound) {
			t.Errorf("%s of the room that failed: %v", name, err)
		}
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	j, err := ana.start(t.Context(), e)
	if err != nil {
		t.Fatalf("the first try left something: %v", err)
	}
	until(t, j.s, "the room", func(v session.View) bool { return v.State == session.Live })
}

// A room that is over makes place for a new session of the same room at once, its goroutines included.
func TestARoomIsEnteredAgain(t *testing.T) {
	ana, budi := newPerson(t, "Ana"), newPerson(t, "Budi")
	host := ana.open("unlisted")
	link := inviteTo(t, host, session.InviteTerms{Role: room.Listener})
	for range 3 {
		guest := budi.enter(link)
		until(t, guest, "the room", func(v session.View) bool { return v.State == session.Live })
		if err := guest.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLeaveIsDoneWhenItIsStored(t *testing.T) {
	dir := t.TempDir()
	ana := startPerson(t, dir, "Ana")
	r := ana.open("unlisted")
	id, err := room.ParseID(r.View().ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What is on disk at this moment is what a kill leaves.
	b, err := ana.store.Get(t.Context(), roomKey(id, "meta"))
	if err != nil || !bytes.Contains(b, []byte(`"left":true`)) {
		t.Fatalf("after Leave: %s %v", b, err)
	}
}

// A store that takes nothing: what was asked for fails in words, and the doctor tells; watchers hear of it.
func TestNothingCanBeStored(t *testing.T) {
	ana := newPerson(t, "Ana")
	r := ana.open("unlisted")
	news := make(chan string, 1024)
	defer ana.Watch(func(what string) { news <- what })()
	if err := ana.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Act(t.Context(), room.Lock, "", ""); err == nil {
		t.Error("a decision that is not stored was acknowledged")
	}
	if err := ana.SetProfile(t.Context(), api.Profile{Name: "Ani"}); err == nil || ana.Profile().Name != "Ana" {
		t.Errorf("a profile that is not stored: %v, %s", err, ana.Profile().Name)
	}
	if _, err := ana.Create(t.Context(), api.NewRoom{Name: "Other", Visibility: "unlisted"}); err == nil {
		t.Error("a room that is not stored was opened")
	}
	if len(ana.Rooms()) != 1 {
		t.Errorf("%d rooms", len(ana.Rooms()))
	}
	f := ana.finding("storage")
	if f.Status != "fail" || f.Action == "" {
		t.Errorf("the doctor says %+v", f)
	}
	told := false
	eventually(t, "word of the doctor's news", func() bool {
		for len(news) > 0 {
			told = <-news == api.ChangedDoctor || told
		}
		return told
	})
	if err := r.Leave(t.Context()); err == nil {
		t.Error("a leave that is not stored was acknowledged")
	}
}

func (p *soul) finding(check string) api.Finding {
	for _, f := range p.Doctor(p.t.Context(), "") {
		if f.Check == check && f.Status != "ok" {
			return f
		}
	}
	return api.Finding{}
}

// A damaged opening record is told, and the room is not forgotten over it.
func TestADamagedRoomIsTold(t *testing.T) {
	dir := t.TempDir()
	ana := startPerson(t, dir, "Ana")
	id, err := room.ParseID(ana.open("unlisted").View().ID)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ana.store.Get(t.Context(), roomKey(id, "genesis"))
	if err != nil {
		t.Fatal(err)
	}
	ana.halt()
	flip(t, filepath.Join(dir, "store", "balai.db"), raw)
	again := startPerson(t, dir, "Ana")
	lost := slices.ContainsFunc(again.Doctor(t.Context(), ""), func(f api.Finding) bool {
		return f.Check == "damage" && f.Status == "fail" && bytes.Contains([]byte(f.Detail), []byte(id.String()))
	})
	if !lost {
		t.Errorf("the doctor says %+v", again.Doctor(t.Context(), ""))
	}
	if again.key.ID() != ana.key.ID() {
		t.Error("another identity")
	}
	if _, ok := again.Room(id); !ok {
		t.Error("the room is forgotten")
	}
}

// flip changes one byte of value wherever it lies in the file.
func flip(t *testing.T, path string, value []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := bytes.Count(b, value)
	if n == 0 {
		t.Fatal("not in the file")
	}
	bad := slices.Clone(value)
	bad[len(bad)/2] ^= 1
	if err := os.WriteFile(path, bytes.ReplaceAll(b, value, bad), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheNameGivenIsKept(t *testing.T) {
	dir := t.TempDir()
	startPerson(t, dir, "Ana").halt()
	if got := startPerson(t, dir, "").Profile().Name; got != "Ana" {
		t.Fatalf("after a start without --name: %q", got)
	}
}

func TestAProfileOfAnotherTimeIsNoReasonNotToStart(t *testing.T) {
	dir := t.TempDir()
	ana := startPerson(t, dir, "Ana")
	if err := ana.store.Put(t.Context(), profileKey, []byte(`{"Name":"a\u0000b"}`)); err != nil {
		t.Fatal(err)
	}
	ana.halt()
	if got := startPerson(t, dir, "Budi").Profile().Name; got != "Budi" {
		t.Fatalf("name: %q", got)
	}
}
