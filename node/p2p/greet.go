package p2p

import (
	"context"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// greetProtocol starts the gossip between two peers over, without touching their connection. Pubsub tells
// its topics only once for each stream that it opens, and forgets the other's whenever a stream of its own
// ends: after an oversize message, or an admission, one side may know nothing of the other for good.
//
// The peer with the lower id leads. It ends its own gossip stream, opens a greet stream and writes one byte:
// 1 lobby, 2 members. The other ends its gossip stream too, opens a new one and answers with the same byte;
// then the leader opens its new one. So each side hears the other's topics after it forgot them. The peer
// with the higher id asks for this with the byte + 0x80, which has no answer.
const greetProtocol protocol.ID = "/balai/greet/1"

const (
	greetLobby   = 1
	greetMembers = 2
	greetNudge   = 0x80

	greetEvery = time.Second            // greetings of one peer that are heeded
	endPause   = 100 * time.Millisecond // for pubsub to notice that a stream of its own is gone
)

type greetKey struct {
	peer peer.ID
	kind byte
}

// greetings bounds what a peer can make this host do.
type greetings struct {
	mu   sync.Mutex
	last map[greetKey]time.Time
}

// wait books the next greeting of a kind, one in greetEvery, and tells how long until then; false: one is
// waiting already.
func (t *greetings) wait(k greetKey, now time.Time) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for o, at := range t.last {
		if now.Sub(at) >= greetEvery {
			delete(t.last, o)
		}
	}
	next := now
	if last, ok := t.last[k]; ok {
		next = last.Add(greetEvery)
	}
	if next.Sub(now) > greetEvery {
		return 0, false
	}
	t.last[k] = next
	return next.Sub(now), true
}

func (h *Host) handleGreetings() {
	h.Handle(greetProtocol, 1, func(s *Stream) {
		_ = s.SetDeadline(time.Now().Add(messageTimeout)) // a dead stream fails in the next line
		var kind [1]byte
		if _, err := io.ReadFull(s.r, kind[:]); err != nil {
			return
		}
		p := s.Remote()
		g := h.gossipOf(kind[0] &^ greetNudge)
		if g == nil || g.gate != nil && !g.gate.has(p) {
			return
		}
		if d, ok := h.greetings.wait(greetKey{p, kind[0]}, h.cfg.Now()); !ok || !pause(h.ctx, d) {
			return
		}
		switch nudge := kind[0]&greetNudge != 0; {
		case nudge && g.leads(p):
			g.askGreeting(p)
		case !nudge && !g.leads(p):
			if !g.busy(p, true) {
				return
			}
			defer g.busy(p, false)
			g.end(h.ctx, p)
			g.hail(p)
			_, _ = s.s.Write(kind[:]) // the leader goes on without the answer, only later
		}
	})
}

func (h *Host) gossipOf(kind byte) *Gossip {
	switch kind {
	case greetLobby:
		return h.lobby
	case greetMembers:
		return h.members
	}
	return nil
}

func (g *Gossip) kind() byte {
	if g.gate != nil {
		return greetMembers
	}
	return greetLobby
}

// leads tells which side starts over.
func (g *Gossip) leads(p peer.ID) bool { return g.h.ID() < p }

// drop makes pubsub end its stream to p and forget p's topics, without opening another by itself. (Pubsub
// offers this as a blacklisting; our blacklists take no additions.)
func (g *Gossip) drop(p peer.ID) { g.ps.BlacklistPeer(p) }

// end drops p and waits until pubsub has noticed that the stream is gone: a notice that came later would
// take the next stream for dead.
func (g *Gossip) end(ctx context.Context, p peer.ID) {
	g.drop(p)
	pause(ctx, endPause)
}

// pause waits for d; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// askGreeting starts over with p, or asks p to, in the background.
func (g *Gossip) askGreeting(p peer.ID) {
	if !g.busy(p, true) {
		return
	}
	g.h.spawn(func() {
		defer g.busy(p, false)
		ctx, cancel := context.WithTimeout(g.h.ctx, messageTimeout)
		defer cancel()
		if err := g.greetNow(ctx, p); err != nil {
			g.h.cfg.Log.Debug("greeting", "peer", p, "err", err)
		}
	})
}

// isBusy tells whether p is being started over with.
func (g *Gossip) isBusy(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, busy := g.greeting[p]
	return busy
}

// busy marks p as being greeted; false: it is already.
func (g *Gossip) busy(p peer.ID, on bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, was := g.greeting[p]
	if on {
		g.greeting[p] = struct{}{}
	} else {
		delete(g.greeting, p)
	}
	return !was
}

func (g *Gossip) greetNow(ctx context.Context, p peer.ID) error {
	s, err := g.h.Open(ctx, p, greetProtocol)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // over
	if err := s.SetDeadline(time.Now().Add(messageTimeout)); err != nil {
		return err
	}
	if !g.leads(p) {
		_, err := s.s.Write([]byte{g.kind() | greetNudge})
		return err
	}
	g.end(ctx, p)
	defer g.hail(p)
	if _, err := s.s.Write([]byte{g.kind()}); err != nil {
		return err
	}
	_, err = io.ReadFull(s.r, make([]byte, 1))
	return err
}

