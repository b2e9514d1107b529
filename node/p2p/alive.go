package p2p

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multistream"
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
		m.wish(now)
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

// seek tries whether the peer answers by a circuit or a fresh dial: a router may have another address, and the hole is gone.
// If so, what is quiet is closed: that ends the links on it, and they are opened anew on a connection that works. The address
// of what is quiet is dialled no more unless it was that which answered.
func (m *peerMedia) seek() {
	ctx, cancel := context.WithTimeout(m.h.ctx, probeTime)
	defer cancel()
	direct, err := m.h.answers(ctx, m.peer)
	if err != nil {
		m.h.cfg.Log.Debug("a peer with a link is silent", "peer", m.peer, "err", err)
		return
	}
	m.h.punch.look(ctx)
	m.mu.Lock()
	var dead []network.Conn
	for _, c := range m.conns {
		if c.quiet() >= rescueAfter {
			dead = append(dead, c.conn)
		}
	}
	m.mu.Unlock()
	for _, c := range dead {
		if !direct {
			m.h.host.Peerstore().SetAddr(m.peer, c.RemoteMultiaddr(), 0)
		}
		_ = c.Close()
	}
}

// answers tells whether p says anything by another way than its connections that are quiet, and whether by a direct one. The
// ways are tried at once; a direct one may be a little later than a circuit.
func (h *Host) answers(ctx context.Context, p peer.ID) (direct bool, err error) {
	straight, around := make(chan error, 1), make(chan error, 1)
	h.spawn(func() { straight <- h.probe(ctx, probed{p, byAny}) })
	h.spawn(func() { around <- h.echo(ctx, p) })
	select {
	case err := <-straight:
		if err == nil {
			return true, nil
		}
		return false, wait(ctx, around)
	case err := <-around:
		if err != nil {
			return true, wait(ctx, straight)
		}
	case <-ctx.Done():
		return false, ctx.Err()
	}
	late, cancel := context.WithTimeout(ctx, quicLead)
	defer cancel()
	return wait(late, straight) == nil, nil
}

func wait(ctx context.Context, c chan error) error {
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// echo pings p by a circuit that is there, or dials those known.
func (h *Host) echo(ctx context.Context, p peer.ID) error {
	for _, c := range h.host.Network().ConnsToPeer(p) {
		if c.Stat().Limited && echoes(ctx, c) == nil {
			return nil
		}
	}
	return h.probe(ctx, probed{p, byCircuit})
}

// outlived closes the direct connections to a peer on which nothing comes though it has just come by a circuit: it knows
// them no more, and as long as they seem to be there no hole is punched.
func (h *Host) outlived(circuit network.Conn) {
	if !circuit.Stat().Limited {
		return
	}
	packets := map[network.Conn]uint64{}
	for _, c := range h.host.Network().ConnsToPeer(circuit.RemotePeer()) {
		if q := quicOf(c); q != nil {
			packets[c] = q.ConnectionStats().PacketsReceived
			h.spawn(func() { _ = q.SendDatagram(poke) }) // what fails is a sign, too
		}
	}
	if len(packets) == 0 {
		return
	}
	h.spawn(func() {
		if !pause(h.ctx, rescueAfter) || circuit.IsClosed() {
			return
		}
		for c, n := range packets {
			if quicOf(c).ConnectionStats().PacketsReceived == n {
				_ = c.Close()
			}
		}
	})
}

// echoes sends a ping by this very connection and waits for its answer; host.NewStream would take the direct one.
func echoes(ctx context.Context, c network.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, rescueAfter)
	defer cancel()
	s, err := c.NewStream(network.WithAllowLimitedConn(ctx, "balai ping"))
	if err != nil {
		return err
	}
	defer s.Reset() //nolint:errcheck // nothing more is wanted of it
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	if err := multistream.SelectProtoOrFail(ping.ID, s); err != nil {
		return err
	}
	if _, err := s.Write(make([]byte, ping.PingSize)); err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, ping.PingSize))
	return err
}

// better says when a peer with a link by TCP is tried by QUIC, and how often in a row that went well.
type better struct {
	next   int64
	pause  time.Duration
	proved int
}

const (
	betterAfter = 30 * time.Second
	betterLong  = 30 * time.Minute // between two tries at most
	betterFor   = 2                // tries in a row that have to go well
)

// wish tries now and then whether UDP passes again. Libp2p makes no second connection to a peer, so the one by TCP is closed
// then, by the side that dialled it, and the links on it are opened anew: speech is away for a moment, once, instead of
// stuttering for good. With mu held.
func (m *peerMedia) wish(now int64) {
	b := &m.better
	switch {
	case b.next == 0:
		b.pause = m.h.cfg.betterAfter
	case now < b.next:
		return
	default:
		b.pause = min(2*b.pause, betterLong)
		m.h.spawn(m.tryQUIC)
	}
	b.next = now + int64(b.pause)
}

func (m *peerMedia) tryQUIC() {
	var old []network.Conn
	for _, c := range m.h.host.Network().ConnsToPeer(m.peer) {
		if s := c.Stat(); !s.Limited && s.Direction == network.DirOutbound && quicOf(c) == nil {
			old = append(old, c)
		}
	}
	if len(old) == 0 {
		return
	}
	err := m.h.probe(m.h.ctx, probed{m.peer, byQUIC})
	m.mu.Lock()
	b := &m.better
	if b.proved++; err != nil {
		b.proved = 0
	} else {
		b.pause = m.h.cfg.betterAfter
		b.next = ticks() + int64(b.pause)
	}
	enough := b.proved >= betterFor && len(m.conns) == 0
	m.mu.Unlock()
	if !enough {
		return
	}
	m.h.cfg.Log.Debug("a peer answers by QUIC again", "peer", m.peer)
	for _, c := range old {
		_ = c.Close()
	}
}
