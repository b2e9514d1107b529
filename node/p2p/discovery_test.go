package p2p

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"balai/node/p2p/rendezvous"
	"balai/room"
	"balai/room/wire"
	"balai/test/stalls"
)

// community starts a rendezvous point and two hosts that keep connected to it.
func community(t *testing.T, listen ...string) (point, a, b *Host) {
	t.Helper()
	cp := testConfig(t)
	cp.Community = true
	point = start(t, cp)
	ca, cb := testConfig(t, listen...), testConfig(t, listen...)
	ca.Bootstrap, cb.Bootstrap = []peer.AddrInfo{info(point)}, []peer.AddrInfo{info(point)}
	a, b = start(t, ca), start(t, cb)
	eventually(t, "connected to the point", func() bool {
		return len(a.CommunityNodes()) == 1 && len(b.CommunityNodes()) == 1
	})
	return point, a, b
}

func TestRendezvous(t *testing.T) {
	point, a, b := community(t)
	ctx := testContext(t)
	if a.CommunityNodes()[0] != point.ID() || len(point.CommunityNodes()) != 0 {
		t.Error("community nodes")
	}
	const ns = "balai/room/today"
	if got, err := b.Rendezvous().Discover(ctx, point.ID(), ns); err != nil || len(got) != 0 {
		t.Fatal(got, err)
	}
	if err := a.Rendezvous().Register(ctx, point.ID(), ns); err != nil {
		t.Fatal(err)
	}
	got, err := b.Rendezvous().Discover(ctx, point.ID(), ns)
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	if id, err := b.Learn(got[0], point.ID(), true); err != nil || id != a.ID() {
		t.Fatal(id, err)
	}
	b.AllowPrivate(a.ID())
	if err := b.Connect(ctx, peer.AddrInfo{ID: a.ID()}, false); err != nil {
		t.Fatal(err)
	}
	if err := a.Rendezvous().Unregister(ctx, point.ID(), ns); err != nil {
		t.Fatal(err)
	}
	eventually(t, "unregistered", func() bool {
		got, err := b.Rendezvous().Discover(ctx, point.ID(), ns)
		return err == nil && len(got) == 0
	})
	if err := a.Rendezvous().Register(ctx, point.ID(), strings.Repeat("x", 256)); !errors.Is(err, room.Malformed) {
		t.Errorf("a long namespace: %v", err)
	}
	if _, err := a.Rendezvous().Discover(ctx, b.ID(), ns); err == nil {
		t.Error("a host that is no point answers")
	}
}

// TestRendezvousForgery: a point takes only a record that its caller has signed for itself.
func TestRendezvousForgery(t *testing.T) {
	point, a, b := community(t)
	rendezvousOf := func(rec []byte, ttl uint64) rendezvous.Message_ResponseStatus {
		m, err := a.Rendezvous().ask(testContext(t), point.ID(), &rendezvous.Message{
			Type:     rendezvous.Message_REGISTER.Enum(),
			Register: &rendezvous.Message_Register{Ns: proto.String("ns"), SignedPeerRecord: rec, Ttl: &ttl},
		})
		if err != nil {
			t.Fatal(err)
		}
		return m.GetRegisterResponse().GetStatus()
	}
	bad := append([]byte{}, a.Record()...)
	bad[len(bad)-1] ^= 1
	for what, rec := range map[string][]byte{"none": nil, "junk": []byte("junk"), "another's": b.Record(), "changed": bad} {
		if s := rendezvousOf(rec, 7200); s != rendezvous.Message_E_INVALID_SIGNED_PEER_RECORD {
			t.Errorf("%s: %v", what, s)
		}
	}
	for _, ttl := range []uint64{1, 7199, 72*3600 + 1, 1 << 63, 1<<64 - 1} {
		if s := rendezvousOf(a.Record(), ttl); s != rendezvous.Message_E_INVALID_TTL {
			t.Errorf("ttl %d: %v", ttl, s)
		}
	}
	for _, ttl := range []uint64{0, 7200, 72 * 3600} {
		if s := rendezvousOf(a.Record(), ttl); s != rendezvous.Message_OK {
			t.Errorf("ttl %d: %v", ttl, s)
		}
	}
}

