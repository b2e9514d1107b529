package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/invite"
	"balai/room/sframe"
	"balai/room/wire"
)

// Entry is how to try to get in. Each field may lie.
type Entry struct {
	Room   room.ID
	Public []byte // the invite's public part; empty: none
	Claim  func(nonce []byte, admitter peer.ID) []byte
	Name   string
	Change func(*wire.Claim) // the last word on the claim; nil: none

	Handout *sframe.HandoutKey // of the process that asks; nil: a new one
}

// Honest is the entry that an honest newcomer with this invite would try.
func Honest(p *Peer, v *invite.Invite) Entry {
	return Entry{
		Room: v.Room(), Public: v.Public(), Name: "Mallory",
		Claim: func(nonce []byte, admitter peer.ID) []byte { return v.Claim(p.ID(), admitter, nonce) },
	}
}

// Member is what a peer holds once it was let in.
type Member struct {
	Room    room.ID
	Secret  room.Secret
	Welcome *wire.Welcome
	Epoch   sframe.Epoch
	Sent    [][]byte // the frames that it wrote to get in
	Via     peer.ID
	Handout *sframe.HandoutKey // where it asked for later epochs

	p *Peer
}

// Join tries to get in at an admitter. The error is a room.Reason when it was refused in words.
func (p *Peer) Join(ctx context.Context, to peer.ID, e Entry) (*Member, error) {
	s, err := p.Open(ctx, to, Join)
	if err != nil {
		return nil, err
	}
	defer s.Reset() //nolint:errcheck // the conversation is over
	if err := s.Write(Hello(e)); err != nil {
		return nil, err
	}
	m, err := answer(s)
	if err != nil {
		return nil, err
	}
	ch := m.GetChallenge()
	if ch == nil {
		return nil, fmt.Errorf("no challenge but %v", m)
	}
	handout := e.Handout
	if handout == nil {
		handout = sframe.NewHandoutKey()
	}
	c, err := p.claim(e, to, ch.Nonce, handout)
	if err != nil {
		return nil, err
	}
	if err := s.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Claim{Claim: c}}); err != nil {
		return nil, err
	}
	for {
		if m, err = answer(s); err != nil {
			return nil, err
		}
		if w := m.GetWelcome(); w != nil {
			return p.member(e.Room, to, w, s.Sent(), handout)
		}
		if m.GetKnocking() == nil {
			return nil, fmt.Errorf("no welcome but %v", m)
		}
	}
}

// Replay sends recorded frames again, one after each answer, on a new stream.
func (p *Peer) Replay(ctx context.Context, to peer.ID, frames [][]byte) error {
	s, err := p.Open(ctx, to, Join)
	if err != nil {
		return err
	}
	defer s.Reset() //nolint:errcheck // the conversation is over
	for _, f := range frames {
		if err := s.WriteRaw(f); err != nil {
			return err
		}
		m, err := answer(s)
		if err != nil {
			return err
		}
		if m.GetWelcome() != nil {
			return nil
		}
	}
	_, err = answer(s)
	return err
}

// Hello is the first record of an entry.
func Hello(e Entry) *wire.JoinMessage {
	return &wire.JoinMessage{Message: &wire.JoinMessage_Hello{Hello: &wire.Hello{Room: e.Room[:], Invite: e.Public, Version: 1}}}
}

func (p *Peer) claim(e Entry, to peer.ID, nonce []byte, handout *sframe.HandoutKey) (*wire.Claim, error) {
	var own []string
	for _, a := range p.host.Addrs() {
		own = append(own, a.String())
	}
	rec, err := p.Record(p.Key, p.ID(), own...)
	if err != nil {
		return nil, err
	}
	pub := handout.Public()
	c := &wire.Claim{Name: e.Name, Addrs: [][]byte{rec}, HandoutKey: wire.Sign(p.Key, wire.DomainHandoutKey, &wire.HandoutKey{
		Room: e.Room[:], Peer: []byte(p.ID()), X25519: pub[:], TimeMs: time.Now().UnixMilli(),
	})}
	if e.Claim != nil {
		c.Sig = e.Claim(nonce, to)
	}
	if e.Change != nil {
		e.Change(c)
	}
	return c, nil
}

// answer reads one record; a refusal is its room.Reason.
func answer(s *Stream) (*wire.JoinMessage, error) {
	var m wire.JoinMessage
	if err := s.Read(&m); err != nil {
		return nil, err
	}
	if r := m.GetRefuse(); r != nil {
		return nil, room.Reason(r.Reason)
	}
	return &m, nil
}

func (p *Peer) member(id room.ID, via peer.ID, w *wire.Welcome, sent [][]byte, handout *sframe.HandoutKey) (*Member, error) {
	k := w.GetKey()
	if len(k.GetId()) != 16 || len(k.GetSecret()) != 32 || len(w.Rendezvous) != 16 {
		return nil, errors.New("a welcome without key or rendezvous secret")
	}
	return &Member{
		Room: id, Secret: room.Secret(w.Rendezvous), Welcome: w, Sent: sent, Via: via, Handout: handout, p: p,
		Epoch: sframe.Epoch{N: k.N, ID: sframe.EpochID(k.Id), Step: k.Step, Secret: sframe.Secret(k.Secret)},
	}, nil
}

func frame(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

func readRPC(s *Stream) (*pb.RPC, error) {
	n, err := binary.ReadUvarint(s.r)
	if err != nil {
		return nil, err
	}
	if n > maxFrame {
		return nil, fmt.Errorf("an RPC of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s.r, b); err != nil {
		return nil, err
	}
	m := &pb.RPC{}
	return m, proto.Unmarshal(b, m)
}
