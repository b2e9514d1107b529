package node

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"balai/node/rtc"
	"balai/room/media"
	"balai/room/sframe"
	"balai/room/wire"
)

// grove is a room with a liar in it: mal is in the core with rita, and the parent of rob, below whom are lena and, below
// her, dewi. Rita is rob's silent parent. What a flow says of a parent is done as an overlay does it.
type grove struct {
	*world
	p     map[string]*person
	lines []string
	done  map[string]int // accusations that were followed
	heard map[string]*hearing
}

// hearing is what somebody heard of ana.
type hearing struct {
	seen   int
	forged int
	last   time.Time // when her own voice was heard last
	gap    time.Duration
	since  time.Time // of a forgery, without her own voice between
	worst  time.Duration
}

const groveNames = "ana rita mal rob lena dewi"

func newGrove(w *world, p map[string]*person) *grove {
	g := &grove{world: w, p: p, done: map[string]int{}, heard: map[string]*hearing{}}
	g.lines = []string{"ana > rita", "ana > mal", "rita = mal", "mal >> rob", "rita .. rob", "rob >> lena", "lena >> dewi"}
	for _, n := range []string{"rob", "lena", "dewi"} {
		g.heard[n] = &hearing{last: time.Now()}
	}
	g.plant()
	return g
}

func (g *grove) plant() {
	g.tree(g.lines...)
	for level, n := range []string{"rob", "lena", "dewi"} {
		g.plans[n].Level = uint32(level + 1)
	}
	g.world.plan()
}

// turn lets ana say a frame, looks at what was heard, and follows the accusations.
func (g *grove) turn() {
	g.p["ana"].say()
	time.Sleep(media.Tick)
	now := time.Now()
	for name, h := range g.heard {
		words := g.p[name].ear.of(g.p["ana"].id())
		for _, word := range words[h.seen:] {
			if word == "forged" {
				if h.forged++; h.since.IsZero() {
					h.since = now
				}
				h.worst = max(h.worst, now.Sub(h.since)+media.Tick)
				continue
			}
			h.gap, h.last, h.since = max(h.gap, now.Sub(h.last)), now, time.Time{}
		}
		h.seen = len(words)
	}
	for name, p := range g.p {
		for _, e := range p.accused()[g.done[name]:] {
			g.done[name]++
			if e.Peer != g.p["mal"].key.ID() || name != "rob" {
				continue // shown by blamed
			}
			g.lines = slices.DeleteFunc(g.lines, func(l string) bool { return l == "rita .. rob" || l == "rita >> rob" || e.Proven && l == "mal >> rob" })
			g.lines = append(g.lines, "rita >> rob")
			g.plant()
		}
	}
}

// left tells whether rob has left mal.
func (g *grove) left() bool { return !slices.Contains(g.lines, "mal >> rob") }

// blamed checks that nobody accuses anybody but mal.
func (g *grove) blamed(t *testing.T) {
	t.Helper()
	for name, p := range g.p {
		for _, e := range p.accused() {
			if e.Proven && e.Peer != g.p["mal"].key.ID() {
				t.Errorf("%s says that an honest parent lies", name)
			}
		}
	}
}

// lie is what mal does to ana's frames, in the bundles to rob.
type lie struct {
	noBlocks bool          // leaves her signature blocks out
	bad      bool          // says each time that it was deceived
	ahead    uint32        // forges frames that are to come, too
	both     bool          // sends her own frame after the forged one
	pauses   time.Duration // of honesty, between lies as long
	late     bool          // forges what a block has settled
	reopens  bool          // has its link closed and opened all the time
	junk     bool          // adds blocks that nobody signed, and old ones
}

