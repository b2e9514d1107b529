package election

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

func TestCoreSize(t *testing.T) {
	p := newPeople(t)
	for _, tt := range []struct {
		who       string
		listeners int
		size      int
	}{{"abcdef", 4, 3}, {"abcdef", 2000, 3}, {"abcdef", 2001, 4}, {"ab", 500, 2}, {"a", 500, 1}, {"abcdef", 100_000, 6}, {"abcdef", 3, 0}} {
		out := new(Elector).Elect(p.input(tt.who, tt.listeners), new(Force), at(0))
		if len(out.Ads) != tt.size {
			t.Errorf("%d listeners, candidates %s: core %s", tt.listeners, tt.who, p.show(out.Ads))
		}
	}
}

// The chair carries only where there is no choice.
func TestChairStandsBack(t *testing.T) {
	p := newPeople(t)
	for who, want := range map[string]bool{"habc": false, "hab": false, "ha": true, "h": true} {
		l := Lease{Ads: new(Elector).Elect(p.input(who, 100), new(Force), at(0)).Ads}
		if l.Holds(p.id("h")) != want {
			t.Errorf("candidates %s: core %s", who, p.show(l.Ads))
		}
	}
}

func TestEligible(t *testing.T) {
	p := newPeople(t)
	for name, tt := range map[string]struct {
		change func(c *Candidate)
		want   bool
	}{
		"public":               {func(*Candidate) {}, true},
		"metered":              {func(c *Candidate) { c.Ad.Flags |= Metered }, false},
		"on battery":           {func(c *Candidate) { c.Ad.Flags |= OnBattery }, false},
		"does not consent":     {func(c *Candidate) { c.Ad.Slots = 0 }, false},
		"not heard":            {func(c *Candidate) { c.Live = false }, false},
		"new":                  {func(c *Candidate) { c.Here, c.Order = 59*time.Second, 8 }, false},
		"new, among the first": {func(c *Candidate) { c.Here, c.Order = time.Second, 7 }, true},
		"reached by half":      {func(c *Candidate) { c.Ad.Reach, c.Direct, c.Of = ReachUnknown, 2, 3 }, true},
		"reached by one":       {func(c *Candidate) { c.Ad.Reach, c.Direct, c.Of = ReachUnknown, 1, 3 }, false},
	} {
		in := p.input("a", 100)
		tt.change(&in.Candidates[0])
		if out := new(Elector).Elect(in, new(Force), at(0)); (len(out.Ads) == 1) != tt.want {
			t.Errorf("%s: core %s", name, p.show(out.Ads))
		}
	}
}

// Trust 51: only people behind NAT. A community node that two use carries them, unless the policy forbids it; without
// one the mesh holds up to sixteen; beyond, no relay.
func TestLadder(t *testing.T) {
	p := newPeople(t)
	for _, tt := range []struct {
		name         string
		who          string
		reservations int
		vouchedOnly  bool
		people       int
		want         Outcome
		core         string
	}{
		{"a node that two use", "abu", 2, false, 12, Outcome{Unvouched: true}, "u"},
		{"one alone does not count", "abu", 1, false, 12, Outcome{Assist: true}, ""},
		{"vouched only", "abu", 2, true, 12, Outcome{Assist: true}, ""},
		{"vouched for", "abv", 0, true, 12, Outcome{}, "v"},
		{"sixteen", "ab", 0, false, 16, Outcome{Assist: true}, ""},
		{"seventeen", "ab", 0, false, 17, Outcome{NoRelay: true}, ""},
		{"six", "ab", 0, false, 6, Outcome{}, ""},
	} {
		in := p.input(tt.who, 0)
		in.People, in.Listeners = tt.people, tt.people-3
		state := *p.state
		state.Policy.VouchedOnly = tt.vouchedOnly
		in.State = &state
		for i := range in.Candidates {
			in.Candidates[i].Ad.Reach = ReachUnknown
			in.Candidates[i].Reservations = tt.reservations
		}
		out := new(Elector).Elect(in, new(Force), at(0))
		if out.Assist != tt.want.Assist || out.NoRelay != tt.want.NoRelay || out.Unvouched != tt.want.Unvouched || p.show(out.Ads) != tt.core {
			t.Errorf("%s: %+v, core %s", tt.name, out, p.show(out.Ads))
		}
	}
}

