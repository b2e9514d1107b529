package session

import (
	"bytes"
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/overlay"
	"balai/room/wire"
)

const (
	offerPeriod  = 30 * time.Second
	offerSoonest = 2 * time.Second // between two ads, whatever changes
	offerEarly   = 3 * time.Second // the second follows the first so soon, and each pause is twice the last
	offerFrom    = 4               // people from which on offers are told and tried
	probeAgain   = 60 * time.Second
	probeRetry   = 15 * time.Second // after a failure
	probeCounts  = 150 * time.Second
	probeWait    = 5 * time.Second
	maxProbes    = 2  // at once
	maxHeardAds  = 96 // of members and community nodes
)

// tendOffer renews my own ad, forgets those that ran out, and tries whether others can be reached.
func (s *Session) tendOffer(now time.Time) {
	for p, ad := range s.carry.ads {
		if now.Sub(ad.Issued) > election.AdTTL || s.state.Banned[p] {
			delete(s.carry.ads, p)
		}
	}
	for p, at := range s.carry.probed {
		if now.Sub(at) > probeCounts {
			delete(s.carry.probed, p)
		}
	}
	s.forgetDead(now)
	s.renewAd(now)
	s.probe(now)
}

// renewAd tells each half minute, and on a change, what this daemon gives as a relay.
func (s *Session) renewAd(now time.Time) {
	if now.Before(s.carry.ownDue) {
		return
	}
	s.carry.ownDue = now.Add(offerSoonest)
	offer, old := s.cfg.Ports.Offer(), s.carry.own
	told := &s.carry.ownTold
	enough := len(s.live) >= offerFrom
	if !enough {
		*told = 0
	}
	first := enough && *told == 0
	if old != nil && !first && !offerChanged(&offer, old) && now.Sub(old.Issued) < offerPause(*told) && bytes.Equal(old.Record, s.cfg.Ports.Record()) {
		return
	}
	s.carry.ownSeq++
	offer.Room, offer.Seq, offer.Record, offer.Present, offer.Issued = s.cfg.Room, s.carry.ownSeq, s.cfg.Ports.Record(), now.Sub(s.since), now
	if !s.guest {
		offer.Flags |= election.HoldsKey
	}
	ad, err := election.ParseAd(offer.Sign(s.cfg.Key), s.cfg.Room)
	if err != nil {
		s.cfg.Log.Warn("own offer to relay cannot be told", "err", err)
		return
	}
	s.carry.own, s.dirty = ad, true
	if !enough {
		return
	}
	*told++
	if ad.Slots > 0 || old != nil && old.Slots > 0 {
		s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_RelayAd{RelayAd: ad.Signed}})
	}
}

// offerPause is how long an offer stands that was told so often: the first ones go to people who have hardly met me, by
// whom gossip may not reach all yet.
func offerPause(told int) time.Duration {
	if told == 0 || told > 4 {
		return offerPeriod
	}
	return offerEarly << (told - 1)
}

// offerChanged tells whether others would choose otherwise. What is used moves all the time and waits for its turn.
func offerChanged(a, b *election.Ad) bool {
	return a.Reach != b.Reach || a.Cap != b.Cap || a.Slots != b.Slots || a.Flags != b.Flags&^election.HoldsKey || a.Prefix != b.Prefix
}

// checkAd looks at another's offer. Any goroutine.
func (s *Session) checkAd(sh *shared, signed *wire.Signed) error {
	ad, err := election.ParseAd(signed, s.cfg.Room)
	if err != nil {
		return ErrFalse
	}
	now := time.Now()
	if sh.state.Role(ad.Peer) == room.NoRole || !near(ad.Issued.UnixMilli(), now) {
		return ErrIgnore
	}
	if !s.flood.allow(ad.Peer, offers, now) {
		return errFlood
	}
	if !s.post(func() { s.gotAd(ad) }) {
		return ErrIgnore
	}
	return nil
}

func (s *Session) gotAd(ad *election.Ad) {
	old := s.carry.ads[ad.Peer]
	if s.phase != Live || ad.Peer == s.me || old != nil && !ad.Issued.After(old.Issued) || old == nil && len(s.carry.ads) >= maxHeardAds {
		return
	}
	s.carry.ads[ad.Peer] = ad
	s.cfg.Ports.Learn(ad.Record, ad.Peer)
}

// reachable tells whether others can be sent to this daemon as to a parent: it is public, the room is a local one, or
// somebody on stage has reached it.
func (s *Session) reachable() bool {
	if s.cfg.Local || s.carry.own != nil && s.carry.own.Reach == election.ReachPublic {
		return true
	}
	n, _ := s.directOf(s.me)
	return n > 0
}

