package p2p

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/wire"
)

// As is experimental in libp2p: this fails to compile if it goes, and TestQUICBelow fails if it changes.
var _ func(network.Conn, any) bool = network.Conn.As

func TestQUICBelow(t *testing.T) {
	a, b := testHost(t, onQUIC), testHost(t, onQUIC)
	connect(t, a, b)
	var q *quic.Conn
	if c := a.host.Network().ConnsToPeer(b.ID())[0]; !c.As(&q) || q == nil || quicOf(c) != q {
		t.Fatal("no QUIC connection below a QUIC connection")
	}
	if s := q.ConnectionState(); !s.SupportsDatagrams.Local || !s.SupportsDatagrams.Remote {
		t.Fatalf("no datagrams: %+v", s.SupportsDatagrams)
	}
	c, d := testHost(t, onTCP), testHost(t, onTCP)
	connect(t, c, d)
	if quicOf(c.host.Network().ConnsToPeer(d.ID())[0]) != nil {
		t.Fatal("QUIC below TCP")
	}
}

func bundle(l *Link, body string) []byte {
	b := binary.AppendUvarint([]byte{bundleMark, 0}, uint64(l.Handle()))
	b = binary.BigEndian.AppendUint16(b, l.Seq())
	return append(b, body...)
}

// end is one side of a link in a test.
type end struct {
	link   chan *Link
	got    chan string
	closed chan struct{}
}

func newEnd() *end {
	return &end{make(chan *Link, 1), make(chan string, 1000), make(chan struct{})}
}

func (e *end) config(sources ...*wire.Signed) LinkConfig {
	return LinkConfig{
		Sources: sources,
		Receive: func(l *Link, b []byte) {
			select {
			case e.got <- string(b):
			default:
			}
		},
		Closed: func(*Link) { close(e.closed) },
	}
}

// openPair opens a link from a to b.
func openPair(t testing.TB, a, b *Host) (la, lb *Link, ea, eb *end) {
	t.Helper()
	ea, eb = newEnd(), newEnd()
	b.OnLink(func(l *Link) *LinkConfig {
		c := eb.config(&wire.Signed{Body: []byte("b's source")})
		eb.link <- l
		return &c
	})
	la, err := a.OpenLink(testContext(t), b.ID(), [32]byte{7}, ea.config(&wire.Signed{Body: []byte("a's source")}))
	if err != nil {
		t.Fatal(err)
	}
	lb = <-eb.link
	eventually(t, "both open", func() bool { return lb.Handle() != 0 && b.links.find(lb.mine, a.ID()) == lb })
	return la, lb, ea, eb
}

