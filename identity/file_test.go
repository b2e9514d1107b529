package identity

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestSaveLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "identity.key")
	if _, err := Load(path, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Load of nothing = %v", err)
	}
	k := generate(t)
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
	back, err := Load(path, nil)
	if err != nil || back.ID() != k.ID() {
		t.Fatalf("Load = %v, %v", back, err)
	}
	before, _ := os.ReadFile(path)
	if err := generate(t).Save(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Save over a key = %v, want fs.ErrExist", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("a second Save changed the file")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 1 {
		t.Errorf("files left: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), tempPattern)); len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

// Trust 9: a key file that others can read is refused and the error says what to do.
func TestLoadRefusesExposedFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no mode bits")
	}
	path := filepath.Join(t.TempDir(), "identity.key")
	if err := generate(t).Save(path); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o644, 0o660, 0o620, 0o602, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		for name, load := range map[string]func(string, Ask) (*Key, error){"Load": Load, "LoadOrCreate": LoadOrCreate} {
			_, err := load(path, nil)
			if !errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), "chmod 600 "+path) {
				t.Errorf("%s with mode %o = %v", name, mode, err)
			}
		}
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, nil); err != nil {
		t.Errorf("Load with mode 400 = %v", err)
	}
}

func TestKeyFileVectors(t *testing.T) {
	want := map[string]error{"ok": nil, "corrupt": ErrCorrupt, "sealed": ErrSealed}
	for _, vec := range vectors(t, "key-*.txt") {
		t.Run(filepath.Base(vec), func(t *testing.T) {
			v, content := vector(t, vec)
			path := filepath.Join(t.TempDir(), "identity.key")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := LoadOrCreate(path, nil)
			if target, ok := want[v["expect"]]; !ok || !errors.Is(err, target) {
				t.Fatalf("LoadOrCreate = %v, want %s", err, v["expect"])
			}
			if err == nil && k.ID().String() != v["peer"] {
				t.Errorf("peer %s, want %s", k.ID(), v["peer"])
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, content) {
				t.Error("the file was changed")
			}
		})
	}
}

// Whatever byte of a key file is turned, what loads is the same key or nothing.
func TestFlippedByteNeverMakesAnotherKey(t *testing.T) {
	_, content := vector(t, filepath.Join("testdata", "key-plain.txt"))
	k, err := decode(content)
	if err != nil {
		t.Fatal(err)
	}
	same := 0
	for i := range len(content) * 8 {
		bad := bytes.Clone(content)
		bad[i/8] ^= 1 << (i % 8)
		got, err := decode(bad)
		if err != nil {
			continue
		}
		if got.ID() != k.ID() {
			t.Fatalf("bit %d makes another key", i)
		}
		same++
	}
	if same > len(content) {
		t.Errorf("%d of %d changes were not noticed", same, len(content)*8)
	}
}

func TestLoadRefusesWhatIsNoKeyFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Load of a folder = %v", err)
	}
	long := filepath.Join(dir, "long")
	if err := os.WriteFile(long, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(long, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Load of a long file = %v", err)
	}
}

// Several processes that start at once agree on one key.
func TestLoadOrCreateAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.key")
	const n = 16
	ids := make([]string, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			if k, err := LoadOrCreate(path, nil); err != nil {
				t.Error(err)
			} else {
				ids[i] = k.ID().String()
			}
		})
	}
	wait.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("two keys: %s and %s", id, ids[0])
		}
	}
}

func TestSaveReportsFailure(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := generate(t).Save(filepath.Join(file, "identity.key")); err == nil {
		t.Error("Save below a file returned nil")
	}
}

func TestSealOpen(t *testing.T) {
	k := generate(t)
	sealed, err := k.Seal([]byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	back, err := Open(sealed, []byte("correct horse"))
	if err != nil || back.ID() != k.ID() {
		t.Fatalf("Open = %v, %v", back, err)
	}
	if _, err := Open(sealed, []byte("correct horsf")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("a wrong passphrase = %v", err)
	}
	if _, err := decode(sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("a sealed key without a passphrase = %v", err)
	}
	if bytes.Contains(sealed, k.private.Seed()) {
		t.Error("the seed is readable")
	}
	again, err := k.Seal([]byte("correct horse"))
	if err != nil || bytes.Equal(again, sealed) {
		t.Error("two seals are alike: salt or nonce is used again")
	}
	if _, err := k.Seal([]byte("")); err == nil {
		t.Error("sealed with an empty passphrase")
	}
	other := bytes.Replace(sealed, []byte(k.ID().String()), []byte(generate(t).ID().String()), 1)
	if _, err := Open(other, []byte("correct horse")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("under the name of another peer = %v", err)
	}
}

func TestOpenVector(t *testing.T) {
	v, content := vector(t, filepath.Join("testdata", "key-sealed.txt"))
	k, err := Open(content, []byte(v["pass"]))
	if err != nil || k.ID().String() != v["peer"] {
		t.Fatalf("Open = %v, %v", k, err)
	}
	_, plain := vector(t, filepath.Join("testdata", "key-plain.txt"))
	if _, err := Open(plain, []byte(v["pass"])); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Open of an unsealed key = %v", err)
	}
}

func FuzzKeyFile(f *testing.F) {
	paths, _ := filepath.Glob(filepath.Join("testdata", "key-*.txt"))
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		_, content, _ := bytes.Cut(data, []byte("\n\n"))
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := decode(data)
		if err != nil {
			if k != nil {
				t.Fatal("a key came out with an error")
			}
			return
		}
		path := filepath.Join(t.TempDir(), "k")
		if err := k.Save(path); err != nil {
			t.Fatal(err)
		}
		if back, err := Load(path, nil); err != nil || back.ID() != k.ID() {
			t.Fatalf("round trip: %v, %v", back, err)
		}
	})
}
