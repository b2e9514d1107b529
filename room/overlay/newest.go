package overlay

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

// maxNewest bounds the peers whose pulses wait: more links than a daemon holds.
const maxNewest = 1024

// Newest keeps the newest pulse of each peer until they are taken: however many come, nobody is woken. Any goroutine.
type Newest struct {
	mu sync.Mutex
	of map[peer.ID]Pulse
}

// Put keeps p.
func (n *Newest) Put(p Pulse) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.of == nil {
		n.of = map[peer.ID]Pulse{}
	}
	if _, known := n.of[p.Peer]; known || len(n.of) < maxNewest {
		n.of[p.Peer] = p
	}
}

// Take is what came since the last call, in the order of ids; nil if nothing did.
func (n *Newest) Take() []Pulse {
	n.mu.Lock()
	all := n.of
	n.of = nil
	n.mu.Unlock()
	return slices.SortedFunc(maps.Values(all), func(a, b Pulse) int { return cmp.Compare(a.Peer, b.Peer) })
}
