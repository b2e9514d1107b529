package rtc

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	hostsFresh = 10 * time.Second // how long a list of own addresses is believed
	hostsRetry = time.Second      // how soon an unknown address may cause a new look
	maxOwn     = 16               // addresses offered as candidates
)

// hosts knows the machine's own addresses; they change while the daemon runs. Safe for concurrent use.
type hosts struct {
	now  func() time.Time
	read func() []netip.Addr

	mu   sync.Mutex
	at   time.Time
	addr []netip.Addr
}

func newHosts(now func() time.Time) *hosts { return &hosts{now: now, read: interfaceAddrs} }

// has says whether a packet from a comes from this machine.
func (h *hosts) has(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	a = a.WithZone("")
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if now.Sub(h.at) >= hostsFresh {
		h.refresh(now)
	}
	if slices.Contains(h.addr, a) {
		return true
	}
	if now.Sub(h.at) < hostsRetry {
		return false
	}
	h.refresh(now)
	return slices.Contains(h.addr, a)
}

// candidates lists the addresses to offer: loopback first, then the interfaces' routable ones. Loopback alone would do
// for Chromium; Firefox wants another, and aiortc has none on loopback.
func (h *hosts) candidates() []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refresh(h.now())
	out := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	for _, a := range h.addr {
		if len(out) < maxOwn && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (h *hosts) refresh(now time.Time) { h.at, h.addr = now, h.read() }

func interfaceAddrs() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil // loopback still works
	}
	var out []netip.Addr
	for _, n := range all {
		if ipn, ok := n.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(ipn.IP); ok {
				out = append(out, a.Unmap())
			}
		}
	}
	return out
}
