package trust

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"balai/node"
	"balai/room"
	"balai/room/session"
)

// Trust test 56, the second half: a person's key is copied to a second machine while she listens. Its daemon starts, but a
// link does not let it into her room, and it is told why. She hears on all the time.
func TestKeyOnASecondMachine(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	since := h.watch()
	twin := twinOf(t, h.budi, node.KeyFile)
	if _, err := twin.Join(t.Context(), h.ana.link(h.id, "listener"), "", true); err != nil {
		t.Fatal(err)
	}
	h.refuses(t, twin, since)
	h.heardAllTheTime(since)
}

// The same with a copy of all of her folder, as a backup that is restored brings it: by what it has stored the second
// machine would come back into the room as if she had only been away.
func TestFolderOnASecondMachine(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	since := h.watch()
	h.refuses(t, twinOf(t, h.budi, ""), since)
	h.heardAllTheTime(since)
}

// refuses waits until a second daemon of Budi's is told that it is one, and shows that the first is in the room.
func (h *hall) refuses(t *testing.T, twin *daemon, since witness) {
	t.Helper()
	if twin.id != h.budi.id {
		t.Fatalf("another person, %s", twin.id)
	}
	var v session.View
	eventually(t, "the second is refused", func() bool {
		was := v.State
		var err error
		if v, err = twin.Room(t.Context(), h.id); v.State != was {
			t.Logf("the second is %s after %v", v.State, time.Since(since.at).Round(100*time.Millisecond))
		}
		if v.State == session.Live {
			t.Fatal("the second is in the room")
		}
		return err == nil && v.State.Over()
	})
	if v.State != session.Refused || v.Reason != room.SecondDevice.String() {
		t.Errorf("the second is %s, %s", v.State, v.Reason)
	}
	if v, err := h.budi.Room(t.Context(), h.id); err != nil || v.State != session.Live {
		t.Errorf("the first is %s, %s, %v", v.State, v.Reason, err)
	}
	if v, err := h.ana.Room(t.Context(), h.id); err != nil || v.Members != 2 {
		t.Errorf("%d members, %v", v.Members, err)
	}
}

// twinOf starts a daemon with a copy of one file of another's folder, or of all that is durable in it.
func twinOf(t *testing.T, of *daemon, file string) *daemon {
	t.Helper()
	d := &daemon{t: t, name: of.name, dir: t.TempDir()}
	err := filepath.WalkDir(of.dir, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(of.dir, path)
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return os.MkdirAll(filepath.Join(d.dir, name), 0o700)
		case file != "" && name != file || name == "api.json":
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(d.dir, name), b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	d.run()
	t.Cleanup(func() {
		if !d.gone {
			d.end(syscall.SIGTERM)
		}
		if t.Failed() {
			t.Logf("the twin of %s wrote:\n%s", of.name, last(d.stderr.String(), 4000))
		}
	})
	return d
}
