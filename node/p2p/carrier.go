package p2p

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/quic-go/quic-go"

	"balai/room"
	"balai/room/wire"
)

const linkProtocol protocol.ID = "/balai/link/1"

// linkTag keeps the connection manager's hands off peers with links.
const linkTag = "balai link"

// quicOf finds the QUIC connection below a libp2p connection; nil for TCP and for circuits.
// network.Conn.As is experimental: TestQUICBelow holds it.
func quicOf(c network.Conn) *quic.Conn {
	var q *quic.Conn
	if c.Stat().Limited || !c.As(&q) {
		return nil
	}
	return q
}

// linkTable holds the open links, by the handle that this side chose, and the peers they lead to.
type linkTable struct {
	accept  atomic.Pointer[func(*Link) *LinkConfig]
	changes watchers

	mu    sync.RWMutex
	next  uint32
	links map[uint32]*Link
	peers map[peer.ID]*peerMedia
}

func (t *linkTable) init() {
	t.links, t.peers = map[uint32]*Link{}, map[peer.ID]*peerMedia{}
}

// maxHandle keeps a handle within three bytes of varint; handles are not used again soon.
const maxHandle = 1<<21 - 1

// add enters a link, gives it its handle, and starts to read its peer's QUIC connections.
func (t *linkTable) add(l *Link) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.peers[l.remote]
	if len(t.links) >= l.h.maxLinks() || m != nil && m.links >= maxPeerLinks {
		return fmt.Errorf("media link: %w", ErrLimit)
	}
	if m == nil {
		m = &peerMedia{h: l.h, peer: l.remote}
		t.peers[l.remote] = m
		l.h.host.ConnManager().Protect(l.remote, linkTag)
		for _, c := range l.h.host.Network().ConnsToPeer(l.remote) {
			m.add(c)
		}
	}
	m.links++
	l.media, l.home = m, m.find(l.stream.Conn().ID())
	for {
		t.next = t.next%maxHandle + 1
		if t.links[t.next] == nil {
			break
		}
	}
	l.mine = t.next
	t.links[l.mine] = l
	return nil
}

// maxLinks: a community node carries rooms for others.
func (h *Host) maxLinks() int {
	if h.cfg.Community {
		return maxCarried
	}
	return maxLinks
}

func (t *linkTable) remove(l *Link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.links[l.mine] != l {
		return
	}
	delete(t.links, l.mine)
	if l.media.links--; l.media.links == 0 {
		delete(t.peers, l.remote)
		l.h.host.ConnManager().Unprotect(l.remote, linkTag)
		l.media.stop()
	}
}

// find is the link of that handle, if it leads to that peer.
func (t *linkTable) find(handle uint32, from peer.ID) *Link {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if l := t.links[handle]; l != nil && l.remote == from {
		return l
	}
	return nil
}

func (t *linkTable) connected(c network.Conn) {
	t.changes.tell(c.RemotePeer())
	t.mu.RLock()
	defer t.mu.RUnlock()
	if m := t.peers[c.RemotePeer()]; m != nil {
		m.add(c)
	}
}

func (t *linkTable) disconnected(c network.Conn) {
	t.changes.tell(c.RemotePeer())
	t.mu.RLock()
	defer t.mu.RUnlock()
	if m := t.peers[c.RemotePeer()]; m != nil {
		m.drop(c.ID())
	}
}

func (t *linkTable) closeAll() {
	t.mu.RLock()
	all := make([]*Link, 0, len(t.links))
	for _, l := range t.links {
		all = append(all, l)
	}
	t.mu.RUnlock()
	var wg sync.WaitGroup
	for _, l := range all {
		wg.Go(l.Close)
	}
	wg.Wait()
}

// peerMedia is the QUIC connections to one peer with which there are links.
type peerMedia struct {
	h     *Host
	peer  peer.ID
	links int // under linkTable.mu

	mu    sync.Mutex
	over  bool
	conns []*carrierConn // oldest first
	last  atomic.Pointer[carrierConn]

	streamed atomic.Int64 // when a bundle last came on a link's stream; see ticks
	rescue   rescue       // of watchCarriers
	better   better
}

// carrierConn is one QUIC connection and its one reader.
type carrierConn struct {
	id   string
	conn network.Conn
	quic *quic.Conn
	stop context.CancelFunc

	heard   atomic.Int64 // when anything last came on it; see ticks
	gone    atomic.Bool  // it is not read any more
	poked   atomic.Bool  // a poke is on its way out
	packets uint64       // that have come, of watchCarriers
}

// add takes a connection in and starts its reader.
func (m *peerMedia) add(c network.Conn) {
	q := quicOf(c)
	if q == nil || q.Context().Err() != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over || slices.ContainsFunc(m.conns, func(o *carrierConn) bool { return o.id == c.ID() }) {
		return
	}
	ctx, cancel := context.WithCancel(m.h.ctx)
	cc := &carrierConn{id: c.ID(), conn: c, quic: q, stop: cancel}
	cc.heard.Store(ticks())
	m.conns = append(m.conns, cc)
	m.last.Store(cc)
	m.h.spawn(func() {
		defer cancel()
		m.read(ctx, cc)
	})
}

// read hands each datagram to the link that its handle names, and drops the rest.
func (m *peerMedia) read(ctx context.Context, c *carrierConn) {
	defer m.drop(c.id)
	for {
		b, err := c.quic.ReceiveDatagram(ctx)
		if err != nil {
			return
		}
		c.heard.Store(ticks())
		handle, ok := bundleHandle(b)
		if !ok {
			continue
		}
		if l := m.h.links.find(handle, m.peer); l != nil {
			l.receive(b)
		}
	}
}

