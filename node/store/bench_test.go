package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func BenchmarkPut(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	value := bytes.Repeat([]byte("x"), 500)
	for i := 0; b.Loop(); i++ {
		k, _ := sample(i)
		if err := s.Put(b.Context(), k, value); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInspect judges a file of 10,000 values: what opening costs.
func BenchmarkInspect(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	batch, err := s.Datastore(Rooms).Batch(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10000 {
		k, v := sample(i)
		if err := batch.Put(b.Context(), k, v); err != nil {
			b.Fatal(err)
		}
	}
	if err := batch.Commit(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := inspect(data); err != nil {
			b.Fatal(err)
		}
	}
}