// TestCircuit: through a community node, control passes and media does not.
func TestCircuit(t *testing.T) {
	point, a, b := community(t)
	if _, err := circuit.Reserve(testContext(t), a.host, info(point)); err != nil {
		t.Fatal(err)
	}
	a.Handle("/balai/join/1", 0, func(s *Stream) {
		var m wire.JoinMessage
		if s.Read(&m) == nil {
			_ = s.Write(&m)
		}
	})
	a.OnLink(func(*Link) *LinkConfig { return &LinkConfig{} })
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
	s, err := b.Open(testContext(t), a.ID(), "/balai/join/1")
	if err != nil {
		t.Fatal(err)
	}
	m := &wire.JoinMessage{Message: &wire.JoinMessage_Hello{Hello: &wire.Hello{Room: []byte("r")}}}
	var got wire.JoinMessage
	if err := errors.Join(s.Write(m), s.Read(&got)); err != nil || !proto.Equal(m, &got) {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(testContext(t), time.Second)
	defer cancel()
	if _, err := b.OpenLink(short, a.ID(), [32]byte{}, LinkConfig{}); !errors.Is(err, ErrCircuit) {
		t.Errorf("media over a circuit: %v", err)
	}
	// A link asked for over the circuit opens as soon as there is a direct connection, whoever made it.
	opened := make(chan error, 1)
	go func() {
		_, err := b.OpenLink(testContext(t), a.ID(), [32]byte{}, LinkConfig{})
		opened <- err
	}()
	eventually(t, "b waits", func() bool {
		b.links.changes.mu.Lock()
		defer b.links.changes.mu.Unlock()
		return len(b.links.changes.peers[a.ID()]) == 1
	})
	a.AllowPrivate(b.ID())
	ctx := network.WithForceDirectDial(testContext(t), "test")
	if err := a.host.Connect(ctx, info(b)); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("after a direct connection: %v", err)
	}
	if b.links.changes.peers[a.ID()] != nil {
		t.Error("b still waits")
	}
}

// TestSeekCircuits: the search for reservations begins with the first community node. (On loopback none is made.)
func TestSeekCircuits(t *testing.T) {
	t.Cleanup(stalls.Watch())
	began := time.Now()
	_, a, _ := community(t)
	sub, err := a.host.EventBus().Subscribe(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close() //nolint:errcheck // a local bus
	select {
	case e := <-sub.Out(): // the last one, if it has been
		if r := e.(event.EvtLocalReachabilityChanged).Reachability; r != network.ReachabilityUnknown {
			t.Error("reachability", r)
		}
	case <-time.After(limit):
		t.Error("the search has not begun")
	}
	if took := stalls.Took(began); took > 12*time.Second { // AutoNAT's own would come after 15
		t.Errorf("the search began only after %v", took)
	}
}

// TestPastCircuit: a link asked for over a circuit dials the peer's own addresses, where it may.
func TestPastCircuit(t *testing.T) {
	point, a, b := community(t, onQUIC)
	if _, err := circuit.Reserve(testContext(t), a.host, info(point)); err != nil {
		t.Fatal(err)
	}
	a.OnLink(func(*Link) *LinkConfig { return &LinkConfig{} })
	relay, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: point.ID(), Addrs: point.host.Addrs()[:1]})
	if err != nil {
		t.Fatal(err)
	}
	target := peer.AddrInfo{ID: a.ID(), Addrs: []ma.Multiaddr{relay[0].Encapsulate(ma.StringCast("/p2p-circuit"))}}
	if err := b.Connect(testContext(t), target, false); err != nil {
		t.Fatal(err)
	}
	learn(t, b, a.Record())
	if c := b.host.Network().Connectedness(a.ID()); c != network.Limited {
		t.Fatalf("connected %v", c)
	}
	l, err := b.OpenLink(testContext(t), a.ID(), [32]byte{}, LinkConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if l.Carrier() != Datagram {
		t.Error("not by QUIC")
	}
}

// TestHeardOnLAN gives the mDNS notifee what a service would give it.
func TestHeardOnLAN(t *testing.T) {
	a, b := testHost(t), testHost(t)
	found := info(b)
	if b.OnLAN(a.ID()) || a.OnLAN(b.ID()) {
		t.Error("on the LAN before")
	}
	heard{a}.HandlePeerFound(info(a))
	heard{a}.HandlePeerFound(found)
	if !a.OnLAN(b.ID()) || a.OnLAN(a.ID()) {
		t.Error("not noted")
	}
	if a.host.Network().Connectedness(b.ID()) != network.Connected {
		t.Error("not connected to the private address heard")
	}
	// Only what was heard is let through.
	_, calls := listener(t)
	other, _ := listener(t)
	if err := a.host.Network().ClosePeer(b.ID()); err != nil {
		t.Fatal(err)
	}
	if a.gate.InterceptAddrDial(b.ID(), other) || calls.Load() != 0 {
		t.Error("another private address of that peer is allowed")
	}
	// The table is bounded, and who falls out is not allowed any more.
	for range maxLAN {
		a.lan.note(newFastID(), time.Now().Add(time.Hour))
	}
	heard{a}.HandlePeerFound(peer.AddrInfo{ID: newFastID()})
	if len(a.lan.peers) > maxLAN {
		t.Errorf("%d peers", len(a.lan.peers))
	}
	_ = a.Close()
	heard{a}.HandlePeerFound(found)
}

