package hostile_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"balai/identity"
	"balai/node"
	"balai/node/api"
	"balai/room"
	"balai/room/session"
	"balai/test/hostile"
	"balai/test/stalls"
)

func TestMain(m *testing.M) {
	end := stalls.Watch()
	code := m.Run()
	end()
	os.Exit(code)
}

// daemon is one honest person's whole daemon, reached by its local API as any program would.
type daemon struct {
	*api.Client
	key   *identity.Key // the tests forge with it
	addrs []string
	dir   string
}

func startDaemon(t *testing.T, name string, bootstrap ...string) *daemon {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{key: key, dir: t.TempDir()}
	if err := key.Save(filepath.Join(d.dir, node.KeyFile)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan node.Ready, 1), make(chan error, 1)
	go func() {
		ended <- node.Run(ctx, node.Config{
			Data: d.dir, API: "127.0.0.1:0", Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"},
			Bootstrap: bootstrap, NoMDNS: true, Name: name, Log: slog.New(slog.NewTextHandler(logTo{t, name}, nil)),
			Ready: func(r node.Ready) { ready <- r },
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v", name, err)
		}
	})
	select {
	case r := <-ready:
		d.addrs = r.Addrs
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	if d.Client, err = api.Dial(d.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Client.Close)
	return d
}

// logTo writes a daemon's log into that of the test.
type logTo struct {
	t    *testing.T
	name string
}

func (l logTo) Write(b []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Logf("%s: %s", l.name, strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func (d *daemon) open(t *testing.T, name, visibility string) session.View {
	t.Helper()
	local := true
	v, err := d.Create(t.Context(), api.NewRoom{Name: name, Visibility: visibility, Local: &local})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the room is live", func() bool { return d.room(t, v.ID).State == session.Live })
	return d.room(t, v.ID)
}

func (d *daemon) room(t *testing.T, id string) session.View {
	t.Helper()
	v, err := d.Room(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (d *daemon) link(t *testing.T, id string, q api.InviteRequest) string {
	t.Helper()
	if q.Role == "" {
		q.Role = "listener"
	}
	if q.ExpiresIn == 0 {
		q.ExpiresIn = 3600
	}
	v, err := d.Invite(t.Context(), id, q)
	if err != nil {
		t.Fatal(err)
	}
	return v.Link
}

func (d *daemon) enter(t *testing.T, link string) {
	t.Helper()
	v, err := d.Join(t.Context(), link, "", true)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "let in", func() bool { return d.room(t, v.ID).State == session.Live })
}

// people are the members by peer id.
func (d *daemon) people(t *testing.T, id string) map[string]session.MemberView {
	t.Helper()
	list, err := d.Members(t.Context(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]session.MemberView{}
	for _, m := range list {
		out[m.PeerID] = m
	}
	return out
}

func (d *daemon) say(t *testing.T, id, text string) {
	t.Helper()
	if err := d.Do(t.Context(), "POST", "/rooms/"+id+"/messages", map[string]string{"text": text}, nil); err != nil {
		t.Fatal(err)
	}
}

func (d *daemon) heard(t *testing.T, id, text string) bool {
	t.Helper()
	var lines []session.Line
	if err := d.Do(t.Context(), "GET", "/rooms/"+id+"/messages", nil, &lines); err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(lines, func(l session.Line) bool { return l.Text == text })
}

// decisions are the ledger as the API tells it.
func (d *daemon) decisions(t *testing.T, id string) []session.Decision {
	t.Helper()
	var out []session.Decision
	if err := d.Do(t.Context(), "GET", "/rooms/"+id+"/ledger", nil, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// talk shows that what one daemon says the other hears.
func talk(t *testing.T, from, to *daemon, id string) {
	t.Helper()
	var said []string
	var last time.Time
	eventually(t, "one honest member hears the other", func() bool {
		if time.Since(last) > 5*time.Second { // again: chat is told once
			last = time.Now()
			said = append(said, "do you hear me? "+last.Format(time.StampNano))
			from.say(t, id, said[len(said)-1])
		}
		return slices.ContainsFunc(said, func(text string) bool { return to.heard(t, id, text) })
	})
}

// visit connects a new hostile peer to daemons.
func visit(t *testing.T, to ...*daemon) *hostile.Peer {
	t.Helper()
	p := newHostile(t)
	for _, d := range to {
		if _, err := p.Connect(t.Context(), d.addrs[0]); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func mustParse(t *testing.T, link string) *hostile.Forger {
	t.Helper()
	f, err := hostile.FromLink(link)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustID(t *testing.T, s string) room.ID {
	t.Helper()
	id, err := room.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
