package session

import (
	"math/rand/v2"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxHandshake = 128 // handshakes at once, knocks included
	maxVisits    = 4   // of one peer
)

// doorway holds the handshakes that go on. Whoever only stands in it makes way: when it is full, one goes that has not
// proved an invite yet, of those peers who have the most, whichever chance names. So a newcomer who answers at once gets
// in past any number of people who open handshakes and say nothing. Safe for concurrent use; the zero value is ready.
type doorway struct {
	mu     sync.Mutex
	visits map[Stream]*visit
}

type visit struct {
	peer   peer.ID
	proven bool
}

// enter takes a handshake; false: there is no room for it.
func (d *doorway) enter(st Stream) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.visits == nil {
		d.visits = map[Stream]*visit{}
	}
	p, own := st.Remote(), 0
	for _, v := range d.visits {
		if v.peer == p {
			own++
		}
	}
	if own >= maxVisits || len(d.visits) >= maxHandshake && !d.makeRoom() {
		return false
	}
	d.visits[st] = &visit{peer: p}
	return true
}

// makeRoom ends one handshake; false: all have proved their invites.
func (d *doorway) makeRoom() bool {
	of, most := map[peer.ID]int{}, 0
	for _, v := range d.visits {
		if !v.proven {
			of[v.peer]++
			most = max(most, of[v.peer])
		}
	}
	var out []Stream
	for st, v := range d.visits {
		if !v.proven && of[v.peer] == most {
			out = append(out, st)
		}
	}
	if len(out) == 0 {
		return false
	}
	st := out[rand.IntN(len(out))]
	delete(d.visits, st)
	_ = st.Reset() // its goroutine ends by that
	return true
}

// prove notes that the claim of a handshake holds: it is not ended for another any more.
func (d *doorway) prove(st Stream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v := d.visits[st]; v != nil {
		v.proven = true
	}
}

func (d *doorway) leave(st Stream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.visits, st)
}
