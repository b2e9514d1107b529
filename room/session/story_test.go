package session

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/election"
	"balai/room/ledger"
	"balai/room/sframe"
	"balai/room/wire"
)

// A room goes to a moderator whose daemon agrees; the host stays as a speaker.
func TestTransfer(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 1)
		founder := host.id
		ctx := context.Background()
		old := host.invites(InviteTerms{Role: room.Listener})
		if err := host.s.Act(ctx, room.Transfer, l[0].id, ""); !errors.Is(err, ErrForbidden) {
			t.Errorf("to a speaker: %v", err)
		}
		if err := mod.s.Act(ctx, room.Transfer, l[0].id, ""); !errors.Is(err, ErrForbidden) {
			t.Errorf("by a moderator: %v", err)
		}
		for i := range 3 {
			if err := host.s.Act(ctx, room.Transfer, mod.id, ""); err != nil {
				t.Fatalf("transfer %d: %v", i, err)
			}
			w.settle(host, mod, l[0], l[1])
			if mod.view().Me.Role != "host" || host.view().Me.Role != "speaker" || l[1].view().Host != mod.id.String() {
				t.Fatalf("after it: %s", w)
			}
			var lists bool
			mod.in(func(s *Session) { lists = s.mayList() })
			if want := mod.id == founder; lists != want {
				t.Errorf("transfer %d: the host may list the room: %v, want %v", i, lists, want)
			}
			late := w.person("Late")
			late.come(mod.invites(InviteTerms{Role: room.Listener}))
			late.halt()
			if i == 0 { // the link of who is host no more lets in by name only
				ben := w.person("Ben")
				ben.hints = []peer.ID{mod.id}
				if ben.enter(old) != Knocking {
					t.Errorf("by the former host's link: %s", ben.reason())
				}
				ben.halt()
			}
			mod.act(room.Appoint, host)
			w.settle(host, mod, l[0], l[1])
			host, mod = mod, host
		}
		w.part(mod)
		if err := host.s.Act(ctx, room.Transfer, mod.id, ""); err == nil {
			t.Error("handed over without an answer")
		}
	})
}

// The host alone changes what the room is; all see it, the lobby too, who opened a room cannot close it, and a newcomer
// without an invite is let in from then on.
func TestTheRoomIsChanged(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 1)
		ctx := context.Background()
		all := []*soul{host, mod, l[0], l[1]}
		rename := func(p *room.Policy) error { p.Name, p.Tags = "Morning", []string{"tea"}; return nil }
		for _, p := range all[1:] {
			if err := p.s.Change(ctx, rename); !errors.Is(err, ErrForbidden) {
				t.Errorf("%s changed the room: %v", p.name, err)
			}
		}
		before := host.hash()
		if err := host.s.Change(ctx, func(p *room.Policy) error { p.Name = "Never"; return room.Malformed }); !errors.Is(err, room.Malformed) {
			t.Errorf("a refused edit: %v", err)
		}
		if err := host.s.Change(ctx, func(*room.Policy) error { return nil }); err != nil || host.hash() != before {
			t.Errorf("nothing changed, and yet: %v", err)
		}
		if err := host.s.Change(ctx, rename); err != nil {
			t.Fatal(err)
		}
		w.settle(all...)
		for _, p := range all {
			if v := p.view(); v.Name != "Morning" || !slices.Equal(v.Tags, []string{"tea"}) || v.Visibility != "unlisted" {
				t.Errorf("%s sees %q, %q, %s", p.name, v.Name, v.Tags, v.Visibility)
			}
		}
		stranger := w.person("Stranger")
		stranger.visit(host)
		w.after(10 * time.Second)
		if stranger.view().State == Live || host.listed() {
			t.Fatalf("an unlisted room lets strangers in, or is listed: %s", w)
		}
		stranger.halt()
		open := func(p *room.Policy) error { p.Visibility = room.Open; return nil }
		if err := host.s.Change(ctx, open); err != nil {
			t.Fatal(err)
		}
		w.settle(all...)
		w.within(adSoon+time.Second, "the room to be listed", func() bool { return host.listed() })
		guest := w.person("Guest")
		guest.visit(host)
		w.until("the stranger to be in", func() bool { return guest.view().State == Live })
		for _, v := range []room.Visibility{room.Unlisted, room.Closed} {
			if err := host.s.Change(ctx, func(p *room.Policy) error { p.Visibility = v; return nil }); !errors.Is(err, ErrForbidden) {
				t.Errorf("an open room becomes %v: %v", v, err)
			}
		}
		host.restart()
		w.settle(append(all, guest)...)
		if v := host.view(); v.Name != "Morning" || v.Visibility != "open" {
			t.Errorf("after a restart: %q, %s", v.Name, v.Visibility)
		}
	})
}

