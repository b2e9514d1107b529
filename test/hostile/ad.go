package hostile

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// LobbyTopic is the one shard of the lobby.
const LobbyTopic = "balai/rooms/0"

// Room is an open room that exists only in what its host says.
type Room struct {
	Host    *identity.Key
	Secret  room.Secret
	Genesis *wire.Signed
}

// NewRoom makes an open room of host.
func NewRoom(host *identity.Key) Room {
	secret := room.NewSecret()
	nonce := secret.Nonce()
	g := &wire.Genesis{
		Host: host.Public(), Nonce: nonce[:], CreatedS: time.Now().Unix(),
		Policy: &wire.Policy{Visibility: uint32(room.Open), Name: "A room that is a trap"},
	}
	return Room{Host: host, Secret: secret, Genesis: wire.Sign(host, wire.DomainGenesis, g)}
}

// ID is the room's id.
func (r Room) ID() room.ID { return room.IDOf(r.Host.Public(), r.Secret.Nonce()) }

// Ad lists the room, with any records as hints; change may spoil it before it is signed.
func (r Room) Ad(change func(*wire.Ad), hints ...[]byte) *wire.Signed {
	ad := &wire.Ad{
		Genesis: r.Genesis, Rendezvous: r.Secret[:], Name: "A room that is a trap", Stage: 1, Hints: hints,
		IssuedMs: time.Now().UnixMilli(), TtlS: 90, Seq: uint64(time.Now().UnixMilli()), HostName: "Mallory",
	}
	if change != nil {
		change(ad)
	}
	return wire.Sign(r.Host, wire.DomainAd, ad)
}

// Advertise publishes a signed ad in the lobby, as by at a peer.
func Advertise(ctx context.Context, by *Peer, to peer.ID, ad *wire.Signed) error {
	b, err := proto.Marshal(ad)
	if err != nil {
		return err
	}
	return by.Publish(ctx, to, Lobby, LobbyTopic, b)
}
