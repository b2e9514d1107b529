package session

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/election"
	"balai/room/overlay"
	"balai/room/wire"
)

// lane is one side's end of a media link: no audio, but the link's records and heartbeats.
type lane struct {
	at   *soul
	s    *Session
	peer peer.ID
	back *lane
	gone atomic.Bool
	tick atomic.Uint64 // as the other side said last
	last time.Time     // its last heartbeat
}

// offer is what a soul gives as a relay.
var generous = election.Ad{Reach: election.ReachPublic, Cap: 20_000, Slots: 100}

func (q *ports) Links(plan *overlay.Plan, _ []*wire.Signed) {
	p := q.soul()
	p.mu.Lock()
	p.links, p.place = plan.Links, plan
	p.mu.Unlock()
	if s := p.session(); s != nil {
		time.AfterFunc(0, func() { p.reconcile(s) })
	}
}

// reconcile is the link keeper.
func (p *soul) reconcile(s *Session) {
	p.mu.Lock()
	plan := p.place
	if plan == nil || p.s != s {
		p.mu.Unlock()
		return
	}
	var drop []*lane
	for id, l := range p.lanes {
		if !slices.Contains(plan.Links, id) {
			drop = append(drop, l)
			delete(p.lanes, id)
		}
	}
	var call []peer.ID
	for _, id := range plan.Dial {
		if p.lanes[id] == nil && !p.calling[id] {
			p.calling[id] = true
			call = append(call, id)
		}
	}
	p.mu.Unlock()
	for _, l := range drop {
		l.end()
	}
	for _, id := range call {
		p.w.wg.Go(func() { p.call(s, id) })
	}
}

// end closes both ends.
func (l *lane) end() {
	for _, x := range []*lane{l, l.back} {
		x.at.mu.Lock()
		was := x.gone.Swap(true)
		if x.at.lanes[x.peer] == x {
			delete(x.at.lanes, x.peer)
		}
		x.at.mu.Unlock()
		if !was {
			time.AfterFunc(x.at.w.delay(byLink, x.back.at, x.at), func() { x.s.Link(overlay.Unlinked{Peer: x.peer}) })
		}
	}
}

// call opens a link: one and a half round trips.
func (p *soul) call(s *Session, id peer.ID) {
	to := p.w.find(id)
	if to != nil {
		time.Sleep(3 * p.w.delay(byLink, p, to))
	}
	ok := to != nil && !p.w.apart(p, to) && !p.w.blocked(p, to)
	var t *Session
	if ok {
		t = to.session()
		to.mu.Lock()
		ok = t != nil && to.place != nil && (to.place.Accept || slices.Contains(to.place.Links, p.id))
		to.mu.Unlock()
	} else {
		time.Sleep(time.Second)
	}
	p.mu.Lock()
	delete(p.calling, id)
	linked := p.lanes[id] != nil // it has called meanwhile
	ok = ok && p.place != nil && slices.Contains(p.place.Links, id) && p.lanes[id] == nil && p.s == s
	p.mu.Unlock()
	if !ok {
		if !linked {
			s.Link(overlay.Unlinked{Peer: id})
		}
		time.Sleep(500 * time.Millisecond)
		if p.session() == s {
			p.reconcile(s)
		}
		return
	}
	now := time.Now()
	mine, theirs := &lane{at: p, s: s, peer: id, last: now}, &lane{at: to, s: t, peer: p.id, last: now}
	mine.back, theirs.back = theirs, mine
	for _, l := range []*lane{mine, theirs} {
		l.at.mu.Lock()
		l.at.lanes[l.peer] = l
		l.at.mu.Unlock()
		l.s.Link(overlay.Linked{Peer: l.peer})
	}
}

func (p *soul) lane(id peer.ID) *lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lanes[id]
}

func (q *ports) Tell(id peer.ID, r *wire.LinkRecord) {
	l := q.soul().lane(id)
	if l == nil {
		return
	}
	if r.GetDigest() != nil {
		q.w.count(l.at, "DigestRecord", 1, framed(r))
	}
	time.AfterFunc(q.w.delay(byLink, l.at, l.back.at), func() {
		if !q.w.apart(l.at, l.back.at) && !l.back.gone.Load() {
			l.back.s.Link(overlay.Got{Peer: l.back.peer, Record: r})
		}
	})
}

func (q *ports) Ping(id peer.ID) {
	p := q.soul()
	l := p.lane(id)
	if l == nil {
		return
	}
	time.AfterFunc(2*p.w.delay(byLink, l.at, l.back.at), func() {
		if !p.w.apart(l.at, l.back.at) && !l.gone.Load() && l.back.at.session() == l.back.s {
			l.s.cfg.Pulses.Put(overlay.Pulse{Peer: id, Last: time.Now(), Tick: l.tick.Load()})
		}
	})
}

// beat sends heartbeats on all links while the session runs.
func (p *soul) beat(ctx context.Context, s *Session) {
	time.Sleep(p.w.delay(byLink, p, p)) // not when the session ticks
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		p.mu.Lock()
		place, lanes := p.place, make([]*lane, 0, len(p.lanes))
		for _, l := range p.lanes {
			lanes = append(lanes, l)
		}
		p.mu.Unlock()
		if place == nil || p.session() != s {
			continue
		}
		tick := uint64(time.Now().UnixMilli() / 20)
		if !place.Clock && len(place.Parents) > 0 {
			tick = 0
			for _, l := range lanes {
				if slices.Contains(place.Parents, l.peer) {
					tick = max(tick, l.tick.Load())
				}
			}
		}
		path := make([][]byte, len(place.Path))
		for i := range place.Path {
			path[i] = slices.Clone(place.Path[i][:])
		}
		for _, l := range lanes {
			time.AfterFunc(p.w.delay(byLink, l.at, l.back.at), func() {
				if b := l.back; !p.w.apart(l.at, b.at) && !b.gone.Load() {
					b.tick.Store(tick)
					b.s.cfg.Pulses.Put(overlay.Pulse{Peer: b.peer, Last: time.Now(), Tick: tick, Level: place.Level, Path: path})
				}
			})
		}
	}
}

func (q *ports) Probe(ctx context.Context, id peer.ID) bool {
	p := q.soul()
	to := p.w.find(id)
	if to != nil {
		time.Sleep(2 * p.w.delay(byLink, p, to))
	}
	return to != nil && !p.w.apart(p, to) && !p.w.blocked(p, to) && ctx.Err() == nil
}

func (q *ports) Offer() election.Ad {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.gives
}

func (q *ports) Circuits(peer.ID) []peer.ID { return nil }

func (q *ports) Communities() []peer.ID { return nil }

// blocked tells whether the two cannot link directly, though gossip reaches them.
func (w *world) blocked(a, b *soul) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.block != nil && w.block(a, b)
}