// A fork that stands at the same number on two sides is found, not only a longer chain.
func TestAForkOfEqualLength(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		host, mod, l := w.stage(2, 0)
		var one, two *wire.Signed
		mod.in(func(s *Session) {
			one, _ = s.ledger.Draft(s.cfg.Key, room.Op{Kind: room.Mute, Targets: []peer.ID{l[0].id}}, time.Now())
			two, _ = s.ledger.Draft(s.cfg.Key, room.Op{Kind: room.Mute, Targets: []peer.ID{l[1].id}}, time.Now())
		})
		host.in(func(s *Session) { s.addOps([]*wire.Signed{one}, time.Now()) })
		l[0].in(func(s *Session) { s.addOps([]*wire.Signed{two}, time.Now()) })
		w.within(5*time.Second, "the fork to be seen", func() bool {
			for _, p := range []*soul{host, mod, l[0], l[1]} {
				var forks int
				p.in(func(s *Session) { forks = len(s.ledger.Forks()) })
				if forks == 0 {
					return false
				}
			}
			return true
		})
		w.settle(host, mod, l[0], l[1])
		want := []ForkView{{PeerID: mod.id.String(), Name: mod.name, Role: "moderator"}}
		for _, p := range []*soul{host, mod, l[0], l[1]} {
			if got := p.view().Forked; !slices.Equal(got, want) {
				t.Errorf("%s shows of the fork: %+v", p.name, got)
			}
		}
		host.act(room.Dismiss, mod)
		w.settle(host, mod, l[0], l[1])
		if got := l[0].view().Forked; len(got) != 1 || got[0].Role == "moderator" {
			t.Errorf("after she was dismissed: %+v", got)
		}
	})
}

// A restart takes up ops, invites and genesis; a member that was away catches up.
func TestRestart(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 1)
		link := host.invites(InviteTerms{Role: room.Listener, Uses: 7})
		before := host.hash()
		host.restart()
		w.settle(host, mod, l[0], l[1])
		list, err := host.s.Invites(context.Background())
		if err != nil || !slices.ContainsFunc(list, func(v InviteView) bool { return v.ID == link.ID().String() && v.Uses == 7 }) {
			t.Errorf("invites after a restart: %v, %v", list, err)
		}
		l[1].halt()
		mod.act(room.Mute, l[0])
		host.act(room.Lock, nil)
		w.after(5 * time.Minute)
		l[1].restart()
		w.settle(host, mod, l[0], l[1])
		if host.hash() == before || !l[1].view().Locked || !l[0].view().Me.Muted {
			t.Error("the ops of the meantime are missing")
		}
		for _, p := range []*soul{host, mod, l[0], l[1]} {
			p.halt()
		}
		host.restart()
		w.until("the host alone", func() bool { return host.view().State == Live && host.view().Encryption == "on" })
		for _, p := range []*soul{mod, l[0], l[1]} {
			p.restart()
		}
		w.settle(host, mod, l[0], l[1])
	})
}

// A goodbye right after entering is heard at once.
func TestAnEarlyGoodbye(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		link := host.invites(InviteTerms{Role: room.Listener})
		ana := w.person("Ana")
		ana.come(link)
		ana.mu.Lock()
		ana.gate = nil // no mesh yet: her gossip goes nowhere
		ana.mu.Unlock()
		if err := ana.s.Leave(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.within(2*time.Second, "her to be gone", func() bool {
			return host.view().Members == 3 && mod.view().Members == 3 && l[0].view().Members == 3
		})
	})
}

// Whatever bytes an id holds, the record of this rig tells of that person and of nobody else.
func TestAnyRecordIsRead(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		reader := w.person("Reader")
		for range 100 {
			p := w.person("Ana")
			if got := (*ports)(reader).Learn((*ports)(p).Record(), ""); got != p.id {
				t.Fatalf("the record of %x tells of %x", string(p.id), string(got))
			}
			p.moved = "#elsewhere"
			if got := (*ports)(reader).Learn((*ports)(p).Record(), ""); got != p.id || reader.heardOf[p.id] != p.moved {
				t.Fatalf("after she moved: %x", string(got))
			}
		}
	})
}

