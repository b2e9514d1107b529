package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/election"
	"balai/room/invite"
	"balai/room/ledger"
	"balai/room/sframe"
	"balai/room/wire"
)

// Trust 17: one use claimed at two moderators at once.
func TestOneUseAtTwoModerators(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		link := host.invites(InviteTerms{Role: room.Listener, Uses: 1})
		a, b := w.person("A"), w.person("B")
		b.hints = []peer.ID{mod.id}
		a.join(link)
		b.join(link)
		w.within(5*time.Second, "exactly one", func() bool {
			x, y := a.view().State, b.view().State
			return x == Live && y == Refused || x == Refused && y == Live
		})
		in := a
		if b.view().State == Live {
			in = b
		}
		w.settle(host, mod, l[0], in)
	})
}

// Trust 54: a link for one use, to be knocked with, is given on a thousand times. Two authorities say yes to all who knock:
// one is let in, once, and the others are told why not.
func TestASingleUseGivenOnAThousandTimes(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, mod, _ := w.stage(0, 0)
		link := host.invites(InviteTerms{Role: room.Listener, Uses: 1, Knock: true, Depth: 2})
		knocked, in := 0, map[*soul]bool{}
		const wave = 50
		for n := 0; n < 1000; n += wave {
			first, err := link.Delegate(invite.Terms{Role: room.Listener, Uses: 1, Knock: true, Depth: 1})
			if err != nil {
				t.Fatal(err)
			}
			var all []*soul
			for i := range wave {
				given, err := first.Delegate(invite.Terms{Role: room.Listener, Uses: 1, Knock: true})
				if err != nil {
					t.Fatal(err)
				}
				p := w.person(fmt.Sprint("Heir ", n+i))
				p.candide = func(context.Context) []peer.ID { return []peer.ID{[]*soul{host, mod}[i%2].id} }
				p.join(given)
				all = append(all, p)
			}
			waits := func(p *soul) bool { s := p.view().State; return s == Joining || s == Knocking }
			w.until("all to be answered", func() bool {
				return !slices.ContainsFunc(all, func(p *soul) bool { return p.view().State == Joining })
			})
			for i, p := range all {
				if p.view().State == Knocking {
					knocked++
					_ = []*soul{host, mod}[i%2].try(room.Admit, p) // refused for all but one
				}
			}
			w.until("the end of all knocks", func() bool { return !slices.ContainsFunc(all, waits) })
			live := func() (n int) {
				for _, p := range all {
					if p.view().State == Live {
						n++
					}
				}
				return n
			}
			w.within(15*time.Second, "one at most to be in", func() bool { return live() <= 1 }) // each authority may have let in one
			w.after(2 * time.Second)
			for _, p := range all {
				if p.view().State == Live {
					in[p] = true
				} else if p.reason() != "used_up" && p.reason() != "removed" {
					t.Fatalf("%s hears %s", p.name, p.reason())
				} else {
					p.halt()
				}
			}
		}
		if len(in) != 1 || knocked != wave {
			t.Fatalf("%d knocked, %d are in", knocked, len(in))
		}
		for p := range in {
			w.settle(host, mod, p)
		}
		admits := 0
		host.in(func(s *Session) {
			for _, e := range s.ledger.All() {
				if e.Op.Kind == room.Admit && slices.ContainsFunc(e.Op.Admissions, func(a room.Admission) bool { return len(a.Chain) == 3 }) {
					admits++
				}
			}
		})
		if v := host.view(); v.Members != 3 || admits > 2 {
			t.Errorf("%d members by %d admissions", v.Members, admits)
		}
	})
}

// Trust 18: one use in a partition: one a side, one after the merge, and a new key.
func TestOneUseInAPartition(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		link := host.invites(InviteTerms{Role: room.Listener, Uses: 1})
		a, b := w.person("A"), w.person("B")
		b.hints = []peer.ID{mod.id}
		w.part(host, a)
		a.come(link)
		b.come(link)
		epoch := max(host.view().Epoch.N, mod.view().Epoch.N)
		w.heal()
		w.until("exactly one", func() bool { return (a.view().State == Live) != (b.view().State == Live) })
		in, out := a, b
		if b.view().State == Live {
			in, out = b, a
		}
		if out.reason() != "removed" {
			t.Errorf("the surplus hears %s", out.reason())
		}
		w.settle(host, mod, l[0], in)
		if host.view().Epoch.N <= epoch {
			t.Error("the key did not change")
		}
	})
}

