package session

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/wire"
)

const (
	deadFor     = 10 * time.Second   // an objection counts this long
	voterFor    = 2 * presencePeriod // without a word, until a voice counts no more
	leaverFor   = time.Minute        // who said goodbye is dead at once so long
	partedAfter = 5 * time.Second    // two people without a link, and nobody who could help
)

// choose signs a lease when I am the chair and one is due.
func (s *Session) choose(now time.Time) {
	if !s.beat.mine {
		s.dismissCommunities(false)
		return
	}
	s.tendCommunities(now)
	in := s.electionInput(now)
	draft, out, due := s.carry.elector.Next(in, &s.carry.force, now)
	s.carry.outcome = out
	if !due {
		return
	}
	l := draft.Sign(s.cfg.Key)
	if err := s.takeLease(l.Signed, s.me, now); err != nil {
		s.cfg.Log.Warn("own lease not taken", "err", err)
		return
	}
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Lease{Lease: l.Signed}})
	s.tellCommunities(now)
}

// electionInput is what I know as chair.
func (s *Session) electionInput(now time.Time) *election.Input {
	in := &election.Input{Me: s.me, First: s.state.Host == s.me, State: s.state, People: s.people(), Dead: map[peer.ID][]peer.ID{}, Parted: s.isParted(now)}
	if _, authority := s.state.Rank(s.me); authority {
		in.Grant = s.ownGrant()
	}
	here := append(s.others(), s.me)
	slices.SortFunc(here, func(a, b peer.ID) int {
		return cmp.Or(s.state.Members[a].Since.Compare(s.state.Members[b].Since), cmp.Compare(a, b))
	})
	stage, order := 0, 0
	for _, p := range here {
		if s.state.Members[p].OnStage {
			stage++
		}
		if ad := s.adOf(p); ad != nil {
			in.Candidates = append(in.Candidates, s.memberCandidate(p, ad, order, now))
		}
		if !s.isSilent(p, now) {
			order++ // among the living: the dead keep nobody from being one of the first
		}
	}
	in.Listeners = in.People - stage
	in.Alone = !slices.ContainsFunc(here, func(p peer.ID) bool { return p != s.me && now.Sub(s.live[p].seen) < voterFor })
	in.Gone = s.leftCore(now)
	in.Candidates = append(in.Candidates, s.communityCandidates(now)...)
	lease := s.carry.force.Lease()
	for _, p := range here {
		if l := s.live[p]; p != s.me && (l == nil || now.Sub(l.seen) >= voterFor) {
			continue // who has fallen silent has no vote, though not yet gone
		}
		if s.state.Members[p].OnStage || lease != nil && lease.Holds(p) {
			in.Voters = append(in.Voters, p)
		}
	}
	s.forgetDead(now)
	for p, by := range s.carry.dead {
		in.Dead[p] = slices.Collect(maps.Keys(by))
	}
	return in
}

// leftCore are those of the core who said goodbye lately and have not come again.
func (s *Session) leftCore(now time.Time) (out []peer.ID) {
	for p, at := range s.carry.leavers {
		switch {
		case s.live[p] != nil || now.Sub(at) >= leaverFor:
			delete(s.carry.leavers, p)
		default:
			out = append(out, p)
		}
	}
	return out
}

// forgetDead forgets objections that count no more.
func (s *Session) forgetDead(now time.Time) {
	for p, by := range s.carry.dead {
		maps.DeleteFunc(by, func(_ peer.ID, at time.Time) bool { return now.Sub(at) >= deadFor })
		if len(by) == 0 {
			delete(s.carry.dead, p)
		}
	}
}

// ownGrant is what made me an authority: an op, or the genesis.
func (s *Session) ownGrant() room.OpID {
	if g := s.ledger.GrantOf(s.me); g != nil {
		return ledgerID(g)
	}
	return identity.RecordID(wire.DomainGenesis, s.ledger.Genesis().GetBody())
}

func (s *Session) adOf(p peer.ID) *election.Ad {
	if p == s.me {
		return s.carry.own
	}
	return s.carry.ads[p]
}

func (s *Session) memberCandidate(p peer.ID, ad *election.Ad, order int, now time.Time) election.Candidate {
	c := election.Candidate{Ad: ad, Order: order, Live: !s.saysDead(p, now), Measured: -1, Here: now.Sub(s.since)}
	c.Direct, c.Of = s.directOf(p)
	if l := s.live[p]; p != s.me && l != nil {
		c.Here, c.Born, c.Said = now.Sub(l.since), l.born, l.said
		if lease := s.carry.force.Lease(); (lease == nil || !lease.Holds(p)) && s.isSilent(p, now) {
			c.Live = false // who may have gone is not begun with
		}
	}
	if chain := s.state.Members[p].Chain; len(chain) > 0 {
		c.Branch = chain[0]
	}
	return c
}

// isSilent tells whether two of somebody's presences are missing.
func (s *Session) isSilent(p peer.ID, now time.Time) bool {
	l := s.live[p]
	return p != s.me && (l == nil || now.Sub(l.seen) >= 2*s.presenceOf(p)+tickPeriod)
}

// saysDead: who chooses trusts its own eyes for a while, unless the other has said something since.
func (s *Session) saysDead(p peer.ID, now time.Time) bool {
	at, said := s.carry.dead[p][s.me]
	if !said || now.Sub(at) >= deadFor {
		return false
	}
	l := s.live[p]
	return l == nil || now.Sub(l.seen) > time.Second
}

