package node

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/p2p"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/wire"
)

const (
	linkLook     = 250 * time.Millisecond // how often the keeper looks for missing links
	linkPatience = 3 * time.Second        // the side that waits to be called calls after this
	linkTimeout  = 12 * time.Second
	linkPause    = 500 * time.Millisecond // before the first retry, doubled up to linkMaxPause
	linkMaxPause = 5 * time.Second
	linkTrial    = 3 * time.Second // a link that others opened waits so long for a plan that names it
	linkCross    = 5 * time.Second // two links within this time crossed each other: one is too many
	maxTrials    = 64
)

// linkKeeper holds the media links that a session wants. Any goroutine.
type linkKeeper struct {
	j    *joined
	say  func(overlay.Event, ...*wire.Signed) // to the session
	poke chan struct{}
	wg   sync.WaitGroup

	telling sync.Mutex // held while the session is told of links, so that the last word is of what is

	mu      sync.Mutex // guards what follows
	peers   map[peer.ID]*wanted
	members map[peer.ID]bool
	leaving []peer.ID // of these: put out just now
	welcome bool      // whoever calls is heard
	sources []*wire.Signed
	closed  bool
}

// wanted is one peer that a link is wanted with.
type wanted struct {
	dial    bool // it is mine to call
	since   time.Time
	next    time.Time
	pause   time.Duration
	dialing bool
	trial   time.Time // another opened it, and no plan has named the peer yet: when
	link    *p2p.Link
	opened  time.Time
	opener  peer.ID
}

func newLinkKeeper(j *joined) *linkKeeper {
	return &linkKeeper{
		j: j, say: func(e overlay.Event, sources ...*wire.Signed) { j.s.Link(e, sources...) },
		poke: make(chan struct{}, 1), peers: map[peer.ID]*wanted{}, members: map[peer.ID]bool{},
	}
}

// setMembers says who belongs to the room: only they are heard on its topics. Others may open a link, too, and are cut
// unless they are let in as children.
func (k *linkKeeper) setMembers(peers, leaving []peer.ID) {
	m := make(map[peer.ID]bool, len(peers))
	for _, p := range peers {
		m[p] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.members, k.leaving = m, slices.Clone(leaving)
}

func (k *linkKeeper) allMembers() []peer.ID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.members))
}

func (k *linkKeeper) isMember(p peer.ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.members[p]
}