// tell makes mal lie.
func (g *grove) tell(y lie) {
	ana, mal, rob := g.p["ana"], g.p["mal"], g.p["rob"]
	began := time.Now()
	var ctrs []uint32
	var old [][]byte // blocks
	g.onWire(func(from, to *person, b []byte) [][]byte {
		if from != mal || to != rob || y.pauses > 0 && time.Since(began)/y.pauses%2 == 1 {
			return [][]byte{b}
		}
		u, err := media.Parse(b)
		if err != nil {
			return nil
		}
		var out, after [][]byte
		for e := (media.Entry{}); u.Next(&e); {
			if e.Source != ana.id() {
				out = append(out, slices.Clone(e.Raw))
				continue
			}
			if e.Kind == media.Block {
				old = append(old, slices.Clone(e.Raw))
				if !y.noBlocks {
					out = append(out, slices.Clone(e.Raw))
				}
				if y.bad {
					after = append(after, badEntry(ana.id(), ctrs))
				}
				if y.late {
					for _, c := range ctrs {
						after = append(after, g.forge(ana, c, "forged"))
					}
				}
				ctrs = nil
				continue
			}
			if y.junk && time.Since(began) < time.Second+137*time.Millisecond {
				out = append(out, slices.Clone(e.Raw))
				continue
			}
			ctrs = append(ctrs, e.Ctr)
			if !y.late {
				out = append(out, g.forge(ana, e.Ctr, "forged"))
			}
			if y.ahead > 0 {
				out = append(out, g.forge(ana, e.Ctr+y.ahead, "forged"))
			}
			if y.both {
				after = append(after, slices.Clone(e.Raw))
			}
		}
		if n := len(old); y.junk && n > 0 {
			after = append(after, old[int(u.Seq)%n])
			for i := range 4 {
				unsigned := slices.Clone(old[n-1])
				unsigned[len(unsigned)-1-(4*int(u.Seq)+i)%64] ^= 1
				after = append(after, unsigned)
			}
		}
		var w media.Builder
		w.Begin(u, media.MaxBundle)
		w.Fill(out, after, nil)
		return [][]byte{slices.Clone(w.Bytes())}
	})
}

func badEntry(source uint32, ctrs []uint32) []byte {
	body, err := proto.Marshal(&wire.LinkRecord{Record: &wire.LinkRecord_Bad{Bad: &wire.Bad{Source: source, Ctrs: ctrs}}})
	if err != nil {
		panic("impossible: " + err.Error())
	}
	var h [media.HeaderLen]byte
	(&media.Header{Kind: media.Record}).Put(&h)
	return media.AppendEntry(nil, &h, body)
}

// Trust test 36 below a relay that forges: it is left by its own child and by nobody else, what it forged is heard for 0.6 s
// at most on each level, and the speaker is heard on. BALAI_SEED runs one seed.
func TestBadParentIsLeft(t *testing.T) {
	first, last := uint64(0), uint64(500)
	if testing.Short() {
		last = 50
	}
	if s := os.Getenv("BALAI_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, last = n, n+1
	}
	worst, gap := time.Duration(0), time.Duration(0)
	for seed := first; seed < last && !t.Failed(); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			bubbleOf(t, groveNames, func(w *world, p map[string]*person) {
				r := rand.New(rand.NewPCG(seed, 36))
				y := lie{noBlocks: r.IntN(4) == 0, both: r.IntN(2) == 0, junk: r.IntN(4) == 0}
				if r.IntN(3) == 0 {
					y.ahead = uint32(1 + r.IntN(400))
				}
				w.rand = rand.New(rand.NewPCG(seed, 63))
				w.set(func() {
					ms := r.IntN(40)
					w.delay = func() time.Duration { return time.Duration(5+w.rand.IntN(ms+1)) * time.Millisecond }
					w.loss = []float64{0, 0, 0.01, 0.05}[r.IntN(4)]
				})
				g := newGrove(w, p)
				for range 50 + r.IntN(20) {
					g.turn()
				}
				for _, h := range g.heard {
					h.gap = 0
				}
				g.tell(y)
				for range 250 {
					g.turn()
				}
				if !g.left() {
					t.Errorf("%+v, loss %v: the liar is kept: %+v", y, w.loss, p["rob"].accused())
				}
				g.blamed(t)
				for name, h := range g.heard {
					worst, gap = max(worst, h.worst), max(gap, h.gap)
					if h.worst > sframe.UnsignedLimit+media.Tick || h.gap > 3*time.Second/2 || time.Since(h.last) > 200*time.Millisecond {
						t.Errorf("%+v, loss %v: %s heard %v of forgery, %v without the speaker, her last word %v ago", y, w.loss, name, h.worst, h.gap, time.Since(h.last))
					}
				}
			})
		})
	}
	t.Logf("seeds %d to %d: the longest forgery that anybody heard was %v, the longest time without the speaker %v", first, last-1, worst, gap)
}

