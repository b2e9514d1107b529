package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"

	"balai/identity"
	"balai/node/p2p"
	"balai/room"
	"balai/room/ledger"
	"balai/room/session"
	"balai/room/wire"
)

// What a community node gives to rooms.
const (
	maxRelayKbps     = 100_000_000
	relayRooms       = 64
	relayRoomsOfOne  = 4         // that one authority asked for
	relayShare       = 4         // one room gets one part in so many of the whole upload
	relayChildKbps   = 120       // three speakers, what comes with them, and the heads of packets
	maxRelayChildren = 250       // of one room
	maxRelayLinks    = 600       // of one room: children that hear, those that are silent, and callers
	relayRequestMax  = 128 << 10 // bytes
	relayAsks        = 90 * time.Second
	relayPace        = 10 // requests a second on one stream
	maxRelayRecords  = 32 // peer records of a request
	maxRelayAdRecord = 1 << 10
)

// relays are the rooms that a community node carries: it is in none of them, and has no key of any.
type relays struct {
	host      *p2p.Host
	key       *identity.Key
	log       *slog.Logger
	total     uint32 // kbit/s of upload for all
	vouched   bool   // only rooms that vouch for this node
	forwarded prometheus.Counter
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup // of the rooms

	mu     sync.Mutex // guards what follows
	rooms  map[room.ID]*relayRoom
	closed bool
}

// startRelays serves rooms with total kbit/s of upload. Stop it before the host.
func startRelays(ctx context.Context, h *p2p.Host, k *identity.Key, total uint32, vouched bool, log *slog.Logger, m prometheus.Registerer) *relays {
	c := &relays{host: h, key: k, log: log, total: total, vouched: vouched, rooms: map[room.ID]*relayRoom{}}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.measure(m)
	h.OnLink(c.accept)
	h.Handle(protocol.ID(session.RelayProtocol), relayRequestMax, c.serve)
	return c
}

// stop says goodbye to all children and waits for that.
func (c *relays) stop() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
}

// accept decides about a link that another opens.
func (c *relays) accept(l *p2p.Link) *p2p.LinkConfig {
	c.mu.Lock()
	r := c.rooms[l.Room()]
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	return r.links.accept(l)
}

// serve is one authority's stream: each request is answered by one reply, until it ends.
func (c *relays) serve(st *p2p.Stream) {
	defer st.Close() //nolint:errcheck // the conversation is over
	stop := context.AfterFunc(c.ctx, func() { _ = st.Reset() })
	defer stop()
	var req wire.RelayRequest
	if st.Read(&req) != nil {
		return
	}
	who := st.Remote()
	r, reason := c.enter(who, &req, time.Now())
	if reason != 0 {
		c.log.Debug("a room is not carried", "reason", reason)
		_ = st.Write(&wire.RelayReply{Refused: uint32(reason)})
		return
	}
	defer r.post(func(now time.Time) { r.left(now) })
	for pace := (paceOf{}); ; {
		reply := r.answer(who, &req)
		if st.Write(reply) != nil || reply.Refused != 0 || req.Drop {
			return
		}
		if st.SetDeadline(time.Now().Add(relayAsks)) != nil || st.Read(&req) != nil || st.SetDeadline(time.Time{}) != nil {
			return
		}
		if !pace.allow(time.Now()) {
			_ = st.Write(&wire.RelayReply{Refused: uint32(room.RateLimited)})
			return
		}
	}
}

// paceOf counts the requests of a second.
type paceOf struct {
	at time.Time
	n  int
}

func (p *paceOf) allow(now time.Time) bool {
	if now.Sub(p.at) >= time.Second {
		p.at, p.n = now, 0
	}
	p.n++
	return p.n <= relayPace
}

// checkRelayRequest reads who asks for which room, by what right.
func checkRelayRequest(p, me peer.ID, req *wire.RelayRequest) (*relayBook, room.Reason) {
	g, err := ledger.ParseGenesis(req.GetGenesis())
	if err != nil {
		reason := room.Malformed
		errors.As(err, &reason)
		return nil, reason
	}
	founder, err := identity.PeerOf(g.Host)
	if err != nil {
		return nil, room.Malformed
	}
	if ledger.CheckGrants(g, req.GetGrants(), p) != nil {
		return nil, room.BadSignature
	}
	return newRelayBook(g, founder, me), 0
}