// object tells that a core member does not serve me.
func (s *Session) object(p peer.ID, now time.Time) {
	lease := s.carry.force.Lease()
	if lease == nil || !lease.Holds(p) {
		return
	}
	s.noteDead(p, s.me, now)
	if !s.state.Members[s.me].OnStage && !lease.Holds(s.me) {
		return // only stage and core have a vote
	}
	o := election.Objection{Room: s.cfg.Room, Lease: lease.ID, Subject: p, Reason: room.NoRelay, At: now}
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Objection{Objection: o.Sign(s.cfg.Key)}})
	s.choose(now)
}

func (s *Session) noteDead(p, by peer.ID, now time.Time) {
	if s.carry.dead[p] == nil {
		s.carry.dead[p] = map[peer.ID]time.Time{}
	}
	s.carry.dead[p][by] = now
}

// checkObjection looks at another's word against a core member. Any goroutine.
func (s *Session) checkObjection(sh *shared, signed *wire.Signed) error {
	o, err := election.ParseObjection(signed, s.cfg.Room)
	if err != nil {
		return ErrFalse
	}
	now := time.Now()
	if sh.state.Role(o.Peer) == room.NoRole || !near(o.At.UnixMilli(), now) {
		return ErrIgnore
	}
	if !s.flood.allow(o.Peer, objections, now) {
		return errFlood
	}
	if !s.post(func() {
		lease := s.carry.force.Lease()
		now := time.Now()
		at := o.At // said again later, it is as old as it was
		if at.After(now) {
			at = now
		}
		if s.phase == Live && lease != nil && lease.Holds(o.Subject) && o.Peer != s.me && now.Sub(at) < deadFor && at.After(s.carry.dead[o.Subject][o.Peer]) {
			s.noteDead(o.Subject, o.Peer, at)
			s.choose(now)
		}
	}) {
		return ErrIgnore
	}
	return nil
}

// checkLease looks at a lease that came by gossip. Any goroutine.
func (s *Session) checkLease(sh *shared, signed *wire.Signed) error {
	l, err := election.ParseLease(signed, s.cfg.Room)
	if err != nil {
		return ErrFalse
	}
	now := time.Now()
	if sh.state.Role(l.By) == room.NoRole || !near(l.Issued.UnixMilli(), now) {
		return ErrIgnore
	}
	if !s.flood.allow(l.By, leasesOf, now) {
		return errFlood
	}
	if !s.post(func() {
		if s.phase == Live {
			_ = s.takeLease(signed, l.By, time.Now())
		}
	}) {
		return ErrIgnore
	}
	return nil
}

// people are all who are here: those whom I see, and the listeners of the relays that are in no gossip.
func (s *Session) people() int {
	if s.guest {
		return max(int(s.carry.digest.people), 1)
	}
	return 1 + len(s.others()) + s.listenersBeyond()
}

// listenersBeyond counts the listeners who are not in the ledger, as the relays say.
func (s *Session) listenersBeyond() (n int) {
	n = s.guestsHere()
	for p, l := range s.live {
		if p != s.me && s.state.Role(p) != room.NoRole {
			n += int(l.listeners)
		}
	}
	for _, c := range s.carry.helpers {
		n += int(c.listeners)
	}
	return n
}

// guestsHere counts those that hear by me and are not in the ledger.
func (s *Session) guestsHere() (n int) {
	for _, f := range s.carry.overlay.Plan().Feeds {
		if f.Counted && s.state.Role(f.Peer) == room.NoRole {
			n++
		}
	}
	return n
}

// isParted tells whether two people of a mesh have been without a link for a while, and nobody is linked with both who
// could carry one to the other.
func (s *Session) isParted(now time.Time) bool {
	if l := s.carry.force.Lease(); l != nil && len(l.Ads) > 0 {
		return false // the elector remembers
	}
	here := append(s.others(), s.me)
	if len(here) < 2 || len(here) > election.AssistMax || !s.someAreParted(here, now) {
		s.carry.parted = time.Time{}
		return false
	}
	if s.carry.parted.IsZero() {
		s.carry.parted = now
	}
	return now.Sub(s.carry.parted) >= partedAfter
}

func (s *Session) someAreParted(here []peer.ID, now time.Time) bool {
	for i, a := range here {
		for _, b := range here[:i] {
			settled := s.settled(a, now) && s.settled(b, now)
			if settled && !s.areLinked(a, b) && !slices.ContainsFunc(here, func(t peer.ID) bool {
				ad := s.adOf(t)
				return t != a && t != b && ad != nil && ad.Slots > 0 && s.areLinked(t, a) && s.areLinked(t, b)
			}) {
				return true
			}
		}
	}
	return false
}

// settled tells whether p has been here long enough for its links to be there.
func (s *Session) settled(p peer.ID, now time.Time) bool {
	since := s.since
	if l := s.live[p]; p != s.me && l != nil {
		since = l.since
	}
	return now.Sub(since) >= partedAfter/2
}

// areLinked tells whether either says that it has a media link with the other.
func (s *Session) areLinked(a, b peer.ID) bool {
	return s.tellsLink(a, b) || s.tellsLink(b, a)
}

func (s *Session) tellsLink(a, b peer.ID) bool {
	if a == s.me {
		_, ok := s.carry.linked[b]
		return ok
	}
	l := s.live[a]
	return l != nil && slices.Contains(l.links, shortOf(b))
}
