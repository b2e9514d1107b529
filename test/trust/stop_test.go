package trust

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"balai/node"
	"balai/node/api"
	"balai/room/session"
	"balai/test/stalls"
)

// stopLimit is what a daemon may take to stop.
const stopLimit = 5 * time.Second

// TestStop ends daemons in the middle of a talk: within 5 seconds, with exit code 0, and nothing left that tells of a daemon.
func TestStop(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	for _, c := range []struct {
		d   *daemon
		sig os.Signal
	}{{h.budi, syscall.SIGTERM}, {h.ana, os.Interrupt}} {
		for file, mode := range map[string]os.FileMode{"api.json": 0o600, node.KeyFile: 0o600, "token": 0o600, "addrs": 0o644} {
			if i, err := os.Stat(filepath.Join(c.d.dir, file)); err != nil || i.Mode().Perm() != mode {
				t.Errorf("%s: %v, %v, want %o", file, i, err, mode)
			}
		}
		at := time.Now()
		took := c.d.end(c.sig)
		t.Logf("%s stopped in %v by %v", c.d.name, took, c.sig)
		if code := c.d.cmd.ProcessState.ExitCode(); code != 0 || stalls.Ran(at, at.Add(took)) > stopLimit {
			t.Errorf("%s: exit code %d after %v\n%s", c.d.name, code, took, c.d.stderr)
		}
		if _, err := os.Stat(filepath.Join(c.d.dir, "api.json")); !os.IsNotExist(err) {
			t.Errorf("%s leaves api.json: %v", c.d.name, err)
		}
		if s := c.d.stdout.String(); s != "" {
			t.Errorf("%s says more than one line: %q", c.d.name, s)
		}
		for _, secret := range []string{c.d.token, "balai:join#"} {
			if strings.Contains(c.d.stderr.String(), secret) {
				t.Errorf("the log of %s holds a secret", c.d.name)
			}
		}
	}
	bad := command(h.ana.dir, "run", "--data", h.ana.dir, "--listen", "nonsense", "--no-browser")
	if out, err := bad.CombinedOutput(); err == nil || bad.ProcessState.ExitCode() != 2 {
		t.Errorf("a bad argument: exit code %d, %v, %s", bad.ProcessState.ExitCode(), err, out)
	}
}

// TestNothingIsLeft runs two daemons within this process, with a room, a media link and a leg that talks, and stops them:
// no goroutine stays. Nothing else of this package runs meanwhile.
func TestNothingIsLeft(t *testing.T) {
	here := goleak.IgnoreCurrent()
	for round := range 2 {
		oneTalk(t)
		runtime.GC()
		var err error
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if err = goleak.Find(here, goleak.IgnoreAnyFunction("github.com/ipfs/go-log/v2/writer.(*MirrorWriter).logRoutine")); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// oneTalk is a subtest so that all it has started ends with it.
func oneTalk(t *testing.T) {
	t.Run("a talk", func(t *testing.T) {
		t.Cleanup(func() { // kept connections of this process
			if c, ok := defaultTransport(); ok {
				c.CloseIdleConnections()
			}
		})
		ana, budi := within(t, "Ana"), within(t, "Budi")
		id := ana.open("unlisted")
		budi.enter(ana.link(id, "speaker"))
		a, b := attach(ana, id, "ana"), attach(budi, id, "budi")
		ana.mute(id, false)
		budi.mute(id, false)
		b.hears("ana")
		a.hears("budi")
		ana.until(id, "she is heard", func(v session.View) bool { return len(v.Stage) == 2 })
	})
}

// within starts a daemon in this process; it is stopped at the end of the test, with its legs up.
func within(t *testing.T, name string) *daemon {
	t.Helper()
	d := &daemon{t: t, name: name, dir: t.TempDir(), stderr: &tail{}}
	ctx, stop := context.WithCancel(background(t))
	ready, ended := make(chan node.Ready, 1), make(chan error, 1)
	go func() {
		ended <- node.Run(ctx, node.Config{
			Data: d.dir, API: "127.0.0.1:0", Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}, NoMDNS: true, Name: name,
			Log: slog.New(slog.NewTextHandler(d.stderr, nil)), Ready: func(r node.Ready) { ready <- r },
		})
	}()
	t.Cleanup(func() {
		began := time.Now()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v", name, err)
		}
		if d.Client != nil {
			d.Close()
		}
		t.Logf("%s stopped in %v", name, time.Since(began))
	})
	select {
	case r := <-ready:
		d.id, d.addrs = r.PeerID, r.Addrs
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	var err error
	if d.Client, err = api.Dial(d.dir); err != nil {
		t.Fatal(err)
	}
	d.readAPI()
	return d
}
