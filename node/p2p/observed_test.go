package p2p

import (
	"errors"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"balai/room"
)

// TestObserved: a community node tells the address that a connection comes from now, and a private one is not believed.
func TestObserved(t *testing.T) {
	point, a, _ := community(t)
	conns := point.host.Network().ConnsToPeer(a.ID())
	if len(conns) != 1 {
		t.Fatal(conns)
	}
	if got := observedOn(conns[0]); got == nil || !got.Equal(conns[0].RemoteMultiaddr()) {
		t.Errorf("%v instead of %v", got, conns[0].RemoteMultiaddr())
	}
	if got, err := a.askObserved(testContext(t), point.ID()); !errors.Is(err, room.Malformed) {
		t.Errorf("loopback: %v, %v", got, err)
	}
	a.punch.look(testContext(t)) // nothing is believed, nothing breaks
	if got := a.punch.addrs(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestParseObserved(t *testing.T) {
	for _, good := range []string{"/ip4/203.0.114.7/udp/4001/quic-v1", "/ip6/2a00::7/udp/1/quic-v1", "/ip4/203.0.114.7/tcp/9"} {
		if a, err := parseObserved(ma.StringCast(good).Bytes()); err != nil || a.String() != good {
			t.Errorf("%s: %v, %v", good, a, err)
		}
	}
	for _, bad := range []string{
		"/ip4/10.0.0.7/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1", "/ip6/fe80::1/udp/1/quic-v1", "/ip4/203.0.114.7/udp/1", "/ip4/203.0.114.7",
		"/dns4/example.org/tcp/1", "/ip4/203.0.114.7/tcp/1/ws", "/ip4/203.0.114.7/udp/1/quic-v1/p2p/" + someID,
		"/ip4/203.0.114.7/udp/1/quic-v1/p2p/" + someID + "/p2p-circuit",
	} {
		if a, err := parseObserved(ma.StringCast(bad).Bytes()); !errors.Is(err, room.Malformed) {
			t.Errorf("%s: %v, %v", bad, a, err)
		}
	}
}

func FuzzParseObserved(f *testing.F) {
	for _, s := range []string{"/ip4/203.0.114.7/udp/4001/quic-v1", "/ip6/2a00::7/udp/1/quic-v1", "/ip4/203.0.114.7/tcp/9", "/dns4/example.org/tcp/1"} {
		f.Add(ma.StringCast(s).Bytes())
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseObserved(b)
		if (err == nil) != (a != nil) {
			t.Fatal(a, err)
		}
		if err == nil && (isPrivate(a) || isCircuit(a) || len(a) > 3) {
			t.Fatal(a)
		}
	})
}
