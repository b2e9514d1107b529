package p2p

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// wall is a UDP port that passes on to another and back, until it is shut.
type wall struct {
	addr ma.Multiaddr
	shut atomic.Bool
}

func newWall(t *testing.T, to ma.Multiaddr) *wall {
	t.Helper()
	port, err := to.ValueForProtocol(ma.P_UDP)
	if err != nil {
		t.Fatal(err)
	}
	target, err := net.ResolveUDPAddr("udp4", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(front.LocalAddr().String())
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
				if back, err = net.DialUDP("udp4", nil, target); err != nil {
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

// TestUDPCut: when UDP stops passing in mid-talk, the dead connection is left long before QUIC gives up.
func TestUDPCut(t *testing.T) {
	var told atomic.Pointer[[]ma.Multiaddr] // the way around the wall is not told
	cb := testConfig(t)
	cb.announce = func(own []ma.Multiaddr) []ma.Multiaddr {
		if only := told.Load(); only != nil {
			return *only
		}
		return own
	}
	a, b := testHost(t), start(t, cb)
	var quic, tcp ma.Multiaddr
	for _, x := range b.host.Addrs() {
		if has(x, ma.P_QUIC_V1) {
			quic = x
		} else {
			tcp = x
		}
	}
	w := newWall(t, quic)
	told.Store(&[]ma.Multiaddr{w.addr, tcp})
	eventually(t, "only the wall is told", func() bool {
		return len(b.host.Addrs()) == 2 && b.host.Addrs()[0].Equal(w.addr) || b.host.Addrs()[1].Equal(w.addr)
	})
	learn(t, a, signed(t, b.cfg.Key, 1<<62, w.addr.String(), tcp.String()))
	la, lb, ea, eb := openPair(t, a, b)
	if la.Carrier() != Datagram || lb.Carrier() != Datagram {
		t.Fatal("not by QUIC")
	}
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
