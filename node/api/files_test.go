package api

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestTokenStays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	first, err := LoadOrCreateToken(dir)
	if err != nil || len(first) != 43 {
		t.Fatal(first, err)
	}
	second, err := LoadOrCreateToken(dir)
	if err != nil || second != first {
		t.Error("another token:", second, err)
	}
	other, err := LoadOrCreateToken(t.TempDir())
	if err != nil || other == first {
		t.Error("the same token twice")
	}
	for _, bad := range []string{"", "short", first + "\n\n", first + "A", strings.Repeat("=", 43), strings.Repeat("a", maxFile+1)} {
		if err := os.WriteFile(filepath.Join(dir, tokenFile), []byte(bad), privateMode); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadOrCreateToken(dir); err == nil {
			t.Errorf("%.50q gave %q", bad, got)
		}
	}
}

func TestFilesThatOthersCanReadAreRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no mode bits there")
	}
	dir := t.TempDir()
	token, err := LoadOrCreateToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(dir, "http://127.0.0.1:1", token); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{tokenFile, addressFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Error(name, info.Mode(), err)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o644, 0o777} {
		if err := os.Chmod(filepath.Join(dir, tokenFile), mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadOrCreateToken(dir)
		if !errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), "chmod 600 "+filepath.Join(dir, tokenFile)) || strings.Contains(err.Error(), token) {
			t.Errorf("token, %o: %v", mode, err)
		}
		if err := os.Chmod(filepath.Join(dir, addressFile), mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Dial(dir); !errors.Is(err, ErrExposed) {
			t.Errorf("api.json, %o: %v", mode, err)
		}
	}
	// What the daemon writes anew is private again, and no other file is left behind.
	if err := WriteFile(dir, "http://127.0.0.1:1", token); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(dir); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Error(entries, err)
	}
}

func TestDialRefusesAForeignAddress(t *testing.T) {
	dir := t.TempDir()
	if _, err := Dial(dir); !errors.Is(err, ErrNotRunning) {
		t.Error("no file:", err)
	}
	for _, url := range []string{"http://192.0.2.1:80", "http://evil.example", "https://127.0.0.1:1", "127.0.0.1:1", "", "http://127.0.0.1.nip.io:1"} {
		if err := WriteFile(dir, url, testToken); err != nil {
			t.Fatal(err)
		}
		if _, err := Dial(dir); err == nil {
			t.Errorf("%q is taken", url)
		}
	}
}

// A token is typed behind a flag of a command line: it must not look like one.
func TestSecretsAreNoFlags(t *testing.T) {
	for range 2000 {
		if s := newSecret(); s[0] == '-' || len(s) != 43 {
			t.Fatalf("secret %q", s)
		}
	}
}
