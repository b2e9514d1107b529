package node

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"balai/identity"
	"balai/node/rtc"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/sframe"
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

// passage is an entry that passed from one to another.
type passage struct {
	from, to string
	raw      string
}

// entries records the entries of some kinds that pass, and how often.
func (w *world) entries(kinds ...media.Kind) map[passage]int {
	seen := map[passage]int{}
	w.onWire(func(from, to *person, b []byte) [][]byte {
		u, err := media.Parse(b)
		if err != nil {
			w.t.Error(err)
		}
		for e := (media.Entry{}); u.Next(&e); {
			if slices.Contains(kinds, e.Kind) {
				seen[passage{from.name, to.name, string(e.Raw)}]++
			}
		}
		return [][]byte{b}
	})
	return seen
}

// countOf is how many different entries of who (nil: anybody) passed, and how often the most frequent did.
func countOf(seen map[passage]int, from, to string, who *person) (n, most int) {
	for p, k := range seen {
		h, _ := media.ParseHeader([]byte(p.raw))
		if p.from == from && p.to == to && (who == nil || h.Source == who.id()) {
			n, most = n+1, max(most, k)
		}
	}
	return n, most
}

// cut lets nothing pass from or to somebody.
func (w *world) cut(dead *person) {
	w.onWire(func(from, to *person, b []byte) [][]byte {
		if from == dead || to == dead {
			return nil
		}
		return [][]byte{b}
	})
}

// With two parents that send nothing is heard twice, and nothing is missed when one of them dies.
func TestRelayParentDies(t *testing.T) {
	bubbleOf(t, "ana rita rob lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "ana > rob", "rita = rob", "rita >> lena", "rob >> lena")
		w.talk(time.Second, p["ana"])
		w.cut(p["rita"])
		w.talk(time.Second, p["ana"])
		w.settle()
		w.hears(p["lena"], p["ana"])
	})
}

// Of the core each forwards to the others what came from the speakers themselves, once, and nothing comes back; with two
// parents a relay below forwards each frame once.
func TestRelayNoLoops(t *testing.T) {
	bubbleOf(t, "ana bo rita rob mid lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "bo > rob", "bo > rita", "rita = rob", "rita >> mid", "rob >> mid", "mid >> lena")
		seen := w.entries(media.Frame)
		w.talk(2*time.Second, p["ana"], p["bo"])
		w.settle()
		for _, who := range []string{"rita", "rob", "mid", "lena"} {
			w.hears(p[who], p["ana"])
			w.hears(p[who], p["bo"])
		}
		for _, c := range []struct {
			from, to string
			of       *person
			want     int
		}{
			{"rita", "rob", p["ana"], 100},
			{"rob", "rita", p["ana"], 0},
			{"rita", "ana", nil, 0},
			{"mid", "lena", p["ana"], 100},
			{"mid", "lena", p["bo"], 100},
			{"mid", "rita", nil, 0},
			{"mid", "rob", nil, 0},
			{"lena", "mid", nil, 0},
		} {
			if n, most := countOf(seen, c.from, c.to, c.of); n != c.want || most > 1 {
				t.Errorf("%s to %s: %d frames, want %d; one %d times", c.from, c.to, n, c.want, most)
			}
		}
	})
}

// The frames of those who speak at once leave the core in one bundle for each child.
func TestRelayCoreBundles(t *testing.T) {
	bubbleOf(t, "ana bo rita lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "bo > rita", "rita >> lena")
		w.talk(200*time.Millisecond, p["ana"], p["bo"])
		bundles, frames, late := 0, 0, time.Duration(0)
		said := map[uint32]time.Time{}
		w.onWire(func(from, to *person, b []byte) [][]byte {
			u, _ := media.Parse(b)
			n := 0
			for e := (media.Entry{}); u.Next(&e); {
				switch {
				case e.Kind != media.Frame:
				case to == p["rita"]:
					said[e.Source] = time.Now()
				case to == p["lena"]:
					n++
					late = max(late, time.Since(said[e.Source]))
				}
			}
			if n > 0 {
				bundles, frames = bundles+1, frames+n
			}
			return [][]byte{b}
		})
		for range 50 {
			p["ana"].say()
			time.Sleep(3 * time.Millisecond)
			p["bo"].say()
			time.Sleep(17 * time.Millisecond)
		}
		w.settle()
		if frames != 100 || bundles > 55 || late > coreHold {
			t.Errorf("%d frames in %d bundles, one %v late", frames, bundles, late)
		}
		w.talk(500*time.Millisecond, p["ana"]) // alone: nobody to wait for, once bo is quiet
		w.set(func() { late = 0 })
		w.talk(time.Second, p["ana"])
		w.settle()
		if late != 0 {
			t.Errorf("waited %v for nobody", late)
		}
	})
}

