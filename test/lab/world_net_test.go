//go:build linux

package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// udp opens a socket in a namespace.
func (n *netns) udp(t *testing.T, at string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := n.in(func() error {
		p, err := (&net.ListenConfig{}).ListenPacket(context.WithoutCancel(t.Context()), "udp4", at)
		if err == nil {
			c = p.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// from says from where a datagram arrives, if one does: one that has to is waited for.
func from(t *testing.T, c *net.UDPConn, has bool) (netip.AddrPort, bool) {
	t.Helper()
	wait := 500 * time.Millisecond
	if has {
		wait = patience
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, a, err := c.ReadFromUDPAddrPort(make([]byte, 100))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return a, err == nil
}

func write(t *testing.T, c *net.UDPConn, to netip.AddrPort) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte("hello"), to); err != nil {
		t.Fatal(err)
	}
}

// TestRouters shows that the routers are what their names say.
func TestRouters(t *testing.T) {
	w := newWorld(t)
	servers := []*place{w.at(public), w.at(public)}
	var ears []*net.UDPConn
	var addrs []netip.AddrPort
	for _, s := range servers {
		ears = append(ears, s.udp(t, "0.0.0.0:7000"))
		addrs = append(addrs, netip.AddrPortFrom(netip.MustParseAddr(w.addr(s.number)), 7000))
	}
	for _, k := range []kind{cone, full, symmetric, noUDP} {
		home := w.at(k)
		c := home.udp(t, "0.0.0.0:6000")
		write(t, c, addrs[0])
		first, ok := from(t, ears[0], k != noUDP)
		if ok != (k != noUDP) {
			t.Errorf("%s: UDP passes: %t", k, ok)
		}
		if !ok {
			continue
		}
		write(t, ears[1], first) // not asked for
		if _, ok := from(t, c, k == full); ok != (k == full) {
			t.Errorf("%s: a stranger gets through: %t", k, ok)
		}
		write(t, ears[0], first)
		if _, ok := from(t, c, true); !ok {
			t.Errorf("%s: an answer does not get through", k)
		}
		write(t, c, addrs[1])
		second, ok := from(t, ears[1], true)
		if !ok || (first == second) == (k == symmetric) {
			t.Errorf("%s: two destinations see %v and %v, %t", k, first, second, ok)
		}
	}
}
