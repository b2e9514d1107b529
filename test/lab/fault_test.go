//go:build linux

package lab

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"balai/room/session"
	"balai/test/stalls"
)

// back is how soon audio has to be back after a fault of the network or a sleep.
const back = 10 * time.Second

// returns waits until everybody hears everybody, from a moment on, and fails if it took longer than allowed.
func (m *meeting) returns(what string, since time.Time, allowed time.Duration) {
	m.t.Helper()
	for _, a := range m.legs {
		for _, b := range m.legs {
			if a == b {
				continue
			}
			var took time.Duration
			eventually(m.t, fmt.Sprintf("%s: %s hears %s again", what, a.d.name, b.d.name), func() bool {
				var ok bool
				took, ok = a.again(b.d, since)
				return ok
			})
			m.t.Logf("%s: %s hears %s again after %v", what, a.d.name, b.d.name, took.Round(time.Millisecond))
			if took = stalls.Ran(since, since.Add(took)); took > allowed {
				m.t.Errorf("%s: %s hears %s only after %v, want %v", what, a.d.name, b.d.name, took, allowed)
			}
		}
	}
}

// again tells after what time since a moment somebody is heard to the end: 50 words of which no two are a second apart.
func (l *leg) again(who *person, since time.Time) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.heard[who.name]
	i, n := len(w)-1, 0
	if i < 0 || time.Since(w[i].at) > time.Second {
		return 0, false
	}
	for ; i > 0 && w[i-1].at.After(since) && w[i].at.Sub(w[i-1].at) < time.Second; i-- {
		n++
	}
	return w[i].at.Sub(since), n >= 50
}

// talkers are two people behind cones who talk and hear each other directly.
func talkers(t *testing.T, ana, budi kind) (*world, *meeting) {
	t.Helper()
	w := newWorld(t)
	boot := w.community()
	m := meet(t, w.person("Ana", w.at(ana), boot), w.person("Budi", w.at(budi), boot))
	m.allHear()
	return w, m
}

// TestSuspend stops one daemon for 20 seconds, as a laptop that is closed does, first the guest's and then, when there is time,
// the host's.
func TestSuspend(t *testing.T) {
	t.Parallel()
	_, m := talkers(t, public, cone)
	for _, p := range []*person{m.people[1], m.people[0]} {
		_ = p.cmd.Process.Signal(syscall.SIGSTOP)
		pause(t, 20*time.Second)
		at := time.Now()
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		m.returns("after the sleep of "+p.name, at, back)
		if !soak() {
			break
		}
	}
}

// TestAddressChange gives the host of a home another address, as a laptop that changes the network gets. The long version does
// the same to a daemon in public with a friend behind a router, who has to punch a new hole while the old connection seems to
// be there: that takes seven seconds, but one time in six or so more than a minute (docs/adr/0009-paths.md).
func TestAddressChange(t *testing.T) {
	t.Parallel()
	w, m := talkers(t, cone, public)
	ana, budi := m.people[0], m.people[1]
	at := time.Now()
	ana.place.ip(t, "addr flush dev eth0 scope global")
	ana.place.settle(t, 3)
	m.returns("after the change at home", at, back)
	if !soak() {
		return
	}
	at = time.Now()
	budi.place.ip(t, "addr flush dev eth0 scope global", fmt.Sprintf("addr add %s/26 dev eth0", w.addr(60)))
	m.returns("after the change in public", at, back)
}

// TestRouterAddressChange gives the router of a home another public address, as a provider does at night: nothing at home
// knows of it, and the friend behind a router of his own lets nobody in from the new one.
func TestRouterAddressChange(t *testing.T) {
	t.Parallel()
	w, m := talkers(t, cone, cone)
	at := time.Now()
	m.people[0].place.router.ip(t, "addr flush dev wan scope global", fmt.Sprintf("addr add %s/26 dev wan", w.addr(61)))
	m.returns("after the change of the router", at, back)
}

// TestBlocked lets a router drop all UDP in the middle of a talk: it goes on over TCP, degraded. When UDP passes again, it goes
// on, too, and the long version waits until it is not degraded any more.
func TestBlocked(t *testing.T) {
	t.Parallel()
	_, m := talkers(t, public, cone)
	ana, budi := m.people[0], m.people[1]
	at := time.Now()
	budi.place.cutUDP(t, true)
	m.returns("without UDP", at, back)
	budi.until(m.id, "the carrier is degraded", func(v session.View) bool { return v.Carrier == "degraded" })
	budi.place.cutUDP(t, false)
	at = time.Now()
	pause(t, 5*time.Second)
	m.returns("with UDP again", at, back)
	if !soak() {
		return
	}
	for m.carrier(ana, budi) != "datagram" || m.carrier(budi, ana) != "datagram" {
		if time.Since(at) > 4*time.Minute {
			t.Fatal("the link by TCP stays")
		}
		pause(t, time.Second)
	}
	t.Logf("frames come as datagrams again after %v", time.Since(at).Round(time.Second))
	m.returns("by QUIC again", at, time.Minute)
}
