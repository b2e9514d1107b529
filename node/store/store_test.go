package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	dstest "github.com/ipfs/go-datastore/test"
	"go.etcd.io/bbolt"
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// The suite makes some 100,000 writes one by one; syncing each is what the crash test is about, not this one.
func TestConformance(t *testing.T) {
	s := openStore(t, t.TempDir())
	s.disk.db.NoSync = true
	dstest.SubtestAll(t, s.disk)
}

func TestConformanceBelowAPrefix(t *testing.T) {
	s := openStore(t, t.TempDir())
	s.disk.db.NoSync = true
	d := s.Datastore(Peers)
	for _, f := range []func(*testing.T, ds.Datastore){
		dstest.SubtestBasicPutGet, dstest.SubtestNotFounds, dstest.SubtestPrefix, dstest.SubtestOrder,
		dstest.SubtestLimit, dstest.SubtestFilter, dstest.SubtestReturnSizes, dstest.SubtestBasicSync,
	} {
		f(t, d)
		for _, e := range must(s.List(t.Context(), Peers)) {
			if err := s.Delete(t.Context(), ds.RawKey(e.Key)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range dstest.BatchSubtests {
		f(t, d)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestPutGetDeleteList(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "store")
	s := openStore(t, dir)
	key := Ledger("abc").ChildString("1")
	if key.String() != "/rooms/abc/ledger/1" {
		t.Fatalf("key %s", key)
	}
	if _, err := s.Get(ctx, key); !errors.Is(err, ds.ErrNotFound) {
		t.Fatalf("Get of nothing = %v", err)
	}
	for _, value := range [][]byte{[]byte("one"), {}, bytes.Repeat([]byte("x"), 1<<20)} {
		if err := s.Put(ctx, key, value); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, dir)
		if got, err := s.Get(ctx, key); err != nil || !bytes.Equal(got, value) {
			t.Fatalf("after opening again: %d bytes, %v; want %d", len(got), err, len(value))
		}
	}
	if err := s.Put(ctx, Ledger("abcd").ChildString("1"), []byte("another room")); err != nil {
		t.Fatal(err)
	}
	entries, err := s.List(ctx, Ledger("abc"))
	if err != nil || len(entries) != 1 || entries[0].Key != key.String() {
		t.Fatalf("List = %v, %v", entries, err)
	}
	if err := s.Delete(ctx, key); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, key); err != nil {
		t.Errorf("Delete of nothing = %v", err)
	}
	if _, err := s.Get(ctx, key); !errors.Is(err, ds.ErrNotFound) {
		t.Errorf("Get after Delete = %v", err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no mode bits")
	}
	dir := filepath.Join(t.TempDir(), "store")
	openStore(t, dir)
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, fileName): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode().Perm(), err)
		}
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	if _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Fatalf("second Open = %v, want ErrLocked", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openStore(t, dir)
}

func TestUseAfterCloseIsAnError(t *testing.T) {
	ctx := t.Context()
	s := openStore(t, t.TempDir())
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put(ctx, Prefs.ChildString("a"), nil); err == nil {
		t.Error("Put after Close returned nil")
	}
	if _, err := s.Get(ctx, Prefs.ChildString("a")); err == nil || errors.Is(err, ds.ErrNotFound) {
		t.Errorf("Get after Close = %v", err)
	}
	if _, err := s.List(ctx, Prefs); err == nil {
		t.Error("List after Close returned nil")
	}
}

func TestNamespacesAreApart(t *testing.T) {
	ctx := t.Context()
	s := openStore(t, t.TempDir())
	peers := s.Datastore(Peers)
	if err := peers.Put(ctx, ds.NewKey("/a"), []byte("peer")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(ctx, Peers.ChildString("a")); err != nil || string(got) != "peer" {
		t.Fatalf("%q, %v", got, err)
	}
	if has, err := s.Datastore(Prefs).Has(ctx, ds.NewKey("/a")); has || err != nil {
		t.Errorf("seen from another namespace: %v, %v", has, err)
	}
	if err := peers.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, Peers.ChildString("a")); err != nil {
		t.Errorf("closing a namespace closed the store: %v", err)
	}
}

func TestQuarantineIsReserved(t *testing.T) {
	ctx := t.Context()
	s := openStore(t, t.TempDir())
	if err := s.Put(ctx, Quarantine.ChildString("x"), nil); !errors.Is(err, ErrReserved) {
		t.Errorf("Put = %v", err)
	}
	b, err := s.Datastore(ds.NewKey("/")).Batch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(ctx, Quarantine.ChildString("x"), nil); !errors.Is(err, ErrReserved) {
		t.Errorf("Batch.Put = %v", err)
	}
}

func TestBatchIsAllOrNothing(t *testing.T) {
	ctx := t.Context()
	s := openStore(t, t.TempDir())
	d := s.Datastore(Prefs)
	b, err := d.Batch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := b.Put(ctx, ds.NewKey(fmt.Sprint(i)), []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	tooLong := ds.RawKey("/" + string(bytes.Repeat([]byte("k"), bbolt.MaxKeySize)))
	if err := b.Put(ctx, tooLong, []byte("v")); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(ctx); err == nil {
		t.Fatal("a batch with a key that cannot be stored was committed")
	}
	if entries, err := s.List(ctx, Prefs); err != nil || len(entries) != 0 {
		t.Errorf("%d entries of a failed batch, %v", len(entries), err)
	}
}

func TestCancelledContext(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, Prefs.ChildString("a"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v", err)
	}
	if _, err := s.Datastore(Prefs).Query(ctx, dsq.Query{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Query = %v", err)
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.json")
	if err := os.WriteFile(path, []byte("old and long"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	info, _ := os.Stat(path)
	if err != nil || string(got) != "new" {
		t.Errorf("%q, %v", got, err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
	if err := WriteFile(filepath.Join(filepath.Dir(path), "no", "such"), nil, 0o600); err == nil {
		t.Error("a write into a missing folder returned nil")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".new-*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
