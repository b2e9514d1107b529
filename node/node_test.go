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
const patience = 60 * time.Second

// soul is one daemon of a test, driven as its API drives it.
type soul struct {
	*daemon
	t    *testing.T
	gone bool
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
	p := &soul{daemon: d, t: t}
	t.Cleanup(p.halt)
	return p
}

func (p *soul) halt() {
	if p.gone {
		return
	}
	p.gone = true
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

// newCommunity starts a community node and gives its addresses.
func newCommunity(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan Ready, 1), make(chan error, 1)
	go func() {
		ended <- Bootstrap(ctx, BootstrapConfig{
			Data: t.TempDir(), RelayKbps: 100_000, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}, Log: testLog().With("who", "community"), Ready: func(r Ready) { ready <- r },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("community node: %v", err)
		}
	})
	select {
	case r := <-ready:
		return r.Addrs
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return nil
}

func TestTheHallwayListsOpenRooms(t *testing.T) {
	at := newCommunity(t)
	ana, budi := newPerson(t, "Ana", at...), newPerson(t, "Budi", at...)
	host := ana.open("open")
	closed := ana.open("unlisted").View().ID
	id := host.View().ID
	var heard api.Listing
	eventually(t, "the ad", func() bool {
		for _, l := range budi.Hallway() {
			if l.ID == closed {
				t.Fatal("an unlisted room is listed")
			}
			if l.ID == id {
				heard = l
			}
		}
		return heard.ID != "" && heard.OnStage == 1
	})
	if heard.Source != "lobby" || heard.Name != "Test of Ana" || heard.HostName != "Ana" || heard.Host != ana.id().String() {
		t.Fatalf("listing: %+v", heard)
	}
	rid, err := room.ParseID(id)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := budi.JoinRoom(t.Context(), rid, true)
	if err != nil {
		t.Fatal(err)
	}
	v := until(t, guest, "the room", func(v session.View) bool { return v.State == session.Live && v.Members == 2 })
	if v.Me.Role != "listener" || v.Me.OnStage {
		t.Fatalf("me: %+v", v.Me)
	}
	heardBy(t, guest, host)
	if err := guest.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, host, "the guest to be gone", func(v session.View) bool { return v.Members == 1 })
}

func TestAClosedRoomLetsInByName(t *testing.T) {
	at := newCommunity(t)
	ana, budi, citra := newPerson(t, "Ana", at...), newPerson(t, "Budi", at...), newPerson(t, "Citra", at...)
	host := ana.open("closed")
	link := inviteTo(t, host, session.InviteTerms{Role: room.Speaker})
	guest := budi.enter(link)
	until(t, guest, "the knock", func(v session.View) bool { return v.State == session.Knocking })
	v := until(t, host, "the knock", func(v session.View) bool { return len(v.Knocks) == 1 })
	if v.Knocks[0].PeerID != budi.id().String() || v.Knocks[0].Name != "Budi" || v.Members != 1 {
		t.Fatalf("knocks: %+v", v.Knocks)
	}
	if err := host.Act(t.Context(), room.Admit, budi.id(), ""); err != nil {
		t.Fatal(err)
	}
	v = until(t, guest, "the room", func(v session.View) bool { return v.State == session.Live })
	if v.Me.Role != "speaker" || !v.Me.OnStage || !v.Me.Muted {
		t.Fatalf("me: %+v", v.Me)
	}
	third := citra.enter(link)
	until(t, host, "the second knock", func(v session.View) bool { return len(v.Knocks) == 1 })
	if err := host.Act(t.Context(), room.Decline, citra.id(), "not today"); err != nil {
		t.Fatal(err)
	}
	v = until(t, third, "the answer", func(v session.View) bool { return v.State.Over() })
	if v.State != session.Refused || v.Reason != "declined" {
		t.Fatalf("declined: %s %s", v.State, v.Reason)
	}
}

// A link without any address still leads in, by the community's rendezvous point.
func TestARestartFindsTheRoomAgain(t *testing.T) {
	at := newCommunity(t)
	dir := t.TempDir()
	ana, budi := newPerson(t, "Ana", at...), startPerson(t, dir, "Budi", at...)
	host := ana.open("unlisted")
	guest := budi.enter(inviteTo(t, host, session.InviteTerms{Role: room.Speaker, Uses: 1}))
	id := guest.View().ID
	heardBy(t, guest, host)
	budi.halt()
	until(t, host, "the guest to be gone", func(v session.View) bool { return v.Members == 1 })
	again := startPerson(t, dir, "Budi", at...)
	rid, _ := room.ParseID(id)
	r, ok := again.Room(rid)
	if !ok {
		t.Fatal("the room is not taken up after a restart")
	}
	v := until(t, r, "the room", func(v session.View) bool { return v.State == session.Live && v.Members == 2 })
	if !v.Me.OnStage || !v.Me.Muted || v.Encryption != "on" {
		t.Fatalf("me after the restart: %+v", v.Me)
	}
	until(t, host, "the guest again", func(v session.View) bool { return v.Members == 2 })
	until(t, r, "the words of the host's epoch", func(v session.View) bool { return v.Epoch.Words == host.View().Epoch.Words })
}

// heardBy waits until gossip of a reaches b.
func heardBy(t *testing.T, a, b api.Room) {
	t.Helper()
	eventually(t, "gossip", func() bool {
		if _, err := a.Say(t.Context(), "can you read this?"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		lines, err := b.Lines(t.Context())
		return err == nil && len(lines) > 0
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}
