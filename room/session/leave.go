package session

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/wire"
)

const (
	gossipSettles = 3 * time.Second // after entering: until then a goodbye may find no mesh
	goodbyeWait   = time.Second
	goodbyePeers  = 8
)

// sayGoodbye tells the members that I leave: by gossip, and one by one when gossip may not flow yet.
func (s *Session) sayGoodbye(now time.Time) {
	m := &wire.Leave{Room: s.cfg.Room[:], Peer: []byte(s.me), TimeMs: now.UnixMilli(), Instance: s.instance}
	signed := wire.Sign(s.cfg.Key, wire.DomainLeave, m)
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Leave{Leave: signed}})
	if now.Sub(s.since) >= gossipSettles || s.state == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), goodbyeWait)
	defer cancel()
	others := s.others()
	var told sync.WaitGroup
	for _, p := range others[:min(len(others), goodbyePeers)] {
		told.Go(func() { _, _ = s.fetch(ctx, p, &wire.LedgerRequest{Room: s.cfg.Room[:], Leave: signed}) })
	}
	told.Wait()
}

// takeLeave takes a goodbye that came on a stream.
func (s *Session) takeLeave(p peer.ID, signed *wire.Signed, now time.Time) {
	var m wire.Leave
	who, err := wire.Open(signed, wire.DomainLeave, &m)
	if err == nil && who == p && string(m.Peer) == string(p) && string(m.Room) == string(s.cfg.Room[:]) && near(m.TimeMs, now) {
		s.gotLeave(p, &m, now)
	}
}
