package p2p

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"
)

// TestPrivateAddresses reads testdata/private.txt: "private" or "public", an address.
func TestPrivateAddresses(t *testing.T) {
	f, err := os.Open("testdata/private.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		want, addr, ok := strings.Cut(sc.Text(), " ")
		if !ok || strings.HasPrefix(want, "#") {
			continue
		}
		n++
		if got := !newGater().InterceptAddrDial("x", ma.StringCast(addr)); got != (want == "private") {
			t.Errorf("%s: refused %v, want %s", addr, got, want)
		}
	}
	if n < 30 {
		t.Errorf("only %d vectors", n)
	}
}

func TestGaterExceptions(t *testing.T) {
	g := newGater()
	a, b := ma.StringCast("/ip4/10.0.0.1/tcp/1"), ma.StringCast("/ip4/10.0.0.1/tcp/2")
	p, q := newID(t), newID(t)
	check := func(what string, p peer.ID, a ma.Multiaddr, want bool) {
		t.Helper()
		if g.InterceptAddrDial(p, a) != want {
			t.Errorf("%s: want %v", what, want)
		}
	}
	check("nobody", p, a, false)
	g.allowPeer(p)
	g.allowPeer(p)
	g.forbidPeer(p)
	check("counted", p, a, true)
	check("another", q, a, false)
	g.forbidPeer(p)
	g.forbidPeer(p)
	check("forbidden again", p, a, false)
	g.allowPeer(p)
	check("not below zero", p, a, true)
	g.forbidPeer(p)

	g.allowTyped(peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{a}})
	check("typed", p, a, true)
	check("typed, another port", p, b, false)
	check("typed for another", q, a, false)

	circuit := ma.StringCast("/ip4/10.0.0.1/tcp/1/p2p/" + p.String() + "/p2p-circuit")
	check("circuit through a typed relay", q, circuit, true)
	g.allowPeer(q)
	check("private relay of an allowed peer", q, ma.StringCast("/ip4/10.0.0.9/tcp/1/p2p/"+p.String()+"/p2p-circuit"), false)

	r := newID(t)
	g.allowTyped(peer.AddrInfo{ID: r, Addrs: []ma.Multiaddr{ma.StringCast("/dns4/home.example/tcp/1")}})
	check("typed name that resolves to a private address", r, a, true)
}

func newID(t testing.TB) peer.ID {
	t.Helper()
	p, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPrivateNotDialled: whatever names a private address — an address given to Connect, a signed record,
// a circuit, a redirect — nobody calls there until it is allowed.
func TestPrivateNotDialled(t *testing.T) {
	h := testHost(t, onTCP)
	addr, calls := listener(t)
	k := newKey(t)
	p, _ := peer.IDFromPrivateKey(k)

	env, err := record.Seal(peer.PeerRecordFromAddrInfo(peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{addr}}), k)
	if err != nil {
		t.Fatal(err)
	}
	rec, _ := env.Marshal()
	for _, private := range []bool{false, true} {
		if id, err := h.Learn(rec, newID(t), private); err != nil || id != p {
			t.Fatal(id, err)
		}
		if _, err := h.Open(testContext(t), p, "/balai/join/1"); err == nil {
			t.Fatal("opened")
		}
	}
	if err := h.Connect(testContext(t), peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{addr}}, true); err == nil {
		t.Fatal("connected")
	}
	relay := newID(t)
	circuit := addr.Encapsulate(ma.StringCast("/p2p/" + relay.String() + "/p2p-circuit"))
	h.AllowPrivate(p)
	if err := h.Connect(testContext(t), peer.AddrInfo{ID: newID(t), Addrs: []ma.Multiaddr{circuit}}, true); err == nil {
		t.Fatal("connected")
	}
	h.ForbidPrivate(p)
	if _, err := h.OpenLink(testContext(t), p, [32]byte{}, LinkConfig{}); err == nil {
		t.Fatal("link opened")
	}
	if n := calls.Load(); n != 0 {
		t.Fatalf("%d calls at the private address", n)
	}

	// The listener would have been heard: allowed, it is called.
	h.AllowPrivate(p)
	_ = h.Connect(testContext(t), peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{addr}}, true)
	if calls.Load() == 0 {
		t.Fatal("not called though allowed: the test shows nothing")
	}
}

func TestRecordAddrs(t *testing.T) {
	pub, lan, lo := ma.StringCast("/ip4/1.1.1.1/tcp/1"), ma.StringCast("/ip4/192.168.1.2/tcp/1"), ma.StringCast("/ip4/127.0.0.1/tcp/1")
	other := ma.StringCast("/ip4/2.2.2.2/tcp/1")
	for _, c := range []struct{ in, confirmed, want []ma.Multiaddr }{
		{[]ma.Multiaddr{lo, lan, pub}, nil, []ma.Multiaddr{pub, lan}},
		{[]ma.Multiaddr{lo, lan}, nil, []ma.Multiaddr{lan}},
		{[]ma.Multiaddr{lo}, nil, []ma.Multiaddr{lo}},
		{nil, nil, nil},
		{[]ma.Multiaddr{lan, pub, other}, []ma.Multiaddr{other}, []ma.Multiaddr{other, pub, lan}},
	} {
		got := recordAddrs(c.in, c.confirmed)
		if !slices.EqualFunc(got, c.want, func(a, b ma.Multiaddr) bool { return a.Equal(b) }) {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
}
