package p2p

import (
	"context"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// memberHost is the host as the members gossip sees it: a member to whom there is only a circuit is
// connected. What a room has to say of itself is small, and two people behind routers that let nothing
// through hear of each other in no other way. Pubsub by itself leaves such peers out.
type memberHost struct {
	host.Host
	net memberNetwork
}

// memberNetwork is the network of a memberHost.
type memberNetwork struct {
	network.Network
	gate *memberGate
}

func newMemberHost(h host.Host, gate *memberGate) memberHost {
	return memberHost{Host: h, net: memberNetwork{Network: h.Network(), gate: gate}}
}

// Network is host.Host.
func (m memberHost) Network() network.Network { return m.net }

// NewStream is host.Host. Pubsub asks for a stream only to those whom Connectedness calls connected.
func (m memberHost) NewStream(ctx context.Context, p peer.ID, pids ...protocol.ID) (network.Stream, error) {
	if m.net.gate.has(p) {
		ctx = network.WithAllowLimitedConn(ctx, "balai gossip")
	}
	return m.Host.NewStream(ctx, p, pids...)
}

// Connectedness is network.Network.
func (n memberNetwork) Connectedness(p peer.ID) network.Connectedness {
	c := n.Network.Connectedness(p)
	if c == network.Limited && n.gate.has(p) {
		return network.Connected
	}
	return c
}

// near tells whether this gossip may have a stream to p now.
func (g *Gossip) near(p peer.ID) bool {
	c := g.h.host.Network().Connectedness(p)
	return c == network.Connected || c == network.Limited && g.gate != nil && g.gate.has(p)
}

// speaks tells whether p is near and announced the protocol.
func (g *Gossip) speaks(p peer.ID) bool {
	if !g.near(p) {
		return false
	}
	got, err := g.h.host.Peerstore().SupportsProtocols(p, g.proto)
	return err == nil && len(got) > 0
}
