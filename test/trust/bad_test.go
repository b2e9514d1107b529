package trust

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/media"
	"balai/room/sframe"
	"balai/room/wire"
	"balai/test/hostile"
)

// forger is a rogue that passes on what it hears, as a relay does, and puts own words in the place of one speaker's
// frames when it lies: it has the key, so they open.
type forger struct {
	*rogue
	lies atomic.Bool

	mu    sync.Mutex
	of    sframe.Owner // the speaker
	known bool         // of is
	said  map[uint32]bool
	seq   uint16
	n     int // forged words
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

// word is the frame as it came, or a forged one in its place, at the step of the key that the true one is of.
func (x *forger) word(e *media.Entry) []byte {
	if !x.lies.Load() {
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

// enterBelow lets a listener in whose only sending parent is the one named. Who answers first on a busy machine is chance:
// it comes again until that is so.
func (p *play) enterBelow(t *testing.T, d *daemon, link, parent string) {
	t.Helper()
	for range 30 {
		d.enter(link)
		var since time.Time
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); pause(t, 100*time.Millisecond) {
			v := p.view(d)
			active := by(v, "parent")
			if len(active) != 1 || len(by(v, "warm")) != 1 {
				since = time.Time{}
				continue
			}
			if active[0] != parent {
				break
			}
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) > settled/2 {
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

// Trust test 36 with real daemons: a member of the core forges the frames of a speaker for those below it. Budi hears by it
// and relays to Dewi. The forgery is heard for 0.6 s at most, Budi leaves the forger, both hear the speaker on, and Dewi
// keeps Budi, who was deceived himself.
func TestForgerAboveARelay(t *testing.T) {
	t.Parallel()
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
			if ad := r.ads[budi]; from == below && ad != nil {
				return []*wire.LinkRecord{{Record: &wire.LinkRecord_Redirect{Redirect: &wire.Redirect{Ads: []*wire.Signed{ad}}}}}
			}
			return nil
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
	eventuallyWithin(t, 2*patience, "the forger is in the core", func() bool {
		return slices.Equal(slices.Sorted(slices.Values(p.view(p.ana).Core)), core)
	})
	uses := func(d *daemon, use, id string) bool { return slices.Contains(by(p.view(d), use), id) }
	p.enterBelow(t, p.budi, link, x.ID().String())
	p.talk()
	p.enterBelow(t, dewi, link, p.budi.id)
	hears := attach(dewi, p.id, "dewi")
	hears.hears("ana")
	if !uses(dewi, "parent", p.budi.id) || !uses(p.budi, "parent", x.ID().String()) || p.linked(p.budi, p.ana.id) {
		t.Fatalf("it did not stay so: %+v, %+v", p.view(dewi).Relays, p.view(p.budi).Relays)
	}

	at := time.Now()
	x.lies.Store(true)
	eventually(t, "Budi leaves the forger", func() bool {
		return !uses(p.budi, "parent", x.ID().String()) && !uses(p.budi, "warm", x.ID().String()) && x.count(x.left, budi) > 0
	})
	t.Logf("the forger was left after %v", time.Since(at).Round(10*time.Millisecond))
	for _, l := range []*leg{p.listens, hears} {
		eventually(t, l.name+" hears the speaker on", func() bool { return len(l.words("ana", at)) > 150 })
		forged := l.words("forged", at)
		if len(forged) == 0 || len(forged) > 40 { // 0.6 s and a quarter: a figure in frames, which a slow machine does not move
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
	blames := func(d *daemon, id string) bool {
		return slices.ContainsFunc(strings.Split(d.stderr.String(), "\n"), func(line string) bool {
			return strings.Contains(line, "their speaker did not sign") && strings.Contains(line, id)
		})
	}
	if !blames(p.budi, x.ID().String()) {
		t.Error("Budi left the forger for another reason")
	}
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
		if n := len(l.words("forged", at)); n > 40 {
			t.Errorf("%s heard %d forged frames in the end", l.name, n)
		}
	}
}
