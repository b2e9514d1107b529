package fuzz

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// So many inputs each fuzzer gets, and with BALAI_SOAK=1.
const (
	inputs     = 20_000
	soakInputs = 1_000_000
)

// maxRSS bounds the memory of a fuzzer's processes, in MiB: nothing that is parsed may allocate what its bytes claim.
const maxRSS = 512

// slow are fuzzers of which each input is written to disk and read back: they get a part of the inputs, 1 in so many.
var slow = map[string]int{"store.FuzzInspect": 20}

var fuzzer = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

// TestFuzzers is trust test 23. The test binaries are built without coverage instrumentation, so that what mutates the
// vectors is many times faster; guided fuzzing is `go test -fuzz`.
func TestFuzzers(t *testing.T) {
	n := inputs
	if os.Getenv("BALAI_SOAK") != "" {
		n = soakInputs
	}
	found := find(t)
	if len(found) < 8 {
		t.Fatalf("fuzzers in only %d packages: %v", len(found), found)
	}
	dir := t.TempDir()
	for pkg, names := range found {
		t.Run(pkg, func(t *testing.T) {
			binary := filepath.Join(dir, strings.ReplaceAll(pkg, "/", "-")+".test")
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, ".")
			build.Dir = filepath.Join("../../..", pkg)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, name := range names {
				t.Run(name, func(t *testing.T) { run(t, binary, build.Dir, pkg, name, n) })
			}
			_ = os.Remove(binary) // the folder goes with the test anyway
		})
	}
}

// find lists the fuzzers of the product by package.
func find(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	err := filepath.WalkDir("../../..", func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == "node_modules" || e.Name() == "test" || strings.HasPrefix(e.Name(), ".") && !strings.HasPrefix(e.Name(), "..")) {
			return filepath.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		pkg := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), "../../../"))
		for _, m := range fuzzer.FindAllSubmatch(b, -1) {
			out[pkg] = append(out[pkg], string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var execs = regexp.MustCompile(`execs: (\d+)`)

func run(t *testing.T, binary, dir, pkg, name string, n int) {
	if part := slow[filepath.Base(pkg)+"."+name]; part > 1 {
		n /= part
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^$", "-test.fuzz=^"+name+"$", fmt.Sprintf("-test.fuzztime=%dx", n),
		"-test.fuzzcachedir="+t.TempDir(), "-test.parallel=2", "-test.timeout=30m")
	cmd.Dir = dir
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	all := execs.FindAllSubmatch(out, -1)
	if len(all) == 0 || !bytes.Contains(out, []byte("PASS")) {
		t.Fatalf("it does not tell what it did:\n%s", out)
	}
	rss := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss / 1024
	t.Logf("%s inputs in %v, at most %d MiB", all[len(all)-1][1], time.Since(began).Round(time.Millisecond), rss)
	if rss > maxRSS {
		t.Errorf("%d MiB of memory, want at most %d", rss, maxRSS)
	}
}
