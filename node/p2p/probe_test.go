package p2p

import (
	"errors"
	"slices"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"
)

// learn hands h the record of another, private addresses allowed.
func learn(t testing.TB, h *Host, rec []byte) peer.ID {
	t.Helper()
	p, err := h.Learn(rec, "", true)
	if err != nil {
		t.Fatal(err)
	}
	h.AllowPrivate(p)
	return p
}

// signed is a record of the owner of key with any addresses.
func signed(t testing.TB, key crypto.PrivKey, seq uint64, addrs ...string) []byte {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	rec := &peer.PeerRecord{PeerID: id, Seq: seq}
	for _, a := range addrs {
		rec.Addrs = append(rec.Addrs, ma.StringCast(a))
	}
	env, err := record.Seal(rec, key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestProbe: a probe is a connection of its own, from a key that the other side keeps nothing of.
func TestProbe(t *testing.T) {
	for name, listen := range map[string]string{"quic": onQUIC, "tcp": onTCP} {
		t.Run(name, func(t *testing.T) {
			cb := testConfig(t, listen)
			store := dssync.MutexWrap(ds.NewMapDatastore())
			cb.Store = store
			a, b := testHost(t), start(t, cb)
			learn(t, a, b.Record())
			if err := a.Probe(testContext(t), b.ID()); err != nil {
				t.Fatal(err)
			}
			if a.host.Network().Connectedness(b.ID()) == network.Connected {
				t.Error("the probe left a connection")
			}
			connect(t, a, b)
			for range 2 * maxProbes {
				if err := a.Probe(testContext(t), b.ID()); err != nil {
					t.Fatal(err)
				}
			}
			stranger := a.prober.host.ID()
			eventually(t, "the probes have gone", func() bool { return b.host.Network().Connectedness(stranger) == network.NotConnected })
			eventually(t, "a is remembered", func() bool { return len(keys(t, store)) == 1 })
			if k := keys(t, store)[0]; k != peerKey(a.ID()).String() {
				t.Error("remembered:", k)
			}
			b.lobby.mu.Lock()
			if b.lobby.flows[stranger] != nil {
				t.Error("gossip knows the stranger")
			}
			b.lobby.mu.Unlock()
			if n := len(a.prober.host.Peerstore().PeersWithAddrs()); n > 1 { // its own
				t.Errorf("%d peers with addresses left", n)
			}
		})
	}
}

func keys(t *testing.T, store ds.Batching) (out []string) {
	t.Helper()
	res, err := store.Query(testContext(t), query.Query{Prefix: peersKey.String(), KeysOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	all, err := res.Rest()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		out = append(out, e.Key)
	}
	return out
}

// TestProbeFails: an open connection does not answer for a peer whose record names addresses at which it is
// not, nor does another peer at its address, and the gater's word holds.
func TestProbeFails(t *testing.T) {
	a, b, c := testHost(t), testHost(t), testHost(t)
	if err := a.Probe(testContext(t), b.ID()); err == nil {
		t.Error("probed a peer without a record")
	}
	if _, err := a.Learn(c.Record(), "", true); err != nil {
		t.Fatal(err)
	}
	if err := a.Probe(testContext(t), c.ID()); err == nil {
		t.Error("probed a private address that may not be dialled")
	}
	connect(t, b, a)
	dead, _ := listener(t)
	future := uint64(1) << 62
	p := learn(t, a, signed(t, b.cfg.Key, future, dead.String()))
	if p != b.ID() || a.host.Network().Connectedness(p) != network.Connected {
		t.Fatal("not connected")
	}
	if err := a.Probe(testContext(t), p); err == nil {
		t.Error("the open connection answered")
	}
	learn(t, a, signed(t, b.cfg.Key, future+1, c.host.Addrs()[0].String()))
	if err := a.Probe(testContext(t), p); err == nil {
		t.Error("another peer answered")
	}
	relay := c.Addrs()[0].String()
	learn(t, a, signed(t, b.cfg.Key, future+2, relay+"/p2p-circuit"))
	if err := a.Probe(testContext(t), p); err == nil {
		t.Error("probed by a circuit")
	}
	learn(t, a, signed(t, b.cfg.Key, future+3, b.host.Addrs()[0].String()))
	if err := a.Probe(testContext(t), p); err != nil {
		t.Error(err)
	}
	if err := a.Probe(testContext(t), a.ID()); err == nil {
		t.Error("probed itself")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Probe(testContext(t), p); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestPrefix(t *testing.T) {
	for addr, want := range map[string]string{
		"/ip4/203.0.114.7/udp/1/quic-v1":                        "\xcb\x00\x72",
		"/ip6/2a01:4f8:1:2::3/tcp/1":                            "\x2a\x01\x04\xf8\x00\x01",
		"/ip6/::ffff:203.0.114.7/tcp/1":                         "\xcb\x00\x72",
		"/ip4/127.0.0.1/tcp/1":                                  "",
		"/ip4/192.168.1.1/udp/1/quic-v1":                        "",
		"/ip6/fe80::1/tcp/1":                                    "",
		"/dns4/example.org/tcp/1":                               "",
		"/ip4/203.0.114.7/tcp/1/p2p/" + someID + "/p2p-circuit": "",
	} {
		if got := prefixOf(ma.StringCast(addr)); got != want {
			t.Errorf("%s: %x, want %x", addr, got, want)
		}
	}
	a, b := testHost(t), testHost(t)
	connect(t, a, b)
	la, _, _, _ := openPair(t, a, b)
	if a.Prefix() != "" || la.Prefix() != "" {
		t.Errorf("prefixes on loopback: %x, %x", a.Prefix(), la.Prefix())
	}
	c := start(t, Config{Key: newKey(t), Listen: []ma.Multiaddr{ma.StringCast(onTCP)}, announce: func(a []ma.Multiaddr) []ma.Multiaddr {
		return append(a, ma.StringCast("/ip6/2a01:4f8:1:2::3/tcp/1"), ma.StringCast("/ip4/203.0.114.7/tcp/1"))
	}})
	if got := c.Prefix(); got != "\xcb\x00\x72" {
		t.Errorf("own prefix %x", got)
	}
}

const someID = "12D3KooWBmAwcd4PJNJvfV89HwE48nwkRmAgo8Vy3uQEyNNHBox2"

func TestRecordCircuits(t *testing.T) {
	x, y := peerOf(t), peerOf(t)
	rec := signed(t, newKey(t), 1,
		"/ip4/203.0.114.7/udp/1/quic-v1",
		"/ip4/203.0.114.8/udp/1/quic-v1/p2p/"+y.String()+"/p2p-circuit",
		"/ip4/203.0.114.9/tcp/1/p2p/"+x.String()+"/p2p-circuit",
		"/ip4/203.0.114.8/tcp/1/p2p/"+y.String()+"/p2p-circuit",
		"/p2p-circuit")
	if got := RecordCircuits(rec); !slices.Equal(got, []peer.ID{y, x}) {
		t.Errorf("circuits %v", got)
	}
	rec[len(rec)-1] ^= 1
	if got := RecordCircuits(rec); got != nil {
		t.Errorf("circuits of a broken record: %v", got)
	}
	if RecordCircuits(nil) != nil {
		t.Error("circuits of nothing")
	}
}

func peerOf(t testing.TB) peer.ID {
	t.Helper()
	p, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