// Trust 19: a branch revoked.
func TestRevokeABranch(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		root := host.invites(InviteTerms{Role: room.Listener, Depth: 1})
		ben, cas := w.person("Ben"), w.person("Cas")
		ben.come(root)
		given := ben.invites(InviteTerms{Role: room.Listener})
		cas.come(given)
		if err := l[0].s.Revoke(context.Background(), root.ID(), true); !errors.Is(err, ErrForbidden) {
			t.Errorf("a speaker revokes: %v", err)
		}
		if err := host.s.Revoke(context.Background(), root.ID(), true); err != nil {
			t.Fatal(err)
		}
		w.within(3*time.Second, "both out", func() bool { return ben.view().State == Refused && cas.view().State == Refused })
		w.settle(host, mod, l[0])
		for _, v := range []*soul{ben, cas} {
			v.restart()
			w.until("an answer", func() bool { return v.view().State.Over() })
		}
		dee := w.person("Dee")
		dee.enter(given)
		w.until("an answer", func() bool { return dee.view().State.Over() })
		if dee.reason() != "revoked" {
			t.Errorf("by a revoked branch: %s", dee.reason())
		}
	})
}

// Trust 26: what was said yesterday, or before somebody went, brings nobody back.
func TestOldPresence(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		var old, stale *wire.Signed
		l[0].in(func(s *Session) {
			m := &wire.Presence{Room: s.cfg.Room[:], Peer: []byte(s.me), Seq: 9, TimeMs: time.Now().UnixMilli(), Name: "Ghost"}
			stale = wire.Sign(s.cfg.Key, wire.DomainPresence, m)
			m.TimeMs -= (24 * time.Hour).Milliseconds()
			old = wire.Sign(s.cfg.Key, wire.DomainPresence, m)
		})
		w.after(2 * time.Second)
		l[0].halt()
		w.until("her to be gone", func() bool { return host.view().Members == 2 })
		for range 30 {
			for _, p := range []*wire.Signed{old, stale} {
				mod.in(func(s *Session) {
					s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Presence{Presence: p}})
				})
			}
			w.after(time.Second)
			if host.view().Members != 2 {
				t.Fatal("a replayed presence brought her back")
			}
		}
	})
}

// Trust 27: decisions of who may not decide are applied nowhere, and stored nowhere.
func TestAListenerDecides(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 1)
		eve, ana := l[1], l[0]
		stored := host.stored()
		before := host.hash()
		for _, kind := range []room.Kind{room.Ban, room.Kick, room.Mute, room.End} {
			var grants [][]byte
			eve.in(func(s *Session) {
				g := ledger.IDOf(s.ledger.Genesis())
				a := ledger.IDOf(s.ledger.GrantOf(mod.id))
				grants = [][]byte{g[:], a[:], bytes.Repeat([]byte{7}, 32)}
			})
			for _, grant := range grants {
				op := &wire.Op{Room: eve.room[:], Seq: 1, Grant: grant, Kind: uint32(kind), TimeMs: time.Now().UnixMilli()}
				if kind != room.End {
					op.Targets = [][]byte{[]byte(ana.id)}
				}
				signed := wire.Sign(eve.key, wire.DomainOp, op)
				eve.in(func(s *Session) { s.publish(OpsTopic, &wire.OpsMessage{Ops: []*wire.Signed{signed}}) })
				host.in(func(s *Session) { s.addOps([]*wire.Signed{signed}, time.Now()) }) // as a fetch would bring it
			}
		}
		w.after(5 * time.Second)
		if host.hash() != before || host.view().State != Live || ana.view().State != Live || ana.view().Stage[len(ana.view().Stage)-1].PeerID == "" {
			t.Fatal("a listener's decision counted")
		}
		if n := host.stored(); n != stored {
			t.Errorf("%d records more on disk", n-stored)
		}
		host.restart()
		w.settle(host, mod, ana, eve)
	})
}

