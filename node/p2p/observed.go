package p2p

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"balai/room"
)

// observedProtocol asks a community node from which address one comes now. Identify tells that once for each connection, and
// a QUIC connection lives on when the address changes (RFC 9000 section 9): a router's new one would never be known. The node
// writes one record, field 1 the multiaddr in bytes, and closes.
const observedProtocol protocol.ID = "/balai/observed/1"

const (
	observedTime  = 2 * time.Second
	observedEvery = time.Second // between two questions to all
	maxAddr       = 128         // bytes
)

// serveObserved makes this host tell others how they look from here.
func (h *Host) serveObserved() {
	h.Handle(observedProtocol, maxAddr, func(s *Stream) {
		if a := observedOn(s.s.Conn()); a != nil {
			_ = s.Write(wrapperspb.Bytes(a.Bytes())) // who asked has gone
		}
	})
}

// observedOn is where the other side of a connection is now; nil for a circuit.
func observedOn(c network.Conn) ma.Multiaddr {
	switch q := quicOf(c); {
	case c.Stat().Limited:
		return nil
	case q == nil:
		return c.RemoteMultiaddr()
	default:
		a, err := quicreuse.ToQuicMultiaddr(q.RemoteAddr(), quic.Version1)
		if err != nil {
			return nil
		}
		return a
	}
}

// askObserved asks one community node.
func (h *Host) askObserved(ctx context.Context, node peer.ID) (ma.Multiaddr, error) {
	ctx, cancel := context.WithTimeout(ctx, observedTime)
	defer cancel()
	s, err := h.Open(ctx, node, observedProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Reset() //nolint:errcheck // nothing more is wanted of it
	s.SetLimit(maxAddr)
	if until, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(until); err != nil {
			return nil, err
		}
	}
	var b wrapperspb.BytesValue
	if err := s.Read(&b); err != nil {
		return nil, err
	}
	return parseObserved(b.GetValue())
}

// parseObserved reads an address of this host that another tells: public, an IP address with a port, over QUIC or TCP.
func parseObserved(b []byte) (ma.Multiaddr, error) {
	malformed := func() (ma.Multiaddr, error) { return nil, fmt.Errorf("observed address: %w", room.Malformed) }
	a, err := ma.NewMultiaddrBytes(b)
	if err != nil || len(b) > maxAddr || len(a) < 2 || isPrivate(a) {
		return malformed()
	}
	if c := a[0].Protocol().Code; c != ma.P_IP4 && c != ma.P_IP6 {
		return malformed()
	}
	switch c := a[1].Protocol().Code; {
	case c == ma.P_TCP && len(a) == 2, c == ma.P_UDP && len(a) == 3 && a[2].Protocol().Code == ma.P_QUIC_V1:
		return a, nil
	}
	return malformed()
}
