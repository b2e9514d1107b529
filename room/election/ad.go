package election

import (
	"fmt"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// AdTTL is how long a relay's ad counts; it is renewed twice in that time.
const AdTTL = 75 * time.Second

// Limits of the records.
const (
	maxAd        = 1500 // bytes of a RelayAd
	maxRecord    = 1024 // bytes of a peer record
	maxCoords    = 4
	maxPeerBytes = 64
	maxLease     = 14 << 10 // bytes of a CoreLease, so that gossip carries it
)

// Reach is how a node can be called; the numbers are on the wire.
type Reach uint8

// Public: AutoNAT v2 says so, or it was tried from another network.
const (
	ReachUnknown Reach = 0
	ReachPublic  Reach = 1
)

// Flags are a node's circumstances; the bits are on the wire.
type Flags uint32

// Metered and OnBattery nodes do not relay. HoldsKey is a member, Community a node that is none.
const (
	Metered   Flags = 1
	OnBattery Flags = 2
	HoldsKey  Flags = 4
	Community Flags = 8
)

// Ad is what a node that would relay says of itself.
type Ad struct {
	Room     room.ID
	Peer     peer.ID
	Seq      uint64
	Record   []byte // own peer record, a libp2p signed envelope; not verified here
	Reach    Reach
	Cap      uint32 // kbit/s of upload that it gives
	Used     uint32 // kbit/s
	Slots    uint32 // children that it takes
	Lateness time.Duration
	Present  time.Duration
	Flags    Flags
	Prefix   string // 3 bytes of IPv4, 6 of IPv6, or empty
	Coords   []int32
	Flaps    uint32
	Issued   time.Time

	Signed *wire.Signed // as received or signed
}

// Sign makes a the ad of k's owner.
func (a Ad) Sign(k *identity.Key) *wire.Signed {
	a.Peer = k.ID()
	return wire.Sign(k, wire.DomainRelayAd, &wire.RelayAd{
		Room: a.Room[:], Peer: []byte(a.Peer), Seq: a.Seq, Record: a.Record, Reach: uint32(a.Reach), CapKbps: a.Cap, UsedKbps: a.Used,
		Slots: a.Slots, LatenessUs: uint32(a.Lateness.Microseconds()), PresentS: uint32(a.Present / time.Second), Flags: uint32(a.Flags),
		Prefix: []byte(a.Prefix), Coords: a.Coords, Flaps: a.Flaps, IssuedMs: a.Issued.UnixMilli(),
	})
}

// ParseAd checks length, signature and shape. The error is room.Malformed, room.BadSignature or room.WrongRoom.
func ParseAd(s *wire.Signed, in room.ID) (*Ad, error) {
	if len(s.GetBody()) > maxAd {
		return nil, fmt.Errorf("relay ad of %d bytes: %w", len(s.GetBody()), room.Malformed)
	}
	var w wire.RelayAd
	p, err := wire.Open(s, wire.DomainRelayAd, &w)
	if err != nil {
		return nil, fmt.Errorf("relay ad: %w", room.BadSignature)
	}
	bad := len(w.Room) != 32 || string(w.Peer) != string(p) || len(w.Record) > maxRecord || w.Reach > math.MaxUint8 ||
		len(w.Prefix) != 0 && len(w.Prefix) != 3 && len(w.Prefix) != 6 || len(w.Coords) > maxCoords || !goodTime(w.IssuedMs)
	if bad {
		return nil, fmt.Errorf("relay ad: %w", room.Malformed)
	}
	if room.ID(w.Room) != in {
		return nil, fmt.Errorf("relay ad: %w", room.WrongRoom)
	}
	return &Ad{
		Room: in, Peer: p, Seq: w.Seq, Record: w.Record, Reach: Reach(w.Reach), Cap: w.CapKbps, Used: w.UsedKbps, Slots: w.Slots,
		Lateness: time.Duration(w.LatenessUs) * time.Microsecond, Present: time.Duration(w.PresentS) * time.Second, Flags: Flags(w.Flags),
		Prefix: string(w.Prefix), Coords: w.Coords, Flaps: w.Flaps, Issued: time.UnixMilli(w.IssuedMs).UTC(), Signed: s,
	}, nil
}

// goodTime bounds a foreign time to what every calendar can tell: the years 1970 to 9999.
func goodTime(ms int64) bool { return ms >= 0 && ms < 253402300800000 }

// Objection is a member's word against a lease, or that a core member does not serve it.
type Objection struct {
	Room    room.ID
	Peer    peer.ID
	Lease   [32]byte
	Subject peer.ID // empty: the lease as such
	Reason  room.Reason
	At      time.Time
}

// Sign makes o an objection of k's owner.
func (o Objection) Sign(k *identity.Key) *wire.Signed {
	return wire.Sign(k, wire.DomainObjection, &wire.Objection{
		Room: o.Room[:], Peer: []byte(k.ID()), Lease: o.Lease[:], Subject: []byte(o.Subject), Reason: uint32(o.Reason), TimeMs: o.At.UnixMilli(),
	})
}

// ParseObjection checks length, signature and shape. The errors are those of ParseAd.
func ParseObjection(s *wire.Signed, in room.ID) (o Objection, err error) {
	if len(s.GetBody()) > maxAd {
		return o, fmt.Errorf("objection: %w", room.Malformed)
	}
	var w wire.Objection
	p, err := wire.Open(s, wire.DomainObjection, &w)
	if err != nil {
		return o, fmt.Errorf("objection: %w", room.BadSignature)
	}
	subject, err := peerOrNone(w.Subject)
	if err != nil || len(w.Room) != 32 || string(w.Peer) != string(p) || len(w.Lease) != 32 || w.Reason == 0 || w.Reason > math.MaxUint8 || !goodTime(w.TimeMs) {
		return o, fmt.Errorf("objection: %w", room.Malformed)
	}
	if room.ID(w.Room) != in {
		return o, fmt.Errorf("objection: %w", room.WrongRoom)
	}
	return Objection{in, p, [32]byte(w.Lease), subject, room.Reason(w.Reason), time.UnixMilli(w.TimeMs).UTC()}, nil
}

// peerOrNone reads a peer id that carries an Ed25519 key, or nothing.
func peerOrNone(b []byte) (peer.ID, error) {
	if len(b) == 0 {
		return "", nil
	}
	if len(b) > maxPeerBytes {
		return "", room.Malformed
	}
	if _, err := identity.PublicOf(peer.ID(b)); err != nil {
		return "", room.Malformed
	}
	return peer.ID(b), nil
}
