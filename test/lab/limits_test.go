//go:build linux

package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"balai/node/api"
)

// Trust test 45: a daemon that may open 64 files, and one that has 256 MiB, are in a room with others: they say what they
// lack or do without it, and the talk goes on.

// TestFewFiles gives the host of a room 64 file descriptors, and strangers take all that are left: whoever talks goes on, the
// daemon says what it lacks, and when the strangers are gone people come in again.
func TestFewFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	boot := w.community()
	ana := w.wrapped([]string{"prlimit", "--nofile=64:64"}, "Ana", w.at(public), boot)
	budi, citra := w.person("Budi", w.at(cone), boot), w.person("Citra", w.at(noUDP), boot)
	m := meet(t, ana, budi)
	m.allHear()
	stranger := w.at(public)
	var all []net.Conn
	at := time.Now()
	for time.Since(at) < 8*time.Second {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if c, err := stranger.DialContext(ctx, "tcp", ana.tcp()); err == nil {
			all = append(all, c)
			t.Cleanup(func() { _ = c.Close() })
		}
		cancel()
		if len(all) > 200 {
			break
		}
	}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", ana.cmd.Process.Pid))
	t.Logf("%d strangers, %d files open", len(all), len(files))
	pause(t, 3*time.Second)
	for _, l := range m.legs {
		for _, p := range m.people {
			if l.d != p && l.gap(p, at, time.Now()) > time.Second {
				t.Errorf("%s does not hear %s all the time", l.d.name, p.name)
			}
		}
	}
	for _, c := range all {
		_ = c.Close()
	}
	if len(files) > 64-16 { // with fewer, the daemon has bounded the strangers by itself
		eventually(t, "the daemon says that it lacks files", func() bool { return ana.complains("file") })
	}
	citra.enter(ana.link(m.id, "listener"))
}

// tcp is where the daemon listens in public.
func (p *process) tcp() string {
	for _, a := range p.public() {
		if _, rest, ok := strings.Cut(a, "/tcp/"); ok {
			port, _, _ := strings.Cut(rest, "/")
			return strings.Split(a, "/")[2] + ":" + port
		}
	}
	return ""
}

// complains tells whether the doctor or the log names something in a warning.
func (d *person) complains(of string) bool {
	d.t.Helper()
	var found []api.Finding
	d.do("GET", "/doctor", nil, &found)
	for _, f := range found {
		if f.Status != "ok" {
			d.t.Logf("%s: the doctor: %s: %s. %s", d.name, f.Title, f.Detail, f.Action)
		}
		if f.Status != "ok" && strings.Contains(strings.ToLower(f.Title+f.Detail), of) {
			return true
		}
	}
	for line := range strings.Lines(d.stderr.String()) {
		if strings.Contains(line, `"WARN"`) || strings.Contains(line, `"ERROR"`) {
			d.t.Logf("%s: the log: %s", d.name, strings.TrimSpace(line))
			if strings.Contains(line, of) {
				return true
			}
		}
	}
	return false
}

// memory makes a control group with so many bytes, and gives the command that runs a program in it.
func memory(t *testing.T, limit int) []string {
	t.Helper()
	name := fmt.Sprintf("balai-lab-%d", os.Getpid())
	dir, file := filepath.Join("/sys/fs/cgroup/memory", name), "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		dir, file = filepath.Join("/sys/fs/cgroup", name), "memory.max"
	}
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		t.Cleanup(func() { // after the daemon's end
			eventually(t, "the control group is empty", func() bool { return os.Remove(dir) == nil })
		})
		err = os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, limit), 0o644)
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no control group for memory: %v", err)
		}
		t.Skipf("NOT TESTED: a daemon with little memory. No control group can be made: %v", err)
	}
	return []string{"sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, dir}
}

// TestLittleMemory gives the host of a room 256 MiB.
func TestLittleMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	wrap := memory(t, 256<<20)
	boot := w.community()
	ana := w.wrapped(wrap, "Ana", w.at(public), boot)
	budi := w.person("Budi", w.at(cone), boot)
	m := meet(t, ana, budi)
	m.allHear()
	for i := range 6 {
		w.person(fmt.Sprint("guest", i), w.at(public), boot).enter(ana.link(m.id, "listener"))
	}
	m.steady(10 * time.Second)
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", ana.cmd.Process.Pid))
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM") {
			t.Log("the most memory used:", strings.TrimSpace(line))
		}
	}
}
