package session

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/overlay"
	"balai/room/wire"
)

// carry is how the room's speech travels as this daemon sees it: its own place, the lease in force, who offers to relay.
// Owned by the session.
type carry struct {
	overlay *overlay.Overlay
	force   election.Force
	elector election.Elector
	outcome election.Outcome
	wake    time.Time // when the overlay wants to look again
	looked  time.Time // when the situation was last told
	said    overlay.Situation
	linked  map[peer.ID]time.Time // open media links, since
	lost    time.Time             // when the last of them with a place in the room ended, for lostShown
	trails  map[peer.ID]trail     // of linked guests: by which invites they came
	cut     time.Time             // when those of branches revoked before have had time to hear of it
	ads     map[peer.ID]*election.Ad
	own     *election.Ad
	ownDue  time.Time
	ownSeq  uint64
	ownTold int                   // how often to the others, since there have been enough of them
	direct  map[peer.ID]time.Time // reached by a probe, when
	probed  map[peer.ID]time.Time // tried, when
	probing int
	dead    map[peer.ID]map[peer.ID]time.Time // who says that it does not serve, by subject
	leavers map[peer.ID]time.Time             // of the core: said goodbye, when
	leases  map[[32]byte]time.Time            // judged, when: a copy is not judged again soon
	parted  time.Time                         // since when two people here cannot hear each other
	helpers map[peer.ID]*community            // community nodes that I, as chair, keep told
	digest  digestState
	finding bool
	found   time.Time // when somebody was last looked for
	orphan  time.Time // a guest without a parent since
}

func newCarry(cfg *Config, me peer.ID) carry {
	return carry{
		overlay: overlay.New(overlay.Config{Me: me, Room: cfg.Room}), linked: map[peer.ID]time.Time{}, trails: map[peer.ID]trail{}, ads: map[peer.ID]*election.Ad{},
		direct: map[peer.ID]time.Time{}, probed: map[peer.ID]time.Time{}, dead: map[peer.ID]map[peer.ID]time.Time{}, leases: map[[32]byte]time.Time{}, leavers: map[peer.ID]time.Time{},
		helpers: map[peer.ID]*community{}, digest: digestState{issued: map[peer.ID]int64{}},
	}
}

// Leases that were judged: how many are remembered, and how soon one may be judged anew, for what did not suit then.
const (
	maxLeases  = 1024
	leaseAgain = 2 * time.Second
)

// situationEvery is how often the overlay hears the situation although nothing was seen to change.
const situationEvery = time.Second

// Link tells what happened to a media link. It waits for its turn, but records beyond what one peer may send are dropped.
// Sources are what the other side of a new link said of its own. Any goroutine.
func (s *Session) Link(e overlay.Event, sources ...*wire.Signed) {
	if g, ok := e.(overlay.Got); ok && !s.flood.allow(g.Peer, linkRecords, time.Now()) {
		return // an honest peer tells a few in a second; each may cost signatures
	}
	f := func() { s.linkEvent(e, sources, time.Now()) }
	select {
	case s.in <- f:
	case <-s.done:
	}
}

func (s *Session) linkEvent(e overlay.Event, sources []*wire.Signed, now time.Time) {
	if s.phase != Live && !s.leaving {
		return
	}
	switch e := e.(type) {
	case overlay.Linked:
		s.carry.linked[e.Peer] = now
		s.meetLink(e.Peer, sources, now)
		s.dirty = true
	case overlay.Unlinked:
		if _, was := s.carry.linked[e.Peer]; was && s.hasPlace(e.Peer) {
			s.carry.lost = now
		}
		delete(s.carry.linked, e.Peer)
		delete(s.carry.trails, e.Peer)
		s.dirty = true
	case overlay.Got:
		if s.gotDigestRecord(&e, now) {
			return
		}
		s.judgeJoin(&e, now)
		s.step(e, now)
		return
	}
	s.step(e, now)
}

// meetLink takes a linked member for live, and its sources.
func (s *Session) meetLink(p peer.ID, sources []*wire.Signed, now time.Time) {
	if _, left := s.past[p]; left || s.state.Role(p) == room.NoRole {
		return // who was gone comes back by its own word
	}
	s.touch(p, now)
	for _, src := range sources[:min(len(sources), maxSources)] {
		s.takeSource(p, src)
	}
}

