package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

var pass = []byte("correct horse")

// answer asks nobody, and counts.
func answer(with []byte, asked *int) Ask {
	return func() ([]byte, error) {
		*asked++
		return bytes.Clone(with), nil
	}
}

func saved(t *testing.T) (*Key, string) {
	t.Helper()
	k, path := generate(t), filepath.Join(t.TempDir(), "identity.key")
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	return k, path
}

func TestProtectAndBack(t *testing.T) {
	k, path := saved(t)
	open, _ := os.ReadFile(path)
	asked := 0
	if _, err := Load(path, answer(pass, &asked)); err != nil || asked != 0 {
		t.Fatalf("an open key: %v, asked %d times", err, asked)
	}
	if err := k.Protect(path, nil); err == nil {
		t.Error("protected by nothing")
	}
	if err := k.Protect(path, pass); err != nil {
		t.Fatal(err)
	}
	sealed, _ := os.ReadFile(path)
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if name, is, err := Inspect(path); name != k.ID().String() || !is || err != nil {
		t.Errorf("Inspect = %s, %v, %v", name, is, err)
	}
	if _, err := Load(path, nil); !errors.Is(err, ErrSealed) {
		t.Errorf("without anybody to ask = %v", err)
	}
	for name, load := range map[string]func(string, Ask) (*Key, error){"Load": Load, "LoadOrCreate": LoadOrCreate} {
		asked = 0
		if got, err := load(path, answer(pass, &asked)); err != nil || got.ID() != k.ID() || asked != 1 {
			t.Errorf("%s = %v, %v, asked %d times", name, got, err, asked)
		}
		if got, err := load(path, answer([]byte("horse"), &asked)); got != nil || !errors.Is(err, ErrPassphrase) {
			t.Errorf("%s with a wrong passphrase = %v, %v", name, got, err)
		}
		refused := errors.New("gone")
		if got, err := load(path, func() ([]byte, error) { return nil, refused }); got != nil || !errors.Is(err, refused) {
			t.Errorf("%s with no answer = %v, %v", name, got, err)
		}
	}
	if err := k.Protect(path, pass); !errors.Is(err, ErrSealed) {
		t.Errorf("a second passphrase = %v", err)
	}
	if err := generate(t).Unprotect(path); err == nil {
		t.Error("another key took the file's place")
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, sealed) {
		t.Error("a refusal changed the file")
	}
	if err := errors.Join(k.Unprotect(path), k.Unprotect(path)); err != nil {
		t.Fatal(err)
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, open) {
		t.Error("the way back leads elsewhere")
	}
}

// What was given as an answer is not left in memory.
func TestThePassphraseIsOverwritten(t *testing.T) {
	k, path := saved(t)
	if err := k.Protect(path, pass); err != nil {
		t.Fatal(err)
	}
	for _, given := range [][]byte{bytes.Clone(pass), []byte("wrong")} {
		if _, err := Load(path, func() ([]byte, error) { return given, nil }); err != nil && !errors.Is(err, ErrPassphrase) {
			t.Fatal(err)
		}
		if !bytes.Equal(given, make([]byte, len(given))) {
			t.Errorf("left: %q", given)
		}
	}
}

// A kill before, between and in the steps of a replacement leaves one file of this key, the old or the new, and what it
// leaves beside it the next replacement, or the next start of a sealed key, removes.
func TestKillAtEachStep(t *testing.T) {
	k, _ := saved(t)
	sealed, err := k.Seal(pass)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to []byte }{"protect": {k.encode(), sealed}, "unprotect": {sealed, k.encode()}} {
		for after := range len(replacement("", nil)) + 1 {
			t.Run(fmt.Sprintf("%s, killed after step %d", name, after), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "identity.key")
				if err := createPrivate(path, c.from); err != nil {
					t.Fatal(err)
				}
				if after == 0 { // in the first step: a half-written file
					if err := os.WriteFile(filepath.Join(filepath.Dir(path), ".balai-key-half.tmp"), c.to[:len(c.to)/2], 0o600); err != nil {
						t.Fatal(err)
					}
				}
				for _, step := range replacement(path, c.to)[:after] {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
				now, err := os.ReadFile(path)
				if err != nil || !bytes.Equal(now, c.from) && !bytes.Equal(now, c.to) {
					t.Fatalf("neither old nor new: %q, %v", now, err)
				}
				asked := 0
				if got, err := LoadOrCreate(path, answer(pass, &asked)); err != nil || got.ID() != k.ID() {
					t.Fatalf("the next start: %v, %v", got, err)
				}
				if asked == 1 {
					alone(t, path)
				}
				if bytes.Equal(now, sealed) {
					err = k.Unprotect(path)
				} else {
					err = k.Protect(path, pass)
				}
				if err != nil {
					t.Fatal(err)
				}
				alone(t, path)
			})
		}
	}
}

