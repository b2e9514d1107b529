package p2p

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"
)

// Stream is a control stream: records, each with its length in front as a varint, at most limit bytes,
// within 10 s. One goroutine may read while another writes.
type Stream struct {
	s        network.Stream
	r        *bufio.Reader
	limit    int
	mu       sync.Mutex
	deadline time.Time
}

func newStream(s network.Stream, limit int) *Stream {
	return &Stream{s: s, r: bufio.NewReaderSize(s, 4<<10), limit: limit}
}

// Remote is the peer at the other end, proven by the connection's handshake.
func (s *Stream) Remote() peer.ID { return s.s.Conn().RemotePeer() }

// Read takes the next record into m. The error is io.EOF after the last one, ErrTooLarge or a fault of the
// bytes or the connection; after an error other than io.EOF the stream is reset.
func (s *Stream) Read(m proto.Message) error {
	_ = s.s.SetReadDeadline(s.until()) // a stream without deadlines is closed and says so below
	b, err := readFrame(s.r, s.limit)
	if err == nil {
		err = proto.Unmarshal(b, m)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		_ = s.s.Reset() // the error told is the cause
	}
	return err
}

// Write sends m. The error is ErrTooLarge or the connection's.
func (s *Stream) Write(m proto.Message) error {
	b, err := appendFrame(nil, m)
	if err != nil {
		return err
	}
	_ = s.s.SetWriteDeadline(s.until())
	_, err = s.s.Write(b)
	return err
}

// SetLimit sets the most bytes that Read takes in one record: the opening side's, for an answer larger
// than 64 KiB.
func (s *Stream) SetLimit(n int) { s.limit = n }

// SetDeadline sets one moment for all that follows instead of 10 s for each record; the zero time goes
// back to that.
func (s *Stream) SetDeadline(t time.Time) error {
	s.mu.Lock()
	s.deadline = t
	s.mu.Unlock()
	return s.s.SetDeadline(s.until())
}

// Close ends the writing side in good order and lets go of the reading side.
func (s *Stream) Close() error { return s.s.Close() }

// Reset breaks the stream off, for both sides.
func (s *Stream) Reset() error { return s.s.Reset() }

func (s *Stream) until() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.deadline.IsZero() {
		return s.deadline
	}
	return time.Now().Add(messageTimeout)
}

// maxMessage bounds what this side writes in one record, whatever the protocol.
const maxMessage = 4 << 20

// appendFrame appends m with its length in front.
func appendFrame(b []byte, m proto.Message) ([]byte, error) {
	n := proto.Size(m)
	if n > maxMessage {
		return nil, ErrTooLarge
	}
	return proto.MarshalOptions{}.MarshalAppend(binary.AppendUvarint(b, uint64(n)), m)
}

// readFrame reads a length and as many bytes, at most limit. io.EOF only before the first byte.
func readFrame(r *bufio.Reader, limit int) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if n > uint64(limit) {
		return nil, ErrTooLarge
	}
	// Memory grows with what arrives, not with what a length claims.
	b := make([]byte, 0, min(n, 4<<10))
	for uint64(len(b)) < n {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		chunk := b[len(b):min(uint64(cap(b)), n)]
		if _, err := io.ReadFull(r, chunk); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		b = b[:len(b)+len(chunk)]
	}
	return b, nil
}

// streamTable counts the control streams being served.
type streamTable struct {
	mu    sync.Mutex
	open  map[network.Stream]uint64 // in the order of coming
	peers map[peerProtocol]int
	last  uint64
}

type peerProtocol struct {
	peer  peer.ID
	proto protocol.ID
}

func (t *streamTable) init() {
	t.open, t.peers = map[network.Stream]uint64{}, map[peerProtocol]int{}
}

func (t *streamTable) add(s network.Stream, perPeer int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := peerProtocol{s.Conn().RemotePeer(), s.Protocol()}
	if t.peers[k] >= perPeer || len(t.open) >= maxStreams && !t.makeRoom() {
		return false
	}
	t.last++
	t.open[s] = t.last
	t.peers[k]++
	return true
}

// makeRoom ends the oldest stream of the peer that has the most: a few who open all they may keep nobody out. False when
// nobody has more than two.
func (t *streamTable) makeRoom() bool {
	of, most, greedy := map[peer.ID]int{}, 2, peer.ID("")
	for s := range t.open {
		p := s.Conn().RemotePeer()
		if of[p]++; of[p] > most {
			most, greedy = of[p], p
		}
	}
	var oldest network.Stream
	for s, at := range t.open {
		if s.Conn().RemotePeer() == greedy && (oldest == nil || at < t.open[oldest]) {
			oldest = s
		}
	}
	if oldest == nil {
		return false
	}
	t.forget(oldest)
	_ = oldest.Reset() // its handler ends by that
	return true
}

func (t *streamTable) remove(s network.Stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(s)
}

func (t *streamTable) forget(s network.Stream) {
	if _, open := t.open[s]; !open {
		return
	}
	delete(t.open, s)
	k := peerProtocol{s.Conn().RemotePeer(), s.Protocol()}
	if t.peers[k]--; t.peers[k] <= 0 {
		delete(t.peers, k)
	}
}

func (t *streamTable) resetAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.open {
		_ = s.Reset() // what fails is already gone
	}
}

// Handle serves proto: fn runs in a goroutine of its own for each stream that a peer opens, which is
// closed when fn returns and which Close waits for. limit is the most bytes of one record read; 0 means
// 64 KiB. Streams beyond 16 of one peer or 1,024 in all are reset.
func (h *Host) Handle(proto protocol.ID, limit int, fn func(*Stream)) {
	if limit <= 0 {
		limit = maxControl
	}
	h.host.SetStreamHandler(proto, func(s network.Stream) {
		if !h.enter() {
			_ = s.Reset()
			return
		}
		defer h.wg.Done()
		if !h.streams.add(s, maxPeerStreams) {
			h.cfg.Log.Debug("stream refused", "proto", proto, "peer", s.Conn().RemotePeer(), "err", ErrLimit)
			_ = s.Reset()
			return
		}
		defer h.streams.remove(s)
		fn(newStream(s, limit))
		_ = s.Close() // a stream that fn has reset is closed already
	})
}

// Open opens a control stream to a peer whose addresses are known, over a circuit if there is nothing
// better. ctx bounds the dial and the negotiation.
func (h *Host) Open(ctx context.Context, p peer.ID, proto protocol.ID) (*Stream, error) {
	if err := h.reach(ctx, p); err != nil {
		return nil, err
	}
	ctx = network.WithNoDial(network.WithAllowLimitedConn(ctx, "balai control"), "balai control")
	s, err := h.host.NewStream(ctx, p, proto)
	if err != nil {
		return nil, fmt.Errorf("p2p: %s to %s: %w", proto, p, err)
	}
	return newStream(s, maxControl), nil
}
