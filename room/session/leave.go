package session

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/overlay"
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

// lingerFor is how long who leaves goes on carrying others, so that they can move.
const (
	lingerFor     = 3 * time.Second
	lingerBriefly = 2 * time.Second // when the daemon stops
)

// linger serves those that hear by me until they have moved, silent and with no place of my own. It runs in the place of
// Run's loop, whose context has ended when the daemon stops.
func (s *Session) linger() {
	if s.state == nil || !s.feeds() {
		return
	}
	s.leaving = true
	defer func() { s.leaving = false }()
	now := time.Now()
	s.step(overlay.Quit{}, now)
	m := s.makePlan()
	m.Send, m.Seal = false, -1
	wait := lingerFor
	if s.ctx.Err() != nil {
		wait = lingerBriefly
	}
	for end := now.Add(wait); now.Before(end) && s.feeds(); now = time.Now() {
		if m.Plan = s.carry.overlay.Plan(); !samePlace(m.Plan, s.plan.Plan) || s.plan.Send || s.plan.Seal >= 0 {
			s.plan = m
			s.cfg.Ports.Media(m)
			s.cfg.Ports.Links(m.Plan, nil)
		}
		t := time.NewTimer(max(s.carry.wake.Sub(now), shortestLook))
		select {
		case f := <-s.in:
			f()
		case <-t.C:
			s.step(nil, time.Now())
		}
		t.Stop()
	}
}

// feeds tells whether anybody hears by me; the others of the core do not need that.
func (s *Session) feeds() bool {
	return slices.ContainsFunc(s.carry.overlay.Plan().Feeds, func(f overlay.Feed) bool { return !f.Direct && f.Mode != overlay.Warm })
}

// takeLeave takes a goodbye that came on a stream.
func (s *Session) takeLeave(p peer.ID, signed *wire.Signed, now time.Time) {
	var m wire.Leave
	who, err := wire.Open(signed, wire.DomainLeave, &m)
	if err == nil && who == p && string(m.Peer) == string(p) && string(m.Room) == string(s.cfg.Room[:]) && near(m.TimeMs, now) {
		s.gotLeave(p, &m, now)
	}
}