// What cannot be stored does not count.
func TestADiskThatIsFull(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, _, l := w.stage(1, 0)
		before := host.hash()
		host.mu.Lock()
		host.full = true
		host.mu.Unlock()
		if err := host.try(room.Kick, l[0]); !errors.Is(err, errDiskFull) || host.hash() != before {
			t.Errorf("a kick that was not stored: %v", err)
		}
		if _, err := host.s.Invite(context.Background(), InviteTerms{Role: room.Listener}); !errors.Is(err, errDiskFull) {
			t.Errorf("an invite that was not stored: %v", err)
		}
	})
}

// A storm of newcomers is admitted in batches that fit an op, as far as the room has places: all when somebody carries
// the room, else as many as a mesh holds.
func TestAStorm(t *testing.T) {
	storm(t, generous, 30)
	storm(t, election.Ad{}, election.AssistMax-1)
}

func storm(t *testing.T, gives election.Ad, places int) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host := w.person("Host")
		host.gives = gives
		host.open(room.Unlisted)
		link := host.invites(InviteTerms{Role: room.Listener})
		var all []*soul
		for range 30 {
			p := w.person("A name of forty characters, which is a lot"[:40])
			p.gives = gives
			p.join(link)
			all = append(all, p)
		}
		w.until("all to be answered", func() bool {
			return !slices.ContainsFunc(all, func(p *soul) bool { return p.view().State == Joining })
		})
		in := slices.DeleteFunc(slices.Clone(all), func(p *soul) bool { return p.view().State != Live })
		if len(in) != places {
			t.Errorf("%d let in", len(in))
		}
		w.settle(append(in, host)...)
		for name, b := range host.disk {
			if op := new(wire.Signed); proto.Unmarshal(b, op) == nil && len(op.Body) > ledger.MaxRecord {
				t.Errorf("%s has %d bytes", name, len(op.Body))
			}
		}
	})
}

// An epoch whose secret went with the process that drew it is replaced by another.
func TestALostKey(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		mod.in(func(s *Session) {
			lost := sframe.NewEpoch(s.state.Epoch.N + 1)
			op := room.Op{Kind: room.NewEpoch, Epoch: room.EpochCommit{N: lost.N, ID: room.EpochID(lost.ID), Cause: causeLeave}}
			if _, err := s.appendOp(op, time.Now(), true); err != nil {
				t.Error(err)
			}
		})
		w.within(20*time.Second, "another epoch", func() bool { return host.inForce() == 3 && agreed(host, mod, l[0]) })
		w.mutual(host, mod, l[0])
	})
}

// Whoever issued an invite revokes any link that was passed on below it, as the host may; another moderator does not, nor
// whoever passed it on.
func TestRevokeBelowOnesOwn(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		ctx := context.Background()
		host, mod, l := w.stage(1, 0)
		other := l[0]
		host.act(room.Appoint, other)
		root := mod.invites(InviteTerms{Role: room.Listener, Depth: 2})
		ben, cas, dee := w.person("Ben"), w.person("Cas"), w.person("Dee")
		ben.come(root)
		second := ben.invites(InviteTerms{Role: room.Listener, Depth: 1})
		cas.come(second)
		third := cas.invites(InviteTerms{Role: room.Listener})
		unused := cas.invites(InviteTerms{Role: room.Listener})
		dee.come(third)
		w.settle(host, mod, other, ben, cas, dee)
		for p, want := range map[*soul]error{other: ErrForbidden, ben: ErrForbidden, cas: ErrForbidden} {
			if err := p.s.Revoke(ctx, third.ID(), true); !errors.Is(err, want) {
				t.Errorf("%s revokes: %v", p.name, err)
			}
		}
		if err := mod.s.Revoke(ctx, unused.ID(), true); !errors.Is(err, ErrUnknown) {
			t.Errorf("of a link that nobody came by: %v", err)
		}
		if err := mod.s.Revoke(ctx, second.ID(), true); err != nil {
			t.Fatal(err)
		}
		w.within(3*time.Second, "both below to be out", func() bool { return cas.reason() == "removed" && dee.reason() == "removed" })
		w.settle(host, mod, other, ben)
		eve := w.person("Eve")
		eve.enter(unused)
		w.until("an answer", func() bool { return eve.view().State.Over() })
		if eve.reason() != "revoked" {
			t.Errorf("by a link below: %s", eve.reason())
		}
		ben.halt()
		ben.restart()
		w.settle(host, mod, other, ben)
	})
}
