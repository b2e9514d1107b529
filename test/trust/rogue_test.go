package trust

import (
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/media"
	"balai/room/session"
	"balai/room/wire"
	"balai/test/hostile"
)

// rogue is a liar that offers to relay, so that the chair puts it into the core. It admits whoever asks and sends
// heartbeats, but not one frame.
type rogue struct {
	*liar
	record []byte // told as its own peer record; nil: where it is
	mu     sync.Mutex
	kids   map[peer.ID]*link        // newest
	asked  map[peer.ID]int          // JOINs
	left   map[peer.ID]int          // goodbyes of children
	modes  map[peer.ID]uint32       // what children want
	ads    map[peer.ID]*wire.Signed // that they showed
	others map[peer.ID][]*wire.LinkRecord
	answer func(from peer.ID, n int) []*wire.LinkRecord // to the nth JOIN, from 1; nil: ADMIT
	beat   func(to peer.ID, h *wire.LinkHeartbeat)      // the last word on a heartbeat; nil: none
}

// newRogue is a member with an offer to relay, which has links with daemons.
func newRogue(t *testing.T, with func(*rogue), by string, at ...*daemon) *rogue {
	t.Helper()
	return newRogueAs(t, nil, with, by, at...)
}

// newRogueAs is one with that key; nil: a new one.
func newRogueAs(t *testing.T, key *identity.Key, with func(*rogue), by string, at ...*daemon) *rogue {
	t.Helper()
	r := &rogue{kids: map[peer.ID]*link{}, asked: map[peer.ID]int{}, left: map[peer.ID]int{}, others: map[peer.ID][]*wire.LinkRecord{}, modes: map[peer.ID]uint32{}, ads: map[peer.ID]*wire.Signed{}}
	newLiarAs(t, key, func(l *liar) {
		r.liar, l.deaf = l, true
		if with != nil {
			with(r)
		}
		l.told = r.hear
		if r.record != nil {
			l.asks = func(c *wire.Claim) { c.Addrs = [][]byte{r.record} }
			l.says = func(m *wire.Presence) { m.Record = r.record }
		}
		l.Handle(hostile.Link, r.serve)
	}, by, at...)
	r.wg.Go(func() { r.offer(idOf(at[0])) })
	r.wg.Go(r.beats)
	return r
}

// serve takes a link that a daemon opens.
func (r *rogue) serve(s *hostile.Stream) {
	var m wire.LinkRecord
	if s.Read(&m) != nil || m.GetOpen() == nil || r.m == nil {
		return
	}
	k := &link{s: s, handle: m.GetOpen().Handle, over: make(chan time.Time, 1)}
	open := &wire.LinkOpen{Room: m.GetOpen().Room, Handle: 1, Carrier: 1}
	if k.write(&wire.LinkRecord{Record: &wire.LinkRecord_Open{Open: open}}) != nil {
		return
	}
	r.liar.mu.Lock()
	r.links[s.Remote()] = k
	r.liar.mu.Unlock()
	r.listen(s)
}

func (r *rogue) linkOf(p peer.ID) *link {
	r.liar.mu.Lock()
	defer r.liar.mu.Unlock()
	return r.links[p]
}

func (r *rogue) hear(from peer.ID, rec *wire.LinkRecord) {
	r.mu.Lock()
	var out []*wire.LinkRecord
	switch m := rec.GetRecord().(type) {
	case *wire.LinkRecord_Join:
		r.asked[from]++
		r.ads[from] = m.Join.Ad
		if r.answer != nil {
			out = r.answer(from, r.asked[from])
		}
		if out == nil {
			r.modes[from] = m.Join.Mode
			out = []*wire.LinkRecord{admit(m.Join.Mode, 0, shortOfID(r.ID()))}
		}
	case *wire.LinkRecord_Feed:
		if _, mine := r.modes[from]; mine {
			r.modes[from] = m.Feed.Mode
		}
	case *wire.LinkRecord_Leave:
		if m.Leave.As == 2 {
			delete(r.modes, from)
			r.left[from]++
		}
	case *wire.LinkRecord_Admit, *wire.LinkRecord_Redirect, *wire.LinkRecord_Busy, *wire.LinkRecord_Close:
		r.others[from] = append(r.others[from], rec)
	}
	r.mu.Unlock()
	for _, o := range out {
		r.tell(from, o)
	}
}

