package ledger

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// MaxGrants bounds a line of grants: hand-overs from the founder on, then the appointment.
const MaxGrants = 8

// CheckGrants follows a line of grants from p back to the founder: it shows that p was once made an authority of the
// room, not that it still is one. The error is room.BadSignature.
func CheckGrants(g *room.Genesis, line []*wire.Signed, p peer.ID) error {
	founder, err := identity.PeerOf(g.Host)
	if err != nil || len(line) > MaxGrants {
		return room.BadSignature
	}
	for _, signed := range line {
		op, of, err := ParseOp(signed)
		if err != nil || of != g.Room() {
			return room.BadSignature
		}
		switch {
		case (op.Kind == room.Appoint || op.Kind == room.Transfer) && len(op.Targets) == 1 && op.Targets[0] == p:
			p = op.Author
		case op.Kind == room.Succeed && op.Author == p && g.Heir != nil:
			if heir, err := identity.PeerOf(g.Heir); err == nil && heir == p {
				return nil
			}
			return room.BadSignature
		default:
			return room.BadSignature
		}
	}
	if p != founder {
		return room.BadSignature
	}
	return nil
}
