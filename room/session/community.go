package session

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/election"
	"balai/room/wire"
)

const (
	communityAsk   = 20 * time.Second // at the latest: a relay's ad lasts 75 s
	communityRetry = 5 * time.Second
	maxCommunities = 4 // that a chair keeps told
)

// community is a community node that this chair keeps told about the room. Owned by the session, but for its stream.
type community struct {
	ad        *election.Ad
	listeners uint32
	refused   room.Reason
	asked     time.Time
	vouch     *wire.Signed            // the op, nil while unvouched
	requests  chan *wire.RelayRequest // the newest, not yet sent
	stop      context.CancelFunc
}

// tendCommunities begins to tell those community nodes that may carry the room, and lets the others go.
func (s *Session) tendCommunities(now time.Time) {
	want := s.communitiesWanted()
	lease := s.carry.force.Lease()
	for p, c := range s.carry.helpers {
		if !slices.Contains(want, p) && (lease == nil || !lease.Holds(p)) {
			c.send(&wire.RelayRequest{Drop: true})
			c.stop()
			delete(s.carry.helpers, p)
		}
	}
	for _, p := range want {
		if s.carry.helpers[p] == nil && len(s.carry.helpers) < maxCommunities {
			s.engage(p, now)
		}
	}
	for p, c := range s.carry.helpers {
		if s.state.Vouched[p] != (c.vouch != nil) {
			c.vouch = s.vouchOf(p)
		}
		if now.Sub(c.asked) >= communityAsk {
			s.tellCommunity(c, now)
		}
	}
}

// dismissCommunities ends the streams: another is chair now, or, with drop, the room is over.
func (s *Session) dismissCommunities(drop bool) {
	for p, c := range s.carry.helpers {
		if drop {
			c.send(&wire.RelayRequest{Drop: true})
		}
		c.stop()
		delete(s.carry.helpers, p)
	}
}