// judgeJoin says whether the sender of a JOIN belongs here: a member, the holder of a pass, or, in an open room, anybody
// who was not put out.
func (s *Session) judgeJoin(g *overlay.Got, now time.Time) {
	j := g.Record.GetJoin()
	if j == nil || s.state.Role(g.Peer) != room.NoRole {
		g.Prefix = ""
		return
	}
	if s.carry.force.Lease() != nil && s.carry.force.Lease().Holds(g.Peer) {
		g.Prefix = "" // another of the core, a community node
		return
	}
	pass, reason := s.checkPass(g.Peer, j.GetPass(), now)
	switch {
	case reason == 0:
		s.rememberTrail(g.Peer, pass)
		g.Prefix = ""
	case reason != room.Removed && reason != room.Banned && s.state.Policy.Visibility == room.Open:
	default:
		g.Refused = reason
	}
}

// step feeds the overlay, of what the media path saw first, and does what it says.
func (s *Session) step(e overlay.Event, now time.Time) {
	for _, a := range s.carry.overlay.Step(e, now, s.cfg.Pulses.Take()...) {
		s.do(a, now)
	}
	if pl := s.carry.overlay.Plan(); pl != s.plan.Plan {
		s.dirty = true
	}
	s.carry.wake = s.carry.overlay.Next()
}

func (s *Session) do(a overlay.Action, now time.Time) {
	switch a := a.(type) {
	case overlay.Tell:
		s.fillAdmit(a.Record, now)
		s.cfg.Ports.Tell(a.Peer, a.Record)
		s.digestFor(a)
	case overlay.Ping:
		s.cfg.Ports.Ping(a.Peer)
	case overlay.Find:
		s.findParents()
	case overlay.Learn:
		s.learn(&a, now)
	case overlay.Dead:
		s.object(a.Peer, now)
	}
}

// fillAdmit adds the sources of those on stage to an ADMIT, as many as fit.
func (s *Session) fillAdmit(r *wire.LinkRecord, now time.Time) {
	if a := r.GetAdmit(); a != nil && overlay.Mode(a.GetMode()) != overlay.Assist {
		a.Sources = fitting(proto.Size(r), s.sourceRecords(now))
	}
}

// findPause is the time between two looks: each dials all who are remembered.
const findPause = 10 * time.Second

// findParents looks in the world for anybody of this room.
func (s *Session) findParents() {
	now := time.Now()
	if s.carry.finding || now.Sub(s.carry.found) < findPause {
		return
	}
	s.carry.found, s.carry.finding = now, true
	s.wg.Go(func() {
		ctx, cancel := s.ctxOf(findWait)
		defer cancel()
		found := s.cfg.Ports.Candidates(ctx)
		_ = s.call(s.ctx, func() error {
			s.carry.finding = false
			if s.phase == Live {
				s.step(overlay.Found{Peers: found}, time.Now())
			}
			return nil
		})
	})
}

// learn takes what a peer told on its link.
func (s *Session) learn(a *overlay.Learn, now time.Time) {
	for _, src := range a.Sources[:min(len(a.Sources), maxSources)] {
		s.takeSourceOf(src)
	}
	for _, ad := range a.Ads {
		s.cfg.Ports.Learn(ad.Record, a.From)
	}
	if a.Lease != nil {
		_ = s.takeLease(a.Lease, a.From, now)
	}
}

// takeLease puts a lease in force if it is the one to follow. A fresh one is a sign of life of its signer.
func (s *Session) takeLease(signed *wire.Signed, from peer.ID, now time.Time) error {
	id := identity.RecordID(wire.DomainCoreLease, signed.GetBody())
	if at, judged := s.carry.leases[id]; judged && now.Sub(at) < leaseAgain {
		return nil
	}
	if len(s.carry.leases) >= maxLeases {
		clear(s.carry.leases)
	}
	s.carry.leases[id] = now
	l, err := election.ParseLease(signed, s.cfg.Room)
	if err != nil {
		return err
	}
	if now.Sub(l.Issued).Abs() < time.Second && l.By != s.me {
		s.chair.Heard(l.By, now)
	}
	ranked := s.ranked()
	chair, _, _ := s.chair.Current(ranked, s.me, now)
	if err := s.carry.force.Take(l, s.state, ranked, chair, now); err != nil {
		return nil // it may be right elsewhere or later
	}
	for _, ad := range l.Ads {
		if ad.Peer != s.me {
			s.cfg.Ports.Learn(ad.Record, from)
		}
	}
	s.dirty = true
	s.step(overlay.Leased{Lease: l}, now)
	return nil
}

