//go:build linux

package lab

import (
	"testing"
	"time"

	"balai/room/session"
)

// meeting is people in one room, each with a leg and an open microphone.
type meeting struct {
	t      testing.TB
	id     string
	people []*person
	legs   []*leg
}

// meet lets the first open a room, the others come by a link of the first, and all begin to talk.
func meet(t testing.TB, people ...*person) *meeting {
	t.Helper()
	m := gather(t, people...)
	m.talk(people...)
	return m
}

// gather is meet without a word.
func gather(t testing.TB, people ...*person) *meeting {
	t.Helper()
	m := &meeting{t: t, id: people[0].open("unlisted"), people: people}
	link := people[0].link(m.id, "speaker")
	for _, p := range people[1:] {
		began := time.Now()
		p.enter(link)
		t.Logf("%s is in after %v", p.name, time.Since(began).Round(time.Millisecond))
	}
	return m
}

// talk gives people legs and turns their microphones on.
func (m *meeting) talk(people ...*person) {
	m.t.Helper()
	for _, p := range people {
		m.legs = append(m.legs, attach(p, m.id))
		p.mute(m.id, false)
	}
}

// allHear waits until everybody hears everybody else who talks, and says how long it took.
func (m *meeting) allHear() {
	m.t.Helper()
	began := time.Now()
	for _, a := range m.legs {
		for _, b := range m.legs {
			if a != b {
				a.hears(b.d)
			}
		}
	}
	m.t.Logf("all hear all after %v", time.Since(began).Round(time.Millisecond))
}

// carrier is the media link of one person with another, as the first sees it: datagram, stream, or "" for none.
func (m *meeting) carrier(a, b *person) string {
	m.t.Helper()
	for _, l := range a.stats(m.id).Links {
		if l.PeerID == b.id && l.InFrames > 0 {
			return l.Carrier
		}
	}
	return ""
}

// steady shows that for a while everybody is heard by everybody: nearly every word, and no gap over a second.
func (m *meeting) steady(d time.Duration) {
	m.t.Helper()
	from := time.Now()
	pause(m.t, d)
	for _, a := range m.legs {
		for _, b := range m.legs {
			if a == b {
				continue
			}
			n, gap := a.count(b.d, from), a.gap(b.d, from, from.Add(d))
			m.t.Logf("%s heard %d words of %s in %v, the longest gap %v", a.d.name, n, b.d.name, d, gap.Round(time.Millisecond))
			if n < int(d/tick)*8/10 || gap > time.Second {
				m.t.Errorf("%s does not hear %s all the time", a.d.name, b.d.name)
			}
		}
	}
}

// TestDirect puts two people behind routers through which they can reach each other: they talk directly, by datagrams where
// UDP passes.
func TestDirect(t *testing.T) {
	for _, c := range []struct {
		ana, budi     kind
		link, carrier string
	}{
		{public, public, "datagram", "direct"},
		{cone, public, "datagram", "direct"},
		{public, cone, "datagram", "direct"},
		{cone, cone, "datagram", "direct"},
		{full, cone, "datagram", "direct"},
		{public, symmetric, "datagram", "direct"},
		{symmetric, public, "datagram", "direct"},
		{public, noUDP, "stream", "degraded"},
		{noUDP, public, "stream", "degraded"},
	} {
		t.Run(string(c.ana)+" and "+string(c.budi), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			boot := w.community()
			m := meet(t, w.person("Ana", w.at(c.ana), boot), w.person("Budi", w.at(c.budi), boot))
			m.allHear()
			ana, budi := m.people[0], m.people[1]
			eventually(t, "the path is "+c.link, func() bool { return m.carrier(ana, budi) == c.link && m.carrier(budi, ana) == c.link })
			for _, p := range m.people {
				p.until(m.id, "the carrier is "+c.carrier, func(v session.View) bool { return v.Carrier == c.carrier })
			}
			m.steady(5 * time.Second)
		})
	}
}
