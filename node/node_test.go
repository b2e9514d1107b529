package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
	"balai/room"
	"balai/room/session"
)

// patience bounds what a test waits for; a pass never depends on how long it took.
const patience = 30 * time.Second

// soul is one daemon of a test, driven as its API drives it.
type soul struct {
	*daemon
	t *testing.T
}

func testLog() *slog.Logger {
	if os.Getenv("BALAI_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// newPerson starts a daemon on loopback; it is stopped at the end of the test.
func newPerson(t *testing.T, name string, bootstrap ...string) *soul {
	t.Helper()
	return startPerson(t, t.TempDir(), name, bootstrap...)
}

func startPerson(t *testing.T, dir, name string, bootstrap ...string) *soul {
	t.Helper()
	d, err := newDaemon(t.Context(), Config{
		Data: dir, API: "127.0.0.1:0", Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}, Bootstrap: bootstrap,
		NoMDNS: true, Name: name, Log: testLog().With("who", name), Version: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &soul{d, t}
	t.Cleanup(p.halt)
	return p
}

func (p *soul) halt() {
	if err := p.stop(); err != nil && !errors.Is(err, context.Canceled) {
		p.t.Errorf("%s stops: %v", p.cfg.Name, err)
	}
}

// open opens a room.
func (p *soul) open(visibility string) api.Room {
	p.t.Helper()
	r, err := p.Create(p.t.Context(), api.NewRoom{Name: "Test of " + p.cfg.Name, Visibility: visibility})
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// invite makes a link.
func inviteTo(t *testing.T, r api.Room, terms session.InviteTerms) string {
	t.Helper()
	v, err := r.Invite(t.Context(), terms)
	if err != nil {
		t.Fatal(err)
	}
	return v.Link
}

// enter joins by a link and waits until it is in, knocking or refused.
func (p *soul) enter(link string) api.Room {
	p.t.Helper()
	r, err := p.JoinLink(p.t.Context(), link, true)
	if err != nil {
		p.t.Fatal(err)
	}
	until(p.t, r, "an answer", func(v session.View) bool { return v.State != session.Joining })
	return r
}

// until waits for a view.
func until(t *testing.T, r api.Room, what string, ok func(session.View) bool) session.View {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if v := r.View(); ok(v) {
			return v
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s; the view is %+v", what, r.View())
	return session.View{}
}

func (p *soul) id() peer.ID { return p.key.ID() }

func TestTwoPeopleMeet(t *testing.T) {
	ana, budi := newPerson(t, "Ana"), newPerson(t, "Budi")
	host := ana.open("unlisted")
	link := inviteTo(t, host, session.InviteTerms{Role: room.Listener})
	guest := budi.enter(link)
	v := until(t, guest, "both in the room", func(v session.View) bool { return v.State == session.Live && v.Members == 2 })
	if v.Name != "Test of Ana" || v.Encryption != "on" || v.Me.Role != "listener" || !v.Me.Muted || v.Me.OnStage {
		t.Fatalf("guest sees %+v", v)
	}
	until(t, host, "the guest", func(v session.View) bool { return v.Members == 2 && v.Audience == 1 })
	if err := guest.RaiseHand(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	until(t, host, "the hand", func(v session.View) bool { return len(v.Hands) == 1 && v.Hands[0] == budi.id().String() })
	if err := host.Act(t.Context(), room.ToStage, budi.id(), ""); err != nil {
		t.Fatal(err)
	}
	v = until(t, guest, "the stage", func(v session.View) bool { return v.Me.OnStage })
	if !v.Me.Muted || len(v.Hands) != 0 {
		t.Fatalf("on stage: %+v", v.Me)
	}
	if err := guest.Mute(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	until(t, host, "the open microphone", func(v session.View) bool { return len(v.Stage) == 2 && !v.Stage[1].Muted })
	if a, b := host.View().Epoch.Words, guest.View().Epoch.Words; a == "" || a != b {
		t.Fatalf("words of the epoch: %q and %q", a, b)
	}
	if err := host.Act(t.Context(), room.Kick, budi.id(), "noise"); err != nil {
		t.Fatal(err)
	}
	v = until(t, guest, "the end", func(v session.View) bool { return v.State.Over() })
	if v.State != session.Refused || v.Reason != "removed" {
		t.Fatalf("after the kick: %s %s", v.State, v.Reason)
	}
	until(t, host, "a new epoch", func(v session.View) bool { return v.Epoch.N == 2 && v.Members == 1 })
}
