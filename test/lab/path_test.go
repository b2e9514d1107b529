//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"balai/node/api"
	"balai/room/session"
	"balai/test/stalls"
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
	m := gather(t, len(people), people...)
	m.talk(people...)
	return m
}

// gather is meet without a word; the first of them are on stage.
func gather(t testing.TB, stage int, people ...*person) *meeting {
	t.Helper()
	m := &meeting{t: t, people: people}
	t.Cleanup(m.tell)
	people[0].found()
	m.id = people[0].open("unlisted")
	speaker, listener := people[0].link(m.id, "speaker"), people[0].link(m.id, "listener")
	for i, p := range people[1:] {
		began := time.Now()
		if i+1 < stage {
			p.enter(speaker)
		} else {
			p.enter(listener)
		}
		t.Logf("%s is in after %v", p.name, time.Since(began).Round(time.Millisecond))
	}
	return m
}

// tell says after a failure how each of them sees the room.
func (m *meeting) tell() {
	if !m.t.Failed() || m.id == "" {
		return
	}
	for _, p := range m.people {
		if p.gone {
			continue
		}
		var v session.View
		var s api.Stats
		if err := errors.Join(p.try(context.Background(), "GET", "/rooms/"+m.id, nil, &v), p.try(context.Background(), "GET", "/rooms/"+m.id+"/stats", nil, &s)); err != nil {
			m.t.Log(err)
			continue
		}
		m.t.Logf("%s (%s): %s %s, chair %s, carrier %s, no relay %t, assist %t, relays %+v, %d members, links %+v, forwarded %d, speakers %+v", p.name, p.id, v.State, v.Reason,
			v.Chair, v.Carrier, v.NoRelay, v.Assist, v.Relays, v.Members, s.Links, s.Forwarded, s.Speakers)
	}
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

// steady shows that for a while everybody is heard by everybody: nearly every word, and no gap over a second. Where the machine
// stood still meanwhile, for another while.
func (m *meeting) steady(d time.Duration) {
	m.t.Helper()
	for try := 1; ; try++ {
		from := time.Now()
		wrong := m.missed(from, d)
		stood := stalls.Stood(from, from.Add(d))
		if len(wrong) == 0 {
			return
		}
		if try == 3 || stood < stalls.Much {
			m.t.Error(strings.Join(wrong, ", "))
			return
		}
		m.t.Logf("once more: the machine stood still for %v: %v", stood, wrong)
	}
}

// missed listens for a while and tells who does not hear whom all the time.
func (m *meeting) missed(from time.Time, d time.Duration) (wrong []string) {
	m.t.Helper()
	pause(m.t, d)
	for _, a := range m.legs {
		for _, b := range m.legs {
			if a == b {
				continue
			}
			n, gap := a.count(b.d, from), a.gap(b.d, from, from.Add(d))
			m.t.Logf("%s heard %d words of %s in %v, the longest gap %v", a.d.name, n, b.d.name, d, gap.Round(time.Millisecond))
			if n < int(d/tick)*8/10 || gap > time.Second {
				wrong = append(wrong, fmt.Sprintf("%s does not hear %s all the time", a.d.name, b.d.name))
			}
		}
	}
	return wrong
}

// TestDirect puts two people behind routers through which they can reach each other: they talk directly, by datagrams where
// UDP passes.
func TestDirect(t *testing.T) {
	t.Parallel()
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

// parents are the relays that send a person the room's audio.
func (m *meeting) parents(p *person) (out []string) {
	m.t.Helper()
	for _, r := range p.view(m.id).Relays {
		if r.Use == "parent" {
			out = append(out, r.PeerID)
		}
	}
	return out
}

// TestRelayed puts two people behind routers that cannot reach each other: the community node that both know carries their
// frames, and they are told so.
func TestRelayed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ ana, budi kind }{{symmetric, symmetric}, {cone, symmetric}, {symmetric, cone}, {symmetric, noUDP}} {
		t.Run(string(c.ana)+" and "+string(c.budi), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			boot := w.community()
			m := meet(t, w.person("Ana", w.at(c.ana), boot), w.person("Budi", w.at(c.budi), boot))
			m.allHear()
			ana, budi := m.people[0], m.people[1]
			if a, b := m.carrier(ana, budi), m.carrier(budi, ana); a+b != "" {
				t.Errorf("they have a link: %q and %q", a, b)
			}
			for _, p := range m.people {
				eventually(t, p.name+" is told of the relay", func() bool {
					v := p.view(m.id)
					return v.Carrier != "direct" && len(v.Relays) == 1 && v.Relays[0].PeerID == boot.id && v.Relays[0].Kind == "community" && v.Relays[0].Use == "parent"
				})
			}
			m.steady(5 * time.Second)
		})
	}
}

// TestAssisted puts two people who cannot reach each other into a room with a third whom both reach, and no community node
// at which audio could be carried: the third passes their frames on.
func TestAssisted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ ana, budi kind }{{symmetric, symmetric}, {cone, symmetric}} {
		t.Run(string(c.ana)+" and "+string(c.budi), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			citra, ana, budi := w.person("Citra", w.at(public), nil), w.person("Ana", w.at(c.ana), nil), w.person("Budi", w.at(c.budi), nil)
			m := meet(t, citra, ana, budi)
			m.allHear()
			for _, p := range []*person{ana, budi} {
				eventually(t, "the link of "+p.name+" with the third is by datagrams", func() bool { return m.carrier(p, citra) == "datagram" })
			}
			if a, b := m.carrier(ana, budi), m.carrier(budi, ana); a+b != "" {
				t.Errorf("they have a link: %q and %q", a, b)
			}
			eventually(t, "the third says that it passes words on", func() bool { return citra.stats(m.id).Forwarded > 0 })
			m.steady(5 * time.Second)
		})
	}
}

// TestLinkAtOnce follows a link that a daemon at home made in its first second.
func TestLinkAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	boot := w.community()
	ana := w.person("Ana", w.at(cone), boot)
	id := ana.open("unlisted")
	link := ana.link(id, "speaker")
	w.person("Budi", w.at(cone), boot).enter(link)
}
