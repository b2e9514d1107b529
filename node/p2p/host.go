package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

// Errors of this package; refusals by others are room.Reason.
var (
	ErrClosed   = errors.New("p2p: host is closed")
	ErrCooldown = errors.New("p2p: peer could not be dialled lately")
	ErrLimit    = errors.New("p2p: too many at once")
	ErrCircuit  = errors.New("p2p: a circuit carries no media")
	ErrTooLarge = errors.New("p2p: message too large")
)

// Config says how to build a Host. Only Key is required.
type Config struct {
	Key       crypto.PrivKey
	Listen    []ma.Multiaddr        // default: QUIC and TCP on all interfaces, any port
	Bootstrap []peer.AddrInfo       // typed by the user: dialled as they are, kept connected
	MDNS      bool                  // look for peers on the local network and be found there
	Community bool                  // serve circuits and rendezvous to others
	Store     ds.Batching           // keeps remembered peers under /peers; nil: none
	Log       *slog.Logger          // default: none
	Now       func() time.Time      // default: time.Now
	Metrics   prometheus.Registerer // libp2p's own metrics; nil: none

	announce    func([]ma.Multiaddr) []ma.Multiaddr // what this host says its addresses are; tests give it public ones
	gossipLimit int                                 // bytes of a gossip message; tests make a peer that breaks the limit
	betterAfter time.Duration                       // until a peer by TCP is tried by QUIC; tests have no time
	lead        time.Duration                       // of QUIC before TCP; tests of what comes of it give it more, for a busy machine
}

// Host is one libp2p node. All methods are safe from any goroutine.
type Host struct {
	cfg    Config
	host   host.Host
	gate   *gater
	dials  *dialBook
	record ownRecord
	lan    lan
	ctx    context.Context
	cancel context.CancelFunc

	gossips
	memberGate *memberGate
	streams    streamTable
	links      linkTable
	courier    courier
	rendezvous *Rendezvous
	relay      *relay.Relay
	mdns       interface{ Close() error }
	store      *peerStore
	greet      event.Emitter // EvtPeerProtocolsUpdated on the local bus
	greetings  greetings
	prober     prober
	circuits   circuitSearch
	punch      puncher

	ready   chan struct{} // closed once host is set
	mu      sync.Mutex    // guards closed and wg.Add
	closed  bool
	wg      sync.WaitGroup
	dialSem chan struct{}
}

// New builds and starts a host. It returns once it listens; bootstrap and remembered peers are dialled
// in the background until Close.
func New(ctx context.Context, cfg Config) (*Host, error) {
	return newHost(ctx, cfg, newGater())
}

func newHost(ctx context.Context, cfg Config, gate *gater) (_ *Host, err error) {
	cfg = cfg.withDefaults()
	if cfg.Key == nil {
		return nil, errors.New("p2p: no key")
	}
	h := &Host{cfg: cfg, gate: gate, dials: newDialBook(), memberGate: newMemberGate(), dialSem: make(chan struct{}, 8), ready: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancel(context.WithoutCancel(ctx))
	h.streams.init()
	h.links.init()
	h.prober.init()
	h.circuits.init()
	h.punch.h, h.punch.seen = h, map[peer.ID]observed{}
	h.greetings.last = map[greetKey]time.Time{}
	for _, b := range cfg.Bootstrap {
		gate.allowTyped(b)
	}
	opts, err := h.options()
	if err != nil {
		h.cancel()
		return nil, err
	}
	h.host, err = newLibp2p(opts)
	if err != nil {
		h.cancel()
		return nil, fmt.Errorf("p2p: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	close(h.ready)
	h.memberGate.self = h.host.ID()
	for _, b := range cfg.Bootstrap {
		h.host.ConnManager().Protect(b.ID, "balai bootstrap")
	}
	if err := h.startServices(); err != nil {
		return h, err
	}
	return h, nil
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.betterAfter == 0 {
		c.betterAfter = betterAfter
	}
	if c.gossipLimit == 0 {
		c.gossipLimit = maxGossip
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if len(c.Listen) == 0 {
		for _, s := range []string{"/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0", "/ip6/::/udp/0/quic-v1", "/ip6/::/tcp/0"} {
			c.Listen = append(c.Listen, ma.StringCast(s))
		}
	}
	return c
}

// startServices brings up all that needs the libp2p host, in the order in which each may need the last.
func (h *Host) startServices() error {
	var err error
	if h.greet, err = h.host.EventBus().Emitter(new(event.EvtPeerProtocolsUpdated)); err != nil {
		return err
	}
	if h.lobby, err = newGossip(h, lobbyProtocol, nil); err != nil {
		return err
	}
	if h.members, err = newGossip(h, membersProtocol, h.memberGate); err != nil {
		return err
	}
	h.rendezvous = &Rendezvous{h: h}
	h.handleGreetings()
	h.handleLinks()
	if h.cfg.Community {
		if err := h.startCommunity(); err != nil {
			return err
		}
	}
	if h.cfg.Store != nil {
		h.store = &peerStore{ds: h.cfg.Store, log: h.cfg.Log}
		h.spawn(h.rememberPeers)
	}
	if h.cfg.MDNS {
		h.startMDNS()
	}
	if !h.cfg.Community {
		h.spawn(h.seekCircuits)
	}
	h.spawn(h.punch.run)
	h.spawn(h.watchCarriers)
	h.spawn(h.watch)
	h.spawn(h.keepConnected)
	return nil
}

// Close ends everything and waits for it. It may be called more than once.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		h.wg.Wait()
		return nil
	}
	h.closed = true
	h.mu.Unlock()

	var errs []error
	if h.mdns != nil {
		errs = append(errs, h.mdns.Close())
	}
	h.links.closeAll()
	h.cancel()
	h.streams.resetAll()
	if h.relay != nil {
		errs = append(errs, h.relay.Close())
	}
	if h.greet != nil {
		errs = append(errs, h.greet.Close())
	}
	h.circuits.settle()
	errs = append(errs, h.punch.close())
	errs = append(errs, h.host.Close())
	h.wg.Wait()
	errs = append(errs, h.prober.close())
	return errors.Join(errs...)
}

// enter counts a goroutine that Close must wait for; leave with h.wg.Done. False: closing.
func (h *Host) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.wg.Add(1)
	return true
}

// spawn runs f in a goroutine that Close waits for; f ends when h.ctx does.
func (h *Host) spawn(f func()) {
	if !h.enter() {
		return
	}
	go func() {
		defer h.wg.Done()
		f()
	}()
}

// ID is the peer id of this host.
func (h *Host) ID() peer.ID { return h.host.ID() }

// Addrs lists the addresses at which this host may be dialled, each with /p2p/ID.
func (h *Host) Addrs() []ma.Multiaddr {
	out, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: h.ID(), Addrs: h.host.Addrs()})
	if err != nil {
		return nil
	}
	return out
}