// hail makes pubsub open its stream to p and greet, if it has none.
func (g *Gossip) hail(p peer.ID) {
	if g.h.ctx.Err() != nil || !g.speaks(p) {
		return
	}
	err := g.h.greet.Emit(event.EvtPeerProtocolsUpdated{Peer: p, Added: []protocol.ID{g.proto}})
	if err != nil {
		g.h.cfg.Log.Debug("greet", "peer", p, "err", err)
	}
}

// regreet asks those to greet again whose subscriptions were refused and would be let in now.
func (g *Gossip) regreet() {
	for _, p := range g.readmitted() {
		g.askGreeting(p)
	}
}

func (g *Gossip) readmitted() (out []peer.ID) {
	type pair struct {
		p     peer.ID
		topic string
	}
	var asked []pair
	g.mu.Lock()
	for p, topics := range g.refused {
		for name := range topics {
			if g.topics[name] != nil {
				asked = append(asked, pair{p, name})
			}
		}
	}
	g.mu.Unlock()
	for _, a := range asked { // the topic's own filter is foreign code: not under the lock
		if !slices.Contains(out, a.p) && g.mayJoin(a.p, a.topic) {
			out = append(out, a.p)
		}
	}
	g.mu.Lock()
	for _, p := range out {
		delete(g.refused, p)
	}
	g.mu.Unlock()
	return out
}

// watch mends gossip streams until the host closes.
func (h *Host) watch() {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
			h.lobby.mend(h.cfg.Now())
			h.members.mend(h.cfg.Now())
		}
	}
}

// mend opens the stream to each peer that has none, and starts over with each that is in no topic known
// here for 3 s, or to which the stream runs over a circuit though there is better, and among members with
// each that has been silent for 10 s; again and again, ever later. In the lobby silence is the rule.
func (g *Gossip) mend(now time.Time) {
	g.prune(now)
	g.regreet()
	subscribed, topics := g.subscribed()
	for _, p := range g.h.host.Network().Peers() {
		if g.gate != nil && !g.gate.has(p) || !g.speaks(p) || g.isBusy(p) {
			continue
		}
		if len(g.streams(p, network.DirOutbound)) == 0 {
			g.hail(p)
		}
		if topics > 0 && g.broken(p, !subscribed[p], now) || g.outdated(p, now) {
			g.askGreeting(p)
		}
	}
}

// subscribed is who is known to be in any topic joined here, and how many those are.
func (g *Gossip) subscribed() (peers map[peer.ID]bool, topics int) {
	g.mu.Lock()
	names := slices.Collect(maps.Keys(g.topics))
	g.mu.Unlock()
	peers = map[peer.ID]bool{}
	for _, name := range names {
		for _, p := range g.ps.ListPeers(name) {
			peers[p] = true
		}
	}
	return peers, len(names)
}

// broken tells whether it is time to start over with p, and notes it.
func (g *Gossip) broken(p peer.ID, deaf bool, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.flows[p]
	if f == nil {
		f = newFlow(now)
		g.flows[p] = f
	}
	if f.deaf.due(deaf, deafAfter, deafLongest, now) {
		return true
	}
	return g.gate != nil && f.silent.due(now.Sub(f.heard) >= silentAfter, 0, silentLongest, now)
}

// outdated tells whether it is time to bring the stream to p from a circuit to a direct connection. The
// leader goes first; the other asks for it only if nothing comes of that.
func (g *Gossip) outdated(p peer.ID, now time.Time) bool {
	if g.gate == nil {
		return false
	}
	out := g.streams(p, network.DirOutbound)
	old := g.h.host.Network().Connectedness(p) == network.Connected && len(out) > 0 &&
		!slices.ContainsFunc(out, func(s network.Stream) bool { return !s.Conn().Stat().Limited })
	first := deafAfter
	if g.leads(p) {
		first = 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.flows[p]
	return f != nil && f.circuit.due(old, first, silentLongest, now)
}

// patience says when a fault that stays is to be acted on again.
type patience struct {
	since time.Time // first seen, or last acted on
	acted int       // times in a row
}

// due tells whether a fault has been there for first, then for twice as long each time, at most longest.
// A first of 0 is at once, and then silentAfter.
func (p *patience) due(fault bool, first, longest time.Duration, now time.Time) bool {
	if !fault {
		*p = patience{}
		return false
	}
	if p.since.IsZero() {
		p.since = now
	}
	wait := first
	if p.acted > 0 {
		wait = min(max(first, silentAfter)<<min(p.acted-1, 6), longest)
	}
	if now.Sub(p.since) < wait {
		return false
	}
	p.since = now
	p.acted++
	return true
}

// prune forgets peers that have gone.
func (g *Gossip) prune(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, f := range g.flows {
		if now.Sub(f.heard) > time.Minute && !g.near(p) {
			delete(g.flows, p)
		}
	}
	for p := range g.refused {
		if !g.near(p) {
			delete(g.refused, p)
		}
	}
	for p := range g.early {
		if !g.near(p) {
			delete(g.early, p)
		}
	}
}
