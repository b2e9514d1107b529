package trust

import (
	encbinary "encoding/binary"
	"errors"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"

	"balai/node/api"
	"balai/node/store"
	"balai/room/session"
)

// missesHost makes a daemon that does not run believe that it has not heard the host of a room since then: a day cannot be
// waited for, and a built daemon has one clock. The record holds seconds, then the host's peer id.
func (d *daemon) missesHost(id string, since time.Time) {
	d.t.Helper()
	s, err := store.Open(filepath.Join(d.dir, "store"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			d.t.Error(err)
		}
	}()
	key := store.Rooms.ChildString(id).Child(ds.NewKey("host"))
	b, err := s.Get(d.t.Context(), key)
	if err != nil || len(b) <= 8 {
		d.t.Fatalf("when the host was heard: %x, %v", b, err)
	}
	encbinary.BigEndian.PutUint64(b, uint64(since.Unix()))
	if err := s.Put(d.t.Context(), key, b); err != nil {
		d.t.Fatal(err)
	}
}

// A host's daemon is killed and never comes back. The heir whom she named when she opened the room may not ask for it before
// a day has passed, by the heir's own word nor by the moderator's; then a moderator agrees, and the heir decides alone what
// only a host may, with the same people, and lets newcomers in.
func TestHeirOfADeadHost(t *testing.T) {
	t.Parallel()
	heir, host, mod := start(t, "Heir"), start(t, "Host"), start(t, "Moderator")
	local := true
	v, err := host.Create(t.Context(), api.NewRoom{Name: "Tea", Visibility: "unlisted", Heir: heir.id, Local: &local})
	if err != nil {
		t.Fatal(err)
	}
	id := v.ID
	host.until(id, "the room is live", func(v session.View) bool { return v.State == session.Live })
	link := host.link(id, "speaker")
	heir.enter(link)
	mod.enter(link)
	host.act(id, mod.id, "appoint")
	for _, d := range []*daemon{heir, mod} {
		d.until(id, "the host and her heir known, and a moderator", func(v session.View) bool {
			return v.Succession.Heir == heir.id && v.Host == host.id && (d != mod || v.Me.Role == "moderator")
		})
	}
	host.end(syscall.SIGKILL)

	path := "/rooms/" + id + "/succession"
	ask := func() error { return heir.Do(t.Context(), http.MethodPost, path, nil, nil) }
	for _, d := range []*daemon{heir, mod} {
		d.until(id, "the host missed", func(v session.View) bool { return v.Succession.HostHeardAt != nil })
	}
	eventually(t, "the heir is told that a day has not passed", func() bool { // and, while she has just come, to wait
		var p *api.Problem
		err := ask()
		if err == nil {
			t.Fatal("the heir asks before a day has passed")
		}
		return errors.As(err, &p) && p.Status == http.StatusForbidden
	})

	restart := func(d *daemon) {
		t.Helper()
		d.end(syscall.SIGTERM)
		d.missesHost(id, time.Now().Add(-25*time.Hour))
		d.run()
		d.until(id, "back in the room", func(v session.View) bool { return v.State == session.Live && len(v.Stage) >= 2 })
	}
	restart(heir) // one at a time: the other's address is known
	eventually(t, "the heir to ask", func() bool { return ask() == nil })
	pause(t, 7*time.Second) // more than one question
	if v, err := mod.Room(t.Context(), id); err != nil || v.Succession.Asked {
		t.Fatalf("a moderator who missed the host for some seconds is asked: %v", err)
	}
	restart(mod)
	mod.until(id, "the question", func(v session.View) bool { return v.Succession.Asked })
	if v, err := heir.Room(t.Context(), id); err != nil || v.Host != host.id {
		t.Fatalf("before the moderator's word the host is %s, %v", v.Host, err)
	}
	if err := mod.Do(t.Context(), http.MethodPut, path, map[string]bool{"agree": true}, nil); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*daemon{heir, mod} {
		d.until(id, "the heir is the host", func(v session.View) bool { return v.Host == heir.id })
	}
	late := start(t, "Late")
	late.enter(heir.link(id, "listener"))
	heir.act(id, late.id, "appoint")
	heir.act(id, mod.id, "dismiss")
	late.until(id, "a moderator by the new host's word", func(v session.View) bool { return v.Me.Role == "moderator" && v.Host == heir.id })
	mod.until(id, "no moderator any more", func(v session.View) bool { return v.Me.Role != "moderator" && v.State == session.Live })
}
