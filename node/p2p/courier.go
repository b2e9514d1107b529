package p2p

import (
	"context"
	"sync"
	"time"
)

const (
	courierStuck = 5 * time.Millisecond   // in one connection: the others shall wait no longer
	courierQuiet = 500 * time.Millisecond // a peer that says nothing for so long may let its connection fill up
)

// courier gives the bundles of all links to their QUIC connections: one goroutine, woken once for what a relay sends to a
// hundred children, where a sender for each would be woken a hundred times.
//
// quic.Conn.SendDatagram waits while 32 datagrams wait in the connection. So that nobody is held up by another's
// connection, a link whose peer has fallen silent, or that has no QUIC connection, gets a sender of its own. Where the
// courier gets stuck all the same it becomes that link's sender, and another courier goes on.
type courier struct {
	send func(*Link, []byte) bool // sends what waits; false: the link needs a sender of its own
	wake chan struct{}            // due has something

	mu    sync.Mutex
	due   []*Link // whose queues have something, each once
	head  int     // of due
	at    *Link   // is being served; nil: none
	since int64   // it is; see ticks
	turn  uint64  // of the courier at work
}

func (c *courier) init() { c.send, c.wake = (*Link).sendAll, make(chan struct{}, 1) }

// enlist has l served. True: the courier is stuck, and the caller has to start another.
func (c *courier) enlist(l *Link) (stuck bool) {
	c.mu.Lock()
	if !l.listed {
		l.listed = true
		c.due = append(c.due, l)
	}
	if c.at != nil && time.Duration(ticks()-c.since) > courierStuck && c.at.own.CompareAndSwap(false, true) {
		c.at, stuck = nil, true
		c.turn++
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return stuck
}

// next is whom to serve now; nil: nobody, for the time being. Over: another courier has taken this one's place.
func (c *courier) next(turn uint64) (l *Link, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn != turn {
		return nil, true
	}
	c.at = nil
	if c.head == len(c.due) {
		return nil, false
	}
	l = c.due[c.head]
	c.head++
	l.listed = false
	if c.head > len(c.due)/2 { // a relay in use may never see it empty
		n := copy(c.due, c.due[c.head:])
		clear(c.due[n:])
		c.due, c.head = c.due[:n], 0
	}
	c.at, c.since = l, ticks()
	return l, false
}

// run serves links until ctx ends. Not nil: it got stuck with this link, and another courier is at work; the caller is the
// link's sender from now on.
func (c *courier) run(ctx context.Context, alone func(*Link)) *Link {
	c.mu.Lock()
	turn := c.turn
	c.mu.Unlock()
	var buf [MaxBundle]byte
	var last *Link
	for {
		l, over := c.next(turn)
		switch {
		case over:
			return last
		case l == nil:
			select {
			case <-c.wake:
			case <-ctx.Done():
				return nil
			}
		case !l.own.Load() && !c.send(l, buf[:]) && l.own.CompareAndSwap(false, true):
			alone(l)
		}
		last = l
	}
}

// sendAll sends what waits, as datagrams; false: the link needs a sender of its own.
func (l *Link) sendAll(buf []byte) bool {
	c := l.media.carry(l)
	if c == nil || c.quiet() > courierQuiet {
		return false
	}
	for n := l.out.take(buf); n > 0; n = l.out.take(buf) {
		// A datagram that is refused is a datagram lost; a dead connection is left before long.
		_ = c.quic.SendDatagram(buf[:n])
	}
	return true
}