// communitiesWanted are the vouched ones, and, where the room cannot do without, those that are connected. Only an
// authority can ask them.
func (s *Session) communitiesWanted() (out []peer.ID) {
	if _, authority := s.state.Rank(s.me); !authority {
		return nil
	}
	parted := !s.carry.parted.IsZero()
	if len(s.live) < offerFrom && !parted && !s.carry.outcome.Unvouched && !s.isCarried() {
		return nil
	}
	for p, vouched := range s.state.Vouched {
		if vouched && p != s.me && s.state.Role(p) == room.NoRole {
			out = append(out, p)
		}
	}
	out = sortedPeers(out)
	o := &s.carry.outcome
	if s.state.Policy.VouchedOnly || !parted && !o.Assist && !o.NoRelay && !o.Unvouched {
		return out
	}
	for _, p := range s.cfg.Ports.Communities() {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// isCarried tells whether a core is in force.
func (s *Session) isCarried() bool {
	l := s.carry.force.Lease()
	return l != nil && len(l.Ads) > 0
}

func sortedPeers(p []peer.ID) []peer.ID { sortPeers(p); return p }

// engage opens the stream to a community node and keeps it until the session or the need ends.
func (s *Session) engage(p peer.ID, now time.Time) {
	ctx, cancel := context.WithCancel(s.ctx)
	c := &community{requests: make(chan *wire.RelayRequest, 1), stop: cancel, vouch: s.vouchOf(p)}
	s.carry.helpers[p] = c
	s.tellCommunity(c, now)
	s.wg.Go(func() {
		for ctx.Err() == nil {
			s.talkTo(ctx, p, c)
			if pause(ctx, communityRetry) {
				_ = s.call(ctx, func() error { s.tellCommunity(c, time.Now()); return nil })
			}
		}
	})
}

// vouchOf is the op that vouches for p, nil while none counts.
func (s *Session) vouchOf(p peer.ID) (op *wire.Signed) {
	if !s.state.Vouched[p] {
		return nil
	}
	for _, e := range s.ledger.All() {
		if e.Op.Kind == room.Vouch && !e.Void && slices.Contains(e.Op.Targets, p) {
			op = e.Signed
		}
	}
	return op
}

// talkTo holds one stream: requests go out as they come, each is answered by one reply.
func (s *Session) talkTo(ctx context.Context, p peer.ID, c *community) {
	openCtx, cancel := context.WithTimeout(ctx, stepWait)
	st, err := s.cfg.Ports.Open(openCtx, p, RelayProtocol)
	cancel()
	if err != nil {
		s.cfg.Log.Debug("community node does not answer", "peer", p, "err", err)
		return
	}
	defer st.Close() //nolint:errcheck // the conversation is over
	stop := context.AfterFunc(ctx, func() { _ = st.SetDeadline(time.Now().Add(goodbyeWait)) })
	defer stop()
	for {
		var req *wire.RelayRequest
		select {
		case req = <-c.requests:
		case <-ctx.Done():
			select {
			case req = <-c.requests: // the last word
			default:
				return
			}
		}
		var rep wire.RelayReply
		_ = st.SetDeadline(time.Now().Add(stepWait))
		if st.Write(req) != nil || req.Drop || st.Read(&rep) != nil {
			return
		}
		_ = s.call(ctx, func() error { s.gotRelayReply(p, c, &rep); return nil })
	}
}

// send replaces what waits by a newer request.
func (c *community) send(r *wire.RelayRequest) {
	select {
	case <-c.requests:
	default:
	}
	c.requests <- r
}

// gotRelayReply takes a community node's offer.
func (s *Session) gotRelayReply(p peer.ID, c *community, rep *wire.RelayReply) {
	c.refused, c.listeners = room.Reason(min(rep.Refused, uint32(room.Removed))), min(rep.Listeners, maxListeners)
	if rep.Ad == nil {
		return
	}
	ad, err := election.ParseAd(rep.Ad, s.cfg.Room)
	if err != nil || ad.Peer != p || ad.Flags&election.Community == 0 {
		s.cfg.Log.Info("offer of a community node not taken", "peer", p, "err", err)
		return
	}
	c.ad, s.dirty = ad, true
	s.cfg.Ports.Learn(ad.Record, p)
}

// tellCommunities tells all of them what is new.
func (s *Session) tellCommunities(now time.Time) {
	for _, c := range s.carry.helpers {
		s.tellCommunity(c, now)
	}
}

// tellCommunity says all that a relay without the ledger needs: who asks by which right, the lease, the digest, the
// sources. Never R, never a key.
func (s *Session) tellCommunity(c *community, now time.Time) {
	c.asked = now
	r := &wire.RelayRequest{Genesis: s.ledger.Genesis(), Vouch: c.vouch, Ops: s.carry.digest.quoted, Grants: s.grantsOf(s.me), Digest: s.carry.digest.signed, Sources: s.sourceRecords(now)}
	if l := s.carry.force.Lease(); l != nil {
		r.Lease = l.Signed
		for _, ad := range l.Ads {
			r.Records = append(r.Records, ad.Record)
		}
	}
	c.send(r)
}

// communityCandidates are the community nodes that would carry this room.
func (s *Session) communityCandidates(now time.Time) (out []election.Candidate) {
	for p, c := range s.carry.helpers {
		if c.ad == nil {
			continue
		}
		out = append(out, election.Candidate{
			Ad: c.ad, Here: c.ad.Present, Order: len(s.live), Live: now.Sub(c.ad.Issued) < election.AdTTL && !s.saysDead(p, now) && c.refused == 0,
			Reservations: s.reservationsAt(p), Measured: -1,
		})
	}
	slices.SortFunc(out, func(a, b election.Candidate) int { return compareID(a.Ad.Peer, b.Ad.Peer) })
	return out
}

func compareID(a, b peer.ID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// reservationsAt counts the people here who can be called through p.
func (s *Session) reservationsAt(p peer.ID) (n int) {
	for _, q := range append(s.others(), s.me) {
		if slices.Contains(s.cfg.Ports.Circuits(q), p) {
			n++
		}
	}
	return n
}
