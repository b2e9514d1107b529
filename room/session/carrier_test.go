package session

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/election"
	"balai/room/overlay"
)

// carriers are what p was told about how the room is carried, from one event on, each change once.
func (p *soul) carriers(from int) (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events[from:] {
		if e.Room != nil {
			out = append(out, e.Room.Carrier)
		}
	}
	return slices.Compact(out)
}

func (p *soul) told() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.events)
}

func carriedAs(how string, souls ...*soul) bool {
	return !slices.ContainsFunc(souls, func(p *soul) bool { return p.view().Carrier != how })
}

// Two people who have found each other and have no way for sound read so, until there is one. Who is alone, or was left, does not.
func TestConnectingUntilAMediaLinkIsOpen(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		w.block = func(_, _ *soul) bool { return true }
		host, guest := w.person("Host"), w.person("Guest")
		host.gives, guest.gives = election.Ad{}, election.Ad{} // nobody to relay
		host.open(room.Unlisted)
		w.after(20 * time.Second)
		if got := host.carriers(0); !slices.Equal(got, []string{"direct"}) {
			t.Errorf("alone, the host read %v", got)
		}
		guest.come(host.invites(InviteTerms{Role: room.Listener}))
		w.within(5*time.Second, "both to read that they connect", func() bool { return carriedAs("connecting", host, guest) })
		from := host.told()
		w.after(20 * time.Second)
		if !carriedAs("connecting", host, guest) || slices.Contains(host.carriers(from), "direct") {
			t.Errorf("without a link the host reads %v, the guest %s", host.carriers(from), guest.view().Carrier)
		}
		w.mu.Lock()
		w.block = nil
		w.mu.Unlock()
		w.within(time.Minute, "both to read that they hear each other", func() bool { return carriedAs("direct", host, guest) })
		for _, p := range []*soul{host, guest} {
			if len(p.wants()) != 1 || p.lane(p.wants()[0]) == nil {
				t.Errorf("%s has no link", p.name)
			}
		}
		from = host.told()
		w.after(time.Minute)
		guest.halt()
		w.within(10*time.Second, "the host to be alone", func() bool { return host.view().Members == 1 })
		w.after(20 * time.Second)
		if got := host.carriers(from); !slices.Equal(got, []string{"direct"}) {
			t.Errorf("linked, and then alone again, the host read %v", got)
		}
	})
}

// Who hears by relays does not read that it connects, also not when one of them dies.
func TestWhoHearsByARelayDoesNotConnect(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		_, stage, rest := w.crowd(7)
		all := slices.Concat(stage, rest)
		w.within(20*time.Second, "a core", func() bool { return carried(all) })
		core := all[0].view().Core
		w.within(time.Minute, "the mesh to end", func() bool {
			return !slices.ContainsFunc(all, func(p *soul) bool { return !slices.Contains(core, p.id.String()) && len(p.wants()) > 2 })
		})
		from := map[*soul]int{}
		for _, p := range all {
			from[p] = p.told()
		}
		i := slices.IndexFunc(all, func(p *soul) bool { return slices.Contains(core, p.id.String()) })
		w.kill(all[i])
		all = slices.Delete(all, i, i+1)
		w.after(20 * time.Second)
		for _, p := range all {
			if got := p.carriers(from[p]); slices.Contains(got, "connecting") || p.view().Carrier != "relay" {
				t.Errorf("%s read %v", p.name, got)
			}
		}
	})
}

// A stranger who opens and closes links does not hide that there is no way to the others; a way of ours does, and for a moment its end.
func TestAStrangersLinkIsNoWay(t *testing.T) {
	s := still(t)
	ana := mustKey(t).ID()
	s.letIn(t, ana, room.Listener)
	s.touch(ana, time.Now())
	s.settle(time.Now())
	for _, c := range []struct {
		who, want string
		p         peer.ID
	}{{"a stranger", "connecting", mustKey(t).ID()}, {"a member", "direct", ana}} {
		for _, e := range []overlay.Event{overlay.Linked{Peer: c.p}, overlay.Unlinked{Peer: c.p}} {
			s.linkEvent(e, nil, time.Now())
			v := &View{Carrier: "direct"}
			if s.viewCarry(v); v.Carrier != c.want {
				t.Errorf("%s, after %T: %s", c.who, e, v.Carrier)
			}
		}
	}
}