// room runs a chair for a while and tells the cores that it had.
func (p *people) chair(in func(s float64) *Input, e *Elector, f *Force, from, to float64) (cores []string) {
	for s := from; s < to; s++ {
		i := in(s)
		l, _, due := e.Next(i, f, at(s))
		if !due {
			continue
		}
		l.TTL = LeaseTTL
		signed := l.Sign(p.keys[p.names[i.Me]])
		if err := f.Take(signed, p.state, p.ranked(), i.Me, at(s)); err != nil {
			p.t.Fatalf("%.0f s: %v", s, err)
		}
		if c := p.show(signed.Ads); len(cores) == 0 || cores[len(cores)-1] != c {
			cores = append(cores, c)
		}
	}
	return cores
}

func TestRoomStaysWithItsCore(t *testing.T) {
	p := newPeople(t)
	var e Elector
	var f Force
	if cores := p.chair(func(float64) *Input { return p.input("abcdef", 100) }, &e, &f, 0, 300); len(cores) != 1 {
		t.Errorf("cores %q", cores)
	}
	if l := f.Lease(); l.Version != 30 || l.Term != 1 {
		t.Errorf("term %d version %d after five minutes", l.Term, l.Version)
	}
}

// A better one comes in after a minute, not before, and only one in half a minute; noise of a sixteenth changes nothing.
func TestBetterReplacesAfterAMinute(t *testing.T) {
	p := newPeople(t)
	var e Elector
	var f Force
	in := func(s float64) *Input {
		i := p.input("abcdef", 100)
		for k := range i.Candidates {
			c := &i.Candidates[k]
			c.Measured = .4
			if s >= 100 && (p.names[c.Ad.Peer] == "e" || p.names[c.Ad.Peer] == "f") && f.lease != nil {
				c.Measured = 1
			}
		}
		return i
	}
	all := "abcdef"
	first := p.chair(func(s float64) *Input { i := in(0); i.Candidates = i.Candidates[:4]; return i }, &e, &f, 0, 100)
	if len(first) != 1 {
		t.Fatalf("cores %q", first)
	}
	if cores := p.chair(in, &e, &f, 100, 159); len(cores) != 1 || cores[0] != first[0] {
		t.Errorf("within a minute: %q", cores)
	}
	one := p.chair(in, &e, &f, 159, 175)
	two := p.chair(in, &e, &f, 175, 400)
	t.Logf("%s: %q %q %q", all, first, one, two)
	last := f.Lease()
	if len(last.Ads) != 3 || !last.Holds(p.id("e")) || !last.Holds(p.id("f")) {
		t.Errorf("core %s", p.show(last.Ads))
	}
}

// The dead go at once, when the first in rank misses them or most of stage and core say so; and they cool off.
func TestDeadAreReplaced(t *testing.T) {
	p := newPeople(t)
	var e Elector
	var f Force
	in := func(float64) *Input { return p.input("abcd", 100) }
	p.chair(in, &e, &f, 0, 30)
	gone := f.Lease().Core()[0]
	without := func(s float64) *Input {
		i := in(s)
		for k := range i.Candidates {
			i.Candidates[k].Live = i.Candidates[k].Ad.Peer != gone
		}
		return i
	}
	if p.chair(without, &e, &f, 30, 31); f.Lease().Holds(gone) || len(f.Lease().Ads) != 3 {
		t.Errorf("core %s", p.show(f.Lease().Ads))
	}
	kept := f.Lease().Core()
	if p.chair(in, &e, &f, 31, 80); f.Lease().Holds(gone) || len(kept) != 3 {
		t.Errorf("back in %s while it cools off", p.show(f.Lease().Ads))
	}
}

