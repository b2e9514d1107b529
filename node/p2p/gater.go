package p2p

import (
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// gater refuses to dial private addresses, whoever named them. Exceptions are a peer (a room that uses
// private addresses, counted), or an exact address of a peer (typed by the user, or heard by mDNS).
type gater struct {
	mu    sync.RWMutex
	peers map[peer.ID]int
	addrs map[peer.ID]map[string]struct{}
}

var _ connmgr.ConnectionGater = (*gater)(nil)

func newGater() *gater {
	return &gater{peers: map[peer.ID]int{}, addrs: map[peer.ID]map[string]struct{}{}}
}

func (g *gater) allowPeer(p peer.ID) {
	g.mu.Lock()
	g.peers[p]++
	g.mu.Unlock()
}

func (g *gater) forbidPeer(p peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.peers[p] > 1 {
		g.peers[p]--
		return
	}
	delete(g.peers, p)
}

// maxAllowed is how many exact addresses of one peer are kept.
const maxAllowed = 64

// allowAddrs adds exact addresses of p that may be dialled though private.
func (g *gater) allowAddrs(p peer.ID, addrs []ma.Multiaddr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	set := g.addrs[p]
	if set == nil || len(set)+len(addrs) > maxAllowed {
		set = make(map[string]struct{}, len(addrs))
		g.addrs[p] = set
	}
	for _, a := range addrs[:min(len(addrs), maxAllowed)] {
		set[string(a.Bytes())] = struct{}{}
	}
}

// allowTyped lets what the user typed be dialled as it is: exact addresses, or for a name whatever it
// resolves to; a circuit's relay is the address that was typed.
func (g *gater) allowTyped(info peer.AddrInfo) {
	for _, a := range info.Addrs {
		p, base := info.ID, a
		if relay, rest := splitCircuit(a); len(rest) > 0 {
			base, p = peer.SplitAddr(relay)
		}
		switch {
		case p == "" || len(base) == 0:
		case isNamed(base):
			g.allowPeer(p)
		default:
			g.allowAddrs(p, []ma.Multiaddr{base})
		}
	}
}

// splitCircuit parts a at /p2p-circuit; the second part is empty for a direct address.
func splitCircuit(a ma.Multiaddr) (relay, rest ma.Multiaddr) {
	return ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
}

func isNamed(a ma.Multiaddr) bool {
	switch a[0].Protocol().Code {
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6, ma.P_DNSADDR:
		return true
	}
	return false
}

func (g *gater) forbidAddrs(p peer.ID) {
	g.mu.Lock()
	delete(g.addrs, p)
	g.mu.Unlock()
}

// allowed tells whether private address a of p may be dialled.
func (g *gater) allowed(p peer.ID, a ma.Multiaddr) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.peers[p] > 0 {
		return true
	}
	_, ok := g.addrs[p][string(a.Bytes())]
	return ok
}

// InterceptAddrDial is asked with each address just before it is dialled, names resolved.
func (g *gater) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	if relay, rest := splitCircuit(a); len(rest) > 0 {
		return g.relayAllowed(relay)
	}
	return !isPrivate(a) || g.allowed(p, a)
}

// relayAllowed judges the relay's part of a circuit address by the relay's own exceptions.
func (g *gater) relayAllowed(relay ma.Multiaddr) bool {
	if len(relay) == 0 {
		return false
	}
	base, id := peer.SplitAddr(relay)
	if id == "" {
		return false
	}
	return len(base) == 0 || !isPrivate(base) || g.allowed(id, base)
}

// InterceptPeerDial lets every peer pass: addresses are judged one by one.
func (g *gater) InterceptPeerDial(peer.ID) bool { return true }

// InterceptAccept lets every caller pass.
func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured lets every caller pass.
func (g *gater) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}

// InterceptUpgraded lets every connection pass.
func (g *gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// Ranges that netip does not name. IANA special-purpose address registries.
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // this network, RFC 791
	netip.MustParsePrefix("100.64.0.0/10"),  // shared by carriers, RFC 6598
	netip.MustParsePrefix("198.18.0.0/15"),  // benchmarks, RFC 2544
	netip.MustParsePrefix("240.0.0.0/4"),    // reserved and broadcast, RFC 1112
	netip.MustParsePrefix("::/96"),          // IPv4-compatible, RFC 4291
	netip.MustParsePrefix("64:ff9b:1::/48"), // local NAT64, RFC 8215
	netip.MustParsePrefix("fec0::/10"),      // site local, RFC 3879
	netip.MustParsePrefix("2001::/32"),      // Teredo, RFC 4380: hides an IPv4 address
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056
)

// isPrivate tells whether dialling a would leave the public internet. An address without an IP is not
// dialled by any transport of ours and counts as public only if it is a name still to be resolved.
func isPrivate(a ma.Multiaddr) bool {
	if len(a) == 0 {
		return true
	}
	private, known := false, false
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_IP4, ma.P_IP6:
			ip, ok := netip.AddrFromSlice(c.RawValue())
			private = private || !ok || isPrivateIP(ip)
			known = true
		case ma.P_IP6ZONE:
			private = true
		case ma.P_DNS, ma.P_DNS4, ma.P_DNS6, ma.P_DNSADDR:
			known = true
		}
	}
	return private || !known
}

func isPrivateIP(ip netip.Addr) bool {
	ip = ip.Unmap()
	if ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		return true
	}
	for _, r := range privateRanges {
		if r.Contains(ip) {
			return true
		}
	}
	if !ip.Is6() {
		return false
	}
	b := ip.As16()
	switch {
	case nat64.Contains(ip):
		return isPrivateIP(netip.AddrFrom4([4]byte(b[12:])))
	case sixToFour.Contains(ip):
		return isPrivateIP(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return false
}

// listensBeyond tells whether a listen address may be reached from outside: a public one or all interfaces.
func listensBeyond(a ma.Multiaddr) bool {
	ip, err := manet.ToIP(a)
	return err == nil && (ip.IsUnspecified() || !isPrivate(a))
}

func isLoopback(a ma.Multiaddr) bool { return manet.IsIPLoopback(a) }

func anyAddress(ma.Multiaddr) bool { return true }
