package hostile

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// The gossip topics of a room, before they are made secret.
const (
	OpsTopic   = "ops"
	StageTopic = "stage"
)

// Op is an op that this member has no right to write, with everything else in order: it is the first of its
// chain, and names the heads of all ops of the welcome. change may spoil it further.
func (m *Member) Op(kind room.Kind, target peer.ID, change func(*wire.Op)) *wire.Signed {
	op := &wire.Op{
		Room: m.Room[:], Seq: 1, Kind: uint32(kind), TimeMs: time.Now().UnixMilli(), Reason: "because I say so",
		Grant: recordID(wire.DomainGenesis, m.Welcome.Genesis), Seen: m.heads(),
	}
	if target != "" {
		op.Targets = [][]byte{[]byte(target)}
	}
	if change != nil {
		change(op)
	}
	return wire.Sign(m.p.Key, wire.DomainOp, op)
}

// heads are the highest ops of the welcome.
func (m *Member) heads() []*wire.Seen {
	at := map[string]*wire.Seen{string(m.Welcome.Genesis.Key): {Key: m.Welcome.Genesis.Key, Hash: recordID(wire.DomainGenesis, m.Welcome.Genesis)}}
	for _, s := range m.Welcome.Ops {
		var op wire.Op
		if proto.Unmarshal(s.Body, &op) != nil {
			continue
		}
		if old := at[string(s.Key)]; old == nil || op.Seq > old.Seq {
			at[string(s.Key)] = &wire.Seen{Key: s.Key, Seq: op.Seq, Hash: recordID(wire.DomainOp, s)}
		}
	}
	var out []*wire.Seen
	for _, s := range at {
		out = append(out, s)
	}
	return out
}

// HostChain is the newest op of the host, for an op that pretends to follow it.
func (m *Member) HostChain() (seq uint64, prev []byte) {
	for _, h := range m.heads() {
		if string(h.Key) == string(m.Welcome.Genesis.Key) {
			return h.Seq, h.Hash
		}
	}
	return 0, nil
}

// Topic is the name on the wire of one of the room's topics.
func (m *Member) Topic(topic string) string { return m.Secret.Name(topic) }

// Greet subscribes to both topics of the room at a member.
func (m *Member) Greet(ctx context.Context, to peer.ID) error {
	return m.p.Subscribe(ctx, to, Members, m.Topic(OpsTopic), m.Topic(StageTopic))
}

// Gossip seals a record as a member and publishes it on a topic of the room.
func (m *Member) Gossip(ctx context.Context, to peer.ID, topic string, record proto.Message) error {
	plain, err := proto.Marshal(record)
	if err != nil {
		return err
	}
	name := m.Topic(topic)
	return m.p.Publish(ctx, to, Members, name, m.Epoch.SealGossip(m.Room, name, plain))
}

// GossipOps announces ops, forged ones too.
func (m *Member) GossipOps(ctx context.Context, to peer.ID, ops ...*wire.Signed) error {
	return m.Gossip(ctx, to, OpsTopic, &wire.OpsMessage{Ops: ops})
}

// Presence is an honest heartbeat, signed by key as that of who.
func (m *Member) Presence(key *identity.Key, who peer.ID, seq uint64) *wire.StageMessage {
	return &wire.StageMessage{Message: &wire.StageMessage_Presence{Presence: wire.Sign(key, wire.DomainPresence, &wire.Presence{
		Room: m.Room[:], Peer: []byte(who), Seq: seq, TimeMs: time.Now().UnixMilli(), Name: "Mallory", Muted: true,
		Instance: []byte("hostile!"),
	})}}
}

// Chat is a line of chat, signed by key as that of who.
func (m *Member) Chat(key *identity.Key, who peer.ID, seq uint64, text string) *wire.StageMessage {
	return &wire.StageMessage{Message: &wire.StageMessage_Chat{Chat: wire.Sign(key, wire.DomainChat, &wire.Chat{
		Room: m.Room[:], Peer: []byte(who), Seq: seq, TimeMs: time.Now().UnixMilli(), Text: text,
	})}}
}

// Fetch asks for the room's ledger, as a member that was away or as anybody.
func (p *Peer) Fetch(ctx context.Context, to peer.ID, req *wire.LedgerRequest) (*wire.LedgerReply, error) {
	s, err := p.Open(ctx, to, Ledger)
	if err != nil {
		return nil, err
	}
	defer s.Reset() //nolint:errcheck // the conversation is over
	if err := s.Write(req); err != nil {
		return nil, err
	}
	var rep wire.LedgerReply
	if err := s.Read(&rep); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return &rep, nil
}

func recordID(domain string, s *wire.Signed) []byte {
	id := identity.RecordID(domain, s.GetBody())
	return id[:]
}