// lostShown is how long somebody without a link goes unmentioned after one ended: the goodbye of who leaves may come after the
// end of her link, and a relay is followed by the next.
const lostShown = 2 * time.Second

// tendCarry tells the overlay the situation when it changed, and that time has passed.
func (s *Session) tendCarry(now time.Time) {
	if !s.carry.lost.IsZero() && now.Sub(s.carry.lost) >= lostShown {
		s.carry.lost, s.dirty = time.Time{}, true
	}
	if s.dirty || now.Sub(s.carry.looked) >= situationEvery {
		s.carry.looked = now
		if sit := s.situation(); !sameSituation(&sit, &s.carry.said) {
			s.carry.said = sit
			s.step(sit, now)
			return
		}
	}
	if !now.Before(s.carry.wake) {
		s.step(nil, now)
	}
}

// situation is what the overlay has to know.
func (s *Session) situation() overlay.Situation {
	sit := overlay.Situation{
		OnStage: s.state.Members[s.me].OnStage, Removed: s.removedShort(), Links: map[peer.ID][]overlay.Short{}, Pass: s.pass, Dial: s.toDial(),
	}
	for _, p := range s.others() {
		if !s.guest {
			sit.People = append(sit.People, p)
		}
		if s.state.Members[p].OnStage || s.guest && s.state.Role(p).Authority() {
			sit.Stage = append(sit.Stage, p)
		}
		if links := s.live[p].links; len(links) > 0 {
			sit.Links[p] = links
		}
	}
	lease := s.carry.force.Lease()
	spared := s.beat.mine && lease != nil && len(lease.Ads) > 1 && !lease.Holds(s.me) // a chair whose end moves nobody
	if own := s.carry.own; own != nil && own.Slots > 0 && !spared {
		sit.Slots = int(own.Slots)
		if s.reachable() {
			sit.Ad = own.Signed
		}
	}
	return sit
}

func (s *Session) removedShort() map[overlay.Short]bool {
	out := make(map[overlay.Short]bool, len(s.state.Removed)+len(s.state.Banned))
	for p := range s.state.Removed {
		out[identity.ShortID(p)] = true
	}
	for p := range s.state.Banned {
		out[identity.ShortID(p)] = true
	}
	for p := range s.doubts {
		if s.state.Role(p) == room.NoRole { // her time is up
			out[identity.ShortID(p)] = true
		}
	}
	for _, p := range s.cutGuests(time.Now()) {
		if s.state.Role(p) == room.NoRole { // else she came again by another way
			out[identity.ShortID(p)] = true
		}
	}
	return out
}

// sameSituation tells whether the overlay would see a difference.
func sameSituation(a, b *overlay.Situation) bool {
	if len(a.Removed) != len(b.Removed) || len(a.Links) != len(b.Links) || a.OnStage != b.OnStage || a.Slots != b.Slots || a.Ad != b.Ad || a.Pass != b.Pass {
		return false
	}
	for p, l := range a.Links {
		if !slices.Equal(l, b.Links[p]) {
			return false
		}
	}
	for p := range a.Removed {
		if !b.Removed[p] {
			return false
		}
	}
	return slices.Equal(a.People, b.People) && slices.Equal(a.Dial, b.Dial) && slices.Equal(a.Stage, b.Stage)
}

// samePlace compares what two plans make links and the media path do.
func samePlace(a, b *overlay.Plan) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	sameFeed := func(x, y overlay.Feed) bool {
		return x.Peer == y.Peer && x.Mode == y.Mode && x.Direct == y.Direct && slices.Equal(x.Only, y.Only)
	}
	return a.Accept == b.Accept && a.Core == b.Core && a.Clock == b.Clock && a.Level == b.Level && slices.Equal(a.Path, b.Path) &&
		slices.Equal(a.Links, b.Links) && slices.Equal(a.Dial, b.Dial) && slices.Equal(a.Up, b.Up) && slices.Equal(a.Parents, b.Parents) &&
		slices.EqualFunc(a.Feeds, b.Feeds, sameFeed)
}

// linkedShort are the short ids of those whom I have a media link with.
func (s *Session) linkedShort() (out [][]byte) {
	for p := range s.carry.linked {
		if len(out) == maxLinksTold {
			break
		}
		id := identity.ShortID(p)
		out = append(out, id[:])
	}
	return out
}

// maxLinksTold bounds the links that a presence names: they matter in a mesh, which is smaller.
const maxLinksTold = 32
