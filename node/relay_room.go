package node

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/node/p2p"
	"balai/room"
	"balai/room/election"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/wire"
)

const (
	relayInbox     = 256
	relayKeeps     = 10 * time.Minute // after the last authority's stream: losing the chair never stops audio
	relayUnused    = 2 * time.Minute  // without a child and without a stream
	relayGoodbye   = 3 * time.Second  // children have this long to move
	relayStops     = time.Second      // and this when the node stops
	relayTend      = time.Second
	relayAdRenew   = 25 * time.Second
	relayJudges    = 20 // leases and digests of links that are looked at in a second
	relayLateCount = 64 // how late the timer was, kept
	relayCalm      = 90 // per cent of the cap below which the load is over
)

// relayRoom is one room that is carried: an overlay, a media path without a key, and links.
type relayRoom struct {
	c        *relays
	id       room.ID
	by       peer.ID // who asked first: the room is charged to it
	began    time.Time
	in       chan func(now time.Time)
	done     chan struct{} // closed when run has returned
	flow     *flow
	links    *relayLinks
	children atomic.Int32
	up       atomic.Uint32 // kbit/s

	passed uint64 // forwarded, as reported last; the flow's goroutine

	pulses overlay.Newest // since the last turn

	// Owned by run.
	book     *relayBook
	guests   map[peer.ID][]room.InviteID // of those linked: not in the ledger; the invites that their passes name
	overlay  *overlay.Overlay
	plan     *overlay.Plan
	fresh    bool // the media path and the overlay know what is in the book
	said     overlay.Situation
	ad       *election.Ad
	adBytes  *wire.Signed
	seq      uint64
	over     bool // upload at its limit
	streams  int
	lonely   time.Time // without a stream since
	unused   time.Time // without a child since
	quitting time.Time // the room ends then; zero: it does not
	tended   time.Time
	judged   int
	judgedAt time.Time
	late     [relayLateCount]time.Duration
	lateAt   int
}

func newRelayRoom(c *relays, b *relayBook, by peer.ID, now time.Time) *relayRoom {
	r := &relayRoom{
		c: c, id: b.id, by: by, began: now, in: make(chan func(time.Time), relayInbox), done: make(chan struct{}),
		book: b, guests: map[peer.ID][]room.InviteID{}, overlay: overlay.New(overlay.Config{Me: c.key.ID(), Room: b.id}), lonely: now, unused: now,
	}
	r.flow = newFlow(flowConfig{
		Sign: c.key.Sign, Report: r.report, Pulse: r.pulses.Put, Dead: func(l mediaLink) { r.links.dead(l) }, Log: c.log,
		Lied: func(e overlay.Lied) { go r.post(func(now time.Time) { r.linkEvent(e, now) }) }, // it waits for its turn
	})
	r.links = &relayLinks{
		host: c.host, id: b.id, flow: r.flow, max: maxRelayLinks, links: map[peer.ID]*relayLink{}, dials: map[peer.ID]*relayDial{},
		event:  func(e overlay.Event) { r.post(func(now time.Time) { r.linkEvent(e, now) }) },
		record: func(l *p2p.Link, rec *wire.LinkRecord) { r.post(func(now time.Time) { r.got(l, rec, now) }) },
		met:    func(p peer.ID, s []*wire.Signed) bool { return r.post(func(now time.Time) { r.meet(p, s) }) },
	}
	return r
}

// post puts do into the inbox; false when the room is over.
func (r *relayRoom) post(do func(now time.Time)) bool {
	select {
	case r.in <- do:
		return true
	case <-r.done:
		return false
	}
}

// call is post, and waits until do has run.
func (r *relayRoom) call(do func(now time.Time)) bool {
	ran := make(chan struct{})
	if !r.post(func(now time.Time) { do(now); close(ran) }) {
		return false
	}
	select {
	case <-ran:
		return true
	case <-r.done:
		return false
	}
}

// report is the media path's word; it runs on the flow's goroutine.
func (r *relayRoom) report(rep session.Report) {
	r.up.Store(rep.UpKbps)
	r.c.forwarded.Add(float64(rep.Forwarded - min(r.passed, rep.Forwarded)))
	r.passed = rep.Forwarded
}

// run carries the room until nobody needs it, or the node stops.
func (r *relayRoom) run(ctx context.Context) {
	defer close(r.done)
	links, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stopping := ctx.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now()
	for {
		select {
		case do := <-r.in:
			do(time.Now())
		case at := <-timer.C:
			r.lateBy(at.Sub(due))
		case <-stopping:
			stopping = nil
			r.quit(time.Now(), relayStops)
		}
		now := time.Now()
		r.tend(now)
		if r.ends(now) {
			break
		}
		r.links.follow(links, r.plan, now)
		due = r.overlay.Next()
		timer.Reset(time.Until(due))
	}
	cancel()
	r.shut()
}