func (r *rogue) tell(to peer.ID, rec *wire.LinkRecord) {
	if k := r.linkOf(to); k != nil {
		_ = k.write(rec) // it may have ended
	}
}

func admit(mode, level uint32, path ...[]byte) *wire.LinkRecord {
	return &wire.LinkRecord{Record: &wire.LinkRecord_Admit{Admit: &wire.JoinAnswer{Mode: mode, Level: level, Path: path, RingMs: 400}}}
}

func shortOfID(p peer.ID) []byte {
	s := identity.ShortID(p)
	return s[:]
}

// count reads a counter.
func (r *rogue) count(m map[peer.ID]int, p peer.ID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return m[p]
}

// adOf is an offer that a key's owner signs.
func adOf(k *identity.Key, id room.ID, seq uint64, record []byte) *wire.Signed {
	return election.Ad{
		Room: id, Seq: seq, Record: record, Reach: election.ReachPublic, Cap: 6000, Slots: 40, Flags: election.HoldsKey, Present: time.Minute, Issued: time.Now(),
	}.Sign(k)
}

// offer tells the room every few seconds that the rogue would relay.
func (r *rogue) offer(to peer.ID) {
	rec := r.record
	if rec == nil {
		var own []string
		for _, a := range r.Addrs() {
			own = append(own, strings.TrimSuffix(a.String(), "/p2p/"+r.ID().String()))
		}
		var err error
		if rec, err = r.Record(r.Key, r.ID(), own...); err != nil {
			panic("impossible: " + err.Error())
		}
	}
	for seq := uint64(1); ; seq++ {
		_ = r.say(to, &wire.StageMessage{Message: &wire.StageMessage_RelayAd{RelayAd: adOf(r.Key, r.m.Room, seq, rec)}}) // tried again
		select {
		case <-r.ctx.Done():
			return
		case <-time.After(4 * time.Second):
		}
	}
}

// beats sends heartbeats on all links.
func (r *rogue) beats() {
	for seq := uint16(0); ; seq++ {
		r.liar.mu.Lock()
		links := map[peer.ID]*link{}
		for p, k := range r.links {
			links[p] = k
		}
		r.liar.mu.Unlock()
		for p, k := range links {
			h := &wire.LinkHeartbeat{Tick: uint64(time.Now().UnixMilli() / media.Tick.Milliseconds()), Path: [][]byte{shortOfID(r.ID())}}
			r.mu.Lock()
			if r.beat != nil {
				r.beat(p, h)
			}
			r.mu.Unlock()
			_ = r.Datagram(p, recordBundle(k.handle, seq, &wire.LinkRecord{Record: &wire.LinkRecord_Heartbeat{Heartbeat: h}})) // the link may be over
		}
		select {
		case <-r.ctx.Done():
			return
		case <-time.After(150 * time.Millisecond):
		}
	}
}

// recordBundle is a datagram with one record.
func recordBundle(handle uint32, seq uint16, rec *wire.LinkRecord) []byte {
	body, err := proto.Marshal(rec)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	var h [media.HeaderLen]byte
	(&media.Header{Kind: media.Record}).Put(&h)
	var b media.Builder
	b.Begin(media.Bundle{Handle: handle, Seq: seq, SendMs: uint16(time.Now().UnixMilli())}, media.MaxBundle)
	b.Add(media.AppendEntry(nil, &h, body))
	return b.Bytes()
}

