package store

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

const (
	crashDir   = "BALAI_TEST_STORE_CRASH_DIR"
	crashFrom  = "BALAI_TEST_STORE_CRASH_FROM"
	crashKills = 25
	soakKills  = 100
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		writeForEver(dir)
	}
	os.Exit(m.Run())
}

// writeForEver is the child: it writes samples and prints the number of each that Put acknowledged.
func writeForEver(dir string) {
	from, err := strconv.Atoi(os.Getenv(crashFrom))
	if err != nil {
		panic(err)
	}
	s, err := Open(dir)
	if err != nil {
		panic(err)
	}
	for i := from; ; i++ {
		k, v := sample(i)
		if err := s.Put(context.Background(), k, v); err != nil {
			panic(err)
		}
		fmt.Println(i)
	}
}

// Trust 43: a process is killed while it writes, again and again; whatever it acknowledged is there.
func TestKilledWhileWriting(t *testing.T) {
	kills := crashKills
	if os.Getenv("BALAI_SOAK") != "" {
		kills = soakKills
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	acked := 0 // samples 0..acked-1 were acknowledged
	for range kills {
		acked = runAndKill(t, dir, acked, 1+r.IntN(40))
		s, err := Open(dir)
		if err != nil {
			t.Fatalf("seed %d: Open after a kill: %v", seed, err)
		}
		for i := range acked {
			k, want := sample(i)
			if got, err := s.Get(t.Context(), k); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("seed %d: %s was acknowledged: %v", seed, k, err)
			}
		}
		if notes, err := s.Damage(t.Context()); err != nil || len(notes) != 0 {
			t.Fatalf("seed %d: damage after a kill: %v, %v", seed, notes, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d acknowledged writes, none lost", kills, acked)
}

// runAndKill starts a child that writes from sample number from, kills it after some acknowledgements, and returns the
// number of the first sample that was not acknowledged.
func runAndKill(t *testing.T, dir string, from, after int) int {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), crashDir+"="+dir, crashFrom+"="+strconv.Itoa(from))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := from
	for lines.Scan() {
		i, err := strconv.Atoi(lines.Text())
		if err != nil || i != next {
			break // cut by the kill
		}
		if next++; next == from+after {
			_ = child.Process.Kill()
		}
	}
	_ = child.Wait()
	if next < from+after {
		t.Fatalf("the child ended by itself after %d writes", next-from)
	}
	return next
}
