package hostile

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// Author is a member that was made a moderator and signs ops as it likes: good ones, ones of another time, and two
// with one number. What each peer hears of them is chosen for each.
type Author struct {
	*Member
	grant []byte                // the op that appointed it
	seen  map[string]*wire.Seen // the heads of others when it last looked, by key
	last  wire.Seen             // its own head; Seq 0: none yet
	seq   uint64                // of its presence

	mu    sync.Mutex // guards what follows
	tell  map[peer.ID][]*wire.Signed
	asked map[peer.ID]int
}

// NewAuthor takes over the answers to those who ask this peer for the ledger. It may sign once it has looked.
func NewAuthor(m *Member) *Author {
	a := &Author{Member: m, seen: map[string]*wire.Seen{}, tell: map[peer.ID][]*wire.Signed{}, asked: map[peer.ID]int{}}
	m.p.Handle(Ledger, a.answer)
	return a
}

// Look fetches the ledger of a member and remembers its heads and the newest op that made this peer an authority.
func (a *Author) Look(ctx context.Context, at peer.ID) error {
	rep, err := a.p.Fetch(ctx, at, &wire.LedgerRequest{Room: a.Room[:]})
	if err != nil {
		return err
	}
	a.grant = nil
	for _, s := range rep.Ops {
		var op wire.Op
		if err := proto.Unmarshal(s.Body, &op); err != nil {
			return err
		}
		id := recordID(wire.DomainOp, s)
		if k := room.Kind(op.Kind); (k == room.Appoint || k == room.Transfer) && len(op.Targets) == 1 && string(op.Targets[0]) == string(a.p.ID()) {
			a.grant = id
		}
		if string(s.Key) == string(a.p.Key.Public()) {
			continue
		}
		if old := a.seen[string(s.Key)]; old == nil || op.Seq > old.Seq {
			a.seen[string(s.Key)] = &wire.Seen{Key: s.Key, Seq: op.Seq, Hash: id}
		}
	}
	if a.grant == nil {
		return fmt.Errorf("%d ops, and none makes this peer an authority", len(rep.Ops))
	}
	return nil
}

// Next signs an op after the last one that it wrote, with nothing wrong in it before change: two of them have one
// number.
func (a *Author) Next(kind room.Kind, target peer.ID, change func(*wire.Op)) *wire.Signed {
	op := &wire.Op{
		Room: a.Room[:], Seq: a.last.Seq + 1, Prev: a.last.Hash, Grant: a.grant, Kind: uint32(kind), TimeMs: time.Now().UnixMilli(), Reason: "because I say so",
	}
	for _, s := range a.seen {
		op.Seen = append(op.Seen, proto.CloneOf(s))
	}
	if target != "" {
		op.Targets = [][]byte{[]byte(target)}
	}
	if change != nil {
		change(op)
	}
	return wire.Sign(a.p.Key, wire.DomainOp, op)
}

// Write is Next, and the op is the last one from now on.
func (a *Author) Write(kind room.Kind, target peer.ID, change func(*wire.Op)) *wire.Signed {
	s := a.Next(kind, target, change)
	a.last = wire.Seen{Key: s.Key, Seq: a.last.Seq + 1, Hash: recordID(wire.DomainOp, s)}
	return s
}

// Answer adds ops to what a peer is given when it asks for the ledger.
func (a *Author) Answer(to peer.ID, ops ...*wire.Signed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tell[to] = append(a.tell[to], ops...)
}

// Asked counts how often a peer asked for the ledger.
func (a *Author) Asked(by peer.ID) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[by]
}

func (a *Author) answer(s *Stream) {
	_ = s.SetDeadline(time.Now().Add(5 * time.Second)) // a dead stream fails in the next line
	var req wire.LedgerRequest
	if s.Read(&req) != nil || !bytes.Equal(req.Room, a.Room[:]) {
		return
	}
	a.mu.Lock()
	if len(req.Accept) == 0 {
		a.asked[s.Remote()]++
	}
	ops := a.tell[s.Remote()]
	a.mu.Unlock()
	if host, err := identity.PublicOf(s.Remote()); err == nil && len(req.Accept) > 0 { // she takes the room when it is handed to her
		_ = s.Write(&wire.LedgerReply{Accept: wire.Sign(a.p.Key, wire.DomainAccept, &wire.Acceptance{Room: a.Room[:], From: host, Prev: req.Accept})})
		return
	}
	_ = s.Write(&wire.LedgerReply{Genesis: a.Welcome.Genesis, Ops: ops}) // who asked may have gone
}

// Follow takes the step of the key that the room is at.
func (a *Author) Follow(step uint32) error {
	if step <= a.Epoch.Step {
		return nil
	}
	e, err := a.Epoch.Advance(step)
	if err == nil {
		a.Epoch = e
	}
	return err
}

// Lure tells a member by an honest presence of one op more than it can have: it comes and asks for the ledger.
func (a *Author) Lure(ctx context.Context, to peer.ID) error {
	a.seq++
	invented := bytes.Repeat([]byte{byte(a.seq)}, 32)
	return a.Gossip(ctx, to, StageTopic, &wire.StageMessage{Message: &wire.StageMessage_Presence{Presence: wire.Sign(a.p.Key, wire.DomainPresence, &wire.Presence{
		Room: a.Room[:], Peer: []byte(a.p.ID()), Seq: a.seq, TimeMs: time.Now().UnixMilli(), Name: "Mallory", Muted: true, Instance: []byte("hostile!"),
		Heads: []*wire.Seen{{Key: a.p.Key.Public(), Seq: a.last.Seq + 1, Hash: invented}},
	})}})
}