// Trust 31 and 53: five minutes of partition with acts and new keys on both sides. One state follows the merge within five
// seconds, and at no time does anybody miss for a second who was heard before.
func TestPartition(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(2, 2)
		link := host.invites(InviteTerms{Role: room.Listener})
		left := []*soul{host, l[0], l[2]}
		w.part(left...)
		w.after(20 * time.Second)
		host.act(room.ToStage, l[2])
		host.act(room.Mute, l[1])
		mod.act(room.Kick, l[3])
		mod.act(room.Mute, l[0])
		late := w.person("Late")
		late.hints = []peer.ID{mod.id}
		w.mu.Lock()
		w.cut = func(a, b *soul) bool { return slices.Contains(left, a) != slices.Contains(left, b) }
		w.mu.Unlock()
		late.come(link)
		w.settle(mod, l[1], late)
		h := newHearing(w)
		right := []*soul{mod, l[1], late}
		for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); w.after(100 * time.Millisecond) {
			h.listen(time.Second, left...)
			h.listen(time.Second, right...)
		}
		w.mutual(left...)
		w.mutual(right...)
		if host.view().Epoch.N == 1 || mod.view().Epoch.N == 1 {
			t.Error("no new key on a side of the partition")
		}
		w.heal()
		all := []*soul{host, mod, l[0], l[1], l[2], late}
		w.within(5*time.Second, "one state after the merge", func() bool {
			h.listen(time.Second, left...)
			h.listen(time.Second, right...)
			return agreed(all...)
		})
		v := host.view()
		if v.Members != 6 || len(v.Stage) != 5 {
			t.Errorf("after the merge: %d members, %d on stage", v.Members, len(v.Stage))
		}
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); w.after(100 * time.Millisecond) {
			h.listen(time.Second, all...)
		}
		w.mutual(all...)
		t.Logf("%d frames heard, the longest gap %v", h.frames, h.longest)
		for _, e := range l[3].goneKeys(t) {
			if cur, _ := host.sealing(); e.ID == cur.ID {
				t.Error("who was kicked on one side holds the key of all")
			}
		}
	})
}

// goneKeys are the keys of a session that is over.
func (p *soul) goneKeys(t *testing.T) []sframe.Epoch {
	t.Helper()
	p.halt()
	return p.s.keys.epochs
}

// A short partition in which both sides go on stepping, and nobody could draw a new key.
func TestPartitionOfSpeakers(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(4, 0)
		host.halt()
		mod.halt()
		w.until("them to be gone", func() bool { return l[0].view().Members == 4 })
		w.part(l[0], l[1])
		w.after(4 * time.Minute)
		w.heal()
		w.settle(l...)
		for range 30 {
			w.after(time.Second)
			w.mutual(l...)
		}
	})
}

// Trust 35: a newcomer's key opens nothing sealed more than ten seconds before her admission.
func TestANewcomersStep(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		w.after(47 * time.Second)
		at := time.Now()
		late := w.person("Late")
		late.come(host.invites(InviteTerms{Role: room.Listener}))
		w.settle(host, mod, l[0], late)
		keys := late.keys()
		open := 0
		for _, m := range w.recorded() {
			if slices.ContainsFunc(keys, func(e sframe.Epoch) bool {
				_, err := e.OpenGossip(host.room, host.r.Name(m.topic), m.data)
				return err == nil
			}) {
				open++
				if at.Sub(m.at) > 11*time.Second {
					t.Fatalf("opens what was said %v before", at.Sub(m.at))
				}
			}
		}
		if open == 0 {
			t.Error("opens nothing at all")
		}
	})
}

// Trust 42: no process seals under the source of an earlier one, and none goes over the end of its counter.
func TestANewSourceAtEachStart(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		salts := map[[8]byte]bool{l[0].media().Me.Salt: true}
		for range 4 {
			l[0].restart()
			w.settle(host, mod, l[0])
			if m := l[0].media(); salts[m.Me.Salt] {
				t.Fatal("a salt comes again")
			} else {
				salts[m.Me.Salt] = true
			}
		}
		left := l[0].media().Me.ID
		l[0].s.Report(Report{Source: left, Ctr: 1000})
		w.after(time.Second)
		if m := l[0].media(); !salts[m.Me.Salt] {
			t.Error("a new source without need")
		}
		l[0].s.Report(Report{Source: left, Ctr: renewAt + 5})
		w.after(time.Second)
		renewed := l[0].media().Me
		l[0].s.Report(Report{Source: left, Ctr: 1400})
		l[0].s.Report(Report{Source: left, Ctr: renewAt + 7}) // of the old one still
		w.after(3 * time.Second)
		if m := l[0].media().Me; salts[m.Salt] || m.Salt != renewed.Salt || m.Ctr != 0 {
			t.Errorf("near the end of its counter: %+v, before %+v", m, renewed)
		}
		i := slices.IndexFunc(host.media().Sources, func(x Source) bool { return x.Peer == l[0].id })
		if i < 0 || host.media().Sources[i].Salt != renewed.Salt {
			t.Error("the others do not know the new source")
		}
	})
}