// A lower-ranked chair needs the majority of stage and core.
func TestModeratorNeedsTheMajority(t *testing.T) {
	p := newPeople(t)
	var e Elector
	var f Force
	p.chair(func(float64) *Input { return p.input("abc", 100) }, &e, &f, 0, 5)
	bad := f.Lease().Core()[0]
	says := func(who ...string) func(float64) *Input {
		return func(float64) *Input {
			i := p.input("abcd", 100)
			i.Me, i.First = p.id("m"), false
			i.Voters = []peer.ID{p.id("m"), p.id("s"), p.id("t"), bad}
			for _, w := range who {
				i.Dead[bad] = append(i.Dead[bad], p.id(w))
			}
			return i
		}
	}
	if p.chair(says("s"), &e, &f, 10, 15); !f.Lease().Holds(bad) || f.Lease().By != p.id("m") {
		t.Errorf("one of three was enough: %s", p.show(f.Lease().Ads))
	}
	if p.chair(says("s", "t", "x"), &e, &f, 15, 20); f.Lease().Holds(bad) {
		t.Errorf("two of three were not enough: %s", p.show(f.Lease().Ads))
	}
}

// The first in rank who has found one dead whom nobody else misses needs the others for the next: it may be slow itself.
func TestAChairThatIsSlow(t *testing.T) {
	p := newPeople(t)
	var e Elector
	var f Force
	in := func(float64) *Input { return p.input("abcdef", 100) }
	p.chair(in, &e, &f, 0, 30)
	core := f.Lease().Core()
	without := func(against ...string) func(float64) *Input {
		return func(float64) *Input {
			i := p.input("abcdef", 100)
			for k := range i.Candidates {
				i.Candidates[k].Live = !slices.Contains(core, i.Candidates[k].Ad.Peer)
			}
			for _, c := range core {
				for _, w := range against {
					i.Dead[c] = append(i.Dead[c], p.id(w))
				}
			}
			return i
		}
	}
	if p.chair(without(), &e, &f, 30, 31); f.Lease().Holds(core[0]) {
		t.Fatalf("core %s", p.show(f.Lease().Ads))
	}
	core = f.Lease().Core()
	if p.chair(without(), &e, &f, 32, 45); !slices.Equal(f.Lease().Core(), core) {
		t.Errorf("again by its own eyes: %s", p.show(f.Lease().Ads))
	}
	if p.chair(without("s", "t"), &e, &f, 45, 46); f.Lease().Holds(core[0]) {
		t.Errorf("not even when the others say so: %s", p.show(f.Lease().Ads))
	}
	core = f.Lease().Core()
	if p.chair(without(), &e, &f, 60, 61); f.Lease().Holds(core[0]) {
		t.Errorf("much later it trusts its eyes no more: %s", p.show(f.Lease().Ads))
	}
}

// Whom all call dead after one of whom that was a mistake waits for being replaced, while two others serve; nobody waits when
// they do not, nor where those called dead are, and not who says goodbye. Objections count as long as they do in a room.
func TestReplacementsAreHeld(t *testing.T) {
	p := newPeople(t)
	const who = "abcdefgijkln" // more than cool off at a time
	for _, kind := range []string{"slow", "dead", "started anew"} {
		slow := kind == "slow"
		var e Elector
		var f Force
		died, now := map[peer.ID]float64{}, 0.0
		room := func(dead []peer.ID, gone bool) func(float64) *Input {
			return func(float64) *Input {
				in := p.input(who, 100)
				for i := range in.Candidates {
					c := &in.Candidates[i]
					d, was := died[c.Ad.Peer]
					switch c.Born, c.Said = at(-1000), at(now); {
					case was && kind == "dead":
						c.Said = at(d + 1)
					case was && kind == "started anew":
						c.Born = at(d + 1)
					}
					if slices.Contains(dead, c.Ad.Peer) && now-d < 10 {
						in.Dead[c.Ad.Peer] = []peer.ID{p.id("s"), p.id("t")}
					}
				}
				if gone {
					in.Gone = dead
				}
				return in
			}
		}
		pass := func(s float64) { // with nobody dead
			for end := now + s; now < end; now++ {
				p.chair(room(nil, false), &e, &f, now, now+1)
			}
		}
		replaced := func(dead []peer.ID, gone bool) float64 {
			for _, d := range dead {
				died[d] = now
			}
			for began := now; now-began < 30; now++ {
				if p.chair(room(dead, gone), &e, &f, now, now+1); !slices.ContainsFunc(dead, f.Lease().Holds) {
					return now - began
				}
			}
			t.Fatalf("%s: never replaced: %s of %s", kind, p.show(f.Lease().Ads), who)
			return 0
		}
		pass(30)
		for i, want := range []float64{0, 6, 0, 6} {
			if !slow {
				want = 0
			}
			if got := replaced(f.Lease().Core()[:1], false); got != want {
				t.Errorf("%s: the %d. one after %.0f s, want %.0f", kind, i+1, got, want)
			}
			if pass(4); i == 1 {
				pass(16)
			}
		}
		pass(16)
		for _, tt := range []struct {
			n    int
			gone bool
		}{{2, false}, {1, true}} {
			replaced(f.Lease().Core()[:1], false)
			pass(3)
			if got := replaced(f.Lease().Core()[:tt.n], tt.gone); got != 0 {
				t.Errorf("%s: %d of three, goodbye %t, after %.0f s", kind, tt.n, tt.gone, got)
			}
			pass(30)
		}
	}
}

