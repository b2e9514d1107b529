package p2p

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/wire"
)

// Carrier is how bundles travel on a link; the numbers are on the wire.
type Carrier uint8

// Datagram is QUIC DATAGRAM (RFC 9221) on the libp2p connection; OverStream is the link's own stream,
// for want of a QUIC connection: degraded.
const (
	Datagram   Carrier = 1
	OverStream Carrier = 2
)

// bundleMark is the first byte of every bundle. On the link's stream it tells a bundle from a record,
// which after LinkOpen never begins with it.
const bundleMark = 0x0A

// Limits of a link's stream.
const (
	maxLinkOpen    = 16 << 10 // the first record, with the sources
	maxLinkSources = 32
	maxLinkRecord  = 16 << 10
	maxLinkTold    = 64 // records waiting to be written; a peer that reads slower loses the link
	linkOpenTime   = 10 * time.Second
	linkWriteTime  = 10 * time.Second // a bundle on the stream that takes longer ends the link
	linkCloseTime  = time.Second
)

// LinkConfig is one side's part in a link. Receive runs on the goroutine that reads the connection: it
// must not block, and bundle is its own to keep. It may run before OpenLink has returned. Closed runs once
// when the link has ended, whoever ended it, on a goroutine of the link's.
type LinkConfig struct {
	Sources []*wire.Signed                    // told to the other side
	Receive func(l *Link, bundle []byte)      // each bundle of the other side
	Record  func(l *Link, r *wire.LinkRecord) // each record of its stream; may block, which holds up that stream alone
	Closed  func(l *Link)
}

// Link is an open media link to one peer in one room. All methods are safe from any goroutine and none
// but Close and Refuse blocks: those at most for a second, while the other side does not read.
type Link struct {
	h      *Host
	remote peer.ID
	room   [32]byte
	cfg    atomic.Pointer[LinkConfig] // nil until both sides have agreed
	stream network.Stream
	r      *bufio.Reader
	media  *peerMedia
	home   *carrierConn // the QUIC connection of its stream; nil: that is none

	mine    uint32        // handle that the other side puts into its bundles
	theirs  atomic.Uint32 // handle to put into bundles, 0 until told
	seq     atomic.Uint32
	sources []*wire.Signed

	out     sendQueue
	own     atomic.Bool // it has a sender of its own; else the courier serves it
	listed  bool        // with the courier; under its mu
	told    chan *wire.LinkRecord
	wake    chan struct{} // told has something
	writeMu sync.Mutex    // one writer on the stream
	greeted bool          // the first record is written; under writeMu
	until   atomic.Int64  // Unix nanoseconds by which the last writes must be over, 0 while open
	why     atomic.Uint32 // the reason that the other side gave for its end
	done    chan struct{}
	end     sync.Once
}

// Remote is the peer at the other end.
func (l *Link) Remote() peer.ID { return l.remote }

// Room is the room that the link is for.
func (l *Link) Room() [32]byte { return l.room }

// Handle is the number to put into bundles sent on this link: the other side chose it.
func (l *Link) Handle() uint32 { return l.theirs.Load() }

// Seq is the next link sequence number, one for each call.
func (l *Link) Seq() uint16 { return uint16(l.seq.Add(1) - 1) }

// Sources are the signed source records that the other side told when the link was opened, not verified.
func (l *Link) Sources() []*wire.Signed { return l.sources }

// Carrier is how bundles travel now.
func (l *Link) Carrier() Carrier {
	if l.media.carry(l) != nil {
		return Datagram
	}
	return OverStream
}

// RTT is the smoothed round trip of the connection, 0 while unknown.
func (l *Link) RTT() time.Duration {
	if c := l.media.carry(l); c != nil {
		return c.quic.ConnectionStats().SmoothedRTT
	}
	return l.h.host.Peerstore().LatencyEWMA(l.remote)
}

// Dropped counts the bundles that found the queue full and pushed the oldest out.
func (l *Link) Dropped() uint64 { return l.out.droppedCount() }

// Send queues a bundle, of which it makes a copy; of three waiting the oldest is dropped. It never blocks.
// False: closed, empty, over MaxBundle, or not a bundle.
func (l *Link) Send(bundle []byte) bool {
	if len(bundle) == 0 || len(bundle) > MaxBundle || bundle[0] != bundleMark {
		return false
	}
	if !l.out.push(bundle) {
		return false
	}
	if l.own.Load() {
		l.out.signal()
	} else if l.h.courier.enlist(l) {
		l.h.spawn(l.h.deliver)
	}
	return true
}