// shut takes down what run used. What still waits in the inbox is let go, so that nobody is held up.
func (r *relayRoom) shut() {
	r.c.forget(r)
	idle, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case <-r.in:
			case <-idle:
				return
			}
		}
	}()
	r.links.shut()
	close(idle)
	<-gone
	r.flow.Close()
	r.children.Store(0)
}

// tend does what is due, and tells the media path, the children and the overlay what is new.
func (r *relayRoom) tend(now time.Time) {
	if !r.fresh || now.Sub(r.tended) >= relayTend {
		r.tended = now
		r.load(now)
		if s := r.book.situation(r.slots(), r.adBytes, r.guests); !r.fresh || s.Slots != r.said.Slots || s.Ad != r.said.Ad {
			r.said = s
			r.step(s, now)
		}
	}
	if !now.Before(r.overlay.Next()) {
		r.step(nil, now)
	}
	if pl := r.overlay.Plan(); pl != r.plan || !r.fresh {
		r.plan, r.fresh = pl, true
		r.flow.Plan(r.book.media(pl))
		r.count(now)
	}
	for _, d := range r.book.takeNews() {
		for _, f := range r.plan.Feeds {
			if !f.Direct {
				r.links.tell(f.Peer, &wire.LinkRecord{Record: &wire.LinkRecord_Digest{Digest: d}})
			}
		}
	}
}

// count follows the number of children.
func (r *relayRoom) count(now time.Time) {
	n := 0
	for _, f := range r.plan.Feeds {
		if !f.Direct {
			n++
		}
	}
	if was := r.children.Swap(int32(n)); n == 0 && was > 0 {
		r.unused = now
	}
}

// listeners are those who hear by me and are not in the ledger: nobody else counts them.
func (r *relayRoom) listeners() (n uint32) {
	for _, f := range r.plan.Feeds {
		if f.Counted && r.isGuest(f.Peer) {
			n++
		}
	}
	return n
}

func (r *relayRoom) isGuest(p peer.ID) bool {
	_, guest := r.guests[p]
	return guest
}

// load tells the overlay when the upload reaches its limit, and when it is clear of it.
func (r *relayRoom) load(now time.Time) {
	up, most := r.up.Load(), r.c.roomCap()
	over := up > most || r.c.used() > r.c.total
	if r.over && !over {
		over = up > most*relayCalm/100
	}
	if over != r.over {
		r.over = over
		r.step(overlay.Load{Over: over}, now)
	}
}

// slots are the children that the room may have: its share, as far as the node has that many left.
func (r *relayRoom) slots() int {
	if !r.quitting.IsZero() {
		return 0
	}
	return r.c.slotsFor(r)
}

// ends tells whether nobody needs the room any more.
func (r *relayRoom) ends(now time.Time) bool {
	children := r.children.Load()
	switch {
	case !r.quitting.IsZero():
		return children == 0 || !now.Before(r.quitting)
	case r.streams > 0:
		return false
	case now.Sub(r.lonely) >= relayKeeps:
		return true
	}
	return children == 0 && now.Sub(r.lonely) >= relayUnused && now.Sub(r.unused) >= relayUnused
}

// quit begins the polite end.
func (r *relayRoom) quit(now time.Time, within time.Duration) {
	if r.quitting.IsZero() {
		r.quitting = now.Add(within)
		r.step(overlay.Quit{}, now)
	}
}

// step feeds the overlay and does what it says.
func (r *relayRoom) step(e overlay.Event, now time.Time) {
	for _, a := range r.overlay.Step(e, now, r.pulses.Take()...) {
		switch a := a.(type) {
		case overlay.Tell:
			r.tell(a)
		case overlay.Ping:
			r.flow.Ping(a.Peer)
		case overlay.Learn:
			for _, ad := range a.Ads {
				_, _ = r.c.host.Learn(ad.Record, a.From, false)
			}
			if a.Lease != nil && r.mayJudge(now) {
				r.takeLease(a.Lease, a.From, now)
			}
		case overlay.Dead:
			r.c.log.Debug("another relay of a room does not answer")
		}
	}
}

// tell sends a record; with an ADMIT go the sources and the newest digest.
func (r *relayRoom) tell(a overlay.Tell) {
	admit := a.Record.GetAdmit()
	told := 0
	if admit != nil {
		told = r.book.fillAdmit(admit)
	}
	r.links.tell(a.Peer, a.Record)
	if admit == nil {
		return
	}
	for _, d := range r.book.all(told) {
		r.links.tell(a.Peer, &wire.LinkRecord{Record: &wire.LinkRecord_Digest{Digest: d}})
	}
}

func (r *relayRoom) takeLease(s *wire.Signed, from peer.ID, now time.Time) {
	l := r.book.takeLease(s, now)
	if l == nil {
		return
	}
	for _, ad := range l.Ads {
		if ad.Peer != r.c.key.ID() {
			_, _ = r.c.host.Learn(ad.Record, from, false)
		}
	}
	r.step(overlay.Leased{Lease: l}, now)
}

