package session

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/election"
	"balai/room/invite"
	"balai/room/overlay"
)

// crowd opens a room and lets n listeners in, two of whom go on stage.
func (w *world) crowd(n int) (host *soul, stage, rest []*soul) {
	host = w.person("Host")
	host.open(room.Unlisted)
	link := host.invites(InviteTerms{Role: room.Listener})
	for range n {
		p := w.person("Listener")
		p.come(link)
		rest = append(rest, p)
	}
	for _, p := range rest[:2] {
		if err := host.try(room.ToStage, p); err != nil {
			w.t.Fatal(err)
		}
	}
	return host, append([]*soul{host}, rest[:2]...), rest[2:]
}

func (p *soul) now() *overlay.Plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.place
}

// hearsFrom are the relays that audio of p comes by.
func (p *soul) hearsFrom() (out []string) {
	for _, r := range p.view().Relays {
		if r.Use == "parent" {
			out = append(out, r.PeerID)
		}
	}
	return out
}

// carried tells whether all of these follow one core, and hear by it or are it.
func carried(all []*soul) bool {
	core := all[0].view().Core
	return len(core) >= 2 && !slices.ContainsFunc(all, func(p *soul) bool {
		v := p.view()
		return !slices.Equal(v.Core, core) || !slices.Contains(core, p.id.String()) && len(p.hearsFrom()) == 0
	})
}

// With the seventh person the mesh becomes a core, and links of the mesh go; with four it comes back.
func TestMeshToCoreAndBack(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, stage, rest := w.crowd(5)
		all := slices.Concat(stage, rest)
		w.after(20 * time.Second)
		for _, p := range all {
			if v := p.view(); v.Carrier != "direct" || len(v.Core) > 0 || len(p.wants()) != 5 {
				t.Errorf("%s: %s, core %v, %d links", p.name, v.Carrier, v.Core, len(p.wants()))
			}
		}
		link := host.invites(InviteTerms{Role: room.Listener})
		for range 3 {
			p := w.person("Late")
			p.come(link)
			all, rest = append(all, p), append(rest, p)
		}
		w.within(10*time.Second, "a core", func() bool { return carried(all) })
		core := host.view().Core
		w.within(60*time.Second, "the mesh to end", func() bool {
			return !slices.ContainsFunc(all, func(p *soul) bool {
				return !slices.Contains(core, p.id.String()) && len(p.wants()) > 3
			})
		})
		for _, p := range rest[:len(rest)-1] {
			if !slices.Contains(core, p.id.String()) {
				p.halt()
				all = slices.DeleteFunc(all, func(q *soul) bool { return q == p })
			}
			if len(all) <= 4 {
				break
			}
		}
		for len(all) > 4 {
			all[len(all)-1].halt()
			all = all[:len(all)-1]
		}
		w.within(3*time.Minute, "the mesh to come back", func() bool {
			return !slices.ContainsFunc(all, func(p *soul) bool {
				return len(p.view().Core) > 0 || len(p.wants()) != len(all)-1 || len(p.hearsFrom()) > 0
			})
		})
	})
}

// The death of the chair moves nobody to another parent.
func TestTheChairDies(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, stage, rest := w.crowd(9)
		all := slices.Concat(stage, rest)
		w.within(20*time.Second, "a core", func() bool { return carried(all) })
		w.within(2*time.Minute, "a core without the chair", func() bool {
			return carried(all) && !slices.Contains(host.view().Core, host.id.String())
		})
		w.after(10 * time.Second)
		before := map[*soul][]string{}
		for _, p := range all[1:] {
			before[p] = p.hearsFrom()
		}
		w.kill(host)
		w.after(30 * time.Second)
		for _, p := range all[1:] {
			if now := p.hearsFrom(); !slices.Equal(now, before[p]) {
				t.Errorf("%s moved from %v to %v", p.id, before[p], now)
			}
		}
	})
}

// A relay that dies is left by all within a second, and replaced by the chair.
func TestARelayDies(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		_, stage, rest := w.crowd(9)
		all := slices.Concat(stage, rest)
		w.within(20*time.Second, "a core", func() bool { return carried(all) })
		w.after(20 * time.Second)
		dead := w.find(mustDecode(t, all[0].view().Core[0]))
		w.kill(dead)
		all = slices.DeleteFunc(all, func(p *soul) bool { return p == dead })
		w.within(2*time.Second, "all to hear by another", func() bool {
			return !slices.ContainsFunc(all, func(p *soul) bool {
				from := p.hearsFrom()
				return slices.Contains(from, dead.id.String()) || len(from) == 0 && !p.now().Core
			})
		})
		w.within(20*time.Second, "another in its place", func() bool {
			return carried(all) && !slices.Contains(all[0].view().Core, dead.id.String())
		})
	})
}

