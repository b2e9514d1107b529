package p2p

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// greetProtocol asks the other side to open its gossip stream anew: one byte, 1 lobby, 2 members, no
// answer. Pubsub sends its greeting (topics and subscriptions) only once for each stream, and after an
// oversize message a stream may be gone for good; this mends both without touching the connection.
const greetProtocol protocol.ID = "/balai/greet/1"

const (
	greetLobby   = 1
	greetMembers = 2

	greetEvery = time.Second            // greetings of one peer that are heeded
	greetPause = 150 * time.Millisecond // for pubsub to notice that its stream is gone
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

func (t *greetings) allow(k greetKey, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for o, at := range t.last {
		if now.Sub(at) >= greetEvery {
			delete(t.last, o)
		}
	}
	if _, ok := t.last[k]; ok {
		return false
	}
	t.last[k] = now
	return true
}

func (h *Host) handleGreetings() {
	h.Handle(greetProtocol, 1, func(s *Stream) {
		_ = s.SetDeadline(time.Now().Add(messageTimeout)) // a dead stream fails in the next line
		var kind [1]byte
		if _, err := io.ReadFull(s.r, kind[:]); err != nil {
			return
		}
		g := h.gossipOf(kind[0])
		p := s.Remote()
		if g == nil || g.gate != nil && !g.gate.has(p) || !h.greetings.allow(greetKey{p, kind[0]}, h.cfg.Now()) {
			return
		}
		_ = s.Close()
		if g.resetStreams(p, network.DirOutbound) > 0 {
			select {
			case <-time.After(greetPause):
			case <-h.ctx.Done():
				return
			}
		}
		g.hail(p)
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

// hail makes pubsub open its stream to p and greet, if it has none.
func (g *Gossip) hail(p peer.ID) {
	if g.h.ctx.Err() != nil || !g.h.speaks(p, g.proto) {
		return
	}
	err := g.h.greet.Emit(event.EvtPeerProtocolsUpdated{Peer: p, Added: []protocol.ID{g.proto}})
	if err != nil {
		g.h.cfg.Log.Debug("greet", "peer", p, "err", err)
	}
}

// askGreeting asks p to greet, in the background.
func (g *Gossip) askGreeting(p peer.ID) {
	g.h.spawn(func() {
		ctx, cancel := context.WithTimeout(g.h.ctx, messageTimeout)
		defer cancel()
		s, err := g.h.Open(ctx, p, greetProtocol)
		if err != nil {
			return
		}
		_ = s.SetDeadline(time.Now().Add(messageTimeout))
		if _, err := s.s.Write([]byte{g.kind()}); err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
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

// mend greets, or asks to be greeted by, each peer whose stream is gone and each member that has been
// silent for 10 s; again after 20, 40, 60 s at most. In the lobby silence is the rule.
func (g *Gossip) mend(now time.Time) {
	g.prune(now)
	g.regreet()
	for _, p := range g.h.host.Network().Peers() {
		if g.gate != nil && !g.gate.has(p) || !g.h.speaks(p, g.proto) {
			continue
		}
		if len(g.streams(p, network.DirOutbound)) == 0 {
			g.hail(p)
		}
		if g.silent(p, len(g.streams(p, network.DirInbound)) == 0, now) {
			g.askGreeting(p)
		}
	}
}

// silent tells whether it is time to ask p for a greeting, and notes it.
func (g *Gossip) silent(p peer.ID, gone bool, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.flows[p]
	if f == nil {
		f = newFlow(now)
		g.flows[p] = f
	}
	wait := silentAfter << min(f.asked, 3)
	wait = min(wait, time.Minute)
	if gone {
		wait = watchEvery << min(f.asked, 4)
	}
	if !gone && (g.gate == nil || now.Sub(f.heard) < silentAfter) || now.Sub(later(f.greeted, f.heard)) < wait {
		return false
	}
	f.greeted = now
	f.asked++
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// prune forgets peers that have gone.
func (g *Gossip) prune(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	net := g.h.host.Network()
	for p, f := range g.flows {
		if now.Sub(f.heard) > time.Minute && net.Connectedness(p) != network.Connected {
			delete(g.flows, p)
		}
	}
	for p := range g.refused {
		if net.Connectedness(p) != network.Connected {
			delete(g.refused, p)
		}
	}
}
