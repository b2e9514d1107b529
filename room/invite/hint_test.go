package invite

import (
	"errors"
	"slices"
	"testing"

	"balai/room"
)

func TestHintAddrs(t *testing.T) {
	id, issuer := other.ID().String(), "/p2p-circuit/p2p/"+host.ID().String()
	for _, c := range []struct {
		h    Hint
		want []string
	}{
		{hintAt(other, "203.0.113.7", 0), []string{"/ip4/203.0.113.7/udp/4001/quic-v1/p2p/" + id, "/ip4/203.0.113.7/tcp/4001/p2p/" + id}},
		{Hint{Peer: other.Public(), Addr: hintAt(other, "2001:db8::1", 0).Addr, TCP: true, Port: 9}, []string{"/ip6/2001:db8::1/tcp/9/p2p/" + id}},
		{Hint{Peer: other.Public(), DNS: "node.example", QUIC: true, Port: 65535}, []string{"/dns/node.example/udp/65535/quic-v1/p2p/" + id}},
	} {
		if got := c.h.Addrs(); !slices.Equal(got, c.want) {
			t.Errorf("%v, want %v", got, c.want)
		}
		if got := c.h.Circuits(host.Public()); got != nil {
			t.Errorf("a member as circuit: %v", got)
		}
		c.h.Kind = HintCircuit
		for i, got := range c.h.Circuits(host.Public()) {
			if got != c.want[i]+issuer {
				t.Errorf("circuit %s", got)
			}
		}
		c.h.Kind = HintMember
		var parsed []Hint
		for _, a := range c.want {
			h, err := ParseHint(a, HintMember)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, h)
		}
		if m := MergeHints(parsed); len(m) != 1 || !slices.Equal(m[0].Addrs(), c.want) {
			t.Errorf("merged to %v", m)
		}
	}
}

func TestParseHintRefuses(t *testing.T) {
	p2p := "/p2p/" + other.ID().String()
	for _, s := range []string{
		"", "/", p2p, "/ip4/203.0.113.7/tcp/4001", "/ip4/203.0.113.7/tcp/0" + p2p, "/ip4/203.0.113.7/tcp/65536" + p2p,
		"/ip4/2001:db8::1/tcp/1" + p2p, "/ip6/203.0.113.7/tcp/1" + p2p, "/ip6/fe80::1%eth0/tcp/1" + p2p, "/ip6/::ffff:203.0.113.7/tcp/1" + p2p,
		"/ip4/203.0.113.7/udp/1" + p2p, "/ip4/203.0.113.7/quic/1" + p2p + "x", "/ip4/203.0.113.7/udp/1/quic" + p2p, "/ip4/203.0.113.7/tcp/1/ws" + p2p,
		"/dns/a name/tcp/1" + p2p, "/dns//tcp/1" + p2p, "/dns/a-name-that-is-longer-than-forty-bytes-by-one/tcp/1" + p2p,
		"/ip4/203.0.113.7/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
		"/ip4/203.0.113.7/tcp/1" + p2p + "/p2p-circuit" + p2p,
	} {
		if h, err := ParseHint(s, HintMember); !errors.Is(err, room.Malformed) {
			t.Errorf("%q: %+v, %v", s, h, err)
		}
	}
	if _, err := ParseHint("/ip4/203.0.113.7/tcp/1"+p2p, 4); !errors.Is(err, room.Malformed) {
		t.Errorf("kind 4: %v", err)
	}
}
