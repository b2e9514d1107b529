package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/p2p"
	"balai/room"
	"balai/room/overlay"
	"balai/room/wire"
)

// relayLinks holds the media links of one room that is carried, as the overlay's plan says. Any goroutine.
type relayLinks struct {
	host   *p2p.Host
	id     room.ID
	flow   *flow
	max    int
	event  func(overlay.Event)                // of a link that came or went; waits for its turn
	record func(*p2p.Link, *wire.LinkRecord)  // of a link's stream; waits for its turn
	met    func(peer.ID, []*wire.Signed) bool // sources told with a new link
	wg     sync.WaitGroup

	telling sync.Mutex // held while event is called, so that the last word is of what is

	mu     sync.Mutex // guards what follows
	links  map[peer.ID]*relayLink
	dials  map[peer.ID]*relayDial
	closed bool
}

// relayLink is one link. Told: the overlay knows of it, so that its plan speaks of it.
type relayLink struct {
	link  *p2p.Link
	told  bool
	ended bool
}

// relayDial is one peer that is mine to call.
type relayDial struct {
	busy  bool
	next  time.Time
	pause time.Duration
}

// accept decides about a link that another opens.
func (k *relayLinks) accept(l *p2p.Link) *p2p.LinkConfig {
	h := &relayLink{}
	if !k.add(h, l) {
		return nil
	}
	return k.config(h)
}

func (k *relayLinks) config(h *relayLink) *p2p.LinkConfig {
	return &p2p.LinkConfig{Receive: func(l *p2p.Link, b []byte) { k.flow.Receive(l, b) }, Record: k.record, Closed: func(l *p2p.Link) { k.gone(h, l) }}
}

// add makes l the link with its peer, in place of an older one. False: it is not wanted.
func (k *relayLinks) add(h *relayLink, l *p2p.Link) bool {
	p := l.Remote()
	k.mu.Lock()
	old := k.links[p]
	if k.closed || h.ended || old == nil && len(k.links) >= k.max {
		k.mu.Unlock()
		return false
	}
	h.link = l
	k.links[p] = h
	if old != nil {
		k.drop(old.link)
	}
	k.mu.Unlock()
	k.flow.AddLink(l)
	k.mu.Lock()
	late := k.links[p] != h // it ended, or another took its place, before the flow had it
	k.mu.Unlock()
	if late {
		k.flow.RemoveLink(l)
		return true
	}
	k.met(p, l.Sources())
	k.tellLinked(p, func(now *relayLink) bool { return now == h })
	return true
}

// tellLinked tells of the link with p if what is there now is what the caller means: of a link that ends and one that opens at
// the same time the second counts, whoever comes to speak first.
func (k *relayLinks) tellLinked(p peer.ID, meant func(now *relayLink) bool) {
	k.telling.Lock()
	defer k.telling.Unlock()
	k.mu.Lock()
	now := k.links[p]
	k.mu.Unlock()
	switch {
	case !meant(now):
	case now == nil:
		k.event(overlay.Unlinked{Peer: p})
	default:
		k.event(overlay.Linked{Peer: p})
	}
}

func none(now *relayLink) bool { return now == nil }

// gone forgets a link that has ended.
func (k *relayLinks) gone(h *relayLink, l *p2p.Link) {
	p := l.Remote()
	k.mu.Lock()
	h.ended = true
	mine := k.links[p] == h
	if mine {
		delete(k.links, p)
	}
	k.mu.Unlock()
	k.flow.RemoveLink(l)
	if mine {
		k.tellLinked(p, none)
	}
}

// dead ends a link on which nothing is heard; it never blocks.
func (k *relayLinks) dead(m mediaLink) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.links[m.Remote()]; !k.closed && h != nil && mediaLink(h.link) == m {
		k.wg.Go(func() {
			k.gone(h, h.link)
			h.link.Close()
		})
	}
}

// heard notes that the overlay knows of the link with p.
func (k *relayLinks) heard(p peer.ID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.links[p]; h != nil {
		h.told = true
	}
}

// follow closes what the plan does not name, and calls those whom it says to call.
func (k *relayLinks) follow(ctx context.Context, pl *overlay.Plan, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for p, h := range k.links {
		if _, keep := slices.BinarySearch(pl.Links, p); h.told && !keep {
			delete(k.links, p)
			k.drop(h.link)
		}
	}
	for p := range k.dials {
		if _, keep := slices.BinarySearch(pl.Dial, p); !keep {
			delete(k.dials, p)
		}
	}
	for _, p := range pl.Dial {
		d := k.dials[p]
		if d == nil {
			d = &relayDial{pause: linkPause}
			k.dials[p] = d
		}
		if k.links[p] != nil || d.busy || now.Before(d.next) || k.closed {
			continue
		}
		d.busy = true
		k.wg.Go(func() { k.call(ctx, p, d) })
	}
}

func (k *relayLinks) call(ctx context.Context, p peer.ID, d *relayDial) {
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	h := &relayLink{}
	l, err := k.host.OpenLink(ctx, p, k.id, *k.config(h))
	added := err == nil && k.add(h, l)
	k.mu.Lock()
	d.busy = false
	if added {
		d.pause = linkPause
	} else {
		d.next, d.pause = time.Now().Add(d.pause), min(2*d.pause, linkMaxPause)
	}
	k.mu.Unlock()
	if err == nil && !added {
		l.Close()
	}
	k.tellLinked(p, none)
}

// tell sends a record to p, if there is a link.
func (k *relayLinks) tell(p peer.ID, r *wire.LinkRecord) {
	k.mu.Lock()
	h := k.links[p]
	k.mu.Unlock()
	if h != nil {
		h.link.Tell(r)
	}
}

// drop ends a link; what was told goes out first.
func (k *relayLinks) drop(l *p2p.Link) {
	k.wg.Go(func() {
		k.flow.RemoveLink(l)
		l.Close()
	})
}

// shut refuses new links and ends those that there are. It waits for that.
func (k *relayLinks) shut() {
	k.mu.Lock()
	k.closed = true
	for p, h := range k.links {
		delete(k.links, p)
		k.drop(h.link)
	}
	k.mu.Unlock()
	k.wg.Wait()
}
