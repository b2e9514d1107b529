package p2p

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"
)

// TestWitness: what a community node that was dialled says of this host's address is told to the other side of
// a punch at once; nobody else's word counts, and a private address never.
func TestWitness(t *testing.T) {
	point, a, _ := community(t)
	conn := a.host.Network().ConnsToPeer(point.ID())[0]
	back := point.host.Network().ConnsToPeer(a.ID())[0]
	serves := []protocol.ID{rendezvousProtocol}
	quic, tcp := ma.StringCast("/ip4/203.0.114.7/udp/4001/quic-v1"), ma.StringCast("/ip4/203.0.114.7/tcp/4001")
	through := ma.StringCast("/ip4/203.0.114.7/udp/4001/quic-v1/p2p/" + someID + "/p2p-circuit")
	for name, e := range map[string]event.EvtPeerIdentificationCompleted{
		"nothing": {Peer: point.ID(), Conn: conn, Protocols: serves},
		"private": {Peer: point.ID(), Conn: conn, Protocols: serves, ObservedAddr: ma.StringCast("/ip4/10.0.0.7/udp/1/quic-v1")},
		"circuit": {Peer: point.ID(), Conn: conn, Protocols: serves, ObservedAddr: through},
		"anybody": {Peer: point.ID(), Conn: conn, ObservedAddr: quic},
		"inbound": {Peer: a.ID(), Conn: back, Protocols: serves, ObservedAddr: quic},
		"no conn": {Peer: point.ID(), Protocols: serves, ObservedAddr: quic},
	} {
		if a.punch.witness(e); len(a.punch.addrs()) != 0 {
			t.Errorf("%s: %v", name, a.punch.addrs())
		}
	}
	if a.punch.up() != nil || slices.Contains(a.host.Mux().Protocols(), holepunch.Protocol) {
		t.Error("the service is up without an address")
	}
	a.punch.witness(event.EvtPeerIdentificationCompleted{Peer: point.ID(), Conn: conn, Protocols: serves, ObservedAddr: tcp})
	a.punch.witness(event.EvtPeerIdentificationCompleted{Peer: point.ID(), Conn: conn, Protocols: serves, ObservedAddr: quic})
	if got := a.punch.addrs(); len(got) != 2 || !got[0].Equal(quic) || !got[1].Equal(tcp) {
		t.Errorf("%v", got)
	}
	if err := a.punch.start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service is up", func() bool { return slices.Contains(a.host.Mux().Protocols(), holepunch.Protocol) })
	if err := a.host.Network().ClosePeer(point.ID()); err != nil {
		t.Fatal(err)
	}
	if got := a.punch.addrs(); len(got) != 0 && len(a.CommunityNodes()) == 0 {
		t.Errorf("the word of a node that is gone: %v", got)
	}
}

// TestPunchLeads: the side that the circuit came to begins, and nobody once there is a direct connection.
func TestPunchLeads(t *testing.T) {
	_, a, b := parted(t)
	eventually(t, "a has the circuit", func() bool { return a.punch.leads(b.ID()) })
	if b.punch.leads(a.ID()) {
		t.Error("both begin")
	}
	learn(t, b, a.Record())
	if _, err := b.OpenLink(testContext(t), a.ID(), [32]byte{}, LinkConfig{}); err == nil {
		t.Error("a link that nobody accepts")
	}
	if a.punch.leads(b.ID()) {
		t.Error("a hole beside a direct connection")
	}
}