// A liar that says each time that it was deceived itself is left too, and so is one that lies by halves; those below keep
// their honest parents.
func TestBadExcusesEnd(t *testing.T) {
	for _, y := range []lie{{bad: true}, {bad: true, pauses: 300 * time.Millisecond}, {pauses: 300 * time.Millisecond}, {bad: true, both: true}, {late: true}, {reopens: true}, {bad: true, reopens: true}} {
		t.Run(strings.Trim(fmt.Sprintf("%+v", y), "{}"), func(t *testing.T) {
			bubbleOf(t, groveNames, func(w *world, p map[string]*person) {
				g := newGrove(w, p)
				for range 50 {
					g.turn()
				}
				g.tell(y)
				at := time.Now()
				for i := range 500 {
					if l := p["rob"].links[p["mal"].key.ID()]; y.reopens && i%7 == 6 {
						p["rob"].flow.RemoveLink(l)
						p["rob"].flow.AddLink(l)
					}
					if g.turn(); g.left() {
						break
					}
				}
				took := time.Since(at)
				for range 50 {
					g.turn()
				}
				g.blamed(t)
				for name, h := range g.heard {
					t.Logf("%s: left after %v, %d frames of forgery, %v at a time, %v without the speaker", name, took, h.forged, h.worst, h.gap)
					if !g.left() || h.worst > sframe.UnsignedLimit+media.Tick || time.Since(h.last) > 50*time.Millisecond || h.forged > 50 {
						t.Errorf("%s: left %v, heard %d frames of forgery, %v at a time, her last word %v ago", name, g.left(), h.forged, h.worst, time.Since(h.last))
					}
				}
			})
		})
	}
}

// A parent that says of honest frames that they are bad silences nobody, and is not left for it.
func TestBadSilencesNobody(t *testing.T) {
	bubbleOf(t, "ana rita lena", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "rita >> lena")
		w.onWire(func(from, to *person, b []byte) [][]byte {
			u, err := media.Parse(b)
			if err != nil || from != p["rita"] || to != p["lena"] {
				return [][]byte{b}
			}
			var out media.Builder
			out.Begin(u, media.MaxBundle)
			for e := (media.Entry{}); u.Next(&e); {
				out.Add(e.Raw)
				if e.Kind == media.Frame {
					out.Add(badEntry(e.Source, []uint32{e.Ctr, e.Ctr + 1, e.Ctr + 2}))
				}
			}
			out.Add(badEntry(12345, []uint32{1}))
			return [][]byte{slices.Clone(out.Bytes())}
		})
		w.talk(3*time.Second, p["ana"])
		w.settle()
		w.hears(p["lena"], p["ana"])
		if a := p["lena"].accused(); len(a) > 0 {
			t.Errorf("accused: %+v", a)
		}
	})
}

// A speaker who signs other frames than it sends, or two blocks over the same frames, makes nobody leave an honest relay.
func TestBadSpeakerBlamesNoRelay(t *testing.T) {
	for _, forked := range []bool{false, true} {
		t.Run(fmt.Sprintf("forked=%v", forked), func(t *testing.T) {
			bubbleOf(t, groveNames, func(w *world, p map[string]*person) {
				g := newGrove(w, p)
				for range 50 {
					g.turn()
				}
				g.twist(forked)
				for range 400 {
					g.turn()
				}
				for name, q := range p {
					for _, e := range q.accused() {
						if e.Proven {
							t.Errorf("%s says that %v lies", name, e.Peer)
						}
					}
				}
				for name, h := range g.heard {
					if t.Logf("%s heard %d frames that were not signed, %v at a time", name, h.forged, h.worst); h.forged == 0 && !forked {
						t.Errorf("%s heard none of it: nothing is shown", name)
					}
				}
			})
		})
	}
}

// twist makes ana lie to the core: what mal gets of her is not what her blocks list, or what another block of hers lists.
func (g *grove) twist(forked bool) {
	ana, mal := g.p["ana"], g.p["mal"]
	signer := sframe.NewBlockSigner(ana.owner(), ana.key.Sign)
	g.onWire(func(from, to *person, b []byte) [][]byte {
		if from != ana || to != mal {
			return [][]byte{b}
		}
		return [][]byte{rebuild(b, func(e *media.Entry) bool {
			switch {
			case e.Kind == media.Frame:
				e.Raw = g.forge(ana, e.Ctr, "forged")
				if forked {
					_ = signer.Add(g.epochs[g.seal].ID, e.Raw, time.Now()) // a full one is signed below
				}
			case e.Kind == media.Block && forked && signer.Pending() > 0:
				h, body, err := signer.Block(nil, time.Now())
				if err != nil {
					g.t.Error(err)
				}
				e.Raw = media.AppendEntry(nil, &h, body)
			}
			return true
		})}
	})
}

