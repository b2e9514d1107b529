package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	"go.etcd.io/bbolt"
)

// spoil changes a stored value below the frame, as a disk would.
func spoil(t *testing.T, s *Store, key ds.Key, change func([]byte) []byte) {
	t.Helper()
	err := s.disk.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		return b.Put(key.Bytes(), change(bytes.Clone(b.Get(key.Bytes()))))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func flipLast(b []byte) []byte { b[len(b)-1] ^= 1; return b }

func TestDamagedValueGoesToQuarantine(t *testing.T) {
	key, other := Prefs.ChildString("a"), Prefs.ChildString("b")
	for name, change := range map[string]func([]byte) []byte{
		"value":   flipLast,
		"check":   func(b []byte) []byte { b[3] ^= 0x80; return b },
		"version": func(b []byte) []byte { b[0] = 9; return b },
		"cut":     func(b []byte) []byte { return b[:5] },
		"empty":   func([]byte) []byte { return []byte{} },
		"longer":  func(b []byte) []byte { return append(b, 0) },
	} {
		for via, touch := range map[string]func(t *testing.T, s *Store, dir string) *Store{
			"get": func(t *testing.T, s *Store, _ string) *Store {
				if _, err := s.Get(t.Context(), key); !errors.Is(err, ErrDamaged) {
					t.Errorf("Get = %v, want ErrDamaged", err)
				}
				return s
			},
			"list": func(t *testing.T, s *Store, _ string) *Store {
				entries, err := s.List(t.Context(), Prefs)
				if !errors.Is(err, ErrDamaged) || len(entries) != 1 {
					t.Errorf("List = %d entries, %v", len(entries), err)
				}
				return s
			},
			"query": func(t *testing.T, s *Store, _ string) *Store {
				r, err := s.Datastore(Prefs).Query(t.Context(), dsq.Query{})
				if err != nil {
					t.Fatal(err)
				}
				if entries, err := r.Rest(); err != nil || len(entries) != 1 {
					t.Errorf("Query = %d entries, %v", len(entries), err)
				}
				return s
			},
			"put": func(t *testing.T, s *Store, _ string) *Store {
				if err := s.Put(t.Context(), key, []byte("later")); err != nil {
					t.Fatal(err)
				}
				return s
			},
			"open": func(t *testing.T, s *Store, dir string) *Store {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				return openStore(t, dir)
			},
		} {
			t.Run(name+"/"+via, func(t *testing.T) {
				ctx, dir := t.Context(), t.TempDir()
				s := openStore(t, dir)
				for _, k := range []ds.Key{key, other} {
					if err := s.Put(ctx, k, []byte("written")); err != nil {
						t.Fatal(err)
					}
				}
				var raw []byte
				spoil(t, s, key, func(b []byte) []byte { raw = bytes.Clone(change(b)); return raw })
				s = touch(t, s, dir)

				notes, err := s.Damage(ctx)
				if err != nil || len(notes) != 1 {
					t.Fatalf("Damage = %v, %v", notes, err)
				}
				if notes[0].Key != key.String() || notes[0].Reason == "" || notes[0].At.IsZero() || !bytes.Equal(notes[0].Raw, raw) {
					t.Errorf("note %+v", notes[0])
				}
				got, err := s.Get(ctx, key)
				if via == "put" && (err != nil || string(got) != "later") {
					t.Errorf("the later value: %q, %v", got, err)
				}
				if via != "put" && !errors.Is(err, ds.ErrNotFound) {
					t.Errorf("Get afterwards = %v, want ErrNotFound", err)
				}
				if got, err := s.Get(ctx, other); err != nil || string(got) != "written" {
					t.Errorf("the other value: %q, %v", got, err)
				}
			})
		}
	}
}

// A value put under another key by a damaged disk is noticed: the check covers the key.
func TestMovedValueIsDamaged(t *testing.T) {
	ctx := t.Context()
	s := openStore(t, t.TempDir())
	if err := s.Put(ctx, Prefs.ChildString("a"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	err := s.disk.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		return b.Put(Prefs.ChildString("b").Bytes(), b.Get(Prefs.ChildString("a").Bytes()))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, Prefs.ChildString("b")); !errors.Is(err, ErrDamaged) {
		t.Errorf("Get = %v, want ErrDamaged", err)
	}
}

func sample(i int) (ds.Key, []byte) {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	value := make([]byte, 20+r.IntN(600))
	for j := range value {
		value[j] = byte(r.Uint32())
	}
	return Ledger("room").ChildString(fmt.Sprintf("%05d", i)), value
}

// written makes a store of n samples and returns the content of its file.
func written(t *testing.T, n int) []byte {
	t.Helper()
	dir := t.TempDir()
	s := openStore(t, dir)
	b, err := s.Datastore(ds.NewKey("/")).Batch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		k, v := sample(i)
		if err := b.Put(t.Context(), k, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A few rewrites, so that the file has free pages too.
	for i := range 20 {
		k, v := sample(i)
		if err := s.Put(t.Context(), k, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// survives opens a store over content and tells how many samples are missing. A value that is there must be the one
// that was written, a missing one must be told of, and the store must take writes.
func survives(t *testing.T, content []byte, n int) int {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer func() { _ = s.Close() }()
	lost := 0
	for i := range n {
		k, want := sample(i)
		got, err := s.Get(ctx, k)
		switch {
		case errors.Is(err, ds.ErrNotFound):
			lost++
		case err != nil:
			t.Fatalf("Get: %v", err)
		case !bytes.Equal(got, want):
			t.Fatalf("%s is not what was written", k)
		}
	}
	notes, err := s.Damage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if lost > 0 && len(notes) == 0 {
		t.Errorf("%d values are gone and nothing tells", lost)
	}
	for _, note := range notes {
		if note.File == "" {
			continue
		}
		if kept, err := os.ReadFile(filepath.Join(dir, note.File)); err != nil || len(kept) < len(content) {
			t.Errorf("the damaged file was not kept: %d bytes, %v", len(kept), err)
		}
	}
	if err := s.Put(ctx, Prefs.ChildString("after"), []byte("v")); err != nil {
		t.Errorf("Put afterwards: %v", err)
	}
	return lost
}

// One flipped bit anywhere in the file: no crash, no wrong value, no silent loss.
func TestFlippedBits(t *testing.T) {
	const n = 400
	content := written(t, n)
	page := os.Getpagesize()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	places := make([]int, 0, 300)
	for range 150 {
		places = append(places, r.IntN(len(content)))
	}
	// Heads of pages, where the structure is.
	for range 150 {
		places = append(places, r.IntN(len(content)/page)*page+r.IntN(64))
	}
	harmed := 0
	for _, at := range places {
		bad := bytes.Clone(content)
		bad[at] ^= 1 << r.IntN(8)
		if lost := survives(t, bad, n); lost > 0 {
			harmed++
		}
		if t.Failed() {
			t.Fatalf("seed %d, a bit of byte %d", seed, at)
		}
	}
	t.Logf("%d of %d flips lost something, all were told of", harmed, len(places))
}

func TestCutAndOverwrittenFiles(t *testing.T) {
	const n = 400
	content := written(t, n)
	page := os.Getpagesize()
	for _, size := range []int{1, page - 1, page, 2 * page, 3 * page, 4 * page, len(content) / 4, len(content) / 2, len(content) - page} {
		survives(t, content[:size], n)
		if t.Failed() {
			t.Fatalf("cut to %d bytes", size)
		}
	}
	for at := 0; at < len(content); at += 7 * page {
		bad := bytes.Clone(content)
		for i := at; i < min(at+page, len(bad)); i++ {
			bad[i] = 0xff
		}
		survives(t, bad, n)
		if t.Failed() {
			t.Fatalf("the page at %d overwritten", at)
		}
	}
	survives(t, bytes.Repeat([]byte("not a store "), 10000), n)
}

// Whatever is changed in a file, inspect neither panics nor allocates without bound, and what it calls sound opens and
// holds just the pairs that it found.
func FuzzInspect(f *testing.F) {
	var bases [][]byte
	for _, n := range []int{0, 3, 60} {
		bases = append(bases, fileWith(f, n))
		f.Add(uint8(len(bases)-1), uint32(0), uint64(0), uint32(0), uint64(0), uint32(0))
	}
	f.Fuzz(func(t *testing.T, base uint8, a uint32, ax uint64, b uint32, bx uint64, cut uint32) {
		data := bytes.Clone(bases[int(base)%len(bases)])
		for at, x := range map[uint32]uint64{a: ax, b: bx} {
			i := int(at) % (len(data) - 7)
			order.PutUint64(data[i:], order.Uint64(data[i:])^x)
		}
		data = data[:len(data)-int(cut)%len(data)]
		intact, fault := inspect(data)
		if fault != nil {
			return
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir)
		if err != nil {
			t.Fatalf("sound, and yet: %v", err)
		}
		defer func() { _ = s.Close() }()
		for k, framed := range intact {
			if got, err := s.disk.Get(t.Context(), ds.RawKey(k)); err != nil || !bytes.Equal(got, framed[frameHead:]) {
				t.Fatalf("%q: %v", k, err)
			}
		}
	})
}

// fileWith is the content of a store of n samples.
func fileWith(f *testing.F, n int) []byte {
	f.Helper()
	dir := f.TempDir()
	s, err := Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	for i := range n {
		k, v := sample(i)
		if err := s.Put(f.Context(), k, v); err != nil {
			f.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		f.Fatal(err)
	}
	return content
}
