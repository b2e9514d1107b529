package p2p

import (
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"balai/room"
)

func TestRankDials(t *testing.T) {
	circuit := "/ip4/203.0.114.9/udp/1/quic-v1/p2p/" + someID + "/p2p-circuit"
	for name, c := range map[string]struct {
		in   []string
		want map[string]time.Duration // milliseconds
	}{
		"both":           {[]string{"/ip4/203.0.114.7/tcp/1", "/ip4/203.0.114.7/udp/1/quic-v1"}, map[string]time.Duration{"/ip4/203.0.114.7/udp/1/quic-v1": 0, "/ip4/203.0.114.7/tcp/1": 500}},
		"private":        {[]string{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/1/quic-v1"}, map[string]time.Duration{"/ip4/10.0.0.1/udp/1/quic-v1": 0, "/ip4/10.0.0.1/tcp/1": 500}},
		"TCP alone":      {[]string{"/ip4/203.0.114.7/tcp/1"}, map[string]time.Duration{"/ip4/203.0.114.7/tcp/1": 0}},
		"circuit":        {[]string{"/ip4/203.0.114.7/tcp/1", "/ip4/203.0.114.7/udp/1/quic-v1", circuit}, map[string]time.Duration{"/ip4/203.0.114.7/udp/1/quic-v1": 0, "/ip4/203.0.114.7/tcp/1": 500, circuit: 750}},
		"private, relay": {[]string{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/1/quic-v1", circuit}, map[string]time.Duration{"/ip4/10.0.0.1/udp/1/quic-v1": 0, "/ip4/10.0.0.1/tcp/1": 500, circuit: 0}},
		"nothing":        {nil, nil},
	} {
		var in []ma.Multiaddr
		for _, a := range c.in {
			in = append(in, ma.StringCast(a))
		}
		got := rankDials(in)
		if len(got) != len(c.in) {
			t.Errorf("%s: %v", name, got)
		}
		for _, r := range got {
			if want := c.want[r.Addr.String()] * time.Millisecond; r.Delay != want {
				t.Errorf("%s: %v after %v, want %v", name, r.Addr, r.Delay, want)
			}
		}
	}
}

// deafUDP is a UDP port that answers nothing: a network that lets no UDP through.
func deafUDP(t testing.TB) ma.Multiaddr {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return ma.StringCast("/ip4/127.0.0.1/udp/" + port + "/quic-v1")
}

// TestLinkWithoutUDP: where UDP goes nowhere a link comes up over TCP, on its stream.
func TestLinkWithoutUDP(t *testing.T) {
	a, b := testHost(t), testHost(t, onTCP)
	learn(t, a, signed(t, b.cfg.Key, 1<<62, deafUDP(t).String(), b.host.Addrs()[0].String()))
	start := time.Now()
	la, lb, ea, eb := openPair(t, a, b)
	t.Logf("link after %v", time.Since(start).Round(time.Millisecond))
	if la.Carrier() != OverStream || lb.Carrier() != OverStream {
		t.Error("a carrier that there is not")
	}
	pass(t, la, eb)
	pass(t, lb, ea)
	if err := a.Probe(testContext(t), b.ID()); err != nil {
		t.Error(err)
	}
}

// TestLinkPrefersQUIC: with both, the connection is QUIC.
func TestLinkPrefersQUIC(t *testing.T) {
	c := testConfig(t)
	c.lead = limit // a busy machine
	for range 5 {
		a, b := start(t, c), testHost(t)
		c.Key = newKey(t)
		learn(t, a, b.Record())
		la, lb, _, _ := openPair(t, a, b)
		if la.Carrier() != Datagram || lb.Carrier() != Datagram {
			t.Error("not by QUIC")
		}
	}
}

// TestManyLinks: a relay with 220 children behind one address, each with a link that is used, and none of
// them trimmed.
func TestManyLinks(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 220 hosts")
	}
	const n = 220
	relay := testHost(t)
	got := make(chan peer.ID, 100*n)
	relay.OnLink(func(*Link) *LinkConfig {
		return &LinkConfig{Receive: func(l *Link, _ []byte) {
			select {
			case got <- l.Remote():
			default:
			}
		}}
	})
	rec := relay.Record()
	links := make([]*Link, n)
	for i := range links {
		h := testHost(t, onQUIC)
		learn(t, h, rec)
		l, err := h.OpenLink(testContext(t), relay.ID(), room.ID{1}, LinkConfig{})
		if err != nil {
			t.Fatalf("link %d: %v", i, err)
		}
		links[i] = l
	}
	heard := map[peer.ID]bool{}
	eventually(t, "a bundle from each", func() bool {
		for _, l := range links {
			if !heard[l.h.ID()] {
				l.Send(bundle(l, "x"))
			}
		}
		for len(got) > 0 {
			heard[<-got] = true
		}
		return len(heard) == n
	})
	for _, l := range links {
		if !relay.host.ConnManager().IsProtected(l.h.ID(), linkTag) {
			t.Fatal("a child may be trimmed")
		}
	}
}

// TestOneAddress: 300 peers behind one public address connect twice each at once, by either transport.
func TestOneAddress(t *testing.T) {
	for proto, fd := range map[string]bool{"udp/1/quic-v1": false, "tcp/1": true} {
		rm, err := resources()
		if err != nil {
			t.Fatal(err)
		}
		from := ma.StringCast("/ip4/203.0.114.7/" + proto)
		for i := range 600 {
			c, err := rm.OpenConnection(network.DirInbound, fd, from)
			if err != nil {
				t.Fatalf("%s: connection %d: %v", proto, i, err)
			}
			p := newFastID()
			if err := c.SetPeer(p); err != nil {
				t.Fatalf("%s: peer %d: %v", proto, i, err)
			}
			for range 6 {
				if _, err := rm.OpenStream(p, network.DirInbound); err != nil {
					t.Fatalf("%s: stream of peer %d: %v", proto, i, err)
				}
			}
		}
		if err := rm.Close(); err != nil {
			t.Error(err)
		}
	}
}