func (m *peerMedia) drop(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns = slices.DeleteFunc(m.conns, func(c *carrierConn) bool {
		if c.id == id {
			c.gone.Store(true)
			c.stop()
		}
		return c.id == id
	})
	if len(m.conns) == 0 {
		m.last.Store(nil)
		return
	}
	m.last.Store(m.conns[len(m.conns)-1])
}

// find is the connection of that id; nil when it is no QUIC connection.
func (m *peerMedia) find(id string) *carrierConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.conns, func(c *carrierConn) bool { return c.id == id })
	if i < 0 {
		return nil
	}
	return m.conns[i]
}

func (m *peerMedia) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	for _, c := range m.conns {
		c.stop()
	}
	m.conns = nil
}

// bundleHandle reads the room handle of a bundle: 0x0A | flags 1 | handle varint.
func bundleHandle(b []byte) (uint32, bool) {
	if len(b) < 3 || len(b) > MaxBundle || b[0] != bundleMark {
		return 0, false
	}
	h, n := binary.Uvarint(b[2:])
	if n <= 0 || n > 3 || h == 0 || h > maxHandle {
		return 0, false
	}
	return uint32(h), true
}

// OnLink sets who decides about links that others open. It sees the remote peer, the room and the sources
// told, and returns this side's part, or nil to refuse. It must not block.
func (h *Host) OnLink(accept func(*Link) *LinkConfig) { h.links.accept.Store(&accept) }

// OpenLink opens a media link to a peer whose addresses are known, for a room. Where there is only a
// circuit it waits for a direct connection until ctx ends. The error is a room.Reason if the other side
// refused, ErrCircuit if no direct connection came.
func (h *Host) OpenLink(ctx context.Context, p peer.ID, roomID [32]byte, cfg LinkConfig) (*Link, error) {
	if err := h.direct(ctx, p); err != nil {
		return nil, fmt.Errorf("p2p: link to %s: %w", p, err)
	}
	s, err := h.host.NewStream(network.WithNoDial(ctx, "balai link"), p, linkProtocol)
	if err != nil {
		return nil, fmt.Errorf("p2p: link to %s: %w", p, err)
	}
	l := h.newLink(s, roomID)
	if err := h.links.add(l); err != nil {
		return nil, errors.Join(err, s.Reset())
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	open, err := l.exchange(cfg.Sources)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil || !h.enter() {
		h.links.remove(l)
		l.out.close()
		_ = s.Reset() // the error told is the cause
		return nil, fmt.Errorf("p2p: link to %s: %w", p, errors.Join(err, h.ctx.Err()))
	}
	l.sources = open.GetSources()
	l.theirs.Store(open.GetHandle())
	l.cfg.Store(&cfg)
	go func() {
		defer h.wg.Done()
		l.readLoop()
	}()
	h.spawn(l.tellLoop)
	return l, nil
}

// exchange is the opening side's greeting.
func (l *Link) exchange(sources []*wire.Signed) (*wire.LinkOpen, error) {
	if err := l.hello(sources); err != nil {
		return nil, err
	}
	open, err := l.readHello()
	if err == nil && [32]byte(open.GetRoom()) != l.room {
		err = fmt.Errorf("link answer: %w", room.WrongRoom)
	}
	return open, err
}

func (h *Host) newLink(s network.Stream, roomID [32]byte) *Link {
	l := &Link{
		h: h, remote: s.Conn().RemotePeer(), room: roomID, stream: s, r: bufio.NewReaderSize(s, 2<<10), told: make(chan *wire.LinkRecord, maxLinkTold),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	l.out.init()
	return l
}

// deliver is the courier, and, where it got stuck, that link's sender.
func (h *Host) deliver() {
	if l := h.courier.run(h.ctx, func(l *Link) { h.spawn(l.sendLoop) }); l != nil {
		l.sendLoop()
	}
}

func (h *Host) handleLinks() {
	h.courier.init()
	h.spawn(h.deliver)
	h.host.Network().Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { h.links.connected(c); h.outlived(c); h.punch.pursue(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { h.links.disconnected(c) },
	})
	h.host.SetStreamHandler(linkProtocol, func(s network.Stream) {
		if !h.enter() {
			_ = s.Reset()
			return
		}
		defer h.wg.Done()
		h.serveLink(s)
	})
}

// decide asks whoever was named by OnLink.
func (t *linkTable) decide(l *Link) *LinkConfig {
	if accept := t.accept.Load(); accept != nil {
		return (*accept)(l)
	}
	return nil
}

// serveLink is the accepting side of a link, from its first byte to its end.
func (h *Host) serveLink(s network.Stream) {
	if s.Conn().Stat().Limited || !h.streams.add(s, maxPeerLinks) {
		_ = s.Reset()
		return
	}
	l := h.newLink(s, [32]byte{})
	open, err := l.readHello()
	h.streams.remove(s)
	if err != nil {
		_ = s.Reset()
		return
	}
	l.room, l.sources = [32]byte(open.GetRoom()), open.GetSources()
	l.theirs.Store(open.GetHandle())
	if h.links.add(l) != nil {
		l.shut(room.Busy)
		return
	}
	cfg := h.links.decide(l)
	if cfg == nil {
		h.links.remove(l)
		l.shut(room.Declined)
		return
	}
	l.cfg.Store(cfg)
	if l.hello(cfg.Sources) == nil {
		h.spawn(l.tellLoop)
	} else {
		_ = s.Reset()
	}
	l.readLoop() // ends at once where the link could not be opened
}