// Trust 56, second half: one key in two processes at once.
func TestSecondDevice(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		link := host.invites(InviteTerms{Role: room.Speaker})
		w.after(20 * time.Second)
		twin := w.person("Twin")
		twin.key, twin.id = l[0].key, l[0].id
		for name, b := range l[0].disk {
			twin.disk[name] = b
		}
		twin.room, twin.r, twin.hints = l[0].room, l[0].r, []peer.ID{host.id}
		twin.restart()
		w.until("the second to be refused", func() bool {
			if twin.view().State == Live {
				t.Fatal("the second was in")
			}
			return twin.view().State.Over()
		})
		if twin.reason() != "second_device" || l[0].view().State != Live {
			t.Errorf("the second %s, the first %s", twin.reason(), l[0].reason())
		}
		clear(twin.disk)
		twin.enter(link)
		w.until("the second to be refused", func() bool { return twin.view().State.Over() })
		if twin.reason() != "second_device" || l[0].view().State != Live || twin.disk["genesis"] != nil {
			t.Errorf("by a link: the second %s, the first %s", twin.reason(), l[0].reason())
		}
		w.after(10 * time.Second)
		w.settle(host, mod, l[0])
	})
}

// Who was killed and has lost her disk comes back with her key, once her shadow is gone.
func TestBackAfterALostDisk(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		link := host.invites(InviteTerms{Role: room.Speaker})
		w.part(l[0])
		l[0].halt() // unheard
		w.heal()
		clear(l[0].disk)
		l[0].come(link)
		w.settle(host, mod, l[0])
	})
}

// The host's key in a second process: it does not open the room for itself either, and draws no key.
func TestSecondHost(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		w.after(20 * time.Second)
		epoch := host.inForce()
		twin := w.person("Twin")
		twin.key, twin.id, twin.room, twin.r = host.key, host.id, host.room, host.r
		twin.hints = []peer.ID{mod.id, l[0].id}
		for name, b := range host.disk {
			twin.disk[name] = b
		}
		twin.restart()
		w.until("the second to be refused", func() bool { return twin.view().State.Over() })
		if twin.reason() != "second_device" || host.view().State != Live {
			t.Errorf("the second %s, the first %s", twin.reason(), host.reason())
		}
		w.settle(host, mod, l[0])
		if n := host.inForce(); n != epoch {
			t.Errorf("epoch %d, before %d", n, epoch)
		}
	})
}

// Who was killed is back soon, though the others take her for live: her shadow does not speak.
func TestBackAfterAKill(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		w.after(20 * time.Second)
		for _, p := range []*soul{l[0], host} {
			w.part(p)
			p.halt() // unheard
			w.heal()
			p.restart()
			w.within(8*time.Second, p.name+" is back", func() bool { return p.view().State == Live })
			w.settle(host, mod, l[0])
		}
	})
}

// Text that would look like another is not shown, whoever sends it.
func TestChatText(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, _, l := w.stage(1, 0)
		for _, text := range []string{"evil \u202egnp.exe", "bell\a", "\u2066x", "nul\x00", string(make([]rune, maxText+1)), ""} {
			l[0].in(func(s *Session) {
				s.seq++
				m := &wire.Chat{Room: s.cfg.Room[:], Peer: []byte(s.me), Seq: s.seq, TimeMs: time.Now().UnixMilli(), Text: text}
				s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Chat{Chat: wire.Sign(s.cfg.Key, wire.DomainChat, m)}})
			})
		}
		line, err := l[0].s.Say(context.Background(), " two\tlines\r\nof \u202ashalom\u202c ")
		if err != nil || line.Text != "two lines\nof shalom" {
			t.Fatalf("%q, %v", line.Text, err)
		}
		w.until("the good line", func() bool { l, _ := host.s.Lines(context.Background()); return len(l) > 0 })
		w.after(2 * time.Second)
		if lines, _ := host.s.Lines(context.Background()); len(lines) != 1 {
			t.Fatalf("%d lines: %q", len(lines), lines)
		}
	})
}