// One mistake after the other does not keep a dead one in its place for longer than objections count.
func TestMistakesDoNotAddUp(t *testing.T) {
	p := newPeople(t)
	var e Elector
	var f Force
	var first, second, dead peer.ID
	room := func(s float64) *Input {
		in := p.input("abcdefgijkln", 100)
		for i := range in.Candidates {
			c := &in.Candidates[i]
			if c.Born, c.Said = at(-1000), at(s); c.Ad.Peer == second && s < 38 {
				c.Said = at(20)
			}
			if by := []peer.ID{p.id("s"), p.id("t")}; c.Ad.Peer == first && s == 31 || c.Ad.Peer == second && s == 30 || c.Ad.Peer == dead && s >= 34 && s < 44 {
				in.Dead[c.Ad.Peer] = by
			}
		}
		return in
	}
	p.chair(room, &e, &f, 0, 30)
	first, second, dead = f.Lease().Core()[0], f.Lease().Core()[1], f.Lease().Core()[2]
	if p.chair(room, &e, &f, 30, 40); !f.Lease().Holds(dead) || f.Lease().Holds(first) || f.Lease().Holds(second) {
		t.Fatalf("core %s", p.show(f.Lease().Ads))
	}
	if p.chair(room, &e, &f, 40, 44); f.Lease().Holds(dead) {
		t.Errorf("a second mistake keeps the dead: %s", p.show(f.Lease().Ads))
	}
}

// Who says goodbye is missed by nobody, and that does not make the host doubt its eyes.
func TestGoodbyeIsNoMistake(t *testing.T) {
	p := newPeople(t)
	var e Elector
	var f Force
	p.chair(func(float64) *Input { return p.input("abcdef", 100) }, &e, &f, 0, 30)
	core := f.Lease().Core()
	p.chair(func(float64) *Input {
		in := p.input("abcdef", 100)
		in.Candidates = slices.DeleteFunc(in.Candidates, func(c Candidate) bool { return c.Ad.Peer == core[0] })
		in.Gone = core[:1]
		return in
	}, &e, &f, 30, 33)
	p.chair(func(float64) *Input {
		in := p.input("abcdef", 100)
		for i := range in.Candidates {
			in.Candidates[i].Live = in.Candidates[i].Ad.Peer != core[1]
		}
		return in
	}, &e, &f, 33, 34)
	if f.Lease().Holds(core[0]) || f.Lease().Holds(core[1]) {
		t.Errorf("core %s", p.show(f.Lease().Ads))
	}
}

