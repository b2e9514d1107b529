package main

import (
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"balai/identity"
	"balai/node"
)

// Whenever the command that puts a passphrase on the key, or takes it off, is killed: one whole file of this key is
// there, and the same command, run once more, brings what it should.
func TestKillWhileTheKeyIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, node.KeyFile)
	k, err := identity.LoadOrCreate(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	balai := func(verb string) *exec.Cmd {
		cmd := exec.Command("balai", "identity", verb, "--data", dir)
		cmd.Stdin = strings.NewReader("correct horse\n")
		return cmd
	}
	began := time.Now()
	if out, err := balai("protect").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	took := time.Since(began)
	const rounds = 24
	killed := 0
	for range rounds {
		_, sealed, err := identity.Inspect(path)
		if err != nil {
			t.Fatal(err)
		}
		verb := map[bool]string{true: "unprotect", false: "protect"}[sealed]
		cmd := balai(verb)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		kill := time.AfterFunc(took/2+rand.N(took), func() { _ = cmd.Process.Kill() })
		if cmd.Wait() != nil {
			killed++
		} else {
			took = time.Since(began) // the first one may have been slower than those that follow
		}
		kill.Stop()
		got, err := identity.Load(path, func() ([]byte, error) { return []byte("correct horse"), nil })
		if err != nil || got.ID() != k.ID() {
			t.Fatalf("after a killed %s: %v, %v", verb, got, err)
		}
	}
	if killed == 0 {
		t.Errorf("none of %d was killed in time", rounds)
	}
	t.Logf("%d of %d were killed before their end", killed, rounds)
}