// kill ends a process without a word.
func (w *world) kill(p *soul) {
	w.mu.Lock()
	old := w.cut
	w.cut = func(a, b *soul) bool { return a == p || b == p || old != nil && old(a, b) }
	w.mu.Unlock()
	p.halt()
}

func mustDecode(t *testing.T, s string) peer.ID {
	t.Helper()
	p, err := peer.Decode(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Listeners beyond those whom the ledger holds come with a pass: they hear, are counted, learn who is on stage and of a new
// key, and are put out like others.
func TestPassesBeyondTheLedger(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		w.limit = 9
		host, stage, rest := w.crowd(8)
		link := host.invites(InviteTerms{Role: room.Listener, Uses: 12})
		var guests []*soul
		for range 8 {
			p := w.person("Guest")
			p.gives = election.Ad{}
			p.come(link)
			guests = append(guests, p)
		}
		members := slices.Concat(stage, rest)
		w.within(20*time.Second, "all to hear", func() bool { return carried(members) && carried(slices.Concat(stage[:1], guests)) })
		n := 0
		host.in(func(s *Session) { n = len(s.state.Members) })
		if n != 9 {
			t.Errorf("%d in the ledger", n)
		}
		w.within(10*time.Second, "the same number for all", func() bool {
			return !slices.ContainsFunc(slices.Concat(members, guests), func(p *soul) bool { return p.view().Members != 17 || len(p.view().Stage) != 3 })
		})

		out := guests[0]
		if err := host.s.Act(context.Background(), room.Kick, out.id, ""); err != nil {
			t.Fatal(err)
		}
		w.within(5*time.Second, "the guest to be out", func() bool { return out.view().State == Refused })
		w.within(10*time.Second, "a new key for all others", func() bool {
			return host.inForce() == 2 && !slices.ContainsFunc(guests[1:], func(p *soul) bool { return p.view().Epoch.N != 2 })
		})
		for _, p := range members {
			if slices.Contains(p.now().Links, out.id) {
				t.Errorf("%s still holds a link with who was put out", p.name)
			}
		}

		up := guests[1]
		if err := up.s.RaiseHand(context.Background(), true); err != nil {
			t.Fatal(err)
		}
		w.within(10*time.Second, "the hand to be seen", func() bool { return slices.Contains(host.view().Hands, up.id.String()) })
		if err := host.try(room.ToStage, up); err != nil {
			t.Fatal(err)
		}
		w.within(10*time.Second, "all to see who came on stage", func() bool {
			return !slices.ContainsFunc(slices.Concat(members, guests[1:]), func(p *soul) bool { return len(p.view().Stage) != 4 })
		})
		w.within(20*time.Second, "the uses to be written down", func() bool {
			uses := 0
			host.in(func(s *Session) {
				for _, c := range s.state.Uses {
					uses = max(uses, c)
				}
			})
			return uses >= 8
		})
	})
}

// Trust 19 beyond the ledger: who came by a revoked branch with a pass is out, with whoever came by a delegation of it, and
// the key is another one.
func TestRevokeABranchOfGuests(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		w.limit = 9
		host, stage, rest := w.crowd(8)
		bad, good := host.invites(InviteTerms{Role: room.Listener, Depth: 1}), host.invites(InviteTerms{Role: room.Listener})
		come := func(link *invite.Invite) *soul {
			p := w.person("Guest")
			p.gives = election.Ad{}
			p.come(link)
			return p
		}
		out := []*soul{come(bad), come(bad)}
		given, err := bad.Delegate(invite.Terms{Role: room.Listener, Expiry: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, come(given))
		in := []*soul{come(good), come(good)}
		members := slices.Concat(stage, rest)
		w.within(20*time.Second, "all to hear", func() bool { return carried(members) && carried(slices.Concat(stage[:1], out, in)) })
		if err := host.s.Revoke(context.Background(), bad.ID(), true); err != nil {
			t.Fatal(err)
		}
		w.within(3*time.Second, "all of the branch to be out", func() bool {
			return !slices.ContainsFunc(out, func(p *soul) bool { return p.view().State != Refused || p.reason() != "revoked" })
		})
		w.within(10*time.Second, "a new key for the others", func() bool {
			return host.inForce() == 2 && !slices.ContainsFunc(slices.Concat(members, in), func(p *soul) bool { return p.view().Epoch.N != 2 })
		})
		for _, p := range members {
			for _, q := range out {
				if slices.Contains(p.now().Links, q.id) {
					t.Errorf("%s still holds a link with who was put out", p.name)
				}
			}
		}
		back := w.person("Back")
		back.enter(given)
		w.until("an answer", func() bool { return back.view().State.Over() })
		if back.reason() != "revoked" {
			t.Errorf("by a revoked branch: %s", back.reason())
		}
		for _, p := range in {
			if p.view().State != Live {
				t.Errorf("%s is %s", p.name, p.view().State)
			}
		}
	})
}

