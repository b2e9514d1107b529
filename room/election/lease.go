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

const (
	// MaxCore is the largest core.
	MaxCore = 8
	// LeaseTTL is how long a lease is fresh; LeaseRenew is how often the chair renews it. One that is not fresh stays in
	// force until a newer one comes.
	LeaseTTL   = 30 * time.Second
	LeaseRenew = LeaseTTL / 3

	// maxTerm bounds terms and versions far below where one more would be none.
	maxTerm = 1 << 48
)

// Lease names the core of a room, as one chair signed it. Without a core it is the mesh.
type Lease struct {
	Room    room.ID
	By      peer.ID
	Term    uint64
	Version uint64
	Grant   room.OpID // what made By an authority; zero: a speaker
	Ads     []*Ad     // one for each peer of the core
	NoRelay bool      // too many for a mesh, and nobody to relay
	Issued  time.Time
	TTL     time.Duration

	ID     [32]byte     // of the signed record
	Signed *wire.Signed // as received or signed
}

// Core are the peers of the core, in the order of the lease.
func (l *Lease) Core() []peer.ID {
	out := make([]peer.ID, 0, MaxCore)
	for _, a := range l.Ads {
		out = append(out, a.Peer)
	}
	return out
}

// Holds tells whether p is in the core.
func (l *Lease) Holds(p peer.ID) bool {
	for _, a := range l.Ads {
		if a.Peer == p {
			return true
		}
	}
	return false
}

// Fresh tells whether the lease is within its time. Nothing but a renewal depends on it.
func (l *Lease) Fresh(now time.Time) bool { return now.Before(l.Issued.Add(l.TTL)) }

// Sign makes l a lease by k's owner and returns it as everybody will read it.
func (l Lease) Sign(k *identity.Key) *Lease {
	w := &wire.CoreLease{
		Room: l.Room[:], Term: l.Term, Version: l.Version, Params: &wire.CoreParams{Slots: 3, NoRelay: l.NoRelay},
		IssuedMs: l.Issued.UnixMilli(), TtlS: uint32(l.TTL / time.Second),
	}
	if l.Grant != (room.OpID{}) {
		w.Grant = l.Grant[:]
	}
	for _, a := range l.Ads {
		w.Core = append(w.Core, []byte(a.Peer))
		w.Ads = append(w.Ads, a.Signed)
	}
	out, err := ParseLease(wire.Sign(k, wire.DomainCoreLease, w), l.Room)
	if err != nil {
		panic("impossible: own lease: " + err.Error())
	}
	return out
}

// ParseLease checks length, signatures and shape, those of the embedded ads too. Whether the signer may, Check tells.
// The error is room.Malformed, room.BadSignature or room.WrongRoom.
func ParseLease(s *wire.Signed, in room.ID) (*Lease, error) {
	if len(s.GetBody()) > maxLease {
		return nil, fmt.Errorf("lease of %d bytes: %w", len(s.GetBody()), room.Malformed)
	}
	var w wire.CoreLease
	by, err := wire.Open(s, wire.DomainCoreLease, &w)
	if err != nil {
		return nil, fmt.Errorf("lease: %w", room.BadSignature)
	}
	if len(w.Room) != 32 || len(w.Core) > MaxCore || len(w.Ads) != len(w.Core) || len(w.Grant) != 0 && len(w.Grant) != 32 ||
		w.Term == 0 || w.Term > maxTerm || w.Version == 0 || w.Version > maxTerm || w.TtlS == 0 || w.TtlS > math.MaxUint16 || !goodTime(w.IssuedMs) || w.Params.GetNoRelay() && len(w.Core) > 0 {
		return nil, fmt.Errorf("lease: %w", room.Malformed)
	}
	if room.ID(w.Room) != in {
		return nil, fmt.Errorf("lease: %w", room.WrongRoom)
	}
	l := &Lease{
		Room: in, By: by, Term: w.Term, Version: w.Version, NoRelay: w.Params.GetNoRelay(), Issued: time.UnixMilli(w.IssuedMs).UTC(),
		TTL: time.Duration(w.TtlS) * time.Second, ID: identity.RecordID(wire.DomainCoreLease, s.Body), Signed: s,
	}
	copy(l.Grant[:], w.Grant)
	for i, signed := range w.Ads {
		a, err := ParseAd(signed, in)
		if err != nil {
			return nil, fmt.Errorf("lease: %w", err)
		}
		if string(w.Core[i]) != string(a.Peer) || l.Holds(a.Peer) {
			return nil, fmt.Errorf("lease: core and ads differ: %w", room.Malformed)
		}
		l.Ads = append(l.Ads, a)
	}
	return l, nil
}

// Check asks the ledger's facts alone: whoever has the same ledger gets the same answer. The error is room.Ended,
// room.Widened (the signer may not sign leases, or not as what it says), room.Banned, room.Removed, or room.NoRelay
// (a core peer that is neither a member nor a community node that the policy lets in).
func (l *Lease) Check(s *room.State) error {
	if s.Ended {
		return fmt.Errorf("lease: %w", room.Ended)
	}
	authority := s.Role(l.By).Authority()
	if !authority && !s.Members[l.By].OnStage || authority != (l.Grant != (room.OpID{})) {
		return fmt.Errorf("lease by a %v: %w", s.Role(l.By), room.Widened)
	}
	for _, a := range l.Ads {
		if err := mayServe(a, s); err != nil {
			return fmt.Errorf("lease: %w", err)
		}
	}
	return nil
}

// mayServe asks the ledger whether a's owner may carry the room at all.
func mayServe(a *Ad, s *room.State) error {
	_, removed := s.Removed[a.Peer]
	switch {
	case s.Banned[a.Peer]:
		return room.Banned
	case removed:
		return room.Removed
	case s.Role(a.Peer) != room.NoRole, s.Vouched[a.Peer]:
		return nil
	case a.Flags&Community != 0 && !s.Policy.VouchedOnly:
		return nil
	}
	return room.NoRelay
}
