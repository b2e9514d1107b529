package session

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

// forked is a room in which Mod let Bo in and then turns out to have signed two histories, so that nothing which she decided
// counts any more. All have seen Bo in.
func (w *world) forked() (host, mod, bo *soul, rest []*soul) {
	w.t.Helper()
	host, mod, rest = w.stage(1, 1)
	var other *wire.Signed
	mod.in(func(s *Session) {
		other, _ = s.ledger.Draft(s.cfg.Key, room.Op{Kind: room.Mute, Targets: []peer.ID{rest[0].id}}, time.Now())
	})
	bo = w.person("Bo")
	bo.come(mod.invites(InviteTerms{Role: room.Speaker}))
	w.settle(append(rest, host, mod, bo)...)
	w.until("a word of hers at all", func() bool {
		return !slices.ContainsFunc(append(rest, host), func(p *soul) (missing bool) {
			p.in(func(s *Session) { missing = !s.wasHeard(bo.id) })
			return missing
		})
	})
	host.in(func(s *Session) { s.addOps([]*wire.Signed{other}, time.Now()) })
	w.until("the fork to be known", func() bool {
		return !slices.ContainsFunc(append(rest, host, bo), func(p *soul) bool { return len(p.view().Forked) == 0 })
	})
	return host, mod, bo, rest
}

func (p *soul) waiting() (names []string) {
	for _, u := range p.view().Unconfirmed {
		names = append(names, u.Name+" by "+u.ByName)
	}
	return names
}

// holds tells whether p takes q for a member: of the state, and of the gate.
func (p *soul) holds(q *soul) (in bool) {
	p.in(func(s *Session) { in = s.state.Role(q.id) != room.NoRole })
	p.mu.Lock()
	defer p.mu.Unlock()
	return in && p.gate[q.id]
}

// Who was let in by somebody whose decisions turn out void stays for ten minutes, with the keys; then she is out, and the key
// is another.
func TestTenMinutesToConfirm(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, _, bo, l := w.forked()
		n := host.inForce()
		if got := host.waiting(); !slices.Equal(got, []string{"Bo by Mod"}) {
			t.Fatalf("the host is asked about %v", got)
		}
		if got := l[0].waiting(); got != nil {
			t.Errorf("a speaker is asked about %v", got)
		}
		w.after(confirmWait - 30*time.Second)
		for _, p := range append(l, host) {
			if !p.holds(bo) || !bo.holds(p) {
				t.Errorf("%s and she do not hold each other", p.name)
			}
		}
		if v := bo.view(); v.State != Live || !v.Me.OnStage || host.inForce() != n {
			t.Errorf("within the ten minutes she is %s, on stage %v, and the key is number %d after %d", v.State, v.Me.OnStage, host.inForce(), n)
		}
		w.mutual(append(l, host, bo)...)
		w.until("her to be out", func() bool { return bo.reason() == "removed" })
		w.until("a new key", func() bool { return host.inForce() == n+1 && agreed(append(l, host)...) })
		for _, p := range append(l, host) {
			if p.holds(bo) {
				t.Errorf("%s holds her", p.name)
			}
		}
		if host.waiting() != nil {
			t.Error("the host is still asked about her")
		}
		host.act(room.Lock, nil) // what changes the ledger does not begin it anew
		w.after(time.Minute)
		if host.holds(bo) || host.waiting() != nil {
			t.Error("she is back")
		}
	})
}

// Another authority confirms, or puts out; and it decides about her meanwhile as about anybody.
func TestConfirmOrPutOut(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, _, bo, l := w.forked()
		host.act(room.ToAudience, bo)
		w.until("her to be in the audience", func() bool { return !bo.view().Me.OnStage })
		host.act(room.Admit, bo)
		w.settle(append(l, host, bo)...)
		if host.waiting() != nil {
			t.Errorf("the host is still asked about %v", host.waiting())
		}
		w.after(confirmWait + time.Minute)
		w.settle(append(l, host, bo)...)
		w.mutual(append(l, host, bo)...)
	})
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, _, bo, l := w.forked()
		host.act(room.Kick, bo)
		w.until("her to be out", func() bool { return bo.reason() == "removed" })
		w.until("a new key", func() bool { return agreed(append(l, host)...) })
		if host.waiting() != nil || l[0].holds(bo) {
			t.Error("she is held")
		}
	})
}

// A daemon that is killed and started again, however often, gives nobody more time: it takes her for a stranger at once, and the
// others' ten minutes run on.
func TestAKillGivesNoMoreTime(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, _, bo, l := w.forked()
		began := time.Now()
		for time.Since(began) < confirmWait-time.Minute {
			host.halt()
			w.after(time.Second)
			host.restart()
			w.within(time.Minute, "the host to be back", func() bool { return host.view().State == Live })
			for range 4 {
				w.after(5 * time.Second)
				if host.holds(bo) || host.waiting() != nil {
					t.Fatalf("after a restart the host holds her, %v after the fork", time.Since(began))
				}
			}
			if !l[0].holds(bo) {
				t.Fatalf("she is out for who was not killed, %v after the fork", time.Since(began))
			}
		}
		w.after(confirmWait + 5*time.Second - time.Since(began))
		for _, p := range append(l, host) {
			if p.holds(bo) {
				t.Errorf("%s holds her after the ten minutes", p.name)
			}
		}
	})
}

// What a moderator decides beyond her cut gains nobody ten minutes with those who had not seen the person in; where she was
// in, another moderator can confirm her.
func TestAfterTheCut(t *testing.T) {
	for _, confirm := range []bool{false, true} {
		simulate(t, seeds, func(t *testing.T, w *world) {
			host, mod, l := w.stage(2, 1)
			host.act(room.Appoint, l[0])
			w.settle(append(l, host, mod)...)
			other := l[0]
			w.part(mod, other)
			w.after(15 * time.Second)
			host.act(room.Dismiss, mod)
			xen := w.person("Xen")
			w.mu.Lock()
			w.cut = func(a, b *soul) bool {
				side := func(p *soul) bool { return p == mod || p == other || p == xen }
				return side(a) != side(b)
			}
			w.mu.Unlock()
			xen.come(mod.invites(InviteTerms{Role: room.Speaker}))
			w.until("her to be seen in", func() bool { return other.holds(xen) && len(other.view().Stage) == 3 })
			w.after(3 * time.Second)
			w.heal()
			w.until("the dismissal to be known", func() bool { return mod.view().Me.Role == "speaker" && other.waiting() != nil })
			for range 60 {
				w.after(time.Second)
				for _, p := range []*soul{host, l[1], l[2]} {
					if p.holds(xen) {
						t.Fatalf("%s holds whom a dismissed moderator let in; %s", p.name, w)
					}
				}
			}
			if host.waiting() != nil {
				t.Errorf("the host is asked about %v", host.waiting())
			}
			if !confirm {
				n := host.inForce()
				w.within(confirmWait, "her to be out", func() bool { return xen.reason() == "removed" && !other.holds(xen) })
				w.until("a key that she has not", func() bool { return host.inForce() > n && agreed(append(l, host, mod)...) })
				return
			}
			other.act(room.Admit, xen)
			w.settle(append(l, host, mod, xen)...)
		})
	}
}