// Six honest people on stage are loud in turns, three at a time. The relay goes on with the blocks of those who have just
// left the loudest, which judge nothing at its child: none of the true ones is refused for it, and nobody is silenced.
func TestBadManySpeakersAreNotRefused(t *testing.T) {
	const turn = 75 // ticks that three of them are loud
	stage := []string{"ana", "bo", "cy", "di", "ed", "fi"}
	bubbleOf(t, "ana bo cy di ed fi rita rob", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "bo > rita", "cy > rita", "di > rita", "ed > rita", "fi > rita", "rita >> rob")
		for tick := range 20 * turn {
			for i, name := range stage {
				level := uint8(60)
				if tick/turn%2 == i/3 {
					level = 20
				}
				p[name].clock++
				p[name].leg.Up(rtc.UpFrame{Ctr: p[name].clock, Ticks: 1, Level: level, HasLevel: true, Payload: []byte(name)})
			}
			time.Sleep(media.Tick)
			for _, s := range p["rob"].report().Sources {
				if s.Silenced || s.Refused > 0 {
					t.Errorf("after %v: of %v %d frames and blocks are refused, silenced: %v", time.Duration(tick)*media.Tick, s.Peer, s.Refused, s.Silenced)
					return
				}
			}
		}
		for _, name := range stage {
			if n := len(p["rob"].ear.of(p[name].id())); n < 5*turn {
				t.Errorf("%d frames of %s were heard", n, name)
			}
		}
	})
}

// A speaker who signs blocks over frames that she never sends, as many as a relay passes on, costs nobody else a block.
func TestBadSpeakerSilencesNobodyElse(t *testing.T) {
	bubbleOf(t, "ana bo rita rob", func(w *world, p map[string]*person) {
		w.tree("ana > rita", "bo > rita", "rita >> rob")
		ana := p["ana"]
		ctr, ticks := uint32(60_000), 0
		w.onWire(func(from, to *person, b []byte) [][]byte {
			if ticks++; from != ana || to != p["rita"] || ticks%4 != 0 {
				return [][]byte{b}
			}
			ctr-- // no block is ahead of the one before
			signer := sframe.NewBlockSigner(ana.owner(), ana.key.Sign)
			if err := signer.Add(w.epochs[w.seal].ID, w.forge(ana, ctr, "never sent"), time.Now()); err != nil {
				t.Error(err)
			}
			h, body, err := signer.Block(nil, time.Now())
			if err != nil {
				t.Error(err)
			}
			u, err := media.Parse(b)
			if err != nil {
				t.Error(err)
			}
			var out media.Builder
			out.Begin(u, media.MaxBundle)
			for e := (media.Entry{}); u.Next(&e); {
				out.Add(e.Raw)
			}
			out.Add(media.AppendEntry(nil, &h, body))
			return [][]byte{slices.Clone(out.Bytes())}
		})
		w.talk(5*time.Second, ana, p["bo"])
		w.settle()
		w.hears(p["rob"], p["bo"])
		for _, s := range p["rob"].report().Sources {
			if s.Peer == p["bo"].key.ID() && (s.Silenced || s.Refused > 0) {
				t.Errorf("of bo %d frames and blocks are refused, silenced: %v", s.Refused, s.Silenced)
			}
		}
		if ctr > 60_000-20 {
			t.Errorf("only %d such blocks: nothing is shown", 60_000-ctr)
		}
	})
}

// A speaker who sends her relay frames that she then does not sign, once a minute, does not use up its excuses: its child
// does not leave it.
func TestBadSpeakerAgainAndAgain(t *testing.T) {
	for _, pause := range []time.Duration{30 * time.Second, time.Minute, badClosed} {
		bubbleOf(t, "ana rita rob", func(w *world, p map[string]*person) {
			w.tree("ana > rita", "rita >> rob")
			w.plans["rob"].Level = 1
			w.plan()
			ana := p["ana"]
			lies := false
			w.onWire(func(from, to *person, b []byte) [][]byte {
				if from != ana || to != p["rita"] || !lies {
					return [][]byte{b}
				}
				return [][]byte{rebuild(b, func(e *media.Entry) bool {
					if e.Kind == media.Frame {
						e.Raw = w.forge(ana, e.Ctr, "forged")
					}
					return true
				})}
			})
			w.talk(time.Second, ana)
			w.settle()
			for range 8 {
				w.set(func() { lies = true })
				ana.say()
				time.Sleep(media.Tick)
				w.set(func() { lies = false })
				ana.flow.call(func() { ana.flow.sign(time.Now()) })
				time.Sleep(pause + 45*time.Millisecond) // between a relay's opening again and its child's forgetting, were both a minute
			}
			if !slices.Contains(p["rob"].ear.of(ana.id()), "forged") {
				t.Errorf("%v: rob heard no lie: nothing is shown", pause)
			}
			for _, e := range p["rob"].accused() {
				if e.Proven {
					t.Errorf("%v: an honest relay is called a liar", pause)
				}
			}
		})
	}
}
