package p2p

import (
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Prefix is the network that this host is in as others see it: 3 bytes of its public IPv4 address, else 6
// of its IPv6 address, else "".
func (h *Host) Prefix() string {
	addrs := h.host.Addrs()
	if all, ok := h.host.(interface{ AllAddrs() []ma.Multiaddr }); ok { // also those behind a NAT
		addrs = append(slices.Clone(addrs), all.AllAddrs()...)
	}
	six := ""
	for _, a := range addrs {
		switch p := prefixOf(a); {
		case len(p) == 3:
			return p
		case six == "":
			six = p
		}
	}
	return six
}

// Prefix is the network of the other side, as far as this link's connection shows it: 3 bytes of IPv4 or 6
// of IPv6, "" for a private address.
func (l *Link) Prefix() string { return prefixOf(l.stream.Conn().RemoteMultiaddr()) }

func prefixOf(a ma.Multiaddr) string {
	if _, rest := splitCircuit(a); len(rest) > 0 || isPrivate(a) {
		return ""
	}
	for _, c := range a {
		if code := c.Protocol().Code; code != ma.P_IP4 && code != ma.P_IP6 {
			continue
		}
		ip, ok := netip.AddrFromSlice(c.RawValue())
		switch ip = ip.Unmap(); {
		case !ok:
			return ""
		case ip.Is4():
			return string(ip.AsSlice()[:3])
		default:
			return string(ip.AsSlice()[:6])
		}
	}
	return ""
}

// RecordCircuits lists the peers by whose circuits the owner of a signed peer record can be reached, each
// once, in the order of the record. Nil for a record that is not in order.
func RecordCircuits(rec []byte) (out []peer.ID) {
	pr, err := openRecord(rec)
	if err != nil {
		return nil
	}
	for _, a := range pr.Addrs {
		relay, rest := splitCircuit(a)
		if len(rest) == 0 || len(relay) == 0 {
			continue
		}
		if _, p := peer.SplitAddr(relay); p != "" && p != pr.PeerID && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}