// enter finds the room that p asks for, or takes it on. The caller is counted as a stream of it; left undoes that.
func (c *relays) enter(p peer.ID, req *wire.RelayRequest, now time.Time) (*relayRoom, room.Reason) {
	book, reason := checkRelayRequest(p, c.key.ID(), req)
	if reason != 0 {
		return nil, reason
	}
	for {
		r, reason := c.find(p, book, req, now)
		if reason != 0 {
			return nil, reason
		}
		if r.call(func(now time.Time) {
			if reason = r.book.admit(p, now); reason == 0 {
				r.streams++
			}
		}) {
			return r, reason
		}
		<-r.done // it has just ended: once more
	}
}

// find is the room of book, taken on if the quotas allow it.
func (c *relays) find(p peer.ID, book *relayBook, req *wire.RelayRequest, now time.Time) (*relayRoom, room.Reason) {
	if c.vouched && !book.vouched(req.GetVouch(), req.GetGrants(), p) {
		return nil, room.NoRelay
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.rooms[book.id]; r != nil {
		return r, 0
	}
	same := 0
	for _, r := range c.rooms {
		if r.by == p {
			same++
		}
	}
	if c.closed || len(c.rooms) >= relayRooms || same >= relayRoomsOfOne {
		return nil, room.Busy
	}
	r := newRelayRoom(c, book, p, now)
	c.rooms[book.id] = r
	c.log.Info("a room is carried", "rooms", len(c.rooms))
	c.wg.Go(func() { r.run(c.ctx) })
	return r, 0
}

// forget lets go of a room that has ended.
func (c *relays) forget(r *relayRoom) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.rooms, r.id)
	c.log.Info("a room is not carried any more", "rooms", len(c.rooms))
}

// left is a stream that has ended.
func (r *relayRoom) left(now time.Time) {
	if r.streams--; r.streams == 0 {
		r.lonely = now
	}
}

// answer takes a request and makes its reply. The stream's goroutine.
func (r *relayRoom) answer(p peer.ID, req *wire.RelayRequest) *wire.RelayReply {
	if g := req.GetGenesis(); g != nil {
		if of, err := ledger.ParseGenesis(g); err != nil || of.Room() != r.id {
			return &wire.RelayReply{Refused: uint32(room.WrongRoom)}
		}
	}
	for _, rec := range req.GetRecords()[:min(len(req.GetRecords()), maxRelayRecords)] {
		_, _ = r.c.host.Learn(rec, p, false) // one that is wrong is not learned
	}
	reply := &wire.RelayReply{Refused: uint32(room.Busy)}
	r.call(func(now time.Time) {
		if reply.Refused = uint32(r.take(p, req, now)); reply.Refused == 0 {
			reply.Ad, reply.Listeners = r.offer(now), r.listeners()
		}
	})
	return reply
}

// roomCap is the upload that one room may take, in kbit/s.
func (c *relays) roomCap() uint32 { return c.total / relayShare }

// used is the upload of all rooms, in kbit/s.
func (c *relays) used() (n uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.rooms {
		n += r.up.Load()
	}
	return n
}

// slotsFor is how many children r may have: its share, as far as others leave that many.
func (c *relays) slotsFor(r *relayRoom) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := int(c.total / relayChildKbps)
	for _, o := range c.rooms {
		if o != r {
			left -= int(o.children.Load())
		}
	}
	return max(0, min(left, int(c.roomCap()/relayChildKbps), maxRelayChildren))
}

// measure makes the metrics.
func (c *relays) measure(r prometheus.Registerer) {
	c.forwarded = prometheus.NewCounter(prometheus.CounterOpts{Name: "balai_relay_forwarded_total", Help: "Frames and signature blocks passed on to children."})
	r.MustRegister(c.forwarded,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "balai_relay_rooms", Help: "Rooms that this node carries."}, func() float64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return float64(len(c.rooms))
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "balai_relay_children", Help: "Peers that hear by this node."}, func() (n float64) {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, r := range c.rooms {
				n += float64(r.children.Load())
			}
			return n
		}),
	)
}
