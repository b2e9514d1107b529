package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// quicLead is how much earlier than TCP a peer's QUIC addresses are dialled: media want QUIC, and a second
// connection to a peer is not made later.
const quicLead = 500 * time.Millisecond

// rankDials is libp2p's order with a longer lead for QUIC, among private addresses and among public ones. What
// comes after public TCP, circuits, comes as much later.
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	ranked := swarm.DefaultDialRanker(addrs)
	private, public := tcpLate(ranked, true), tcpLate(ranked, false)
	for i, r := range ranked {
		switch {
		case isCircuit(r.Addr):
			ranked[i].Delay += public
		case has(r.Addr, ma.P_QUIC_V1):
		case manet.IsPrivateAddr(r.Addr):
			ranked[i].Delay += private
		default:
			ranked[i].Delay += public
		}
	}
	return ranked
}

// tcpLate is how much later the TCP addresses of a group must be dialled to keep quicLead.
func tcpLate(ranked []network.AddrDelay, private bool) time.Duration {
	quic, tcp := time.Duration(-1), time.Duration(-1) // the last and the first
	for _, r := range ranked {
		switch {
		case isCircuit(r.Addr) || manet.IsPrivateAddr(r.Addr) != private:
		case has(r.Addr, ma.P_QUIC_V1):
			quic = max(quic, r.Delay)
		case has(r.Addr, ma.P_TCP) && (tcp < 0 || r.Delay < tcp):
			tcp = r.Delay
		}
	}
	if quic < 0 || tcp < 0 {
		return 0
	}
	return max(quic+quicLead-tcp, 0)
}

func isCircuit(a ma.Multiaddr) bool { return has(a, ma.P_CIRCUIT) }

func has(a ma.Multiaddr, code int) bool {
	return slices.ContainsFunc(a, func(c ma.Component) bool { return c.Protocol().Code == code })
}

// reach makes sure of a connection of any kind.
func (h *Host) reach(ctx context.Context, p peer.ID) error {
	switch h.host.Network().Connectedness(p) {
	case network.Connected, network.Limited:
		return nil
	}
	return h.Connect(ctx, peer.AddrInfo{ID: p}, false)
}

// direct makes sure of a connection that may carry media. Where there is only a circuit it dials p's own
// addresses, once, and waits until ctx ends for that or for the hole that the two hosts punch.
func (h *Host) direct(ctx context.Context, p peer.ID) error {
	if err := h.reach(ctx, p); err != nil {
		return err
	}
	if h.host.Network().Connectedness(p) == network.Connected {
		return nil
	}
	changed := h.links.changes.watch(p)
	defer h.links.changes.unwatch(p, changed)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.spawn(func() {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		defer context.AfterFunc(h.ctx, cancel)()
		if _, err := h.host.Network().DialPeer(network.WithForceDirectDial(ctx, "balai link"), p); err != nil {
			h.cfg.Log.Debug("dial past a circuit", "peer", p, "err", err)
		}
	})
	again := time.NewTicker(punchEvery)
	defer again.Stop()
	h.punch.look(ctx)
	h.punch.try(p)
	for {
		switch h.host.Network().Connectedness(p) {
		case network.Connected:
			return nil
		case network.NotConnected:
			return fmt.Errorf("the circuit to %s ended: %w", p, ErrCircuit)
		}
		select {
		case <-changed:
		case <-again.C:
			h.punch.look(ctx)
			h.punch.try(p)
		case <-ctx.Done():
			return errors.Join(ErrCircuit, ctx.Err())
		case <-h.ctx.Done():
			return ErrClosed
		}
	}
}

// watchers are told of each connection to a peer that comes or goes.
type watchers struct {
	mu    sync.Mutex
	peers map[peer.ID][]chan struct{}
}

func (w *watchers) watch(p peer.ID) chan struct{} {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.peers == nil {
		w.peers = map[peer.ID][]chan struct{}{}
	}
	w.peers[p] = append(w.peers[p], c)
	return c
}

func (w *watchers) unwatch(p peer.ID, c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peers[p] = slices.DeleteFunc(w.peers[p], func(o chan struct{}) bool { return o == c })
	if len(w.peers[p]) == 0 {
		delete(w.peers, p)
	}
}

func (w *watchers) tell(p peer.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.peers[p] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