// Trust 25, as the validators decide it: who floods is throttled, and the others go on.
func TestFlood(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, mod, l := w.stage(2, 0)
		eve, ana := l[0], l[1]
		ctx := context.Background()
		for range 4 {
			for range 500 {
				_, _ = eve.s.Say(ctx, "flood")
			}
			w.after(time.Second)
		}
		if _, err := ana.s.Say(ctx, "and I?"); err != nil {
			t.Fatal(err)
		}
		w.until("the honest line", func() bool {
			lines, _ := host.s.Lines(ctx)
			return slices.ContainsFunc(lines, func(l Line) bool { return l.Text == "and I?" })
		})
		lines, _ := host.s.Lines(ctx)
		if n := len(lines); n > int(rates[chats].burst+6*rates[chats].second) {
			t.Errorf("%d lines went through", n)
		}
		var refused error
		for range 100 {
			refused = errors.Join(refused, mod.try(room.Mute, ana))
		}
		if !errors.Is(refused, room.RateLimited) {
			t.Errorf("a hundred decisions at once: %v", refused)
		}
		w.settle(host, mod, ana, eve)
		mod.in(func(s *Session) { // one that does not bound itself
			for range 600 {
				if _, err := s.appendOp(room.Op{Kind: room.Lower, Targets: []peer.ID{ana.id}, Beat: 1}, time.Now(), true); err != nil {
					t.Error(err)
				}
			}
		})
		w.after(20 * time.Second)
		var held int
		host.in(func(s *Session) { held = len(s.ledger.All()) })
		if held > 450 {
			t.Errorf("%d ops in 20 s", held)
		}
		if err := host.try(room.Dismiss, mod); err != nil {
			t.Fatal(err)
		}
		w.settle(host, mod, ana, eve)
	})
}

// Trust 15: a recorded handshake said again.
func TestReplayedClaim(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		host, _, _ := w.stage(0, 0)
		link := host.invites(InviteTerms{Role: room.Listener})
		ana := w.person("Ana")
		ana.room, ana.r = link.Room(), link.Secret
		s := New(Config{Key: ana.key, Room: ana.room, Secret: ana.r, Invite: link, Ports: (*ports)(ana), Profile: profileOf("Ana"), Log: testLog("Ana")})
		s.ctx = context.Background()
		first := s.hello(s.ctx, host.id)
		if first.err != nil {
			t.Fatal(first.err)
		}
		claim := s.makeClaim(host.id, first.nonce)
		say := func(a *asked) error {
			defer a.close()
			if err := a.st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Claim{Claim: claim}}); err != nil {
				return err
			}
			m, err := s.answer(a.st)
			if err == nil && m.GetWelcome() == nil {
				return errors.New("no welcome")
			}
			return err
		}
		if err := say(first); err != nil {
			t.Fatal(err)
		}
		if err := say(s.hello(s.ctx, host.id)); !errors.Is(err, room.Replayed) {
			t.Errorf("said again: %v", err)
		}
		thief := w.person("Thief")
		thief.room, thief.r = ana.room, ana.r
		s = New(Config{Key: thief.key, Room: ana.room, Secret: ana.r, Invite: link, Ports: (*ports)(thief), Profile: profileOf("Thief"), Log: testLog("Thief")})
		s.ctx = context.Background()
		if err := say(s.hello(s.ctx, host.id)); !errors.Is(err, room.Replayed) {
			t.Errorf("said by another: %v", err)
		}
	})
}

// Who moves to another network, or gets a reservation, has a new peer record: all learn it, though they know her.
func TestNewRecord(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, a, l := w.stage(1, 1)
		a.mu.Lock()
		a.gives = election.Ad{} // no relay: no offer tells of it
		a.mu.Unlock()
		w.settle(host, a, l[0])
		w.after(2 * offerSoonest)
		a.mu.Lock()
		a.moved = "#elsewhere"
		a.mu.Unlock()
		w.within(2*presencePeriod, "the new record to be known", func() bool {
			return !slices.ContainsFunc([]*soul{host, l[0]}, func(p *soul) bool {
				p.mu.Lock()
				defer p.mu.Unlock()
				return p.heardOf[a.id] != "#elsewhere"
			})
		})
	})
}
