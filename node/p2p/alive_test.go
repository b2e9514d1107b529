package p2p

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
)

// wall is a UDP port that passes on to another and back, until it is shut.
type wall struct {
	addr ma.Multiaddr
	to   atomic.Pointer[net.UDPAddr]
	shut atomic.Bool
}

// before puts it before a host's QUIC port.
func (w *wall) before(t *testing.T, h *Host) {
	t.Helper()
	for _, a := range h.host.Network().ListenAddresses() {
		if !has(a, ma.P_QUIC_V1) || isCircuit(a) {
			continue
		}
		port, err := a.ValueForProtocol(ma.P_UDP)
		if err != nil {
			t.Fatal(err)
		}
		to, err := net.ResolveUDPAddr("udp4", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		w.to.Store(to)
	}
}

func newWall(t *testing.T) *wall {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(front.LocalAddr().String())
	w := &wall{addr: ma.StringCast("/ip4/127.0.0.1/udp/" + port + "/quic-v1")}
	var wg sync.WaitGroup
	var mu sync.Mutex
	backs := map[string]*net.UDPConn{}
	wg.Go(func() {
		b := make([]byte, 2048)
		for {
			n, from, err := front.ReadFromUDP(b)
			if err != nil {
				return
			}
			mu.Lock()
			back := backs[from.String()]
			if back == nil {
				if back, err = net.DialUDP("udp4", nil, w.to.Load()); err != nil {
					mu.Unlock()
					return
				}
				backs[from.String()] = back
				wg.Go(func() {
					b := make([]byte, 2048)
					for {
						n, err := back.Read(b)
						if err != nil {
							return
						}
						if !w.shut.Load() {
							_, _ = front.WriteToUDP(b[:n], from)
						}
					}
				})
			}
			mu.Unlock()
			if !w.shut.Load() {
				_, _ = back.Write(b[:n])
			}
		}
	})
	t.Cleanup(func() {
		_ = front.Close()
		mu.Lock()
		for _, c := range backs {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return w
}

// halfWalled is a and b, whose QUIC port is behind a wall and whose TCP port is not.
func halfWalled(t *testing.T, ca Config) (a, b *Host, w *wall) {
	t.Helper()
	w = newWall(t)
	cb := testConfig(t)
	cb.announce = func(own []ma.Multiaddr) []ma.Multiaddr { // the way around the wall is not told
		return append(slices.DeleteFunc(slices.Clone(own), func(a ma.Multiaddr) bool { return has(a, ma.P_QUIC_V1) }), w.addr)
	}
	a, b = start(t, ca), start(t, cb)
	w.before(t, b)
	addrs := []string{w.addr.String()}
	for _, x := range b.host.Addrs() {
		if has(x, ma.P_TCP) {
			addrs = append(addrs, x.String())
		}
	}
	learn(t, a, signed(t, b.cfg.Key, 1<<62, addrs...))
	return a, b, w
}

// TestQUICAgain: a link by TCP is opened anew by QUIC some time after UDP passes again.
func TestQUICAgain(t *testing.T) {
	ca := testConfig(t)
	ca.betterAfter = time.Second
	a, b, w := halfWalled(t, ca)
	w.shut.Store(true)
	la, lb, ea, eb := openPair(t, a, b)
	if la.Carrier() != OverStream || lb.Carrier() != OverStream {
		t.Fatal("by QUIC through a wall")
	}
	time.Sleep(aliveDead) // and tries in vain
	pass(t, la, eb)
	pass(t, lb, ea)
	if la.Ended() {
		t.Fatal("the only way is given up")
	}
	w.shut.Store(false)
	eventually(t, "the link by TCP ends", la.Ended)
	la, lb, ea, eb = openPair(t, a, b)
	if la.Carrier() != Datagram || lb.Carrier() != Datagram {
		t.Error("not by QUIC")
	}
	pass(t, la, eb)
	pass(t, lb, ea)
}

// TestUDPCut: when UDP stops passing in mid-talk, the dead connection is left long before QUIC gives up.
func TestUDPCut(t *testing.T) {
	a, b, w := halfWalled(t, testConfig(t))
	var la, lb *Link
	var ea, eb *end
	eventually(t, "a link by QUIC", func() bool { // TCP may win where a machine is too busy for a handshake
		if la, lb, ea, eb = openPair(t, a, b); la.Carrier() == Datagram && lb.Carrier() == Datagram {
			return true
		}
		la.Close()
		_ = a.host.Network().ClosePeer(b.ID()) // dialled again
		return false
	})
	pass(t, la, eb)
	pass(t, lb, ea)
	time.Sleep(4 * time.Second) // the links are idle, and alive
	if la.Ended() || lb.Ended() {
		t.Fatal("an idle link has ended")
	}
	w.shut.Store(true)
	cut := time.Now()
	eventually(t, "the link on the dead connection ends", la.Ended)
	t.Logf("ended after %v", time.Since(cut).Round(time.Millisecond))
	la, lb, ea, eb = openPair(t, a, b)
	pass(t, la, eb)
	pass(t, lb, ea)
	t.Logf("both ways after %v", time.Since(cut).Round(time.Millisecond))
}

// behindWall is a community node, a, of whom only a wall is told, and b.
func behindWall(t *testing.T) (point, a, b *Host, w *wall) {
	t.Helper()
	cp := testConfig(t)
	cp.Community = true
	point = start(t, cp)
	w = newWall(t)
	around := ma.StringCast(point.host.Addrs()[0].String() + "/p2p/" + point.ID().String() + "/p2p-circuit")
	ca, cb := testConfig(t, onQUIC), testConfig(t, onQUIC)
	ca.announce = func([]ma.Multiaddr) []ma.Multiaddr { return []ma.Multiaddr{w.addr, around} }
	ca.Bootstrap, cb.Bootstrap = []peer.AddrInfo{info(point)}, []peer.AddrInfo{info(point)}
	a, b = start(t, ca), start(t, cb)
	w.before(t, a)
	eventually(t, "connected to the point", func() bool { return len(a.CommunityNodes()) == 1 && len(b.CommunityNodes()) == 1 })
	if _, err := circuit.Reserve(testContext(t), a.host, info(point)); err != nil {
		t.Fatal(err)
	}
	return point, a, b, w
}

// directTo is the QUIC connection with a peer.
func directTo(t *testing.T, h *Host, p peer.ID) *quic.Conn {
	t.Helper()
	for _, c := range h.host.Network().ConnsToPeer(p) {
		if q := quicOf(c); q != nil {
			return q
		}
	}
	t.Fatal("no direct connection")
	return nil
}

// closedByHand: not because it was idle for 30 s.
func closedByHand(t *testing.T, what string, q *quic.Conn) {
	t.Helper()
	eventually(t, what, func() bool { return q.Context().Err() != nil })
	if idle := (*quic.IdleTimeoutError)(nil); errors.As(context.Cause(q.Context()), &idle) {
		t.Errorf("%s: only after QUIC had given up", what)
	}
}

// TestDeadHole: when a direct path dies, both sides know it by a circuit, one that is still there or a new one, and close the
// connection, so that a new hole can be punched. A connection that lives is kept.
func TestDeadHole(t *testing.T) {
	for _, ended := range []bool{false, true} {
		point, a, b, w := behindWall(t)
		throughCircuit(t, point, a, b)
		learn(t, b, signed(t, a.cfg.Key, 1<<62, w.addr.String()))
		lb, la, eb, ea := openPair(t, b, a)
		pass(t, la, eb)
		pass(t, lb, ea)
		qa, qb := directTo(t, a, b.ID()), directTo(t, b, a.ID())
		for _, c := range a.host.Network().ConnsToPeer(b.ID()) {
			a.outlived(c)
			if ended && c.Stat().Limited {
				_ = c.Close()
			}
		}
		time.Sleep(rescueAfter + time.Second)
		if la.Ended() || qa.Context().Err() != nil {
			t.Fatal("a living connection is closed")
		}
		cut := time.Now()
		w.shut.Store(true)
		closedByHand(t, "b closes what is dead", qb)
		if !ended { // to b there was only that circuit
			closedByHand(t, "a closes what is dead", qa)
		}
		t.Logf("after %v", time.Since(cut).Round(time.Millisecond))
	}
}

// TestOutlived: who comes by a circuit knows the direct connection no more, though it seems to be there and no link is on it.
func TestOutlived(t *testing.T) {
	point, a, b, w := behindWall(t)
	learn(t, b, signed(t, a.cfg.Key, 1<<62, w.addr.String()))
	if err := b.Connect(testContext(t), peer.AddrInfo{ID: a.ID()}, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a has the connection", func() bool { return len(a.host.Network().ConnsToPeer(b.ID())) == 1 })
	q := directTo(t, a, b.ID())
	w.shut.Store(true)
	if err := b.host.Network().ClosePeer(a.ID()); err != nil { // a does not hear of it
		t.Fatal(err)
	}
	b.host.Peerstore().ClearAddrs(a.ID())
	throughCircuit(t, point, a, b)
	closedByHand(t, "a closes what is dead", q)
}
