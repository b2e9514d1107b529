package trust

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/media"
	"balai/room/sframe"
	"balai/room/wire"
	"balai/test/hostile"
	"balai/test/stalls"
)

// forger is a rogue that passes on what it hears, as a relay does, and puts own words in the place of one speaker's
// frames when it lies: it has the key, so they open.
type forger struct {
	*rogue
	lies atomic.Bool // from the next block on

	mu    sync.Mutex
	of    sframe.Owner // the speaker
	known bool         // of is
	said  map[uint32]bool
	seq   uint16
	fresh bool // a block has passed since it lies: what it forges now is not known for forged before the next
	n     int  // forged words
}

// pass takes a datagram from another of the core or from a speaker.
func (x *forger) pass(d hostile.Tapped) {
	u, err := media.Parse(d.Data)
	if err != nil {
		return // three bytes that only ask whether the connection lives
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.known {
		return
	}
	var entries [][]byte
	for e := (media.Entry{}); u.Next(&e); {
		switch {
		case e.Source != x.of.Source() || e.Kind > media.Block:
		case e.Kind == media.Block:
			x.fresh = x.lies.Load()
			entries = append(entries, e.Raw)
		case !x.said[e.Ctr]:
			x.said[e.Ctr] = true
			entries = append(entries, x.word(&e))
		}
	}
	if len(entries) == 0 {
		return
	}
	x.rogue.mu.Lock()
	var to []peer.ID
	for p, mode := range x.modes {
		if mode == 1 || mode == 2 {
			to = append(to, p)
		}
	}
	x.rogue.mu.Unlock()
	for _, p := range to {
		k := x.linkOf(p)
		if k == nil || p == d.From {
			continue
		}
		x.seq++
		var b media.Builder
		b.Begin(media.Bundle{Handle: k.handle, Seq: x.seq, SendMs: uint16(time.Now().UnixMilli()), Hops: u.Hops + 1}, media.MaxBundle)
		b.Fill(entries, nil, nil)
		_ = x.Datagram(p, b.Bytes()) // the link may be over
	}
}

// knows tells whether a child has shown an offer to relay.
func (x *forger) knows(child peer.ID) bool {
	x.rogue.mu.Lock()
	defer x.rogue.mu.Unlock()
	return x.ads[child] != nil
}

// word is the frame as it came, or a forged one in its place, at the step of the key that the true one is of.
func (x *forger) word(e *media.Entry) []byte {
	if !x.fresh {
		return e.Raw
	}
	key := x.key()
	key, err := key.Advance(key.Step + uint32(e.Step-uint8(key.Step))&15)
	if err != nil {
		return e.Raw // a step back: the next one is forged again
	}
	s := sframe.NewSealer(x.of, 0)
	s.Rekey(key)
	x.n++
	body, err := s.Seal(nil, e.Head, payload("forged", x.n))
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return media.AppendEntry(nil, (*[media.HeaderLen]byte)(e.Head), body)
}

// enterBelow lets a listener in whose only sending parent is the one named. Whoever answers first becomes the parent: the others
// given stand still meanwhile; and it comes again until what was meant has stayed so.
func (p *play) enterBelow(t *testing.T, d *daemon, link, parent string, core []string, others ...*daemon) {
	t.Helper()
	signal := func(s syscall.Signal) {
		for _, o := range others {
			if err := o.cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	meant := func() bool { return slices.Equal(by(p.view(d), "parent"), []string{parent}) }
	for range 20 {
		p.coreIs(t, core)
		signal(syscall.SIGSTOP)
		d.enter(link)
		for end := time.Now().Add(600 * time.Millisecond); time.Now().Before(end) && !meant(); pause(t, 20*time.Millisecond) {
		}
		signal(syscall.SIGCONT)
		for since := time.Now(); meant() && time.Since(since) < 15*time.Second; pause(t, 100*time.Millisecond) {
			if len(by(p.view(d), "warm")) == 1 && time.Since(since) > settled/2 {
				return
			}
		}
		t.Logf("%s hears by %+v: once more", d.name, p.view(d).Relays)
		if err := d.Leave(t.Context(), p.id); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("%s never heard by the parent that was meant", d.name)
}

func (p *play) coreIs(t *testing.T, core []string) {
	t.Helper()
	eventuallyWithin(t, 2*patience, "the core is as it was meant", func() bool {
		return slices.Equal(slices.Sorted(slices.Values(p.view(p.ana).Core)), core)
	})
}

// Trust test 36 with real daemons: a member of the core forges the frames of a speaker for those below it. Budi hears by it
// and relays to Dewi. The forgery is heard for 0.6 s at most, Budi leaves the forger, both hear the speaker on, and Dewi
// keeps Budi, who was deceived himself.
func TestForgerAboveARelay(t *testing.T) { // alone: on a busy machine a parent is left for lateness
	p := newPlay(t, false, nil, nil)
	elang, dewi := start(t, "Elang"), start(t, "Dewi", never...)
	p.citra.enter(p.ana.link(p.id, "listener"))
	budi, honest := p.budi.place().id, []peer.ID{p.citra.place().id, elang.place().id}
	x := &forger{said: map[uint32]bool{}}
	link := p.ana.link(p.id, "listener")
	below := dewi.place().id
	newRogueAs(t, askedFirstBy(t, p.id, []peer.ID{budi, below}, honest...), func(r *rogue) {
		x.rogue = r
		r.TapTo(x.pass)
		r.answer = func(from peer.ID, _ int) []*wire.LinkRecord { // r.mu is held
			switch ad := r.ads[budi]; {
			case from != below:
				return nil
			case ad == nil: // not yet
				return []*wire.LinkRecord{{Record: &wire.LinkRecord_Busy{Busy: &wire.Busy{RetryMs: 100}}}}
			default:
				return []*wire.LinkRecord{{Record: &wire.LinkRecord_Redirect{Redirect: &wire.Redirect{Ads: []*wire.Signed{ad}}}}}
			}
		}
	}, link, p.ana, p.citra)
	elang.enter(link)
	of := x.sourceOf(p.ana)
	x.mu.Lock()
	x.of, x.known = of, true
	x.mu.Unlock()
	p.enter(t, 3)
	core := []string{p.citra.id, x.ID().String(), elang.id}
	slices.Sort(core)
	uses := func(d *daemon, use, id string) bool { return slices.Contains(by(p.view(d), use), id) }
	p.speaks = attach(p.ana, p.id, "ana")
	p.ana.mute(p.id, false)
	var hears *leg
	for try := 1; ; try++ {
		p.enterBelow(t, p.budi, link, x.ID().String(), core)
		if !x.knows(budi) { // its offer came too late for its JOIN: nobody can be sent to it
			if err := p.budi.Leave(t.Context(), p.id); err != nil {
				t.Fatal(err)
			}
			continue
		}
		p.enterBelow(t, dewi, link, p.budi.id, core, p.citra, elang)
		p.listens, hears = attach(p.budi, p.id, "budi"), attach(dewi, p.id, "dewi")
		p.listens.hears("ana")
		hears.hears("ana")
		if p.hearsOnly(p.budi, x.ID().String()) && p.hearsOnly(dewi, p.budi.id) {
			break
		}
		if try >= 5 {
			t.Fatalf("it did not stay so: %+v, %+v", p.view(dewi).Relays, p.view(p.budi).Relays)
		}
		t.Logf("once more: it did not stay so: %+v and %v, %+v and %v", p.view(dewi).Relays, p.links(dewi), p.view(p.budi).Relays, p.links(p.budi))
		for _, d := range []*daemon{dewi, p.budi} { // a busy machine: a parent was late, and another sends too
			if err := d.Leave(t.Context(), p.id); err != nil {
				t.Fatal(err)
			}
		}
	}

	at := time.Now()
	// 0.6 s and a quarter: a figure in frames, which a slow machine does not move; one that stood still does, by what waits then.
	most := func() int { return 40 + int(stalls.Stood(at, time.Now())/tick) }
	x.lies.Store(true)
	blames := func(d *daemon, id string) bool {
		return slices.ContainsFunc(strings.Split(d.stderr.String(), "\n"), func(line string) bool {
			return strings.Contains(line, "their speaker did not sign") && strings.Contains(line, id)
		})
	}
	eventually(t, "Budi leaves the forger for its forgery", func() bool { // on a busy machine also for lateness, and comes back first
		return blames(p.budi, x.ID().String()) && !uses(p.budi, "parent", x.ID().String()) && !uses(p.budi, "warm", x.ID().String()) && x.count(x.left, budi) > 0
	})
	t.Logf("the forger was left after %v", time.Since(at).Round(10*time.Millisecond))
	for _, l := range []*leg{p.listens, hears} {
		eventually(t, l.name+" hears the speaker on", func() bool { return len(l.words("ana", at)) > 150 })
		forged := l.words("forged", at)
		if len(forged) == 0 || len(forged) > most() {
			t.Errorf("%s heard %d forged frames", l.name, len(forged))
		}
		gap, last := time.Duration(0), at
		for _, w := range l.words("ana", at) {
			gap, last = max(gap, w.at.Sub(last)), w.at
		}
		t.Logf("%s heard %d forged frames, and the speaker again after %v", l.name, len(forged), gap.Round(time.Millisecond))
		if j := l.junk(); len(j) > 0 {
			t.Errorf("%s heard what nobody said: %q", l.name, j[0])
		}
	}
	pause(t, 3*time.Second) // whoever blames Budi would have said so by now
	for _, d := range []*daemon{p.ana, p.budi, p.citra, elang, dewi} {
		for _, honest := range []string{p.ana.id, p.budi.id, p.citra.id, elang.id, dewi.id} {
			if blames(d, honest) {
				t.Errorf("%s blames an honest relay", d.name)
			}
		}
	}
	t.Logf("Dewi's parent is still Budi: %v", uses(dewi, "parent", p.budi.id)) // on a busy machine a parent is left for lateness too
	if uses(p.budi, "parent", x.ID().String()) || uses(p.budi, "warm", x.ID().String()) {
		t.Errorf("Budi is back at the forger: %+v", p.view(p.budi).Relays)
	}
	for _, l := range []*leg{p.listens, hears} {
		l.hears("ana")
		if n := len(l.words("forged", at)); n > most() {
			t.Errorf("%s heard %d forged frames in the end", l.name, n)
		}
	}
}
