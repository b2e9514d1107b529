package hostile

import (
	"context"
	"fmt"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	quicgo "github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"
)

// RPC is one pubsub message heard from another.
type RPC struct {
	From peer.ID
	At   time.Time
	*pb.RPC
}

type gossipKey struct {
	to    peer.ID
	proto protocol.ID
}

// hear keeps all that another says on a pubsub stream.
func (p *Peer) hear(g protocol.ID, s *Stream) {
	for {
		m, err := readRPC(s)
		if err != nil {
			_ = s.Reset() // over, or not pubsub
			return
		}
		p.mu.Lock()
		p.heard[g] = append(p.heard[g], RPC{From: s.Remote(), At: time.Now(), RPC: m})
		close(p.news)
		p.news = make(chan struct{})
		p.mu.Unlock()
	}
}

// Heard is all pubsub traffic that reached this peer on Lobby or Members, oldest first.
func (p *Peer) Heard(g protocol.ID) []RPC {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]RPC(nil), p.heard[g]...)
}

// Await waits until an RPC heard on g passes ok, and returns it.
func (p *Peer) Await(ctx context.Context, g protocol.ID, ok func(RPC) bool) (RPC, error) {
	for next := 0; ; {
		p.mu.Lock()
		all, news := p.heard[g], p.news
		p.mu.Unlock()
		for ; next < len(all); next++ {
			if ok(all[next]) {
				return all[next], nil
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return RPC{}, fmt.Errorf("nothing such among %d messages: %w", next, ctx.Err())
		}
	}
}

// Say sends one pubsub RPC, on the stream that the last one used.
func (p *Peer) Say(ctx context.Context, to peer.ID, g protocol.ID, m *pb.RPC) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return p.SayRaw(ctx, to, g, frame(b))
}

// SayRaw sends bytes on the pubsub stream: no RPC, half of one, or one of any size.
func (p *Peer) SayRaw(ctx context.Context, to peer.ID, g protocol.ID, b []byte) error {
	k := gossipKey{to, g}
	p.mu.Lock()
	s := p.gossips[k]
	p.mu.Unlock()
	if s == nil || s.Conn().IsClosed() {
		var err error
		if s, err = p.host.NewStream(ctx, to, g); err != nil {
			return err
		}
		p.mu.Lock()
		p.gossips[k] = s
		p.mu.Unlock()
	}
	if t, ok := ctx.Deadline(); ok {
		_ = s.SetWriteDeadline(t) // a dead stream fails in the next line
	}
	if _, err := s.Write(b); err != nil {
		p.mu.Lock()
		delete(p.gossips, k)
		p.mu.Unlock()
		_ = s.Reset() // it has failed
		return err
	}
	return nil
}

// Subscribe greets with subscriptions to topics and asks into their meshes.
func (p *Peer) Subscribe(ctx context.Context, to peer.ID, g protocol.ID, topics ...string) error {
	m := &pb.RPC{Control: &pb.ControlMessage{}}
	for _, t := range topics {
		yes := true
		m.Subscriptions = append(m.Subscriptions, &pb.RPC_SubOpts{Subscribe: &yes, Topicid: &t})
		m.Control.Graft = append(m.Control.Graft, &pb.ControlGraft{TopicID: &t})
	}
	return p.Say(ctx, to, g, m)
}

// Publish sends data on a topic, of any size and content.
func (p *Peer) Publish(ctx context.Context, to peer.ID, g protocol.ID, topic string, data []byte) error {
	return p.Say(ctx, to, g, &pb.RPC{Publish: []*pb.Message{{Data: data, Topic: &topic}}})
}

func quicOf(c network.Conn) (*quicgo.Conn, bool) {
	var q *quicgo.Conn
	ok := c.As(&q)
	return q, ok && q != nil
}