// linkEvent is a link that came or went.
func (r *relayRoom) linkEvent(e overlay.Event, now time.Time) {
	switch e := e.(type) {
	case overlay.Linked:
		r.links.heard(e.Peer)
	case overlay.Unlinked:
		delete(r.guests, e.Peer)
	}
	r.step(e, now)
}

// meet takes the own source of one who is on stage.
func (r *relayRoom) meet(p peer.ID, sources []*wire.Signed) {
	if _, onStage := r.book.place(p); !onStage {
		return
	}
	for _, s := range sources[:min(len(sources), 2)] {
		if by, err := identity.PeerOf(s.GetKey()); err == nil && by == p && r.book.takeSource(s) == nil {
			r.fresh = false
		}
	}
}

// got is a record of a link's stream.
func (r *relayRoom) got(l *p2p.Link, rec *wire.LinkRecord, now time.Time) {
	g := overlay.Got{Peer: l.Remote(), Record: rec}
	switch m := rec.GetRecord().(type) {
	case *wire.LinkRecord_Digest:
		if r.plan != nil && slices.Contains(r.plan.Parents, g.Peer) && r.mayJudge(now) {
			r.takeDigest(m.Digest, now)
		}
		return
	case *wire.LinkRecord_Join:
		stranger := false
		if g.Refused, stranger = r.book.mayJoin(g.Peer, m.Join.GetPass(), now); stranger {
			g.Prefix = l.Prefix()
		}
		delete(r.guests, g.Peer)
		if g.Refused != 0 {
			r.c.log.Debug("a JOIN is refused", "reason", g.Refused)
		} else if stranger || guestPass(m.Join.GetPass()) {
			r.guests[g.Peer] = nil
			if !stranger {
				r.guests[g.Peer] = chainOf(m.Join.GetPass())
			}
		}
	}
	r.step(g, now)
}

func (r *relayRoom) takeDigest(m *wire.DigestRecord, now time.Time) {
	if r.book.takeDigest(m.GetDigest(), now) != nil {
		return
	}
	for _, s := range m.GetSources()[:min(len(m.GetSources()), maxRelaySources)] {
		_ = r.book.takeSource(s)
	}
	r.book.takeOps(m.GetOps())
	r.fresh = false
}

// mayJudge bounds the signatures that peers can make this node check.
func (r *relayRoom) mayJudge(now time.Time) bool {
	if now.Sub(r.judgedAt) >= time.Second {
		r.judgedAt, r.judged = now, 0
	}
	r.judged++
	return r.judged <= relayJudges
}

// lateBy notes how late the timer was: what a loaded machine does to frames.
func (r *relayRoom) lateBy(d time.Duration) {
	r.late[r.lateAt] = max(d, 0)
	r.lateAt = (r.lateAt + 1) % relayLateCount
}

// take is a request of p, an authority by its line of grants. The reason is 0 when it was taken.
func (r *relayRoom) take(p peer.ID, req *wire.RelayRequest, now time.Time) room.Reason {
	if reason := r.book.admit(p, now); reason != 0 {
		return reason
	}
	if !r.quitting.IsZero() {
		return room.Busy // it may ask again when the room is gone
	}
	if req.GetDrop() {
		r.quit(now, relayGoodbye)
		return 0
	}
	if err := r.book.takeDigest(req.GetDigest(), now); err != nil {
		r.c.log.Debug("a digest is not taken", "err", err)
	}
	for _, s := range req.GetSources()[:min(len(req.GetSources()), maxRelaySources)] {
		_ = r.book.takeSource(s)
	}
	r.book.takeOps(req.GetOps())
	r.fresh = false
	r.takeLease(req.GetLease(), p, now)
	return 0
}

// offer is this node's ad for the room, made anew when it changed or grows old.
func (r *relayRoom) offer(now time.Time) *wire.Signed {
	a := election.Ad{
		Room: r.id, Cap: r.c.roomCap(), Used: r.up.Load(), Slots: uint32(max(r.slots(), 0)), Lateness: slices.Max(r.late[:]),
		Present: now.Sub(r.began), Flags: election.Community, Prefix: r.c.host.Prefix(), Record: r.c.host.Record(), Issued: now,
	}
	if r.c.host.Reachability() == "public" {
		a.Reach = election.ReachPublic
	}
	if len(a.Record) > maxRelayAdRecord {
		a.Record = nil // it would make the ad, and every lease with it, too long
	}
	if old := r.ad; old != nil && now.Sub(old.Issued) < relayAdRenew && !offerDiffers(&a, old) {
		return r.adBytes
	}
	r.seq++
	a.Seq = uint64(now.UnixMilli()) + r.seq
	r.ad, r.adBytes = &a, a.Sign(r.c.key)
	return r.adBytes
}

// offerDiffers tells whether a chair would choose otherwise. What is used moves all the time, and waits for its turn.
func offerDiffers(a, old *election.Ad) bool {
	return a.Reach != old.Reach || a.Cap != old.Cap || (a.Slots == 0) != (old.Slots == 0) || a.Prefix != old.Prefix || string(a.Record) != string(old.Record)
}