func alone(t *testing.T, path string) {
	t.Helper()
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("beside the key: %v, %v", entries, err)
	}
}

// A link to the key is followed: else the open key would stay where it leads.
func TestProtectFollowsALink(t *testing.T) {
	k, path := saved(t)
	link := filepath.Join(t.TempDir(), "identity.key")
	if err := os.Symlink(path, link); err != nil {
		t.Skip(err)
	}
	if err := k.Protect(link, pass); err != nil {
		t.Fatal(err)
	}
	if _, sealed, err := Inspect(path); !sealed || err != nil {
		t.Errorf("where the link leads: sealed %v, %v", sealed, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
}

func TestSaveSealed(t *testing.T) {
	k, path := generate(t), filepath.Join(t.TempDir(), "identity.key")
	asked := 0
	if err := k.SaveSealed(path, pass); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(path, answer(pass, &asked)); err != nil || got.ID() != k.ID() {
		t.Errorf("Load = %v, %v", got, err)
	}
	if err := k.SaveSealed(path, pass); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a key = %v", err)
	}
}

func TestReadPassphrase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pass")
	if _, err := ReadPassphrase(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file = %v", err)
	}
	if err := os.WriteFile(path, []byte("correct horse\nmore"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadPassphrase(path); err != nil || !bytes.Equal(got, pass) {
		t.Errorf("= %q, %v", got, err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPassphrase(path); !errors.Is(err, ErrExposed) {
			t.Errorf("mode %o = %v", mode, err)
		}
	}
	// systemd gives a credential to the service's user by an access list, whose mask shows as the bits of the group.
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(path))
	for mode, want := range map[fs.FileMode]error{0o440: nil, 0o444: ErrExposed} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPassphrase(path); !errors.Is(err, want) {
			t.Errorf("a credential with mode %o = %v", mode, err)
		}
	}
}

func TestFirstLine(t *testing.T) {
	long := strings.Repeat("x", 1024)
	for in, want := range map[string]string{
		"a": "a", "a\n": "a", "a b \r\nc": "a b ", "": "", "\n": "", "\r\n": "", "\na": "", long: long, long + "\n": long, long + "x": "", "ü\x00": "ü\x00",
	} {
		for _, r := range []func(s string) ([]byte, error){
			func(s string) ([]byte, error) { return FirstLine(strings.NewReader(s)) },
			func(s string) ([]byte, error) { return FirstLine(iotest.DataErrReader(strings.NewReader(s))) },
		} {
			if got, err := r(in); string(got) != want || (err == nil) != (want != "") {
				t.Errorf("%.20q = %.20q, %v", in, got, err)
			}
		}
	}
	if _, err := FirstLine(iotest.ErrReader(fs.ErrClosed)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("an error = %v", err)
	}
}

// A file that a person laid beside her key is hers, and a passphrase's file that is missing is no missing key.
func TestNothingOfAPersonIsTouched(t *testing.T) {
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "identity.key"), filepath.Join(dir, ".key-backup")
	k, err := LoadOrCreate(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(backup, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.Protect(path, []byte("a passphrase")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(backup); err != nil {
		t.Errorf("the copy: %v", err)
	}
	asked := 0
	_, err = LoadOrCreate(path, func() ([]byte, error) {
		asked++
		return os.ReadFile(filepath.Join(dir, "none"))
	})
	if err == nil || asked != 1 {
		t.Errorf("asked %d times for a passphrase, %v", asked, err)
	}
}
