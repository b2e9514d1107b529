package p2p

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	maxProbes = 4 // at a time
	probeTime = 5 * time.Second
)

// prober dials from a second host with a key of its own and no listener, so that neither a connection that
// is open already nor the hole it made in a NAT for this host's port answers in the peer's place.
type prober struct {
	slots chan struct{}

	mu      sync.Mutex
	host    host.Host // nil until the first probe
	running map[probed]*probing
}

// probed is what a probe asks about.
type probed struct {
	peer peer.ID
	by   way
}

// way is what is dialled.
type way uint8

const (
	byAny way = iota // direct addresses
	byQUIC
	byCircuit
)

// probing is one probe, which all who ask for that peer meanwhile wait for.
type probing struct {
	done chan struct{}
	err  error // set before done is closed
}

func (b *prober) init() {
	b.slots, b.running = make(chan struct{}, maxProbes), map[probed]*probing{}
}

// Probe tells whether p can be reached from here by a stranger: it dials the direct addresses of p's newest
// signed record afresh, from another key and other ports, within 5 s, four at a time, and hangs up. Nil: p
// itself answered. Private addresses are dialled only where this host may.
func (h *Host) Probe(ctx context.Context, p peer.ID) error {
	if !h.enter() {
		return ErrClosed
	}
	defer h.wg.Done()
	err := h.probe(ctx, probed{peer: p})
	if err != nil {
		return fmt.Errorf("p2p: probe of %s: %w", p, err)
	}
	return nil
}

func (h *Host) probe(ctx context.Context, p probed) error {
	addrs := h.addrsBy(p)
	if p.peer == h.ID() || len(addrs) == 0 {
		return swarm.ErrNoAddresses
	}
	select {
	case h.prober.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-h.ctx.Done():
		return ErrClosed
	}
	w := h.startProbe(p, addrs)
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startProbe takes over a slot, which is free again once the probe has ended.
func (h *Host) startProbe(p probed, addrs []ma.Multiaddr) *probing {
	b := &h.prober
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.running[p]; w != nil {
		<-b.slots
		return w
	}
	w := &probing{done: make(chan struct{})}
	from, err := b.open(h.gate)
	if err != nil {
		<-b.slots
		w.err = err
		close(w.done)
		return w
	}
	b.running[p] = w
	h.wg.Go(func() { // the caller is counted in wg
		w.err = dialAfresh(h.ctx, from, p, addrs)
		b.mu.Lock()
		delete(b.running, p)
		b.mu.Unlock()
		<-b.slots
		close(w.done)
	})
	return w
}

// dialAfresh connects, hangs up, and forgets all about p.
func dialAfresh(ctx context.Context, from host.Host, p probed, addrs []ma.Multiaddr) error {
	if p.by != byCircuit {
		ctx = network.WithForceDirectDial(ctx, "balai probe")
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	from.Peerstore().AddAddrs(p.peer, addrs, peerstore.TempAddrTTL)
	_, err := from.Network().DialPeer(ctx, p.peer)
	err = errors.Join(err, from.Network().ClosePeer(p.peer))
	from.Peerstore().ClearAddrs(p.peer)
	from.Peerstore().RemovePeer(p.peer)
	return err
}

// open makes the second host, under mu.
func (b *prober) open(gate *gater) (host.Host, error) {
	if b.host != nil {
		return b.host, nil
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	b.host, err = newLibp2p([]libp2p.Option{
		libp2p.Identity(key),
		libp2p.UserAgent("balai"),
		libp2p.NoListenAddrs,
		libp2p.Transport(quic.NewTransport),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.ConnectionGater(gate),
		libp2p.ResourceManager(&network.NullResourceManager{}), // maxProbes is the limit
		libp2p.EnableRelay(),
		libp2p.DisableMetrics(),
		libp2p.Ping(false),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ForceReachabilityPrivate(), // asks nobody
		// Peers that do not answer say nothing about UDP or IPv6 here.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
	})
	return b.host, err
}

// close is called once no probe runs or can begin.
func (b *prober) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.host == nil {
		return nil
	}
	return b.host.Close()
}

func (h *Host) addrsBy(p probed) []ma.Multiaddr {
	switch p.by {
	case byCircuit:
		return h.circuitAddrs(p.peer)
	case byQUIC:
		return slices.DeleteFunc(h.signedAddrs(p.peer), func(a ma.Multiaddr) bool { return !has(a, ma.P_QUIC_V1) })
	}
	return h.signedAddrs(p.peer)
}

// signedAddrs are the direct addresses of p's newest signed record, of those learned and the one that p
// itself told on connecting.
func (h *Host) signedAddrs(p peer.ID) []ma.Multiaddr {
	seq, addrs := h.dials.record(p)
	if book, ok := peerstore.GetCertifiedAddrBook(h.host.Peerstore()); ok {
		if env := book.GetPeerRecord(p); env != nil {
			rec, err := env.Record()
			if own, ok := rec.(*peer.PeerRecord); err == nil && ok && own.Seq > seq {
				addrs = own.Addrs[:min(len(own.Addrs), maxRecordAddrs)]
			}
		}
	}
	return directOnly(addrs)
}

// circuitAddrs are those by which p was, or may be, reached through others.
func (h *Host) circuitAddrs(p peer.ID) []ma.Multiaddr {
	return slices.DeleteFunc(h.host.Peerstore().Addrs(p), func(a ma.Multiaddr) bool { return !isCircuit(a) })
}

func directOnly(addrs []ma.Multiaddr) []ma.Multiaddr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool { return len(a) == 0 || isCircuit(a) })
}