// TestRemembered: a peer met is dialled after a restart, from its signed record.
func TestRemembered(t *testing.T) {
	store := dssync.MutexWrap(ds.NewMapDatastore())
	b := testHost(t)
	c := testConfig(t)
	c.Store = store
	gate := newGater()
	gate.allowPeer(b.ID()) // on loopback nobody is dialled otherwise
	first, err := newHost(testContext(t), c, gate)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Connect(testContext(t), info(b), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "kept", func() bool {
		ok, err := store.Has(testContext(t), peerKey(b.ID()))
		return err == nil && ok
	})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(testContext(t), peersKey.ChildString("damaged"), []byte("junk")); err != nil {
		t.Fatal(err)
	}
	again, err := newHost(testContext(t), c, gate)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close() //nolint:errcheck // the test is over
	eventually(t, "dialled again", func() bool { return again.host.Network().Connectedness(b.ID()) == network.Connected })
	eventually(t, "the damaged one is dropped", func() bool {
		ok, err := store.Has(testContext(t), peersKey.ChildString("damaged"))
		return err == nil && !ok
	})

	// Without the exception the private address is not even kept, which the damaged entry's end shows: it
	// comes in the same pass.
	if err := store.Put(testContext(t), peersKey.ChildString("damaged"), []byte("junk")); err != nil {
		t.Fatal(err)
	}
	c = testConfig(t)
	c.Store = store
	strict := start(t, c)
	eventually(t, "loaded", func() bool {
		ok, err := store.Has(testContext(t), peersKey.ChildString("damaged"))
		return err == nil && !ok
	})
	time.Sleep(100 * time.Millisecond)
	if strict.Peers() != 0 || len(strict.host.Peerstore().Addrs(b.ID())) != 0 {
		t.Error("a private address remembered was dialled")
	}
}

func TestPeerStore(t *testing.T) {
	ctx := testContext(t)
	store := dssync.MutexWrap(ds.NewMapDatastore())
	now := time.Unix(1_800_000_000, 0)
	s := &peerStore{ds: store, log: (Config{}).withDefaults().Log}
	s.load(ctx, now)
	addr := ma.StringCast("/ip4/1.1.1.1/tcp/1")
	make1 := func(age time.Duration, community bool) remembered {
		k := newKey(t)
		p, _ := peer.IDFromPrivateKey(k)
		env, err := record.Seal(peer.PeerRecordFromAddrInfo(peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{addr}}), k)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := env.Marshal()
		return remembered{p, now.Add(-age), community, b}
	}
	node := make1(20*24*time.Hour, true)
	old := make1(31*24*time.Hour, false)
	s.met(ctx, node)
	s.met(ctx, old)
	for i := range maxRemembered + 20 {
		s.met(ctx, make1(time.Duration(i)*time.Minute, false))
	}
	if len(s.known) != maxRemembered {
		t.Fatalf("%d known", len(s.known))
	}
	all := (&peerStore{ds: store, log: s.log}).load(ctx, now)
	if len(all) < 200 || all[0].id != node.id {
		t.Fatalf("%d loaded, the community node not first", len(all))
	}
	for i, r := range all[1:] {
		if r.id == old.id || i > 0 && r.met.After(all[i].met) {
			t.Fatal("order or age")
		}
	}
	if got := (&peerStore{ds: store, log: s.log}).load(ctx, now.Add(rememberFor+time.Second)); len(got) != 0 {
		t.Errorf("%d remembered after 30 days", len(got))
	}
}

// TestBootstrapAgain: a bootstrap peer that went and came back is connected again.
func TestBootstrapAgain(t *testing.T) {
	cp := testConfig(t, onTCP)
	point, err := New(testContext(t), cp)
	if err != nil {
		t.Fatal(err)
	}
	c := testConfig(t, onTCP)
	c.Bootstrap = []peer.AddrInfo{info(point)}
	a := start(t, c)
	eventually(t, "connected", func() bool { return a.Peers() == 1 })
	cp.Listen = point.host.Addrs()
	if err := point.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "gone", func() bool { return a.Peers() == 0 })
	start(t, cp)
	eventually(t, "connected again", func() bool { return a.Peers() == 1 })
}

// BenchmarkLink sends bundles of 360 bytes over a datagram link on loopback, one at a time.
func BenchmarkLink(b *testing.B) {
	x, y := testHost(b, onQUIC), testHost(b, onQUIC)
	connect(b, x, y)
	var got atomic.Int64
	arrived := make(chan struct{}, 1)
	y.OnLink(func(*Link) *LinkConfig {
		return &LinkConfig{Receive: func(*Link, []byte) {
			got.Add(1)
			select {
			case arrived <- struct{}{}:
			default:
			}
		}}
	})
	l, err := x.OpenLink(testContext(b), y.ID(), [32]byte{1}, LinkConfig{})
	if err != nil {
		b.Fatal(err)
	}
	payload := append(bundle(l, ""), make([]byte, 350)...)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		l.Send(payload)
		select {
		case <-arrived:
		case <-time.After(time.Second):
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(got.Load())/float64(b.N), "arrived/op")
}

// BenchmarkSend is the caller's share alone.
func BenchmarkSend(b *testing.B) {
	x, y := testHost(b, onQUIC), testHost(b, onQUIC)
	connect(b, x, y)
	y.OnLink(func(*Link) *LinkConfig { return &LinkConfig{} })
	l, err := x.OpenLink(testContext(b), y.ID(), [32]byte{1}, LinkConfig{})
	if err != nil {
		b.Fatal(err)
	}
	payload := append(bundle(l, ""), make([]byte, 350)...)
	b.ReportAllocs()
	for b.Loop() {
		l.Send(payload)
	}
}