// A chair that has just come to hear nobody at all calls nobody dead: it is more likely that it does not hear. When the first is
// heard again, the others have not spoken yet.
func TestAChairThatHearsNobody(t *testing.T) {
	p := newPeople(t)
	for _, me := range []string{"h", "m"} {
		var e Elector
		var f Force
		var core []peer.ID
		room := func(who string) func(float64) *Input {
			return func(float64) *Input {
				i := p.input(who, 100)
				i.Me, i.First = p.id(me), me == "h"
				if i.Alone = who == "h"; who != "habcdef" {
					i.Voters = []peer.ID{i.Me}
					for _, c := range core {
						i.Dead[c] = i.Voters
					}
				}
				return i
			}
		}
		stays := func(when string) {
			if !slices.Equal(f.Lease().Core(), core) {
				t.Errorf("%s %s: core %s", me, when, p.show(f.Lease().Ads))
			}
		}
		p.chair(room("habcdef"), &e, &f, 0, 5)
		core = f.Lease().Core()
		p.chair(room("h"), &e, &f, 5, 30)
		stays("hears nobody")
		outsider := string("abcdef"[slices.IndexFunc([]string{"a", "b", "c", "d", "e", "f"}, func(n string) bool { return !slices.Contains(core, p.id(n)) })])
		p.chair(room("h"+outsider), &e, &f, 30, 33)
		stays("hears one again")
		p.chair(room("habcdef"), &e, &f, 33, 36)
		stays("hears all again")
		p.chair(room("h"), &e, &f, 40, 41) // it stood still, or another was chair
		stays("has just come")
		if p.chair(room("h"), &e, &f, 41, 90); f.Lease().Holds(core[0]) {
			t.Errorf("%s: nobody is replaced by who is left: %s", me, p.show(f.Lease().Ads))
		}
	}
}

// One of a branch, one of a network, while there is a choice.
func TestDiversity(t *testing.T) {
	p := newPeople(t)
	in := p.input("abcdef", 100)
	for i := range in.Candidates {
		c := &in.Candidates[i]
		switch {
		case i < 3:
			c.Branch, c.Measured = room.InviteID{1}, 1
		case i < 5:
			c.Ad.Prefix, c.Measured = "abc", .9
		}
	}
	out := new(Elector).Elect(in, new(Force), at(0))
	n := map[string]int{}
	for _, a := range out.Ads {
		switch p.names[a.Peer] {
		case "a", "b", "c":
			n["branch"]++
		case "d", "e":
			n["net"]++
		}
	}
	if len(out.Ads) != 3 || n["branch"] != 1 || n["net"] != 1 {
		t.Errorf("core %s", p.show(out.Ads))
	}
}

// Six stay a mesh; the seventh makes a core; four for a minute end it.
func TestMeshAndBack(t *testing.T) {
	p := newPeople(t)
	var e Elector
	var f Force
	with := func(n int) func(float64) *Input {
		return func(float64) *Input { i := p.input("abcd", n-3); return i }
	}
	if cores := p.chair(with(6), &e, &f, 0, 100); len(cores) != 0 {
		t.Fatalf("cores %q of six people", cores)
	}
	if cores := p.chair(with(7), &e, &f, 100, 110); len(cores) != 1 || len(cores[0]) != 3 {
		t.Fatalf("cores %q of seven people", cores)
	}
	p.chair(with(5), &e, &f, 110, 200)
	p.chair(with(4), &e, &f, 200, 259)
	if len(f.Lease().Ads) == 0 {
		t.Fatal("mesh before a minute of four")
	}
	if p.chair(with(4), &e, &f, 259, 262); len(f.Lease().Ads) != 0 {
		t.Errorf("core %s of four people", p.show(f.Lease().Ads))
	}
}

// Two halves meet: both cores serve for a minute, then one core of the usual size.
func TestMergeAfterAPartition(t *testing.T) {
	p := newPeople(t)
	var e Elector
	var f Force
	in := func(float64) *Input { return p.input("abcdef", 100) }
	p.chair(func(float64) *Input { return p.input("abc", 100) }, &e, &f, 0, 20)
	other := Lease{Room: p.state.Room, Term: 2, Version: 7, Grant: room.OpID{9}, Issued: at(15), TTL: LeaseTTL}
	for _, c := range "def" {
		other.Ads = append(other.Ads, p.ad(string(c)))
	}
	if err := f.Take(other.Sign(p.keys["m"]), p.state, p.ranked(), p.id("h"), at(20)); err == nil {
		t.Fatal("the moderator's lease was taken while the host beats")
	}
	if p.chair(in, &e, &f, 20, 25); len(f.Lease().Ads) != 6 {
		t.Errorf("core %s after the halves met", p.show(f.Lease().Ads))
	}
	if p.chair(in, &e, &f, 25, 79); len(f.Lease().Ads) != 6 {
		t.Errorf("core %s within a minute", p.show(f.Lease().Ads))
	}
	if p.chair(in, &e, &f, 79, 200); len(f.Lease().Ads) != 3 {
		t.Errorf("core %s at last", p.show(f.Lease().Ads))
	}
}
