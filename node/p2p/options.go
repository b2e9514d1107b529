package p2p

import (
	"cmp"
	"context"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Connections. A household, a school or a test sits behind one address, so the limit per address is far
// above libp2p's 8; the totals are what a relay of a large room needs.
const (
	connsLow, connsHigh = 600, 900
	manyLow, manyHigh   = 2400, 3000 // of a community node: those with a media link are never closed, others should not have to go for them
	connsGrace          = 30 * time.Second
	connsPerHost        = 768  // per IPv4 address or IPv6 /56: 300 children of a relay, some with two
	connsPerSite        = 1024 // per IPv6 /48
	dialsPerSecond      = 50   // new connections a second from one address
	systemConns         = 4096
	peerConns           = 16
	systemStreams       = 32_768
	peerStreams         = 512
	systemMemory        = 512 << 20 // bytes at least: what 300 peers on TCP might have in flight, 256 KiB a stream
)

// Circuits are for control only: admission may wait for a knock, so they live longer than libp2p's two
// minutes, and carry a ledger, but no audio.
const (
	circuitTime         = 10 * time.Minute
	circuitBytes        = 4 << 20
	circuitReservations = 1024
	circuitsPerPeer     = 32
	circuitsPerHost     = 64
	circuitsPerNetwork  = 256
)

func newLibp2p(opts []libp2p.Option) (host.Host, error) { return libp2p.New(opts...) }

// options is the whole libp2p configuration.
func (h *Host) options() ([]libp2p.Option, error) {
	rm, err := resources()
	if err != nil {
		return nil, err
	}
	low, high := connsLow, connsHigh
	if h.cfg.Community {
		low, high = manyLow, manyHigh
	}
	cm, err := connmgr.NewConnManager(low, high, connmgr.WithGracePeriod(connsGrace))
	if err != nil {
		return nil, err
	}
	dials := lead{by: cmp.Or(h.cfg.lead, quicLead)}
	opts := []libp2p.Option{
		libp2p.Identity(h.cfg.Key),
		libp2p.UserAgent("balai"),
		libp2p.ListenAddrs(h.cfg.Listen...),
		libp2p.Transport(dials.quic),
		libp2p.Transport(dials.tcp),
		libp2p.ConnectionGater(h.gate),
		libp2p.SwarmOpts(swarm.WithDialRanker(rankDials)),
		libp2p.ResourceManager(rm),
		libp2p.ConnectionManager(cm),
		libp2p.EnableRelay(),
		libp2p.EnableAutoNATv2(),
		libp2p.EnableAutoRelayWithPeerSource(h.relayCandidates,
			autorelay.WithBootDelay(0), autorelay.WithMinCandidates(1), autorelay.WithNumRelays(2), autorelay.WithBackoff(time.Minute)),
	}
	if h.cfg.Metrics != nil {
		opts = append(opts, libp2p.PrometheusRegisterer(h.cfg.Metrics))
	} else {
		opts = append(opts, libp2p.DisableMetrics())
	}
	if h.cfg.announce != nil {
		opts = append(opts, libp2p.AddrsFactory(h.cfg.announce))
	}
	if h.cfg.Community {
		opts = append(opts, libp2p.EnableNATService())
	}
	if slices.ContainsFunc(h.cfg.Listen, listensBeyond) {
		opts = append(opts, libp2p.NATPortMap())
	}
	return opts, nil
}

// resources are the limits of the resource manager: libp2p's scaled defaults, with room for a large room
// and for many people behind one address.
func resources() (network.ResourceManager, error) {
	limits := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&limits)
	auto := limits.AutoScale()
	partial := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: systemConns, ConnsInbound: systemConns, ConnsOutbound: systemConns,
			Streams: systemStreams, StreamsInbound: systemStreams, StreamsOutbound: systemStreams,
			Memory: max(auto.ToPartialLimitConfig().System.Memory, systemMemory),
		},
		Transient: rcmgr.ResourceLimits{
			Conns: systemConns / 4, ConnsInbound: systemConns / 4, ConnsOutbound: systemConns / 4,
			Streams: systemStreams / 8, StreamsInbound: systemStreams / 8, StreamsOutbound: systemStreams / 8,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: peerConns, ConnsInbound: peerConns, ConnsOutbound: peerConns,
			Streams: peerStreams, StreamsInbound: peerStreams, StreamsOutbound: peerStreams,
		},
		ProtocolDefault: rcmgr.ResourceLimits{Streams: systemStreams / 4, StreamsInbound: systemStreams / 4, StreamsOutbound: systemStreams / 4},
	}
	limiter := rcmgr.NewFixedLimiter(partial.Build(auto))
	loopback4, loopback6 := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")
	rm, err := rcmgr.NewResourceManager(limiter,
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerHost}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: connsPerHost}, {PrefixLength: 48, ConnCount: connsPerSite}}),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: loopback4, ConnCount: math.MaxInt}},
			[]rcmgr.NetworkPrefixLimit{{Network: loopback6, ConnCount: math.MaxInt}}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{{Prefix: loopback4}, {Prefix: loopback6}},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: rate.Limit{RPS: dialsPerSecond, Burst: connsPerHost}}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: rate.Limit{RPS: dialsPerSecond, Burst: connsPerHost}}},
				GracePeriod:      time.Minute,
			},
		}),
	)
	return rm, err
}

// relayCandidates offers the community nodes for circuit reservations.
func (h *Host) relayCandidates(_ context.Context, num int) <-chan peer.AddrInfo {
	h.circuits.asked()
	out := make(chan peer.AddrInfo, num)
	defer close(out)
	select {
	case <-h.ready:
	default:
		return out
	}
	nodes := h.CommunityNodes()
	for _, p := range nodes[:min(num, len(nodes))] {
		out <- h.host.Peerstore().PeerInfo(p)
	}
	return out
}

// startCommunity serves circuits and rendezvous. A point that has no public address hands out its
// private ones: it serves a local network.
func (h *Host) startCommunity() error {
	res := relay.DefaultResources()
	res.Limit = &relay.RelayLimit{Duration: circuitTime, Data: circuitBytes}
	res.MaxReservations, res.MaxCircuits = circuitReservations, circuitsPerPeer
	res.MaxReservationsPerIP, res.MaxReservationsPerASN = circuitsPerHost, circuitsPerNetwork
	opts := []relay.Option{relay.WithResources(res)}
	if !slices.ContainsFunc(h.cfg.Listen, listensBeyond) {
		opts = append(opts, relay.WithReservationAddressFilter(anyAddress))
	}
	var err error
	if h.relay, err = relay.New(h.host, opts...); err != nil {
		return err
	}
	h.serveObserved()
	return h.rendezvous.serve()
}
