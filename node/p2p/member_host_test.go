package p2p

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
)

// parted is two hosts that are connected by a circuit of a third alone; b has dialled.
func parted(t *testing.T) (point, a, b *Host) {
	t.Helper()
	point, a, b = community(t)
	if _, err := circuit.Reserve(testContext(t), a.host, info(point)); err != nil {
		t.Fatal(err)
	}
	throughCircuit(t, point, a, b)
	return point, a, b
}

func throughCircuit(t *testing.T, point, a, b *Host) {
	t.Helper()
	relay, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: point.ID(), Addrs: point.host.Addrs()[:1]})
	if err != nil {
		t.Fatal(err)
	}
	target := peer.AddrInfo{ID: a.ID(), Addrs: []ma.Multiaddr{relay[0].Encapsulate(ma.StringCast("/p2p-circuit"))}}
	if err := b.Connect(testContext(t), target, false); err != nil {
		t.Fatal(err)
	}
	if c := b.host.Network().Connectedness(a.ID()); c != network.Limited {
		t.Fatalf("connected %v", c)
	}
}

func onCircuit(g *Gossip, p peer.ID) bool {
	return slices.ContainsFunc(append(g.streams(p, network.DirOutbound), g.streams(p, network.DirInbound)...),
		func(s network.Stream) bool { return s.Conn().Stat().Limited })
}

// TestGossipOverCircuit: members to whom there is only a circuit hear each other, others do not, and it goes
// on when a direct connection takes the circuit's place.
func TestGossipOverCircuit(t *testing.T) {
	_, a, b := parted(t)
	const name = "room topic"
	ta, ba := join(t, a.Members(), name, TopicConfig{})
	tb, bb := join(t, b.Members(), name, TopicConfig{})
	join(t, a.Lobby(), "hall", TopicConfig{})
	join(t, b.Lobby(), "hall", TopicConfig{})
	a.SetMembers("room", []peer.ID{b.ID()})
	publish(t, ta, "to no member of b")
	b.SetMembers("room", []peer.ID{a.ID()})
	say(t, ta, "to b ", bb.has)
	say(t, tb, "to a ", ba.has)
	if a.host.Network().Connectedness(b.ID()) != network.Limited || !onCircuit(a.members, b.ID()) {
		t.Error("not over the circuit")
	}
	if len(a.lobby.streams(b.ID(), network.DirOutbound))+len(b.lobby.streams(a.ID(), network.DirOutbound)) > 0 {
		t.Error("the lobby uses the circuit")
	}

	a.AllowPrivate(b.ID())
	if err := a.host.Connect(network.WithForceDirectDial(testContext(t), "test"), info(b)); err != nil {
		t.Fatal(err)
	}
	say(t, ta, "later to b ", bb.has)
	say(t, tb, "later to a ", ba.has)
	eventually(t, "off the circuit", func() bool { return !onCircuit(a.members, b.ID()) && !onCircuit(b.members, a.ID()) })
	say(t, ta, "directly to b ", bb.has)
	say(t, tb, "directly to a ", ba.has)

	for _, c := range a.host.Network().ConnsToPeer(b.ID()) {
		if c.Stat().Limited {
			_ = c.Close()
		}
	}
	say(t, ta, "at last to b ", bb.has)
	say(t, tb, "at last to a ", ba.has)

	a.SetMembers("room", nil)
	eventually(t, "cut", func() bool { return len(ta.Peers()) == 0 })
}

// TestOutsiderOverCircuit: who is no member gets no gossip stream over a circuit, and none is kept.
func TestOutsiderOverCircuit(t *testing.T) {
	_, a, b := parted(t)
	const name = "room topic"
	ta, ba := join(t, a.Members(), name, TopicConfig{})
	tb, _ := join(t, b.Members(), name, TopicConfig{})
	b.SetMembers("room", []peer.ID{a.ID()}) // b takes a for a member, a does not take b for one
	eventually(t, "b's stream", func() bool { return len(b.members.streams(a.ID(), network.DirOutbound)) > 0 })
	publish(t, tb, "let me in")
	publish(t, ta, "nobody's business")
	if len(a.members.streams(b.ID(), network.DirOutbound)) != 0 || ba.len() != 0 || len(tb.Peers())+len(ta.Peers()) != 0 {
		t.Error("gossip across the gate")
	}
	a.SetMembers("room", []peer.ID{b.ID()})
	say(t, tb, "now ", ba.has)
}
