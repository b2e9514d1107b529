package node

import (
	"crypto/ed25519"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/node/p2p"
	"balai/room"
	"balai/room/session"
	"balai/room/wire"
)

// Limits of a record on the control streams, in bytes.
const (
	joinLimit   = 16 << 10
	ledgerLimit = 16 << 10
	replyLimit  = 12 << 20 // a ledger and its keys
)

// handleStreams serves the control streams and the links of all rooms.
func (d *daemon) handleStreams() {
	d.host.Handle(session.JoinProtocol, joinLimit, d.serveJoin)
	d.host.Handle(session.LedgerProtocol, ledgerLimit, d.serveLedger)
	d.host.OnLink(func(l *p2p.Link) *p2p.LinkConfig {
		j := d.joinedRoom(l.Room())
		if j == nil {
			return nil
		}
		cfg, ok := j.links.accept(l.Remote())
		if !ok {
			return nil
		}
		j.links.add(l, l.Remote())
		return &cfg
	})
}

// A room that this daemon is not in is refused in the words of a member who may not admit. Whoever names a room at all
// holds its id, which is listed for open rooms and otherwise goes only with the secret R; R also finds the members'
// registrations. So this answer hides nothing from them, and nothing is delayed to look alike.

func (d *daemon) serveJoin(st *p2p.Stream) {
	defer st.Close() //nolint:errcheck // the conversation is over
	var m wire.JoinMessage
	if st.Read(&m) != nil || m.GetHello() == nil {
		return
	}
	if j := d.roomOf(m.GetHello().Room); j != nil {
		j.s.Serve(d.ctx, st, m.GetHello())
		return
	}
	_ = st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Refuse{Refuse: &wire.Refuse{Reason: uint32(room.NoAdmitter)}}})
}

func (d *daemon) serveLedger(st *p2p.Stream) {
	defer st.Close() //nolint:errcheck // the conversation is over
	var req wire.LedgerRequest
	if st.Read(&req) != nil {
		return
	}
	if j := d.roomOf(req.Room); j != nil {
		j.s.Serve(d.ctx, st, &req)
		return
	}
	_ = st.Write(&wire.LedgerReply{Refused: uint32(room.NoAdmitter)})
}

// roomOf finds a room that this daemon is in.
func (d *daemon) roomOf(id []byte) *joined {
	if len(id) != 32 {
		return nil
	}
	return d.joinedRoom(room.ID(id))
}

func hostPeer(g *room.Genesis) (peer.ID, error) { return identity.PeerOf(ed25519.PublicKey(g.Host)) }