// want follows a plan: the peers that links are held with, those that this side calls, and what it says of itself.
func (k *linkKeeper) want(plan *overlay.Plan, sources []*wire.Signed) {
	now := time.Now()
	k.mu.Lock()
	k.sources, k.welcome = sources, plan.Accept
	drop := k.prune(plan.Links, now)
	for _, p := range plan.Links {
		w := k.peers[p]
		if w == nil {
			w = &wanted{since: now, pause: linkPause}
			k.peers[p] = w
		}
		w.dial, w.trial = slices.Contains(plan.Dial, p), time.Time{}
	}
	k.mu.Unlock()
	for _, l := range drop {
		k.wg.Go(func() { k.drop(l) })
	}
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// prune forgets whom keep does not name, but gives those who have just called a moment. With mu held; the answer is what
// is to be closed.
func (k *linkKeeper) prune(keep []peer.ID, now time.Time) (drop []*p2p.Link) {
	for p, w := range k.peers {
		if slices.Contains(keep, p) || !w.trial.IsZero() && now.Sub(w.trial) < linkTrial {
			continue
		}
		if w.link != nil {
			drop = append(drop, w.link)
			w.link = nil
		}
		delete(k.peers, p)
	}
	return drop
}

func (k *linkKeeper) drop(l *p2p.Link) {
	k.j.flow.RemoveLink(l)
	l.Close()
}

// run opens what is missing until ctx ends, then closes all.
func (k *linkKeeper) run(ctx context.Context) {
	t := time.NewTicker(linkLook)
	defer t.Stop()
	for {
		k.call(ctx, time.Now())
		k.endTrials(time.Now())
		select {
		case <-ctx.Done():
			k.closeAll()
			return
		case <-t.C:
		case <-k.poke:
		}
	}
}

// endTrials closes the links of callers whom no plan has named.
func (k *linkKeeper) endTrials(now time.Time) {
	k.mu.Lock()
	var drop []*p2p.Link
	for p, w := range k.peers {
		if w.trial.IsZero() || now.Sub(w.trial) < linkTrial {
			continue
		}
		if w.link != nil {
			drop = append(drop, w.link)
		}
		delete(k.peers, p)
	}
	k.mu.Unlock()
	for _, l := range drop {
		k.wg.Go(func() { k.drop(l) })
	}
}

// call dials the peers whose turn it is.
func (k *linkKeeper) call(ctx context.Context, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for p, w := range k.peers {
		if w.link != nil || w.dialing || !w.trial.IsZero() || now.Before(w.next) || !w.dial && now.Sub(w.since) < linkPatience {
			continue
		}
		if !w.dial && !k.j.here(p) {
			continue
		}
		w.dialing = true
		sources := k.sources
		k.wg.Go(func() { k.open(ctx, p, w, sources) })
	}
}

func (k *linkKeeper) open(ctx context.Context, p peer.ID, w *wanted, sources []*wire.Signed) {
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	l, err := k.j.d.host.OpenLink(ctx, p, k.j.id, k.config(sources))
	if err != nil {
		k.j.d.log.Debug("no media link", "peer", p, "err", err)
		k.failed(p, w)
		return
	}
	k.mu.Lock()
	w.dialing = false
	k.mu.Unlock()
	k.add(l, k.j.d.key.ID())
}

// failed ends an attempt to call p, who may have called meanwhile: then there is a link.
func (k *linkKeeper) failed(p peer.ID, w *wanted) {
	k.mu.Lock()
	w.dialing = false
	w.next, w.pause = time.Now().Add(w.pause), min(2*w.pause, linkMaxPause)
	k.mu.Unlock()
	k.tellLinked(p, noLink)
}

// tellLinked tells the session whether there is a link with p, if that is what meant says that it is told of: of a link that ends
// and one that opens at the same time the second is what counts, whoever comes to speak first.
func (k *linkKeeper) tellLinked(p peer.ID, meant func(now *p2p.Link) bool) {
	k.telling.Lock()
	defer k.telling.Unlock()
	var now *p2p.Link
	k.mu.Lock()
	if w := k.peers[p]; w != nil {
		now = w.link
	}
	k.mu.Unlock()
	switch {
	case !meant(now):
	case now == nil:
		k.say(overlay.Unlinked{Peer: p})
	default:
		k.say(overlay.Linked{Peer: p}, now.Sources()...)
	}
}

func noLink(now *p2p.Link) bool { return now == nil }

// accept decides about a link that another opens: whom the plan names, and, while callers are welcome, others, who have
// to say soon what they want. What they may have, the session judges.
func (k *linkKeeper) accept(p peer.ID) (p2p.LinkConfig, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	member := k.members[p] && !slices.Contains(k.leaving, p)
	if k.closed || slices.Contains(k.leaving, p) || k.peers[p] == nil && !member && (!k.welcome || k.trials() >= maxTrials) {
		return p2p.LinkConfig{}, false
	}
	if k.peers[p] == nil {
		k.peers[p] = &wanted{since: time.Now(), pause: linkPause, trial: time.Now()}
	}
	if !member && !k.peers[p].trial.IsZero() {
		return k.config(nil), true // who speaks here is told to who is let in
	}
	return k.config(k.sources), true
}

func (k *linkKeeper) trials() (n int) {
	for _, w := range k.peers {
		if !w.trial.IsZero() {
			n++
		}
	}
	return n
}

func (k *linkKeeper) config(sources []*wire.Signed) p2p.LinkConfig {
	return p2p.LinkConfig{
		Sources: sources,
		Receive: func(l *p2p.Link, b []byte) { k.j.flow.Receive(l, b) },
		Record: func(l *p2p.Link, r *wire.LinkRecord) {
			k.j.s.Link(overlay.Got{Peer: l.Remote(), Record: r, Prefix: l.Prefix()})
		},
		Closed: k.gone,
	}
}

// add makes l, which opener opened, the link with its peer, in place of an older one. Of two that crossed each other both
// sides keep the one whose opener has the lower id.
func (k *linkKeeper) add(l *p2p.Link, opener peer.ID) {
	now := time.Now()
	k.mu.Lock()
	w := k.peers[l.Remote()]
	if w == nil || k.closed || w.link != nil && opener > w.opener && now.Sub(w.opened) < linkCross {
		k.mu.Unlock()
		l.Close()
		return
	}
	old := w.link
	w.link, w.pause, w.opened, w.opener = l, linkPause, now, opener
	k.mu.Unlock()
	k.j.flow.AddLink(l)
	k.mu.Lock()
	late := w.link != l // it ended, or nobody wants it any more, before the flow had it
	k.mu.Unlock()
	switch {
	case late:
		k.drop(l)
	case l.Ended(): // perhaps before it was entered, and then nobody says so again
		k.gone(l)
	default:
		k.tellLinked(l.Remote(), func(now *p2p.Link) bool { return now == l })
	}
	if old != nil {
		k.drop(old)
	}
}

// count is how many links are open.
func (k *linkKeeper) count() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.peers {
		if w.link != nil {
			n++
		}
	}
	return n
}

// gone forgets a link that has ended; it is opened again.
func (k *linkKeeper) gone(l *p2p.Link) {
	k.mu.Lock()
	w := k.peers[l.Remote()]
	lost := w != nil && w.link == l
	if lost {
		w.link, w.since, w.next = nil, time.Now(), time.Now().Add(w.pause)
	}
	k.mu.Unlock()
	k.j.flow.RemoveLink(l)
	if lost || w == nil {
		k.tellLinked(l.Remote(), noLink)
	}
}

// dead ends a link on which nothing is heard, so that another is opened; it never blocks.
func (k *linkKeeper) dead(m mediaLink) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.peers[m.Remote()]
	if k.closed || w == nil || w.link == nil || mediaLink(w.link) != m {
		return
	}
	l := w.link
	k.wg.Go(func() {
		k.j.d.log.Debug("nothing is heard on a media link", "peer", l.Remote())
		k.gone(l)
		l.Close()
	})
}

// tell sends a record on the link with p, if there is one.
func (k *linkKeeper) tell(p peer.ID, r *wire.LinkRecord) {
	k.mu.Lock()
	var l *p2p.Link
	if w := k.peers[p]; w != nil {
		l = w.link
	}
	k.mu.Unlock()
	if l != nil {
		l.Tell(r)
	}
}

// degrade marks the links that have to do without datagrams.
func (k *linkKeeper) degrade(links []session.LinkReport) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range links {
		if w := k.peers[links[i].Peer]; w != nil && w.link != nil {
			links[i].Degraded = w.link.Carrier() == p2p.OverStream
		}
	}
}

func (k *linkKeeper) closeAll() {
	k.mu.Lock()
	k.closed = true
	var all []*p2p.Link
	for _, w := range k.peers {
		if w.link != nil {
			all = append(all, w.link)
			w.link = nil
		}
	}
	k.mu.Unlock()
	for _, l := range all { // at once: a goodbye to a dead peer takes its time
		k.wg.Go(func() { k.drop(l) })
	}
	k.wg.Wait()
}
