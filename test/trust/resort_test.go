package trust

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"balai/node/api"
	"balai/room"
	"balai/room/session"
	"balai/room/wire"
)

// Nobody can be reached is --relay never in these tests, which run on loopback: behind real routers the same is in test/lab.
// On loopback nobody takes a circuit either, so the light people name one in their records, as members behind routers do.

// Trust test 51, the first half: nobody can relay but a community node that nobody vouched for, and that two members use
// already. The room is heard through it, and everybody is told so in words.
func TestUnvouchedCommunityNode(t *testing.T) {
	t.Parallel()
	p := newPlay(t, true, never, never)
	p.citra.enter(p.ana.link(p.id, "listener"))
	p.budi.enter(p.ana.link(p.id, "listener"))
	p.talk()
	p.enter(t, 3)
	if v := p.ana.until(p.id, "six are here", func(v session.View) bool { return v.Audience == 5 }); len(v.Relays) > 0 {
		t.Errorf("six people have relays: %v", v.Relays)
	}
	link := p.ana.link(p.id, "listener")
	before := p.node.figures()["balai_relay_forwarded_total"]
	for range 2 {
		p.crowd = append(p.crowd, newLiarWith(t, func(l *liar) {
			l.deaf = true
			rec, err := l.Record(l.Key, l.ID(), p.node.place().addr+"/p2p-circuit")
			if err != nil {
				t.Fatal(err)
			}
			l.asks = func(c *wire.Claim) { c.Addrs = [][]byte{rec} }
			l.says = func(m *wire.Presence) { m.Record = rec }
		}, link, p.ana))
	}
	p.carried(t, p.node.id)
	p.budi.until(p.id, "the community node is its relay", func(v session.View) bool {
		return len(v.Relays) == 1 && v.Relays[0].PeerID == p.node.id && v.Relays[0].Kind == "community" && !v.Relays[0].Vouched && !v.Relays[0].HoldsKey && v.Relays[0].Use == "parent" && len(v.Vouched) == 0
	})
	eventually(t, "the community node forwards", func() bool { return p.node.figures()["balai_relay_forwarded_total"] > before+100 })
	eventually(t, "the doctor says so", func() bool {
		f := doctor(t, p.budi, "path")
		return f.Status == "ok" && strings.Contains(f.Detail, "cannot hear the room") && strings.Contains(f.Detail, "Nobody in this room has vouched for it")
	})
	p.heardAllTheTime(p.watch0(t))
}

// watch0 is watch, and a while of listening.
func (p *play) watch0(t *testing.T) witness {
	t.Helper()
	w := p.watch()
	pause(t, settled+settled/2)
	return w
}

// doctor is what a daemon's doctor says of something.
func doctor(t *testing.T, d *daemon, check string) api.Finding {
	t.Helper()
	var all struct{ Findings []api.Finding }
	var list []api.Finding
	if err := d.Do(t.Context(), "GET", "/doctor", nil, &list); err != nil {
		if err := d.Do(t.Context(), "GET", "/doctor", nil, &all); err != nil {
			t.Fatal(err)
		}
		list = all.Findings
	}
	i := slices.IndexFunc(list, func(f api.Finding) bool { return f.Check == check })
	if i < 0 {
		t.Fatal(fmt.Sprint("the doctor says nothing of ", check, ": ", list))
	}
	return list[i]
}

// Trust test 51, the second half: without any community node sixteen hear each other directly, and the seventeenth is told
// why it cannot come in. The host's doctor says what is wrong and what would help.
func TestNoRelay(t *testing.T) {
	t.Parallel()
	p := newPlay(t, false, never, never)
	p.budi.enter(p.ana.link(p.id, "listener"))
	p.talk()
	p.enter(t, 14)
	p.ana.until(p.id, "sixteen are here", func(v session.View) bool { return v.Audience == 15 })
	v, err := p.citra.Join(t.Context(), p.ana.link(p.id, "listener"), "", true)
	if err != nil {
		t.Fatal(err)
	}
	told := time.Now()
	eventuallyWithin(t, 4*patience, "the seventeenth is refused", func() bool {
		v = p.view(p.citra)
		return v.State.Over()
	})
	t.Logf("the seventeenth was told after %v", time.Since(told).Round(time.Second))
	if v.State != session.Refused || v.Reason != room.NoRelay.String() {
		t.Errorf("the seventeenth is %s, %s", v.State, v.Reason)
	}
	f := doctor(t, p.ana, "path")
	t.Logf("the host's doctor says %+v", f)
	if f.Status == "ok" || !strings.Contains(f.Title+f.Detail, "relay") || !strings.Contains(f.Action, "community relay") {
		t.Errorf("the host's doctor says %+v", f)
	}
	if !strings.Contains(f.Title, "no relay") {
		t.Errorf("somebody was refused with no_relay, and the host's doctor calls it %q", f.Title)
	}
	p.heardAllTheTime(p.watch0(t))
}