// A relay without any key forwards what it cannot open, and judges it by its blocks.
func TestRelayKeyless(t *testing.T) {
	bubbleOf(t, "ana rita lena", func(w *world, p map[string]*person) {
		p["rita"].keyless = true
		w.tree("ana > rita", "rita >> lena")
		seen := w.entries(media.Frame)
		w.talk(2*time.Second, p["ana"])
		w.settle()
		w.hears(p["lena"], p["ana"])
		if n := len(p["rita"].ear.played()); n != 0 {
			t.Errorf("the relay played %d frames", n)
		}
		without, with := sframe.NewOpener(p["ana"].owner(), 0), sframe.NewOpener(p["ana"].owner(), 0)
		for range sframe.KeptEpochs - 1 {
			without.Hold(sframe.NewEpoch(1), time.Now())
		}
		with.Hold(w.epochs[0], time.Now())
		for e := range seen {
			if e.from != "rita" {
				continue
			}
			en, _, err := media.ParseEntry([]byte(e.raw))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := without.Open(nil, en.Head, en.Body, time.Now()); err == nil {
				t.Error("opened without the secret")
			}
			if out, err := with.Open(nil, en.Head, en.Body, time.Now()); err != nil || !slices.Contains(p["ana"].said, string(out)) {
				t.Errorf("%q %v", out, err)
			}
		}
		for _, s := range p["rita"].report().Sources {
			if s.Peer == p["ana"].key.ID() && (s.Opened != 0 || s.Frames != 100 || s.Refused != 0 || s.Silenced) {
				t.Errorf("%+v", s)
			}
		}
		w.set(func() { // what nobody signed
			w.tap = func(from, _ *person, b []byte) [][]byte {
				if from != p["ana"] {
					return [][]byte{b}
				}
				return [][]byte{rebuild(b, func(e *media.Entry) bool {
					if e.Kind == media.Frame {
						e.Raw[len(e.Raw)-1] ^= 1
					}
					return true
				})}
			}
		})
		heard := len(p["lena"].ear.of(p["ana"].id()))
		w.talk(2*time.Second, p["ana"])
		w.settle()
		for _, s := range p["rita"].report().Sources {
			if s.Peer == p["ana"].key.ID() && s.Refused < 80 {
				t.Errorf("bad frames are not counted: %+v", s)
			}
		}
		if n := len(p["lena"].ear.of(p["ana"].id())); n != heard {
			t.Errorf("%d changed frames were heard", n-heard)
		}
	})
}

// A frame that lies about its counter makes a keyless relay take the true ones for old only until the next block.
func TestRelayKeylessPoisoned(t *testing.T) {
	bubbleOf(t, "ana rita lena", func(w *world, p map[string]*person) {
		p["rita"].keyless = true
		w.tree("ana > rita", "rita >> lena")
		w.talk(time.Second, p["ana"])
		p["rita"].flow.Receive(p["rita"].links[p["ana"].key.ID()], bundleOf(5000, w.forge(p["ana"], 1<<23, "far ahead")))
		w.talk(500*time.Millisecond, p["ana"])
		p["ana"].said = nil
		p["lena"].ear.forget()
		seen := w.entries(media.Frame)
		w.talk(time.Second, p["ana"])
		w.settle()
		if n, _ := countOf(seen, "rita", "lena", p["ana"]); n != 50 {
			t.Errorf("%d frames of 50 went on", n)
		}
	})
}