// Tell sends a record on the link's stream, after those told before. It never blocks; when too many wait, the link ends.
func (l *Link) Tell(r *wire.LinkRecord) {
	if l.until.Load() != 0 {
		return
	}
	select {
	case l.told <- r:
	default:
		_ = l.stream.Reset() // the reader ends the link
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// tellLoop writes what is told until the link ends.
func (l *Link) tellLoop() {
	for {
		select {
		case <-l.wake:
			for more := true; more; {
				l.writeMu.Lock()
				var err error
				more, err = l.writeTold()
				l.writeMu.Unlock()
				if err != nil {
					l.fail()
					return
				}
			}
		case <-l.done:
			return
		}
	}
}

// writeTold writes the next record told, under writeMu; false: none waits.
func (l *Link) writeTold() (bool, error) {
	select {
	case r := <-l.told:
		return true, l.writeRecord(r, linkWriteTime)
	default:
		return false, nil
	}
}

// fail ends a link on which nothing can be written any more. What the other side said before may say why: it
// is read, as far as it has come; then the reader ends the link.
func (l *Link) fail() { _ = l.stream.SetReadDeadline(time.Now().Add(linkCloseTime)) }

// Close ends the link on both sides, after what was told. Closed is called soon after, not by Close.
func (l *Link) Close() { l.shut(0) }

// Refuse ends the link like Close, and tells the other side why. Before OnLink's answer it is that answer.
func (l *Link) Refuse(r room.Reason) { l.shut(r) }

// Reason is why the other side ended the link; 0: it gave no reason, or did not end it.
func (l *Link) Reason() room.Reason { return room.Reason(l.why.Load()) }

// Ended tells whether the link has ended, whoever ended it; Closed has been or will be called.
func (l *Link) Ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// shut stops the sender, writes what was told and says goodbye on the stream, all within linkCloseTime.
func (l *Link) shut(reason room.Reason) {
	l.end.Do(func() {
		until := time.Now().Add(linkCloseTime)
		l.until.Store(until.UnixNano())
		_ = l.stream.SetWriteDeadline(until) // frees a writer that is stuck
		l.out.close()
		close(l.done)
		l.writeMu.Lock()
		defer l.writeMu.Unlock()
		var err error
		for more := l.greeted; more && err == nil; {
			more, err = l.writeTold()
		}
		if err == nil {
			err = l.writeRecord(&wire.LinkRecord{Record: &wire.LinkRecord_Close{Close: &wire.LinkClose{Reason: uint32(reason)}}}, linkCloseTime)
		}
		if err != nil {
			_ = l.stream.Reset()
			return
		}
		_ = l.stream.Close()
	})
}

// writeRecord writes under writeMu.
func (l *Link) writeRecord(m *wire.LinkRecord, within time.Duration) error {
	b, err := appendFrame(nil, m)
	if err != nil {
		return err
	}
	return l.write(b, within)
}

// write takes at most within, and once the link is being shut no longer than that may take.
func (l *Link) write(b []byte, within time.Duration) error {
	if err := l.stream.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if until := l.until.Load(); until != 0 { // if not yet, shut's own deadline comes after this one
		if err := l.stream.SetWriteDeadline(time.Unix(0, until)); err != nil {
			return err
		}
	}
	_, err := l.stream.Write(b)
	return err
}

// sendLoop is the sender of a link that the courier does not serve: a datagram where there is a QUIC connection, else a
// frame on the stream. It ends when the queue is closed, or with the connection when stuck in it.
func (l *Link) sendLoop() {
	var buf [binary.MaxVarintLen32 + MaxBundle]byte
	for {
		n := l.out.pop(buf[binary.MaxVarintLen32:])
		if n == 0 {
			return
		}
		if c := l.media.carry(l); c != nil {
			// A datagram that is refused is a datagram lost; a dead connection is left before long.
			_ = c.quic.SendDatagram(buf[binary.MaxVarintLen32 : binary.MaxVarintLen32+n])
			continue
		}
		if l.sendFrame(&buf, n) != nil {
			l.fail()
			return
		}
	}
}

// sendFrame writes the bundle with its length in front, in one write.
func (l *Link) sendFrame(buf *[binary.MaxVarintLen32 + MaxBundle]byte, n int) error {
	var head [binary.MaxVarintLen32]byte
	h := binary.PutUvarint(head[:], uint64(n))
	start := binary.MaxVarintLen32 - h
	copy(buf[start:], head[:h])
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	return l.write(buf[start:binary.MaxVarintLen32+n], linkWriteTime)
}

// readLoop takes bundles and records from the stream until it ends, then ends the link.
func (l *Link) readLoop() {
	for {
		b, err := readFrame(l.r, maxLinkRecord)
		if err != nil {
			break
		}
		if len(b) > 0 && b[0] == bundleMark {
			if len(b) <= MaxBundle {
				l.media.streamed.Store(ticks())
				l.receive(b)
			}
			continue
		}
		var m wire.LinkRecord
		if proto.Unmarshal(b, &m) != nil {
			break
		}
		if c := m.GetClose(); c != nil {
			if c.GetReason() != 0 {
				l.why.Store(uint32(reasonOf(c.GetReason())))
			}
			break
		}
		if c := l.cfg.Load(); c != nil && c.Record != nil {
			c.Record(l, &m)
		}
	}
	l.h.links.remove(l)
	l.shut(0)
	if c := l.cfg.Load(); c != nil && c.Closed != nil {
		c.Closed(l)
	}
}

func (l *Link) receive(b []byte) {
	if c := l.cfg.Load(); c != nil && c.Receive != nil {
		c.Receive(l, b)
	}
}

// hello writes the first record of this side.
func (l *Link) hello(sources []*wire.Signed) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	l.greeted = true
	return l.writeRecord(&wire.LinkRecord{Record: &wire.LinkRecord_Open{Open: &wire.LinkOpen{
		Room: l.room[:], Handle: l.mine, Sources: sources, Carrier: uint32(l.Carrier()),
	}}}, linkOpenTime)
}

// readHello reads the first record of the other side.
func (l *Link) readHello() (*wire.LinkOpen, error) {
	if err := l.stream.SetReadDeadline(time.Now().Add(linkOpenTime)); err != nil {
		return nil, err
	}
	b, err := readFrame(l.r, maxLinkOpen)
	if err == nil {
		err = l.stream.SetReadDeadline(time.Time{})
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return parseHello(b)
}

// parseHello reads a LinkOpen or the refusal in its place.
func parseHello(b []byte) (*wire.LinkOpen, error) {
	var m wire.LinkRecord
	if proto.Unmarshal(b, &m) != nil {
		return nil, fmt.Errorf("link record: %w", room.Malformed)
	}
	if c := m.GetClose(); c != nil {
		return nil, fmt.Errorf("link refused: %w", reasonOf(c.GetReason()))
	}
	o := m.GetOpen()
	switch {
	case o == nil, len(o.GetRoom()) != 32, o.GetHandle() == 0, len(o.GetSources()) > maxLinkSources,
		o.GetCarrier() != uint32(Datagram) && o.GetCarrier() != uint32(OverStream):
		return nil, fmt.Errorf("link record: %w", room.Malformed)
	}
	return o, nil
}

// reasonOf keeps a foreign number within the reasons that exist.
func reasonOf(n uint32) room.Reason {
	if n == 0 || n > uint32(room.Removed) {
		return room.Declined
	}
	return room.Reason(n)
}

// sendQueue holds up to three bundles; pushing a fourth drops the oldest.
type sendQueue struct {
	mu      sync.Mutex
	wake    chan struct{}
	closed  bool
	bufs    [linkQueue][MaxBundle]byte
	lens    [linkQueue]int
	head, n int
	dropped uint64
}

func (q *sendQueue) init() { q.wake = make(chan struct{}, 1) }

func (q *sendQueue) push(b []byte) bool {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return false
	}
	if q.n == linkQueue {
		q.head = (q.head + 1) % linkQueue
		q.n--
		q.dropped++
	}
	i := (q.head + q.n) % linkQueue
	q.lens[i] = copy(q.bufs[i][:], b)
	q.n++
	q.mu.Unlock()
	return true
}

func (q *sendQueue) signal() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take copies the oldest bundle into b; 0: there is none.
func (q *sendQueue) take(b []byte) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.n == 0 {
		return 0
	}
	n := copy(b, q.bufs[q.head][:q.lens[q.head]])
	q.head = (q.head + 1) % linkQueue
	q.n--
	return n
}

// pop waits for a bundle and copies the oldest into b; 0 when the queue is closed.
func (q *sendQueue) pop(b []byte) int {
	for {
		if n := q.take(b); n > 0 {
			return n
		}
		if q.isClosed() {
			return 0
		}
		<-q.wake
	}
}

func (q *sendQueue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func (q *sendQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.wake)
	}
}

func (q *sendQueue) droppedCount() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}