// askedFirst is a key whose owner the listener asks for a feed before the others: each orders a core by
// SHA-256(room || own peer || peer).
func askedFirst(t *testing.T, id string, listener peer.ID, others ...peer.ID) *identity.Key {
	t.Helper()
	return askedFirstBy(t, id, []peer.ID{listener}, others...)
}

// askedFirstBy is askedFirst by several.
func askedFirstBy(t *testing.T, id string, listeners []peer.ID, others ...peer.ID) *identity.Key {
	t.Helper()
	r, err := room.ParseID(id)
	if err != nil {
		t.Fatal(err)
	}
	place := func(listener, p peer.ID) string {
		h := sha256.Sum256(slices.Concat(r[:], []byte(listener), []byte(p)))
		return string(h[:])
	}
	for {
		k, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(listeners, func(l peer.ID) bool {
			return slices.ContainsFunc(others, func(p peer.ID) bool { return place(l, p) < place(l, k.ID()) })
		}) {
			return k
		}
	}
}

// Trust test 60 over real links: no relay takes a parent that is, or says it is, below it. The room's core is an honest
// member and a rogue; a listener that relays too hears by them.
func TestLoops(t *testing.T) {
	t.Parallel()
	p := newPlay(t, false, nil, nil)
	p.citra.enter(p.ana.link(p.id, "listener"))
	budi := p.budi.place().id
	below := shortOfID(budi)
	var stage atomic.Int32 // what the rogue does to the listener
	link := p.ana.link(p.id, "listener")
	dewi := start(t, "Dewi")
	r := newRogueAs(t, askedFirst(t, p.id, budi, p.citra.place().id, dewi.place().id), func(r *rogue) {
		r.answer = func(from peer.ID, _ int) []*wire.LinkRecord {
			if from == budi && stage.Load() == 0 {
				return []*wire.LinkRecord{admit(5, 2, shortOfID(p.citra.place().id), below, shortOfID(r.ID()))}
			}
			return nil
		}
		r.beat = func(to peer.ID, h *wire.LinkHeartbeat) {
			if to != budi {
				return
			}
			switch stage.Load() {
			case 2:
				h.Path = [][]byte{shortOfID(p.citra.place().id), below, shortOfID(r.ID())}
				h.Level = 2
			case 4:
				h.Tick = 1000
			}
		}
	}, link, p.ana, p.citra)
	dewi.enter(link)
	p.enter(t, 3)
	core := []string{p.citra.id, r.ID().String(), dewi.id} // as many as there have to be: the listener is none of them
	slices.Sort(core)
	eventuallyWithin(t, 2*patience, "the rogue is in the core", func() bool {
		return slices.Equal(slices.Sorted(slices.Values(p.view(p.ana).Core)), core)
	})
	p.budi.enter(link)
	p.talk()
	t.Cleanup(func() {
		if t.Failed() {
			v, err := p.budi.Room(background(t), p.id)
			t.Logf("the rogue is %s, its core was %v; the listener sees the core %v, the chair %s, and uses %+v; asked %d times, left %d times; %v",
				r.ID(), core, v.Core, v.Chair, v.Relays, r.count(r.asked, budi), r.count(r.left, budi), err)
		}
	})
	uses := func() bool {
		v := p.view(p.budi)
		return slices.Contains(append(append(by(v, "parent"), by(v, "warm")...), by(v, "suspect")...), r.ID().String())
	}

	eventuallyWithin(t, 2*patience, "the listener asks the rogue, and leaves it for the path in its ADMIT", func() bool {
		if uses() {
			t.Error("a parent whose path holds its child is held")
			return true
		}
		return r.count(r.asked, budi) >= 2 && r.count(r.left, budi) >= 1
	})
	stage.Store(1)
	eventuallyWithin(t, 2*patience, "the rogue is a parent while its path is good", uses)
	since := p.watch()
	r.mu.Lock()
	clear(r.others)
	r.mu.Unlock()
	var told time.Time
	eventually(t, "the answer to who is above", func() bool {
		if time.Since(told) > 5*time.Second { // again: the link may have ended meanwhile
			told = time.Now()
			r.tell(budi, joinRecord(&wire.Join{Room: r.m.Room[:], Mode: 1, Pass: r.m.Welcome.Pass, HaveParent: true}))
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if slices.ContainsFunc(r.others[budi], func(m *wire.LinkRecord) bool { return m.GetAdmit() != nil }) {
			t.Error("who asks its own child to be its parent is admitted")
		}
		return slices.ContainsFunc(r.others[budi], func(m *wire.LinkRecord) bool { return m.GetBusy() != nil }) || t.Failed()
	})
	for _, s := range []int32{2, 4} {
		eventuallyWithin(t, 2*patience, "the rogue is a parent", uses)
		left := r.count(r.left, budi)
		stage.Store(s)
		at := time.Now()
		eventually(t, "the listener leaves it", func() bool { return !uses() && r.count(r.left, budi) > left })
		t.Logf("stage %d: the rogue was left after %v", s, time.Since(at).Round(100*time.Millisecond))
		stage.Store(s + 1)
	}
	p.heardAllTheTime(since)
	p.child(t)
}

// child is a child that would like to be its parent's parent: it says all that could make it one.
func (p *play) child(t *testing.T) {
	since := p.watch()
	x, at := newPeer(t), p.budi.place()
	id, err := room.ParseID(p.id)
	if err != nil {
		t.Fatal(err)
	}
	pass := p.passOf(keyOf(t, p.ana), x.ID(), nil)
	rec, err := x.Record(x.Key, x.ID(), strings.TrimSuffix(x.Addrs()[0].String(), "/p2p/"+x.ID().String()))
	if err != nil {
		t.Fatal(err)
	}
	ads := []*wire.Signed{adOf(x.Key, id, 1, rec)}
	var c *caller
	eventually(t, "the listener that relays takes a child", func() bool {
		if c, err = dial(t.Context(), x, at, id); err != nil {
			return false
		}
		a, err := c.join(&wire.Join{Room: id[:], Mode: 1, Pass: pass, Ad: ads[0]})
		return err == nil && a.GetAdmit() != nil
	})
	var asked atomic.Int32
	_ = c.s.SetDeadline(time.Now().Add(4 * time.Second)) // the end of the loop below
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			var r wire.LinkRecord
			if c.s.Read(&r) != nil {
				return
			}
			if r.GetJoin() != nil {
				asked.Add(1)
			}
		}
	}()
	for n := uint16(0); n < 30; n++ {
		for _, r := range []*wire.LinkRecord{
			{Record: &wire.LinkRecord_Redirect{Redirect: &wire.Redirect{Ads: ads}}},
			{Record: &wire.LinkRecord_Busy{Busy: &wire.Busy{Ads: ads}}},
			{Record: &wire.LinkRecord_Leave{Leave: &wire.LinkLeave{As: 1, Ads: ads}}},
			admit(1, 0, shortOfID(x.ID())),
		} {
			_ = c.s.Write(r) // it may have ended
		}
		_ = x.Datagram(at.id, recordBundle(c.handle, n, &wire.LinkRecord{Record: &wire.LinkRecord_Heartbeat{Heartbeat: &wire.LinkHeartbeat{
			Tick: 1 << 62, Level: 0, Path: [][]byte{shortOfID(at.id), shortOfID(x.ID())},
		}}})) // the same
		pause(t, 100*time.Millisecond)
	}
	<-done
	v := p.view(p.budi)
	if asked.Load() > 0 || slices.ContainsFunc(v.Relays, func(n session.RelayView) bool { return n.PeerID == x.ID().String() }) {
		t.Errorf("a child became a parent: asked %d times, %+v", asked.Load(), v.Relays)
	}
	p.heardAllTheTime(since)
}
