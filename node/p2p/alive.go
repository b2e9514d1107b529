package p2p

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// A QUIC connection notices only after 30 s that nothing passes any more, and where UDP is dropped without a
// word both sides would send into it until then.
const (
	aliveLook   = 500 * time.Millisecond
	aliveFor    = 1500 * time.Millisecond // after the last packet a connection is not sent on if there is better
	aliveDead   = 3 * time.Second         // a connection that is quiet for so long is closed if the peer is heard elsewhere
	rescueAfter = 2 * time.Second         // a peer that is quiet for so long on all is looked for by a fresh dial
	rescueLong  = time.Minute             // between two such dials at most
	aliveSlept  = 2 * time.Second         // this process itself stood still
)

// poke is a datagram that no link takes. It has to be acknowledged.
var poke = []byte{bundleMark, 0, 0}

var bootedAt = time.Now()

// ticks is the time in nanoseconds on a clock that is never set.
func ticks() int64 { return int64(time.Since(bootedAt)) }

// quiet is for how long nothing has come on a connection.
func (c *carrierConn) quiet() time.Duration { return time.Duration(ticks() - c.heard.Load()) }

// carry is the connection to send a bundle of l on: that of its stream, or the newest that is alive. A newer one may lead to
// another process with the same key, which knows nothing of the link. Nil: the link's stream, for want of any, or because
// only the stream's connection is not known to be dead.
func (m *peerMedia) carry(l *Link) *carrierConn {
	if c := l.home; c != nil && !c.gone.Load() && c.quiet() < aliveFor {
		return c
	}
	c := m.last.Load()
	if c == nil || c.quiet() < aliveFor {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range slices.Backward(m.conns) {
		if o.quiet() < aliveFor {
			return o
		}
	}
	on := l.stream.Conn().ID()
	if slices.ContainsFunc(m.conns, func(o *carrierConn) bool { return o.id == on }) {
		return c // the stream is no better
	}
	return nil
}

// rescue says when a peer that is not heard is looked for again.
type rescue struct {
	next  int64
	pause time.Duration
}

// watchCarriers looks after the QUIC connections of peers with links until the host closes.
func (h *Host) watchCarriers() {
	t := time.NewTicker(aliveLook)
	defer t.Stop()
	last := ticks()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
		}
		now := ticks()
		slept := time.Duration(now-last) > aliveSlept
		last = now
		h.links.mu.RLock()
		all := make([]*peerMedia, 0, len(h.links.peers))
		for _, m := range h.links.peers {
			all = append(all, m)
		}
		h.links.mu.RUnlock()
		for _, m := range all {
			m.look(now, slept)
		}
	}
}

// look asks each connection on which little comes for a sign of life, closes those that are dead when the
// peer is heard elsewhere, and otherwise, when it is heard nowhere, looks for it.
func (m *peerMedia) look(now int64, slept bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	heard := m.streamed.Load()
	var dead []network.Conn
	for _, c := range m.conns {
		if n := c.quic.ConnectionStats().PacketsReceived; n != c.packets || slept {
			c.packets = n
			c.heard.Store(now)
		}
		heard = max(heard, c.heard.Load())
		switch q := c.quiet(); {
		case q >= aliveDead:
			dead = append(dead, c.conn)
			fallthrough
		case q >= aliveLook/2:
			m.poke(c)
		}
	}
	switch silent := time.Duration(now - heard); {
	case len(m.conns) == 0:
	case silent < aliveFor:
		m.rescue = rescue{}
		for _, c := range dead {
			m.h.spawn(func() { _ = c.Close() })
		}
	case silent >= rescueAfter && now >= m.rescue.next:
		m.rescue.pause = min(max(2*m.rescue.pause, rescueAfter), rescueLong)
		m.rescue.next = now + int64(m.rescue.pause)
		m.h.spawn(m.seek)
	}
}

// poke asks c for a sign of life. SendDatagram waits, for as long as the connection lives, when nothing is acknowledged any
// more: never under a lock, and one at a time.
func (m *peerMedia) poke(c *carrierConn) {
	if !c.poked.CompareAndSwap(false, true) {
		return
	}
	m.h.spawn(func() {
		_ = c.quic.SendDatagram(poke) // what fails is a sign, too
		c.poked.Store(false)
	})
}

// seek tries whether the peer answers a fresh dial. If so, what is quiet is closed: that ends the links on it,
// and they are opened anew on a connection that works.
func (m *peerMedia) seek() {
	ctx, cancel := context.WithTimeout(m.h.ctx, probeTime)
	defer cancel()
	if err := m.h.Probe(ctx, m.peer); err != nil {
		m.h.cfg.Log.Debug("a peer with a link is silent", "peer", m.peer, "err", err)
		return
	}
	m.mu.Lock()
	var dead []network.Conn
	for _, c := range m.conns {
		if c.quiet() >= rescueAfter {
			dead = append(dead, c.conn)
		}
	}
	m.mu.Unlock()
	for _, c := range dead {
		_ = c.Close()
	}
}
