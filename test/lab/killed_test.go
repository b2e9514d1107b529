//go:build linux

package lab

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"balai/room/session"
)

// hall is a room that is too large for a mesh, without a community node: three on stage who relay nothing, two of them behind
// routers that let nobody in, and listeners of whom some sit in public.
type hall struct {
	*meeting
	dead map[*person]bool
}

// newHall brings so many listeners together, every third of them at home; all have legs, the stage talks.
func newHall(t testing.TB, listeners int) *hall {
	t.Helper()
	w := newWorld(t)
	people := make([]*person, 3+listeners)
	var wg sync.WaitGroup
	for i := range people {
		k, args := public, []string{"--relay", "auto"}
		switch {
		case i == 0:
			args = []string{"--relay", "never"}
		case i < 3:
			k, args = symmetric, []string{"--relay", "never"}
		case i%3 == 0:
			k = cone
		}
		at := w.at(k)
		wg.Go(func() { people[i] = w.person(fmt.Sprint("p", i), at, nil, args...) })
	}
	wg.Wait()
	if slices.Contains(people, nil) {
		t.FailNow()
	}
	h := &hall{gather(t, 3, people...), map[*person]bool{}}
	h.talk(people[:3]...)
	for _, p := range people[3:] {
		h.legs = append(h.legs, attach(p, h.id))
	}
	return h
}

func (h *hall) stage() (out []*person) {
	for _, p := range h.people[:3] {
		if !h.dead[p] {
			out = append(out, p)
		}
	}
	return out
}

// alive lists the legs of those who live.
func (h *hall) alive() (out []*leg) {
	for _, l := range h.legs {
		if !h.dead[l.d] {
			out = append(out, l)
		}
	}
	return out
}

func (h *hall) find(id string) *person {
	h.t.Helper()
	for _, p := range h.people {
		if p.id == id {
			return p
		}
	}
	h.t.Fatalf("%s relays, who is nobody here", id)
	return nil
}

// calm is how long things have to stay as they are: what is killed then is killed in the middle of a talk, not of a change.
const calm = 4 * time.Second

// carried waits until a core that all agree upon carries everybody who lives, and stays so, and gives it.
func (h *hall) carried() (core []string) {
	h.t.Helper()
	why, was, since := "", "", time.Now()
	began := time.Now()
	defer func() {
		if h.t.Failed() {
			h.t.Log(why)
		}
	}()
	eventually(h.t, "a core carries all", func() bool {
		core = h.alive()[0].d.view(h.id).Core
		if len(core) < 2 {
			why = fmt.Sprint("the core is ", core)
			return false
		}
		for p := range h.dead {
			if slices.Contains(core, p.id) {
				why = p.name + ", who is dead, is in the core"
				return false
			}
		}
		for _, l := range h.alive() {
			v := l.d.view(h.id)
			if !slices.Equal(v.Core, core) || !slices.Contains(core, l.d.id) && len(h.parents(l.d)) == 0 {
				why = fmt.Sprint(l.d.name, " sees the core ", v.Core, " and relays ", v.Relays)
				return false
			}
		}
		now := fmt.Sprint(core)
		for _, l := range h.alive() {
			now += fmt.Sprint(h.parents(l.d))
		}
		if now != was {
			why, was, since = "it changes still", now, time.Now()
		}
		return time.Since(since) >= calm
	})
	h.t.Logf("a core carries all after %v", time.Since(began).Round(time.Millisecond))
	return core
}

// kill ends daemons without a word, all at once.
func (h *hall) kill(people ...*person) time.Time {
	for _, p := range people {
		h.dead[p] = true
		_ = p.cmd.Process.Kill()
	}
	at := time.Now()
	for _, p := range people {
		p.end(syscall.SIGKILL)
		for _, l := range h.legs {
			if l.d == p {
				l.close()
			}
		}
	}
	return at
}

// revive starts a daemon again: it comes back into the room by itself.
func (h *hall) revive(p *person, args ...string) {
	h.t.Helper()
	p.again(args...)
	p.until(h.id, "back", func(v session.View) bool { return v.State == session.Live })
	i := slices.IndexFunc(h.legs, func(l *leg) bool { return l.d == p })
	h.legs[i] = attach(p, h.id)
	delete(h.dead, p)
	if slices.Contains(h.stage(), p) {
		p.mute(h.id, false)
	}
	for _, s := range h.stage() {
		if s != p {
			h.legs[i].hears(s)
		}
	}
}

// quiet fails if in a time of d after at anybody alive did not hear one who lives and speaks for longer than allowed.
func (h *hall) quiet(what string, at time.Time, d, allowed time.Duration) {
	h.t.Helper()
	pause(h.t, time.Until(at.Add(d)))
	var all []time.Duration
	worst, who := time.Duration(0), ""
	for _, l := range h.alive() {
		for _, s := range h.stage() {
			if l.d == s {
				continue
			}
			gap := l.gap(s, at.Add(-200*time.Millisecond), at.Add(d))
			all = append(all, gap)
			if gap > worst {
				worst, who = gap, fmt.Sprintf("%s (%s) hears %s (%s)", l.d.name, l.d.place.kind, s.name, s.place.kind)
			}
		}
	}
	slices.Sort(all)
	h.t.Logf("%s: of %d pairs the longest silence is %v, the median %v: %s", what, len(all), worst.Round(time.Millisecond), all[len(all)/2].Round(time.Millisecond), who)
	if worst > allowed {
		h.t.Errorf("%s: silent for %v, want at most %v: %s", what, worst, allowed, who)
	}
}

// heard waits until everybody alive hears everybody who speaks.
func (h *hall) heard() {
	h.t.Helper()
	for _, l := range h.alive() {
		for _, s := range h.stage() {
			if l.d != s {
				l.hears(s)
			}
		}
	}
}

// used is the member of the core who carries most and does not speak.
func (h *hall) used(core []string) *person {
	h.t.Helper()
	uses := map[string]int{}
	for _, l := range h.alive() {
		for _, id := range h.parents(l.d) {
			uses[id]++
		}
	}
	best := slices.MaxFunc(core, func(a, b string) int { return uses[a] - uses[b] })
	if uses[best] == 0 {
		h.t.Fatal("no relay is in use")
	}
	return h.find(best)
}

// Everybody hears all who speak, though these sit behind routers that nobody can reach: through relays. The one in use is
// killed in mid-sentence, again and again, and whoever lives hears everybody who lives again: mostly within half a second,
// but the bound leaves room for a busy machine.
func TestRelayKilled(t *testing.T) {
	h := newHall(t, 7)
	rounds := 2
	if soak() {
		rounds = 10
	}
	for range rounds {
		p := h.used(h.carried())
		h.heard()
		h.quiet("a relay in use is killed: "+p.name, h.kill(p), 5*time.Second, 2*time.Second)
		h.revive(p, "--relay", "auto")
	}
}

// Trust test 61: the chair, who signed the lease, and the whole core are gone at once. In simulation audio is back within five
// seconds, and mostly here too; the bound leaves room for a busy machine.
func TestAllGone(t *testing.T) {
	h := newHall(t, 9)
	core := h.carried()
	chair := h.find(h.legs[1].d.view(h.id).Chair)
	gone := []*person{chair}
	for _, id := range core {
		if p := h.find(id); p != chair {
			gone = append(gone, p)
		}
	}
	h.heard()
	at := h.kill(gone...)
	h.quiet(fmt.Sprintf("the chair and a core of %d are gone", len(core)), at, 14*time.Second, 8*time.Second)
}