// pass sends until one bundle arrives: datagrams may be lost.
func pass(t testing.TB, l *Link, to *end) string {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if !l.Send(bundle(l, "hello")) {
			t.Fatal("not sent")
		}
		select {
		case b := <-to.got:
			return b
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatal("no bundle arrived")
	return ""
}

func TestLink(t *testing.T) {
	for name, c := range map[string]struct {
		listen  string
		carrier Carrier
	}{"datagram": {onQUIC, Datagram}, "stream": {onTCP, OverStream}} {
		t.Run(name, func(t *testing.T) {
			a, b := testHost(t, c.listen), testHost(t, c.listen)
			connect(t, a, b)
			la, lb, ea, eb := openPair(t, a, b)
			if la.Carrier() != c.carrier || lb.Carrier() != c.carrier {
				t.Errorf("carriers %d, %d", la.Carrier(), lb.Carrier())
			}
			if la.Remote() != b.ID() || lb.Remote() != a.ID() || la.Room() != [32]byte{7} || lb.Room() != [32]byte{7} {
				t.Error("remote or room")
			}
			if len(lb.Sources()) != 1 || string(lb.Sources()[0].Body) != "a's source" || string(la.Sources()[0].Body) != "b's source" {
				t.Error("sources", la.Sources(), lb.Sources())
			}
			for l, to := range map[*Link]*end{la: eb, lb: ea} {
				got := pass(t, l, to)
				want := bundle(l, "hello")
				if got[:3] != string(want[:3]) || got[len(got)-5:] != "hello" {
					t.Errorf("got %x", got)
				}
			}
			large := append(bundle(la, ""), make([]byte, MaxBundle-len(bundle(la, "")))...)
			for !la.Send(large) {
				t.Fatal("the largest bundle is refused")
			}
			eventually(t, "the largest bundle", func() bool {
				la.Send(large)
				select {
				case b := <-eb.got:
					return len(b) == MaxBundle
				case <-time.After(20 * time.Millisecond):
					return false
				}
			})
			for _, bad := range [][]byte{nil, {}, {1, 2, 3}, append(large, 0)} {
				if la.Send(bad) {
					t.Errorf("sent %d bytes that are no bundle", len(bad))
				}
			}
			if name == "datagram" && la.RTT() <= 0 {
				t.Error("no RTT")
			}
			la.Close()
			la.Close()
			<-ea.closed
			<-eb.closed
			if la.Send(bundle(la, "x")) || lb.Send(bundle(lb, "x")) {
				t.Error("sent on a closed link")
			}
			if len(a.links.links)+len(b.links.links)+len(a.links.peers)+len(b.links.peers) != 0 {
				t.Error("links left in the table")
			}
		})
	}
}

// TestLinkUnknownHandle: a bundle for a handle not given out, or given to another peer, goes nowhere.
func TestLinkUnknownHandle(t *testing.T) {
	a, b, x := testHost(t, onQUIC), testHost(t, onQUIC), testHost(t, onQUIC)
	connect(t, a, b)
	connect(t, x, b)
	la, lb, _, eb := openPair(t, a, b)
	pass(t, la, eb)
	_, lx, _, ex := openPair(t, x, b) // x may send datagrams to b
	if lx.mine == lb.mine {
		t.Fatal("one handle twice")
	}
	drain(eb)
	var qa, qx *quic.Conn
	a.host.Network().ConnsToPeer(b.ID())[0].As(&qa)
	x.host.Network().ConnsToPeer(b.ID())[0].As(&qx)
	send := func(q *quic.Conn, b []byte) {
		if err := q.SendDatagram(b); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		send(qx, bundle(la, "theirs")) // a's handle, over x's connection
		send(qa, append(binary.AppendUvarint([]byte{bundleMark, 0}, uint64(lb.mine+1000)), "unknown"...))
		send(qa, []byte{})
		send(qa, []byte{bundleMark, 0})
		send(qa, bytes.Repeat([]byte{0xff}, 50))
		send(qa, append([]byte{bundleMark, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80}, 1))
		time.Sleep(time.Millisecond)
	}
	for {
		got := pass(t, la, eb)
		if !bytes.HasSuffix([]byte(got), []byte("hello")) {
			t.Fatalf("received %q", got)
		}
		if len(eb.got) == 0 {
			break
		}
	}
	if len(ex.got) != 0 {
		t.Errorf("x's link received %q", <-ex.got)
	}
}

func drain(e *end) {
	for len(e.got) > 0 {
		<-e.got
	}
}

func TestLinkRefused(t *testing.T) {
	a, b := testHost(t), testHost(t)
	connect(t, a, b)
	open := func() error {
		_, err := a.OpenLink(testContext(t), b.ID(), [32]byte{1}, LinkConfig{})
		return err
	}
	if err := open(); !errors.Is(err, room.Declined) {
		t.Errorf("nobody decides: %v", err)
	}
	b.OnLink(func(l *Link) *LinkConfig {
		if l.Remote() != a.ID() || l.Room() != [32]byte{1} {
			t.Error("asked about", l.Remote(), l.Room())
		}
		return nil
	})
	if err := open(); !errors.Is(err, room.Declined) {
		t.Errorf("refused: %v", err)
	}
	b.OnLink(func(l *Link) *LinkConfig { return &LinkConfig{} })
	for range maxPeerLinks {
		if err := open(); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(); !errors.Is(err, ErrLimit) {
		t.Errorf("a ninth link: %v", err)
	}
}

// TestStalledLink: a peer that stops reading, by stream or by datagram, holds up neither Send nor the link
// to another.
func TestStalledLink(t *testing.T) {
	t.Run("stream", func(t *testing.T) {
		a, slow, ok := testHost(t, onTCP), testHost(t, onTCP), testHost(t, onTCP)
		connect(t, a, slow)
		connect(t, a, ok)
		release := make(chan struct{})
		slow.OnLink(func(*Link) *LinkConfig {
			return &LinkConfig{Receive: func(*Link, []byte) { <-release }}
		})
		ls, err := a.OpenLink(testContext(t), slow.ID(), [32]byte{1}, LinkConfig{})
		if err != nil {
			t.Fatal(err)
		}
		stalled(t, a, ok, ls)
		close(release)
	})
	t.Run("datagram", func(t *testing.T) {
		a, slow, ok := testHost(t, onQUIC), testHost(t, onQUIC), testHost(t, onQUIC)
		connect(t, a, ok)
		cut := throughProxy(t, a, slow)
		slow.OnLink(func(*Link) *LinkConfig { return &LinkConfig{} })
		ls, err := a.OpenLink(testContext(t), slow.ID(), [32]byte{1}, LinkConfig{})
		if err != nil {
			t.Fatal(err)
		}
		cut.Store(true)
		stalled(t, a, ok, ls)
	})
}

// stalled floods ls until it drops, and expects the link to ok to carry all the same.
func stalled(t *testing.T, a, ok *Host, ls *Link) {
	t.Helper()
	lo, _, _, eo := openPair(t, a, ok)
	full := append(bundle(ls, ""), make([]byte, 1000)...)
	eventually(t, "the stalled link drops", func() bool {
		for range 1000 {
			ls.Send(full)
		}
		time.Sleep(time.Millisecond)
		before := ls.Dropped()
		time.Sleep(5 * time.Millisecond)
		for range linkQueue {
			ls.Send(full)
		}
		return ls.Dropped() == before+linkQueue // nothing leaves the queue any more
	})
	for range 50 {
		drain(eo)
		pass(t, lo, eo)
		ls.Send(full)
	}
}

// throughProxy connects a to b by a UDP proxy on loopback that can be cut.
func throughProxy(t *testing.T, a, b *Host) *atomic.Bool {
	t.Helper()
	port, err := b.host.Addrs()[0].ValueForProtocol(ma.P_UDP)
	if err != nil {
		t.Fatal(err)
	}
	target, _ := net.ResolveUDPAddr("udp4", "127.0.0.1:"+port)
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.DialUDP("udp4", nil, target)
	if err != nil {
		t.Fatal(err)
	}
	var cut atomic.Bool
	var client atomic.Pointer[net.UDPAddr]
	var wg sync.WaitGroup
	wg.Go(func() {
		var buf [2000]byte
		for {
			n, from, err := front.ReadFromUDP(buf[:])
			if err != nil {
				return
			}
			client.Store(from)
			if !cut.Load() {
				_, _ = back.Write(buf[:n])
			}
		}
	})
	wg.Go(func() {
		var buf [2000]byte
		for {
			n, err := back.Read(buf[:])
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if c := client.Load(); err == nil && c != nil && !cut.Load() {
				_, _ = front.WriteToUDP(buf[:n], c)
			}
		}
	})
	t.Cleanup(func() {
		_, _ = front.Close(), back.Close()
		wg.Wait()
	})
	_, p, _ := net.SplitHostPort(front.LocalAddr().String())
	a.AllowPrivate(b.ID())
	err = a.Connect(testContext(t), peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/udp/" + p + "/quic-v1")}}, true)
	if err != nil {
		t.Fatal(err)
	}
	return &cut
}

// TestLinkCarrierChanges: a link that began on TCP takes up a QUIC connection that the other side made
// later, in both directions, and goes back to its stream when that ends.
func TestLinkCarrierChanges(t *testing.T) {
	a, b := testHost(t), testHost(t)
	a.AllowPrivate(b.ID())
	byTCP, byQUIC := peer.AddrInfo{ID: b.ID()}, ma.Multiaddr(nil)
	for _, x := range b.host.Addrs() {
		if _, err := x.ValueForProtocol(ma.P_TCP); err == nil {
			byTCP.Addrs = append(byTCP.Addrs, x)
		} else {
			byQUIC = x
		}
	}
	if err := a.Connect(testContext(t), byTCP, true); err != nil {
		t.Fatal(err)
	}
	la, lb, ea, eb := openPair(t, a, b)
	if la.Carrier() != OverStream {
		t.Fatalf("carrier %d over TCP", la.Carrier())
	}
	pass(t, la, eb)

	// A connection that a's swarm does not know: only b sees two.
	conn, err := a.host.Network().(*swarm.Swarm).TransportForDialing(byQUIC).Dial(testContext(t), byQUIC, b.ID())
	if err != nil {
		t.Fatal(err)
	}
	var q *quic.Conn
	if !conn.As(&q) {
		t.Fatal("not QUIC")
	}
	eventually(t, "b takes up the newest", func() bool { return lb.Carrier() == Datagram })
	eventually(t, "b sends by it", func() bool {
		lb.Send(bundle(lb, "by datagram"))
		ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
		defer cancel()
		got, err := q.ReceiveDatagram(ctx)
		return err == nil && bytes.HasSuffix(got, []byte("by datagram"))
	})
	drain(eb)
	eventually(t, "b hears by it", func() bool {
		if err := q.SendDatagram(bundle(la, "heard")); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-eb.got:
			return strings.HasSuffix(got, "heard")
		case <-time.After(20 * time.Millisecond):
			return false
		}
	})
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "back to the stream", func() bool { return lb.Carrier() == OverStream })
	drain(ea)
	pass(t, lb, ea)
}

func TestSendQueue(t *testing.T) {
	var q sendQueue
	q.init()
	for i := range byte(5) {
		if !q.push([]byte{i}) {
			t.Fatal("refused")
		}
	}
	b := make([]byte, 10)
	for want := byte(2); want < 5; want++ {
		if n := q.pop(b); n != 1 || b[0] != want {
			t.Errorf("popped %d, want %d", b[0], want)
		}
	}
	if q.droppedCount() != 2 {
		t.Errorf("%d dropped", q.droppedCount())
	}
	q.push([]byte{9})
	q.close()
	if q.pop(b) != 0 || q.push([]byte{1}) {
		t.Error("a closed queue goes on")
	}
}

func FuzzLinkRecords(f *testing.F) {
	good, err := proto.Marshal(&wire.LinkRecord{Record: &wire.LinkRecord_Open{Open: &wire.LinkOpen{
		Room: make([]byte, 32), Handle: 5, Carrier: 1, Sources: []*wire.Signed{{Body: []byte("x")}},
	}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{bundleMark, 0, 5, 1, 2})
	f.Add([]byte{bundleMark, 0, 0x80, 0x01})
	f.Add([]byte{0x3a, 2, 8, 20})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := parseHello(b)
		if (o == nil) == (err == nil) {
			t.Fatal(o, err)
		}
		if o != nil && (len(o.Room) != 32 || o.Handle == 0 || len(o.Sources) > maxLinkSources) {
			t.Fatal("let through", o)
		}
		h, ok := bundleHandle(b)
		if !ok {
			return
		}
		back := binary.AppendUvarint(nil, uint64(h))
		if h == 0 || h > maxHandle || len(back) > 3 {
			t.Fatal("handle", h)
		}
	})
}
