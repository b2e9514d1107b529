package invite

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
)

// HintKind says what the peer of a hint can do for a newcomer; the numbers are on the wire.
type HintKind uint8

// The kinds of hint. A circuit leads through the hinted peer to the invite's issuer.
const (
	HintMember     HintKind = 0
	HintRendezvous HintKind = 1
	HintCircuit    HintKind = 2
	HintBoth       HintKind = 3 // rendezvous and circuit
)

// Bits of a hint's type byte.
const (
	hintIP4, hintIP6, hintDNS = 0, 1, 2 // bits 0-1
	hintQUIC, hintTCP         = 1, 2    // bits 2-3, together: both on this port
	hintZero                  = 0x40
	hintOwn                   = 0x80 // the peer is the invite's issuer
)

// maxDNS is the longest host name of a hint in bytes.
const maxDNS = 40

const hostChars = "abcdefghijklmnopqrstuvwxyz0123456789.-"

// Hint is an address where the newcomer may begin. Nobody signs it: it is advice, and the address gater
// has the last word on what is dialled.
type Hint struct {
	Kind HintKind
	Peer ed25519.PublicKey // of the node at the address; of a circuit, the relay
	Addr netip.Addr        // invalid when DNS is set
	DNS  string            // lower case, at most 40 bytes
	QUIC bool              // QUIC v1 on the UDP port
	TCP  bool              // the TCP port of the same number
	Port uint16
}

// Addrs are the multiaddrs of the hinted node itself, QUIC first, with its /p2p/ part.
func (h Hint) Addrs() []string {
	name := "dns/" + h.DNS
	switch {
	case h.Addr.Is4():
		name = "ip4/" + h.Addr.String()
	case h.Addr.Is6():
		name = "ip6/" + h.Addr.String()
	}
	id := peerOf(h.Peer).String()
	var out []string
	if h.QUIC {
		out = append(out, fmt.Sprintf("/%s/udp/%d/quic-v1/p2p/%s", name, h.Port, id))
	}
	if h.TCP {
		out = append(out, fmt.Sprintf("/%s/tcp/%d/p2p/%s", name, h.Port, id))
	}
	return out
}

// Circuits are the multiaddrs that lead to the invite's issuer through the hinted node; none unless the
// kind is HintCircuit or HintBoth.
func (h Hint) Circuits(issuer ed25519.PublicKey) []string {
	if !h.circuit() {
		return nil
	}
	out := h.Addrs()
	for i := range out {
		out[i] += "/p2p-circuit/p2p/" + peerOf(issuer).String()
	}
	return out
}

func (h Hint) circuit() bool { return h.Kind == HintCircuit || h.Kind == HintBoth }

// ParseHint reads a multiaddr /ip4|ip6|dns|dns4|dns6/…/udp/…/quic-v1/p2p/… or …/tcp/…/p2p/… of a node with an
// Ed25519 key. The error is room.Malformed for any other.
func ParseHint(multiaddr string, kind HintKind) (Hint, error) {
	bad := fmt.Errorf("no hint can be made of %.100q: %w", multiaddr, room.Malformed)
	f := strings.Split(multiaddr, "/")
	if len(f) == 8 && f[5] == "quic-v1" && f[3] == "udp" {
		f = append(append(f[:3:3], "quic", f[4]), f[6:]...)
	}
	if len(f) != 7 || f[0] != "" || f[5] != "p2p" {
		return Hint{}, bad
	}
	h := Hint{Kind: kind, QUIC: f[3] == "quic", TCP: f[3] == "tcp"}
	port, err := strconv.ParseUint(f[4], 10, 16)
	if err != nil {
		return Hint{}, bad
	}
	h.Port = uint16(port)
	switch f[1] {
	case "ip4", "ip6":
		h.Addr, err = netip.ParseAddr(f[2])
		if err != nil || h.Addr.Is4() != (f[1] == "ip4") || h.Addr.Zone() != "" {
			return Hint{}, bad
		}
	case "dns", "dns4", "dns6":
		h.DNS = strings.ToLower(f[2])
	default:
		return Hint{}, bad
	}
	id, err := peer.Decode(f[6])
	if err != nil {
		return Hint{}, bad
	}
	if h.Peer, err = identity.PublicOf(id); err != nil || h.check(nil) != nil {
		return Hint{}, bad
	}
	return h, nil
}

// MergeHints makes one hint of two that differ only in QUIC and TCP; the order is kept.
func MergeHints(hints []Hint) []Hint {
	var out []Hint
next:
	for _, h := range hints {
		for i := range out {
			o := &out[i]
			if o.Kind == h.Kind && o.Peer.Equal(h.Peer) && o.Addr == h.Addr && o.DNS == h.DNS && o.Port == h.Port {
				o.QUIC, o.TCP = o.QUIC || h.QUIC, o.TCP || h.TCP
				continue next
			}
		}
		out = append(out, h)
	}
	return out
}

// check tells whether a token can carry the hint.
func (h *Hint) check(issuer ed25519.PublicKey) error {
	ok := h.Kind <= HintBoth && len(h.Peer) == keyLen && (h.QUIC || h.TCP) && h.Port != 0 &&
		h.Addr.IsValid() != (h.DNS != "") && !h.Addr.Is4In6() && h.Addr.Zone() == "" &&
		len(h.DNS) <= maxDNS && strings.Trim(h.DNS, hostChars) == "" &&
		!(h.circuit() && h.Peer.Equal(issuer)) // nobody is her own relay
	if !ok {
		return fmt.Errorf("hint: %w", room.Malformed)
	}
	return nil
}

// append writes the hint:
//
//	type 1 | [peer key 32, absent when it is the issuer's] | 4, 16, or length 1 and the name | port 2
func (h *Hint) append(b []byte, issuer ed25519.PublicKey) []byte {
	t := byte(h.Kind) << 4
	if h.QUIC {
		t |= hintQUIC << 2
	}
	if h.TCP {
		t |= hintTCP << 2
	}
	addr := h.Addr.AsSlice()
	switch len(addr) {
	case 4:
		t |= hintIP4
	case 16:
		t |= hintIP6
	default:
		t |= hintDNS
		addr = append([]byte{byte(len(h.DNS))}, h.DNS...)
	}
	if h.Peer.Equal(issuer) {
		b = append(b, t|hintOwn)
	} else {
		b = append(append(b, t), h.Peer...)
	}
	return binary.BigEndian.AppendUint16(append(b, addr...), h.Port)
}

func (r *reader) hint(issuer ed25519.PublicKey) Hint {
	t := r.take(1)[0]
	h := Hint{Kind: HintKind(t >> 4 & 3), QUIC: t>>2&hintQUIC != 0, TCP: t>>2&hintTCP != 0, Peer: issuer}
	if t&hintOwn == 0 {
		h.Peer = r.key()
	}
	switch t & 3 {
	case hintIP4:
		h.Addr = netip.AddrFrom4([4]byte(r.take(4)))
	case hintIP6:
		h.Addr = netip.AddrFrom16([16]byte(r.take(16)))
	case hintDNS:
		h.DNS = string(bytes.Clone(r.take(int(r.take(1)[0]))))
	}
	h.Port = binary.BigEndian.Uint16(r.take(2))
	own := h.Peer.Equal(issuer)
	if t&hintZero != 0 || own != (t&hintOwn != 0) || h.check(issuer) != nil {
		r.bad = true
	}
	return h
}
