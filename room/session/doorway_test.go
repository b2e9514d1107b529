package session

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// guestStream is one that only stands in the doorway.
type guestStream struct {
	Stream
	from  peer.ID
	ended bool
}

func (g *guestStream) Remote() peer.ID { return g.from }
func (g *guestStream) Reset() error    { g.ended = true; return nil }

func visitor(t *testing.T) *guestStream { return &guestStream{from: mustKey(t).ID()} }

// Trust 20: a few peers who open all the handshakes they can keep nobody out, and end nobody's.
func TestAFewFillTheDoorway(t *testing.T) {
	var d doorway
	var few []peer.ID
	for range maxHandshake/maxVisits + 1 {
		few = append(few, mustKey(t).ID())
	}
	crowd := func() {
		for range 10 * maxVisits {
			for _, p := range few {
				d.enter(&guestStream{from: p})
			}
		}
	}
	crowd()
	knocks, honest := visitor(t), visitor(t)
	if !d.enter(knocks) || !d.enter(honest) {
		t.Fatal("no room for an honest newcomer")
	}
	d.prove(knocks)
	crowd()
	if honest.ended || knocks.ended {
		t.Error("an honest handshake was ended for another's")
	}
	if len(d.visits) > maxHandshake {
		t.Errorf("%d handshakes at once", len(d.visits))
	}
	d.leave(honest)
	d.leave(knocks)
}

// With a new key for each handshake they can end others', but not what has proved its invite, and a newcomer always comes in.
func TestManyKeysInTheDoorway(t *testing.T) {
	var d doorway
	var proven []*guestStream
	for range maxHandshake - 1 {
		g := visitor(t)
		if !d.enter(g) {
			t.Fatal("no room")
		}
		d.prove(g)
		proven = append(proven, g)
	}
	for range 100 {
		if !d.enter(visitor(t)) {
			t.Fatal("no room for a newcomer")
		}
	}
	last := visitor(t)
	if !d.enter(last) {
		t.Fatal("no room for a newcomer")
	}
	d.prove(last)
	if d.enter(visitor(t)) {
		t.Error("there is room for one more than fits")
	}
	for _, g := range append(proven, last) {
		if g.ended {
			t.Fatal("who has proved an invite was ended")
		}
	}
	d.leave(last)
	if !d.enter(visitor(t)) {
		t.Error("no room although one has left")
	}
}

// One peer opens a few handshakes at most.
func TestOnePeerInTheDoorway(t *testing.T) {
	var d doorway
	p := mustKey(t).ID()
	for i := range 2 * maxVisits {
		if in := d.enter(&guestStream{from: p}); in != (i < maxVisits) {
			t.Errorf("handshake %d: %v", i+1, in)
		}
	}
}
