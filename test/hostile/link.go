package hostile

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

// OpenLink opens a media link to a peer with any record as the first.
func (p *Peer) OpenLink(ctx context.Context, to peer.ID, id room.ID, sources ...*wire.Signed) (*Stream, error) {
	s, err := p.Open(ctx, to, Link)
	if err != nil {
		return nil, err
	}
	open := &wire.LinkOpen{Room: id[:], Handle: 1, Sources: sources, Carrier: 1}
	if err := s.Write(&wire.LinkRecord{Record: &wire.LinkRecord_Open{Open: open}}); err != nil {
		_ = s.Reset() // it has failed
		return nil, err
	}
	return s, nil
}

// Links counts the media links that others have opened here; each is left open and answered with nothing.
func (p *Peer) Links() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links
}

func (p *Peer) takeLink(s *Stream) {
	p.mu.Lock()
	p.links++
	p.mu.Unlock()
	_ = s.Drain() // until the other side ends it
}