// probe tries, from the stage and the core, whether those who offer to relay can be called.
func (s *Session) probe(now time.Time) {
	for p, at := range s.carry.direct {
		if now.Sub(at) > probeCounts {
			delete(s.carry.direct, p)
		}
	}
	lease := s.carry.force.Lease()
	asked := s.state.Members[s.me].OnStage || lease != nil && lease.Holds(s.me) || s.aloneOnStage()
	if !asked || s.guest || len(s.live) < offerFrom {
		return
	}
	for p, ad := range s.carry.ads {
		pause := probeRetry
		if _, ok := s.carry.direct[p]; ok {
			pause = probeAgain
		}
		if s.carry.probing >= maxProbes || ad.Slots == 0 || now.Sub(s.carry.probed[p]) < pause {
			continue
		}
		s.carry.probed[p] = now
		s.carry.probing++
		s.wg.Go(func() { s.probeOne(p) })
	}
}

func (s *Session) probeOne(p peer.ID) {
	ctx, cancel := context.WithTimeout(s.ctx, probeWait)
	defer cancel()
	ok := s.cfg.Ports.Probe(ctx, p)
	_ = s.call(s.ctx, func() error {
		s.carry.probing--
		_, was := s.carry.direct[p]
		if ok {
			s.carry.direct[p] = time.Now()
		} else {
			delete(s.carry.direct, p)
		}
		if was != ok {
			s.presenceSoon(time.Now())
		}
		return nil
	})
}

// presenceSoon lets the others hear of a change within introduce.
func (s *Session) presenceSoon(now time.Time) {
	if s.due.presence.After(now.Add(introduce)) {
		s.due.presence = now.Add(introduce)
	}
}

// directTold are those whom I reached, as a presence names them.
func (s *Session) directTold() (out [][]byte) {
	for p := range s.carry.direct {
		out = append(out, []byte(p))
	}
	return out
}

// directOf counts who reached p, and who is asked: the others on stage, and if there are none all others.
func (s *Session) directOf(p peer.ID) (n, of int) {
	ask := func(onStage bool) {
		for _, q := range append(s.others(), s.me) {
			if q == p || onStage && !s.state.Members[q].OnStage {
				continue
			}
			of++
			if _, mine := s.carry.direct[p]; q == s.me && mine || q != s.me && s.live[q].direct[p] {
				n++
			}
		}
	}
	if ask(true); of == 0 {
		ask(false)
	}
	return n, of
}

// aloneOnStage tells whether one person speaks: then all try who can be reached.
func (s *Session) aloneOnStage() bool {
	n := 0
	for _, p := range append(s.others(), s.me) {
		if s.state.Members[p].OnStage {
			n++
		}
	}
	return n <= 1
}

// takeReach notes what a presence says of links and of who was reached.
func (l *presence) takeReach(m *wire.Presence) {
	l.links = l.links[:0:0]
	for _, b := range m.Links[:min(len(m.Links), maxLinksTold)] {
		if len(b) == len(overlay.Short{}) {
			l.links = append(l.links, overlay.Short(b))
		}
	}
	l.direct = make(map[peer.ID]bool, len(m.Direct))
	for _, b := range m.Direct[:min(len(m.Direct), maxHeardAds)] {
		l.direct[peer.ID(b)] = true
	}
	l.listeners = min(m.Listeners, maxListeners)
}

// maxListeners bounds what one relay may claim to serve.
const maxListeners = 1000

// maxSmall bounds the body of a source or a handout key, in bytes: written are about 120. Those of all on stage go together
// into one record of a link.
const maxSmall = 256

// sourceOwner is whose source a signed record is, verified. False if it is none of this room's.
func sourceOwner(signed *wire.Signed, id room.ID) (datedSource, bool) {
	var m wire.Source
	if len(signed.GetBody()) > maxSmall {
		return datedSource{}, false
	}
	p, err := wire.Open(signed, wire.DomainSource, &m)
	if err != nil || string(m.Peer) != string(p) || string(m.Room) != string(id[:]) || len(m.Salt) != 8 || len(m.EpochId) != 16 || m.Ctr >= 1<<24 {
		return datedSource{}, false
	}
	src := Source{Peer: p, Salt: [8]byte(m.Salt), Epoch: room.EpochID(m.EpochId), Ctr: m.Ctr}
	src.ID = sourceID(id, p, src.Salt)
	return datedSource{src, m.TimeMs}, true
}

// datedSource is a source and when its owner signed it, in ms of its own clock.
type datedSource struct {
	Source
	at int64
}

func shortOf(p peer.ID) overlay.Short { return identity.ShortID(p) }
