package p2p

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"balai/room/wire"
)

// TestCloseLeavesNothing runs all services of two hosts and expects no goroutine after Close.
func TestCloseLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	ca, cb := testConfig(t), testConfig(t)
	ca.Community, ca.Store = true, dssync.MutexWrap(ds.NewMapDatastore())
	a, err := New(testContext(t), ca)
	if err != nil {
		t.Fatal(err)
	}
	cb.Bootstrap, cb.Store = []peer.AddrInfo{info(a)}, dssync.MutexWrap(ds.NewMapDatastore())
	b, err := New(testContext(t), cb)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "bootstrap connected and identified", func() bool { return len(b.CommunityNodes()) == 1 })
	a.OnLink(func(*Link) *LinkConfig { return &LinkConfig{} })
	if _, err := b.OpenLink(testContext(t), a.ID(), [32]byte{1}, LinkConfig{}); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Host{a, b} {
		if _, err := h.Lobby().Join("balai/rooms/0", TopicConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	a.Handle("/test/hang", 0, func(s *Stream) {
		_ = s.SetDeadline(time.Now().Add(time.Hour))
		_ = s.Read(new(wire.Seen))
	})
	s, err := b.Open(testContext(t), a.ID(), "/test/hang")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(&wire.Seen{Seq: 1}); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Host{b, a, a} {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	noLeaks(t, before)
}

// TestManyBehindOneAddress connects 200 peers from 127.0.0.1.
func TestManyBehindOneAddress(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 200 hosts")
	}
	h := testHost(t)
	var addr ma.Multiaddr
	for _, a := range h.host.Addrs() {
		if _, err := a.ValueForProtocol(ma.P_TCP); err == nil {
			addr = a
		}
	}
	const n = 200
	for range n {
		c, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.Transport(tcp.NewTCPTransport),
			libp2p.ResourceManager(&network.NullResourceManager{}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.Connect(testContext(t), peer.AddrInfo{ID: h.ID(), Addrs: []ma.Multiaddr{addr}}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "200 peers", func() bool { return h.Peers() == n })
}

func TestAddrsAreDialable(t *testing.T) {
	a, b := testHost(t), testHost(t)
	infos, err := peer.AddrInfosFromP2pAddrs(a.Addrs()...)
	if err != nil || len(infos) != 1 || infos[0].ID != a.ID() || len(infos[0].Addrs) != 2 {
		t.Fatalf("addrs %v: %v, %v", a.Addrs(), infos, err)
	}
	b.AllowPrivate(a.ID())
	if err := b.Connect(testContext(t), infos[0], false); err != nil {
		t.Fatal(err)
	}
	if b.Peers() != 1 {
		t.Errorf("%d peers", b.Peers())
	}
	eventually(t, "reached from loopback", func() bool { return a.Reachability() == "local" })
	if r := b.Reachability(); r != "unknown" {
		t.Errorf("reachability of the one that dialled: %s", r)
	}
}

// TestFailedDial: a peer that did not answer is left alone, unless forced, for five minutes.
func TestFailedDial(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().Unix())
	c := testConfig(t, onTCP)
	c.Now = func() time.Time { return time.Unix(now.Load(), 0) }
	h := start(t, c)

	l, calls := listener(t)
	p, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	h.AllowPrivate(p)
	target := peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{l}}
	if err := h.Connect(testContext(t), target, false); err == nil || errors.Is(err, ErrCooldown) {
		t.Fatalf("first: %v", err)
	}
	first := calls.Load()
	if first == 0 {
		t.Fatal("the first dial did not reach the listener")
	}
	if err := h.Connect(testContext(t), target, false); !errors.Is(err, ErrCooldown) || calls.Load() != first {
		t.Fatalf("second: %v, %d calls", err, calls.Load())
	}
	if _, err := h.Open(testContext(t), p, "/x"); !errors.Is(err, ErrCooldown) {
		t.Fatalf("open: %v", err)
	}
	now.Add(int64(retryAfter / time.Second))
	if err := h.Connect(testContext(t), target, false); errors.Is(err, ErrCooldown) {
		t.Fatalf("after five minutes: %v", err)
	}
}

// TestLateDial: a peer whose dial only ran out of time is tried again soon; of one that stays silent that becomes rare.
func TestLateDial(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().Unix())
	c := testConfig(t, onQUIC)
	c.Now = func() time.Time { return time.Unix(now.Load(), 0) }
	h := start(t, c)
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	_, port, _ := net.SplitHostPort(silent.LocalAddr().String())
	p := newID(t)
	h.AllowPrivate(p)
	target := peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/udp/" + port + "/quic-v1")}}
	connect := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		return h.Connect(ctx, target, false)
	}
	if err := connect(); err == nil || errors.Is(err, ErrCooldown) {
		t.Fatalf("first: %v", err)
	}
	if err := connect(); !errors.Is(err, ErrCooldown) {
		t.Fatalf("at once again: %v", err)
	}
	now.Add(int64(lateAfter / time.Second))
	if err := connect(); err == nil || errors.Is(err, ErrCooldown) {
		t.Fatalf("after ten seconds: %v", err)
	}

	d, at := newDialBook(), time.Unix(1_000_000, 0)
	for _, want := range []time.Duration{lateAfter, 2 * lateAfter, 4 * lateAfter, 8 * lateAfter, 16 * lateAfter, retryAfter, retryAfter} {
		d.late(p, nil, at)
		if at = at.Add(want); !d.failedLately(p, at.Add(-time.Second)) || d.failedLately(p, at) {
			t.Errorf("not left alone for %v", want)
		}
	}
	if d.done(p, true, nil, at); d.failedLately(p, at) {
		t.Error("left alone though reached")
	}
	if d.late(p, nil, at); d.failedLately(p, at.Add(lateAfter)) {
		t.Error("what was before it was reached counts")
	}
}

// listener accepts and closes TCP connections on loopback and counts them.
func listener(t testing.TB) (ma.Multiaddr, *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	host, port, _ := net.SplitHostPort(l.Addr().String())
	return ma.StringCast("/ip4/" + host + "/tcp/" + port), &calls
}
