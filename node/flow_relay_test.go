package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"balai/identity"
	"balai/room/media"
	"balai/room/overlay"
)

// tree makes plans of lines like "ana>rita" (ana is up to rita, who takes her own link), "rita>>lena" (rita feeds lena,
// who has rita as parent), "rita..lena" (the same, warm), "rita=rob" (of one core). Who is at the left of a tree without
// a parent is in the core.
func (w *world) tree(lines ...string) {
	w.plans = map[string]*overlay.Plan{}
	for _, p := range w.people {
		w.plans[p.name] = &overlay.Plan{Level: 9}
	}
	feed := func(a, b string, f overlay.Feed) {
		f.Peer = w.named(b).key.ID()
		w.plans[a].Feeds = append(w.plans[a].Feeds, f)
		w.plans[b].Parents = append(w.plans[b].Parents, w.named(a).key.ID())
	}
	for _, l := range lines {
		switch a, b, _ := strings.Cut(l, " "); b[:2] {
		case "> ":
			w.plans[a].Up = append(w.plans[a].Up, w.named(b[2:]).key.ID())
			w.plans[b[2:]].Feeds = append(w.plans[b[2:]].Feeds, overlay.Feed{Peer: w.named(a).key.ID(), Mode: overlay.Warm})
		case ">>":
			feed(a, b[3:], overlay.Feed{Mode: overlay.Single})
		case "..":
			feed(a, b[3:], overlay.Feed{Mode: overlay.Warm})
		case "= ":
			feed(a, b[2:], overlay.Feed{Mode: overlay.Mirror, Direct: true})
			feed(b[2:], a, overlay.Feed{Mode: overlay.Mirror, Direct: true})
		}
	}
	for name, pl := range w.plans {
		if len(pl.Feeds) > 0 && !slices.ContainsFunc(lines, func(l string) bool { return strings.HasSuffix(l, ">> "+name) || strings.HasSuffix(l, ".. "+name) }) {
			pl.Core, pl.Clock, pl.Level, pl.Path = true, true, 0, []overlay.Short{identity.ShortID(w.named(name).key.ID())}
		}
	}
	w.plan()
}

func (w *world) named(name string) *person {
	for _, p := range w.people {
		if p.name == name {
			return p
		}
	}
	w.t.Fatalf("nobody is called %q", name)
	return nil
}

// bubbleOf is bubble with people by name.
func bubbleOf(t *testing.T, names string, do func(w *world, p map[string]*person)) {
	bubble(t, strings.Fields(names), func(w *world, _ []*person) {
		p := map[string]*person{}
		for _, q := range w.people {
			p[q.name] = q
		}
		do(w, p)
	})
}

// A speaker is heard by way of one relay, and of two, and the entries that arrive are the bytes that left.
func TestRelayChain(t *testing.T) {
	bubbleOf(t, "ana rita rob lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "rita >> rob", "rob >> lena")
		sent, got := map[string]bool{}, map[string]int{}
		hops := map[string]uint8{}
		w.onWire(func(from, to *person, b []byte) [][]byte {
			u, err := media.Parse(b)
			if err != nil {
				t.Error(err)
			}
			for e := (media.Entry{}); u.Next(&e); {
				if e.Kind == media.Record {
					continue
				}
				hops[from.name] = max(hops[from.name], u.Hops)
				switch {
				case from == p["ana"]:
					sent[string(e.Raw)] = true
				case to == p["lena"]:
					got[string(e.Raw)]++
				case to == p["ana"]:
					t.Error("something came back to the speaker")
				}
			}
			return [][]byte{b}
		})
		w.talk(2*time.Second, p["ana"])
		w.settle()
		for _, who := range []string{"rita", "rob", "lena"} {
			w.hears(p[who], p["ana"])
			for _, s := range p[who].report().Sources {
				if s.Peer == p["ana"].key.ID() && (s.Silenced || s.Refused != 0 || s.Lost != 0) {
					t.Errorf("%s: %+v", who, s)
				}
			}
		}
		for e, n := range got {
			if !sent[e] || n > 2 || n == 2 && e[0]>>5 != byte(media.Block) {
				t.Errorf("entry of kind %d came %d times, sent: %v", e[0]>>5, n, sent[e])
			}
		}
		if len(got) != len(sent) {
			t.Errorf("%d entries of %d came", len(got), len(sent))
		}
		if hops["ana"] != 0 || hops["rita"] != 1 || hops["rob"] != 2 {
			t.Errorf("hops %v", hops)
		}
		if r := p["rita"].report(); r.Children != 1 || r.Forwarded < 100 || r.UpKbps == 0 {
			t.Errorf("%+v", r)
		}
	})
}