// A ban of a guest closes the invite by which she came, as that of a member does, until it is lifted.
func TestBanOfAGuestClosesHerInvite(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		w.limit = 9
		host, _, _ := w.crowd(8)
		link := host.invites(InviteTerms{Role: room.Listener})
		come := func() *soul {
			p := w.person("Guest")
			p.gives = election.Ad{}
			p.enter(link)
			w.until("an answer", func() bool { return p.view().State.Over() || p.view().State == Live })
			return p
		}
		bad := come()
		host.act(room.Ban, bad)
		w.within(10*time.Second, "her to be out", func() bool { return bad.view().State == Refused })
		if next := come(); next.reason() != "revoked" {
			t.Errorf("by her invite another is %s", next.reason())
		}
		host.act(room.Unban, bad)
		if next := come(); next.view().State != Live {
			t.Errorf("after the ban was lifted another is %s", next.reason())
		}
	})
}

// Two people who cannot link are carried by a third; with nobody there to help, nothing is claimed.
func TestAPairThatCannotLink(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, stage, _ := w.crowd(2)
		a, b := stage[1], stage[2]
		w.after(time.Second)
		w.mu.Lock()
		w.block = func(x, y *soul) bool { return x == a && y == b || x == b && y == a }
		w.mu.Unlock()
		for _, l := range []*lane{a.lane(b.id), b.lane(a.id)} {
			if l != nil {
				l.end()
			}
		}
		w.within(20*time.Second, "the host to carry one to the other", func() bool {
			return slices.Contains(a.now().Parents, host.id) && slices.Contains(b.now().Parents, host.id)
		})
		feeds := host.now().Feeds
		if len(feeds) != 2 || feeds[0].Mode != overlay.Assist || feeds[1].Mode != overlay.Assist {
			t.Errorf("the host feeds %v", feeds)
		}
	})
}

// The chair and the whole core go at once: the next in the order of succession puts others in their place.
func TestAllGoAtOnce(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, stage, rest := w.crowd(11)
		all := slices.Concat(stage, rest)
		for _, p := range stage { // with all of the stage gone nobody could be chair
			p.mu.Lock()
			p.gives = election.Ad{}
			p.mu.Unlock()
		}
		w.within(20*time.Second, "a core", func() bool { return carried(all) })
		w.within(3*time.Minute, "a core without the stage", func() bool {
			return carried(all) && !slices.ContainsFunc(stage, func(p *soul) bool { return slices.Contains(host.view().Core, p.id.String()) })
		})
		w.after(10 * time.Second)
		dead := []*soul{host}
		for _, id := range host.view().Core {
			dead = append(dead, w.find(mustDecode(t, id)))
		}
		all = slices.DeleteFunc(all, func(p *soul) bool { return slices.Contains(dead, p) })
		w.killAll(dead)
		at := time.Now()
		w.within(20*time.Second, "others in their place", func() bool {
			return !slices.ContainsFunc(all, func(p *soul) bool {
				core := p.view().Core
				return len(p.hearsFrom()) == 0 && !p.now().Core || slices.ContainsFunc(dead, func(d *soul) bool { return slices.Contains(core, d.id.String()) })
			})
		})
		t.Log("after", time.Since(at))
		if d := time.Since(at); d > 13*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// killAll ends processes without a word, all at one moment.
func (w *world) killAll(dead []*soul) {
	w.mu.Lock()
	old := w.cut
	w.cut = func(a, b *soul) bool {
		return slices.Contains(dead, a) || slices.Contains(dead, b) || old != nil && old(a, b)
	}
	w.mu.Unlock()
	for _, p := range dead {
		p.stop()
	}
}

// The moderator whose passes let guests in is dismissed: they ask the host for new ones, and hear on.
func TestPassesOfWhoWasDismissed(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		w.limit = 9
		host, stage, rest := w.crowd(8)
		mod := rest[0]
		if err := host.try(room.Appoint, mod); err != nil {
			t.Fatal(err)
		}
		w.until("a moderator", func() bool { return mod.view().Me.Role == room.Moderator.String() })
		link := mod.invites(InviteTerms{Role: room.Listener})
		var guests []*soul
		for range 3 {
			p := w.person("Guest")
			p.gives = election.Ad{}
			p.come(link)
			guests = append(guests, p)
		}
		all := slices.Concat(stage, rest)
		w.within(20*time.Second, "all to hear", func() bool { return carried(all) && carried(slices.Concat(stage[:1], guests)) })
		if err := host.try(room.Dismiss, mod); err != nil {
			t.Fatal(err)
		}
		core := host.view().Core
		w.kill(w.find(mustDecode(t, core[0]))) // whoever hears by it has to ask anew
		w.within(time.Minute, "the guests to hear by another", func() bool {
			return !slices.ContainsFunc(guests, func(p *soul) bool {
				from := p.hearsFrom()
				return len(from) == 0 || slices.Contains(from, core[0]) || p.view().State != Live
			})
		})
	})
}
