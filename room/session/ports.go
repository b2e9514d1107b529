package session

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room/election"
	"balai/room/invite"
	"balai/room/overlay"
	"balai/room/wire"
)

// The two gossip topics of a room: OpsTopic carries ledger ops and epochs, StageTopic presence, beats
// and chat.
const (
	OpsTopic   = "ops"
	StageTopic = "stage"
)

// The control streams that a session speaks.
const (
	JoinProtocol   = "/balai/join/1"
	LedgerProtocol = "/balai/ledger/1"
	RelayProtocol  = "/balai/relay/1"
)

// Stream is a control stream: length-prefixed records with a limit and a deadline.
type Stream interface {
	Remote() peer.ID
	Read(proto.Message) error
	Write(proto.Message) error
	SetDeadline(time.Time) error
	Close() error
	Reset() error
}

// Ports is the world as a session sees it. No method but Open, Candidates, Probe, Save and SaveAll blocks; all are safe
// from any goroutine.
type Ports interface {
	// Publish sends sealed bytes to the members on a topic of this room.
	Publish(topic string, sealed []byte)
	// Members tells the gate who belongs to this room now.
	// Leaving are those among them who were just put out, and only hear why.
	Members(peers, leaving []peer.ID)
	// Links holds the media links that the plan names; sources are what this side says of itself when one opens.
	Links(plan *overlay.Plan, sources []*wire.Signed)
	// Tell sends a record on the stream of the open link with p, Ping asks there for a sign of life.
	Tell(p peer.ID, r *wire.LinkRecord)
	Ping(p peer.ID)
	// Probe tries whether p can be called, by a fresh dial. It blocks, no longer than ctx.
	Probe(ctx context.Context, p peer.ID) bool
	// Offer is what this daemon gives as a relay of this room now; without Slots it gives nothing. Only Reach, Cap,
	// Used, Slots, Lateness, Flags and Prefix are set.
	Offer() election.Ad
	// Circuits are the circuit relays by which p says that it can be called; Communities the community nodes that are
	// connected now.
	Circuits(p peer.ID) []peer.ID
	Communities() []peer.ID
	// Media hands the media path its new plan.
	Media(m Media)
	// Open opens a control stream to a peer whose addresses are known.
	Open(ctx context.Context, p peer.ID, protocol string) (Stream, error)
	// Candidates finds peers of this room that may admit or tell: hints, rendezvous, lobby, remembered. It ends
	// with ctx.
	Candidates(ctx context.Context) []peer.ID
	// Record is this host's own signed peer record, Learn takes another's.
	Record() []byte
	// RecordOf is the one that another has signed, as far as known. Learn answers whose record it was, or nobody.
	RecordOf(p peer.ID) []byte
	Learn(record []byte, from peer.ID) peer.ID
	// Hints are the addresses that an invite should carry.
	Hints() []invite.Hint
	// Save writes durable state under a name of this room's; nil data deletes. SaveAll writes much at once, or nothing of it.
	Save(name string, data []byte) error
	SaveAll(data map[string][]byte) error
	// Listed announces the room: in the lobby when ad is set, at rendezvous points when register is set.
	Listed(ad *wire.Signed, register bool)
}