// A relay that holds the key forwards no frame that does not open, and the true one still goes on.
func TestRelayForged(t *testing.T) {
	bubbleOf(t, "ana rita lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "rita >> lena")
		forged := map[string]bool{}
		seen := map[string]int{}
		w.onWire(func(from, to *person, b []byte) [][]byte {
			if from == p["ana"] {
				bad := rebuild(b, func(e *media.Entry) bool {
					if e.Kind == media.Frame {
						e.Raw[len(e.Raw)-1] ^= 1
						forged[string(e.Raw)] = true
					}
					return e.Kind == media.Frame
				})
				return [][]byte{bad, rebuild(b, func(e *media.Entry) bool {
					if e.Kind == media.Frame {
						e.Raw[len(e.Raw)-1] ^= 1
					}
					return true
				}), bytes.Clone(b)}
			}
			u, _ := media.Parse(b)
			for e := (media.Entry{}); u.Next(&e); {
				seen[string(e.Raw)]++
			}
			return [][]byte{b}
		})
		w.talk(2*time.Second, p["ana"])
		w.settle()
		w.hears(p["lena"], p["ana"])
		for f := range forged {
			if seen[f] != 0 {
				t.Fatal("a forged frame went on")
			}
		}
	})
}

// Of five who speak, a core relay forwards the loudest three; in its own room it may hear the same or others.
func TestRelayLoudestThree(t *testing.T) {
	bubbleOf(t, "ana bo citra dewi eka rita lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "bo > rita", "citra > rita", "dewi > rita", "eka > rita", "rita >> lena")
		levels := map[string]uint8{"ana": 20, "bo": 25, "citra": 30, "dewi": 50, "eka": 60}
		say := func(d time.Duration) {
			for range d / media.Tick {
				for name, l := range levels {
					p[name].clock++
					p[name].leg.Up(rtc.UpFrame{Ctr: p[name].clock, Ticks: 1, Level: l, HasLevel: true, Payload: []byte{1}})
				}
				time.Sleep(media.Tick)
			}
		}
		check := func(in ...string) {
			t.Helper()
			seen := w.entries(media.Frame)
			say(time.Second)
			synctest.Wait()
			for name := range levels {
				n, _ := countOf(seen, "rita", "lena", p[name])
				if want := slices.Contains(in, name); want != (n > 45) || !want && n > 2 {
					t.Errorf("%s: %d frames went on", name, n)
				}
			}
		}
		say(3 * time.Second)
		check("ana", "bo", "citra")
		levels["eka"] = 10
		say(2 * time.Second)
		check("ana", "bo", "eka")
		delete(levels, "ana")
		delete(levels, "bo")
		levels["dewi"], levels["citra"] = 110, 115 // up to three all go on, however quiet
		say(2 * time.Second)
		check("dewi", "citra", "eka")
	})
}

// Another of the core, who holds the key, forges frames of the near future: while the speaker is heard on its own link they
// are refused, and the true ones are not taken for late.
func TestRelayForgesTheFuture(t *testing.T) {
	bubbleOf(t, "ana rita rob lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "ana > rob", "rita = rob", "rita >> lena")
		forger := sframe.NewSealer(p["ana"].owner(), 0)
		forger.Rekey(w.epochs[w.seal])
		forged, seen := 0, map[string]bool{}
		w.onWire(func(from, to *person, b []byte) [][]byte {
			u, err := media.Parse(b)
			if err != nil {
				return [][]byte{b}
			}
			head, out := u, [][]byte{b}
			for e := (media.Entry{}); u.Next(&e); {
				switch {
				case e.Kind == media.Frame && from == p["rob"] && to == p["rita"] && e.Source == p["ana"].id() && e.Ctr > 50 && e.Ctr+35 >= forger.Next():
					h := e.Header
					h.Ctr, h.Step, h.Epoch = e.Ctr+35, forger.Nibbles()&15, forger.Nibbles()>>4
					var raw [media.HeaderLen]byte
					h.Put(&raw)
					body, err := forger.Seal(nil, raw[:], []byte("a lie"))
					if err != nil {
						t.Fatal(err)
					}
					lie := media.AppendEntry(nil, &raw, body)
					forged++
					seen[string(lie)] = false
					var build media.Builder
					build.Begin(media.Bundle{Handle: head.Handle, Seq: head.Seq, SendMs: head.SendMs, Hops: head.Hops}, media.MaxBundle)
					build.Add(lie)
					out = append(out, bytes.Clone(build.Bytes()))
				case to == p["lena"]:
					if _, lie := seen[string(e.Raw)]; lie {
						seen[string(e.Raw)] = true
					}
				}
			}
			return out
		})
		w.talk(4*time.Second, p["ana"])
		w.settle()
		w.hears(p["lena"], p["ana"])
		if forged < 50 {
			t.Fatalf("%d forged", forged)
		}
		for _, went := range seen {
			if went {
				t.Fatal("a forged frame went on")
			}
		}
	})
}
