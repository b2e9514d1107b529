// Package hostile owns a peer that can say anything: false joins, forged ops, oversize and replayed
// messages, lying addresses. It is for the tests of others' refusals and is no product code; it does not
// keep any rule but those it is told to.
package hostile

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/record"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"balai/identity"
)

// The protocols of Balai, version 1.
const (
	Lobby   protocol.ID = "/balai/lobby/1"
	Members protocol.ID = "/balai/members/1"
	Join    protocol.ID = "/balai/join/1"
	Ledger  protocol.ID = "/balai/ledger/1"
	Link    protocol.ID = "/balai/link/1"
)

// maxFrame bounds what this peer reads in one record.
const maxFrame = 8 << 20

// Peer is the hostile peer. Its methods may be called from any goroutine.
type Peer struct {
	Key  *identity.Key
	host host.Host

	mu      sync.Mutex
	heard   map[protocol.ID][]RPC
	gossips map[gossipKey]network.Stream
	links   int             // media links that others opened here
	tapping map[string]bool // connections
	tapped  []Tapped
	taps    func(Tapped) // takes them instead; nil: they are kept
	wg      sync.WaitGroup
	closing bool
	news    chan struct{} // closed and made anew with each RPC heard
}

// New starts a peer on loopback with QUIC and TCP and with key, or with a new key for nil. Close it.
func New(key *identity.Key) (*Peer, error) {
	if key == nil {
		var err error
		if key, err = identity.Generate(); err != nil {
			return nil, err
		}
	}
	h, err := libp2p.New(
		libp2p.Identity(key.Private()),
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"),
		libp2p.Transport(quic.NewTransport), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.EnableRelay(), libp2p.DisableMetrics(),
	)
	if err != nil {
		return nil, err
	}
	p := &Peer{
		Key: key, host: h, heard: map[protocol.ID][]RPC{}, gossips: map[gossipKey]network.Stream{}, news: make(chan struct{}),
		tapping: map[string]bool{},
	}
	for _, g := range []protocol.ID{Lobby, Members} {
		h.SetStreamHandler(g, func(s network.Stream) { p.serve(s, func(s *Stream) { p.hear(g, s) }) })
	}
	h.SetStreamHandler(Link, func(s network.Stream) { p.serve(s, p.takeLink) })
	return p, nil
}

// ID is the peer id.
func (p *Peer) ID() peer.ID { return p.host.ID() }

// Addrs are its addresses with /p2p/.
func (p *Peer) Addrs() []ma.Multiaddr {
	all, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: p.ID(), Addrs: p.host.Addrs()})
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return all
}

// Close ends the peer and waits for all that it started.
func (p *Peer) Close() error {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	err := p.host.Close()
	p.wg.Wait()
	return err
}

// Connect dials one multiaddr with /p2p/, of loopback, and tells who is there.
func (p *Peer) Connect(ctx context.Context, addr string) (peer.ID, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return "", err
	}
	return info.ID, p.host.Connect(ctx, *info)
}

// Connected tells whether a connection to another is open.
func (p *Peer) Connected(to peer.ID) bool {
	return p.host.Network().Connectedness(to) == network.Connected
}

// Handle answers a protocol that others open here: so it can pretend to be a member or an admitter.
func (p *Peer) Handle(proto protocol.ID, fn func(*Stream)) {
	p.host.SetStreamHandler(proto, func(s network.Stream) { p.serve(s, fn) })
}

// Record is a peer record with any addresses, signed by key as that of its owner; with another owner
// than the key's it is a lie that any reader can see.
func (p *Peer) Record(key *identity.Key, owner peer.ID, addrs ...string) ([]byte, error) {
	info := peer.AddrInfo{ID: owner}
	for _, a := range addrs {
		m, err := ma.NewMultiaddr(a)
		if err != nil {
			return nil, err
		}
		info.Addrs = append(info.Addrs, m)
	}
	var signer crypto.PrivKey = key.Private()
	env, err := record.Seal(peer.PeerRecordFromAddrInfo(info), signer)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

func (p *Peer) serve(s network.Stream, fn func(*Stream)) {
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		_ = s.Reset() // closing
		return
	}
	p.wg.Add(1)
	p.mu.Unlock()
	defer p.wg.Done()
	fn(newStream(s))
	_ = s.Close() // fn may have reset it
}

// Stream is a control stream on which nothing is checked on the way out.
type Stream struct {
	s    network.Stream
	r    *bufio.Reader
	sent [][]byte
}

func newStream(s network.Stream) *Stream { return &Stream{s: s, r: bufio.NewReader(s)} }

// Open opens a stream to a connected peer.
func (p *Peer) Open(ctx context.Context, to peer.ID, proto protocol.ID) (*Stream, error) {
	s, err := p.host.NewStream(network.WithAllowLimitedConn(ctx, "hostile"), to, proto)
	if err != nil {
		return nil, err
	}
	if t, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(t); err != nil {
			return nil, err
		}
	}
	return newStream(s), nil
}

// Remote is the peer at the other end.
func (s *Stream) Remote() peer.ID { return s.s.Conn().RemotePeer() }

// SetDeadline bounds reading and writing.
func (s *Stream) SetDeadline(t time.Time) error { return s.s.SetDeadline(t) }

// Write sends one record in its frame.
func (s *Stream) Write(m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return s.WriteRaw(append(binary.AppendUvarint(nil, uint64(len(b))), b...))
}

// WriteRaw sends bytes as they are: half a frame, or one with a lying length.
func (s *Stream) WriteRaw(b []byte) error {
	s.sent = append(s.sent, b)
	_, err := s.s.Write(b)
	return err
}

// Sent is all that was written so far, one element a write: what an eavesdropper at the other end would
// have recorded.
func (s *Stream) Sent() [][]byte { return s.sent }

// Read takes one record. The error is io.EOF after the last.
func (s *Stream) Read(m proto.Message) error {
	n, err := binary.ReadUvarint(s.r)
	if err != nil {
		return err
	}
	if n > maxFrame {
		return fmt.Errorf("a record of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		return err
	}
	return proto.Unmarshal(b, m)
}

// Drain reads until the other side ends the stream and tells how: nil for a good end, else the reset or
// the deadline.
func (s *Stream) Drain() error {
	_, err := io.Copy(io.Discard, s.r)
	return err
}

// Reset breaks the stream off.
func (s *Stream) Reset() error { return s.s.Reset() }

// Close ends it in good order.
func (s *Stream) Close() error { return s.s.Close() }

// Datagram sends bytes on the newest direct QUIC connection to a peer, outside of any stream.
func (p *Peer) Datagram(to peer.ID, b []byte) error {
	for _, c := range p.host.Network().ConnsToPeer(to) {
		if q, ok := quicOf(c); ok {
			return q.SendDatagram(b)
		}
	}
	return errors.New("no QUIC connection")
}