// AllowPrivate lets private addresses of p be dialled: p is in a room that was joined or opened as local.
// Calls are counted; each is undone by one ForbidPrivate.
func (h *Host) AllowPrivate(p peer.ID) { h.gate.allowPeer(p) }

// ForbidPrivate undoes one AllowPrivate.
func (h *Host) ForbidPrivate(p peer.ID) { h.gate.forbidPeer(p) }

// Peers counts the peers connected now.
func (h *Host) Peers() int { return len(h.host.Network().Peers()) }

// Reachability is "public" when an address was confirmed from outside (AutoNAT v2), "local" when a peer
// reached this host directly all the same (AutoNAT tests no private address), "private" when addresses
// were tried and none answered, else "unknown".
func (h *Host) Reachability() string {
	reachable, unreachable := h.confirmed()
	if len(reachable) > 0 {
		return "public"
	}
	for _, c := range h.host.Network().Conns() {
		if s := c.Stat(); s.Direction == network.DirInbound && !s.Limited {
			return "local"
		}
	}
	if len(unreachable) > 0 {
		return "private"
	}
	return "unknown"
}

// confirmed lists the public addresses of this host that AutoNAT v2 has had dialled from outside.
func (h *Host) confirmed() (reachable, unreachable []ma.Multiaddr) {
	if c, ok := h.host.(interface {
		ConfirmedAddrs() (reachable, unreachable, unknown []ma.Multiaddr)
	}); ok {
		reachable, unreachable, _ = c.ConfirmedAddrs()
	}
	return reachable, unreachable
}

// Connect makes sure of a direct or circuit connection to a peer, at the addresses given and those known,
// all through the gater. After a failure the peer is left alone for five minutes (ErrCooldown) unless
// force is set, and whoever told its addresses is charged. A dial that only ran out of time may have been too much for a
// busy machine: after the first the peer is left alone for ten seconds, after each further one for twice as long.
func (h *Host) Connect(ctx context.Context, info peer.AddrInfo, force bool) error {
	if h.host.Network().Connectedness(info.ID) == network.Connected {
		return nil
	}
	if !force && h.dials.failedLately(info.ID, h.cfg.Now()) {
		return fmt.Errorf("%s: %w", info.ID, ErrCooldown)
	}
	ctx = network.WithAllowLimitedConn(ctx, "balai")
	tried := append(h.host.Peerstore().Addrs(info.ID), info.Addrs...)
	err := h.host.Connect(ctx, info)
	switch {
	case err != nil && !wasDialled(ctx, err):
	case err != nil && ranOut(err):
		h.dials.late(info.ID, tried, h.cfg.Now())
	default:
		h.dials.done(info.ID, err == nil, tried, h.cfg.Now())
	}
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	return nil
}

// wasDialled tells whether a failure says anything about the peer: not if the caller gave up, and not if
// there was no address that the gater lets through.
func wasDialled(ctx context.Context, err error) bool {
	return !errors.Is(ctx.Err(), context.Canceled) && !errors.Is(err, swarm.ErrNoAddresses) &&
		!errors.Is(err, swarm.ErrNoGoodAddresses) && !errors.Is(err, swarm.ErrDialBackoff)
}

// ranOut tells whether time ran out at each address, of the caller or of the dial: nobody said no.
func ranOut(err error) bool {
	var all *swarm.DialError
	if !errors.As(err, &all) || len(all.DialErrors) == 0 {
		return errors.Is(err, context.DeadlineExceeded)
	}
	return !slices.ContainsFunc(all.DialErrors, func(e swarm.TransportError) bool {
		var n net.Error
		return !errors.Is(e.Cause, context.DeadlineExceeded) && !errors.Is(e.Cause, swarm.ErrDialBackoff) && !(errors.As(e.Cause, &n) && n.Timeout())
	})
}

// Connected tells whether there is a direct connection to a peer.
func (h *Host) Connected(p peer.ID) bool {
	return h.host.Network().Connectedness(p) == network.Connected
}

// CommunityNodes lists the connected peers that serve rendezvous.
func (h *Host) CommunityNodes() []peer.ID {
	return slices.DeleteFunc(h.host.Network().Peers(), func(p peer.ID) bool {
		got, err := h.host.Peerstore().SupportsProtocols(p, rendezvousProtocol)
		return err != nil || len(got) == 0
	})
}
