package p2p

import (
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// memberGate is who may be in the members gossip: the union of the members of all rooms, and this host.
// It is pubsub's blacklist turned round, the one door that pubsub keeps shut against greetings too.
type memberGate struct {
	self peer.ID // set before the gossip starts

	mu    sync.RWMutex
	rooms map[string]map[peer.ID]struct{}
	count map[peer.ID]int // rooms that a peer is in
}

var _ pubsub.Blacklist = (*memberGate)(nil)

func newMemberGate() *memberGate {
	return &memberGate{rooms: map[string]map[peer.ID]struct{}{}, count: map[peer.ID]int{}}
}

// Add does nothing: pubsub calls it when it cuts a peer, who is out of the gate by then.
func (m *memberGate) Add(peer.ID) bool { return true }

// Contains tells whether p is to be kept out. The empty id stands for a message without an author.
func (m *memberGate) Contains(p peer.ID) bool { return p != "" && !m.has(p) }

func (m *memberGate) has(p peer.ID) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return p == m.self || m.count[p] > 0
}

// set replaces the members of a room and tells who came in and who fell out of the union.
func (m *memberGate) set(room string, peers []peer.ID) (added, removed []peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.rooms[room]
	now := make(map[peer.ID]struct{}, len(peers))
	for _, p := range peers {
		if p == m.self || p == "" {
			continue
		}
		if _, dup := now[p]; dup {
			continue
		}
		now[p] = struct{}{}
		if _, had := old[p]; had {
			continue
		}
		if m.count[p]++; m.count[p] == 1 {
			added = append(added, p)
		}
	}
	for p := range old {
		if _, stays := now[p]; stays {
			continue
		}
		if m.count[p]--; m.count[p] == 0 {
			delete(m.count, p)
			removed = append(removed, p)
		}
	}
	if len(now) == 0 {
		delete(m.rooms, room)
	} else {
		m.rooms[room] = now
	}
	return added, removed
}

// openGate keeps nobody out, and takes no additions.
type openGate struct{}

// Add does nothing.
func (openGate) Add(peer.ID) bool { return true }

// Contains is never so.
func (openGate) Contains(peer.ID) bool { return false }

// memberTag keeps the connection manager's hands off members.
const memberTag = "balai member"

// SetMembers replaces the peers that belong to a room; nil forgets the room. Peers in no room any more are
// cut from the members gossip at once, on the live connection; new ones are greeted.
func (h *Host) SetMembers(room string, peers []peer.ID) {
	added, removed := h.memberGate.set(room, peers)
	if h.ctx.Err() != nil {
		return
	}
	for _, p := range removed {
		h.host.ConnManager().Unprotect(p, memberTag)
		h.members.cut(p)
	}
	for _, p := range added {
		h.host.ConnManager().Protect(p, memberTag)
		h.members.hail(p)
	}
	h.members.regreet()
}

// cut ends the gossip with p on the live connection: pubsub drops its own stream, and the peer's is reset
// so that it greets afresh if it is let in again.
func (g *Gossip) cut(p peer.ID) {
	g.drop(p)
	for _, s := range g.streams(p, network.DirInbound) {
		_ = s.Reset() // what fails is already gone
	}
}

func (g *Gossip) streams(p peer.ID, dir network.Direction) (out []network.Stream) {
	for _, c := range g.h.host.Network().ConnsToPeer(p) {
		for _, s := range c.GetStreams() {
			if s.Protocol() == g.proto && s.Stat().Direction == dir {
				out = append(out, s)
			}
		}
	}
	return out
}
