package election

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

const (
	// MeshMax is how many people a mesh carries; with more a core is chosen.
	MeshMax = 6
	// MeshAgain: at this many or fewer for a minute the room goes back to the mesh.
	MeshAgain = 4
	// AssistMax is how many people a mesh carries for want of any relay.
	AssistMax = 16
	// MergeTime is how long both cores serve after a partition.
	MergeTime = 60 * time.Second

	baseCore    = 2
	perRelay    = 2000 // listeners for each further core member
	settle      = 60 * time.Second
	betterBy    = 1.3
	replaceGap  = 30 * time.Second
	partedStays = 10 * time.Minute // a room whose mesh failed somebody keeps its core so long
	coolOff     = 60 * time.Second
	maxCoolOff  = time.Hour
	forgetFlaps = 2 * time.Hour
	waryFor     = 20 * time.Second // after a death that only the chair saw
	deafFor     = 30 * time.Second // without a word of anybody
	deafStays   = 5 * time.Second  // and after the first word, until all may have spoken again
	absent      = 2 * time.Second  // who did not choose for so long did not listen
	lateWord    = 2 * time.Second  // the word of a dead one may come so late
	holdFor     = 8 * time.Second  // nobody is replaced for being dead after one was called so by mistake; less than objections count
	holdAgain   = 10 * time.Second // and after that, until the next mistake matters
	mistakeIn   = 30 * time.Second // after this a word is no answer to having been called dead
)

// Input is what a chair knows when it chooses.
type Input struct {
	Me         peer.ID
	Grant      room.OpID // what made Me an authority; zero: Me is a speaker
	First      bool      // Me has rank 0: its own eyes are enough to call a core member dead
	State      *room.State
	People     int // here, listeners included
	Listeners  int
	Candidates []Candidate
	Voters     []peer.ID             // stage and core, those heard lately
	Dead       map[peer.ID][]peer.ID // who says that this core member does not serve
	Parted     bool                  // in the mesh two people cannot hear each other, and nobody there can help
	Gone       []peer.ID             // said goodbye lately, and are not here again
	Alone      bool                  // nobody at all has been heard lately

	wary       bool // its own eyes are not enough
	deaf, held bool // nobody is dead: for want of a word of anybody; until it is clear that not all is slow
}

// Outcome is what the core should be. Without Ads it is the mesh.
type Outcome struct {
	Ads       []*Ad
	NoRelay   bool // more than AssistMax people and nobody to relay: JOIN is refused
	Assist    bool // a mesh larger than MeshMax for want of a relay
	Unvouched bool // a community node that nobody vouched for carries the room
}

// Elector is a chair's memory from one choice to the next. The zero value is ready. It is not safe for concurrent use.
type Elector struct {
	fewSince  time.Time             // MeshAgain people or fewer since then
	parted    time.Time             // when the mesh last failed two people
	better    map[peer.ID]time.Time // since when a candidate has been clearly better than the weakest core member
	replaced  time.Time             // when one was last replaced for a better one
	spare     time.Time             // since when the core has been larger than needed
	alone     time.Time             // when I last called one dead whom nobody else missed
	looked    time.Time             // when I last chose
	heard     time.Time             // when anybody was last heard
	deaf      time.Time             // when I last heard nobody
	hold      time.Time             // until then the dead wait, since one was not
	cool      map[peer.ID]cooling
	wasInCore map[peer.ID]bool
}

type cooling struct {
	until    time.Time
	last     time.Duration
	mistaken bool // it has said something since
}

// Next is the lease that in.Me should sign now, without its signature; false when none is due.
func (e *Elector) Next(in *Input, f *Force, now time.Time) (l Lease, out Outcome, due bool) {
	out = e.Elect(in, f, now)
	old := f.Lease()
	if old == nil && len(out.Ads) == 0 && !out.NoRelay {
		return l, out, false
	}
	l = Lease{Room: in.State.Room, By: in.Me, Term: min(f.Term()+1, maxTerm), Version: 1, Grant: in.Grant, Ads: out.Ads, NoRelay: out.NoRelay, Issued: now, TTL: LeaseTTL}
	if old == nil {
		return l, out, true
	}
	if old.By == in.Me {
		l.Term, l.Version = old.Term, min(old.Version+1, maxTerm)
	}
	if in.Grant == (room.OpID{}) && !onlyReplaces(&l, old) {
		l.Ads, l.NoRelay = old.Ads, old.NoRelay
	}
	same := slices.Equal(l.Core(), old.Core()) && l.NoRelay == old.NoRelay
	return l, out, !same || old.By != in.Me || !now.Before(old.Issued.Add(LeaseRenew))
}

// Elect chooses. It keeps who serves, replaces the dead at once, and a weaker one only for one that has been clearly
// better for a minute.
func (e *Elector) Elect(in *Input, f *Force, now time.Time) (out Outcome) {
	old := f.Lease()
	e.doubt(in, now)
	e.mistakes(in, now)
	in.held = e.holds(in, old, now)
	if e.few(in, old, now) {
		e.wasInCore = nil
		return out
	}
	cs, unvouched := field(in)
	if len(cs) == 0 || in.deaf {
		out.Ads = keptBlind(in, old)
		out.Assist = len(out.Ads) == 0 && in.People <= AssistMax
		out.NoRelay = len(out.Ads) == 0 && !out.Assist
		return out
	}
	e.flapping(in, old, now)
	version := uint64(1)
	if old != nil {
		version = old.Version
	}
	sortByWorth(cs, in.State.Room, version)
	size := min(len(cs), baseCore+(in.Listeners+perRelay-1)/perRelay, MaxCore)
	cs = e.rested(cs, size, now)
	core := e.kept(in, f, cs, size, now)
	size = max(len(core), min(size+unseen(core, cs), baseCore+(in.Listeners+perRelay-1)/perRelay, MaxCore))
	core = fill(core, withoutChair(cs, in.Me), size)
	if in.Grant != (room.OpID{}) { // a speaker as chair replaces the dead, and nothing else
		core = e.improve(core, withoutChair(cs, in.Me), now)
		core = e.stepBack(core, in.Me)
	}
	out.Ads = inOrder(core, old)
	out.Unvouched = unvouched
	if old != nil && slices.ContainsFunc(old.Ads, func(a *Ad) bool { return in.First && in.dead(a.Peer) && !in.left(a.Peer) && !in.against(a.Peer) }) {
		e.alone = now
	}
	e.remember(core)
	return out
}

// doubt is of the chair's own eyes. Who has found one dead that nobody else misses may be slow itself: for a while it needs the
// others. And who has come to hear nobody at all is most likely the one who does not hear, and nobody hears what it would change;
// when the first is heard again, the others are not dead for that.
func (e *Elector) doubt(in *Input, now time.Time) {
	in.wary = now.Sub(e.alone) < waryFor
	if !in.Alone || now.Sub(e.looked) >= absent {
		e.heard = now
	}
	e.looked = now
	if in.Alone && now.Sub(e.heard) < deafFor {
		e.deaf = now
	}
	in.deaf = now.Sub(e.deaf) < deafStays
}

// mistakes finds who was called dead and has said something since, in the same life: then all is slow, and whoever is dead next
// may be no more so. Each change of the core moves many and makes all slower, so for a while the dead are not replaced as long
// as two others of the core serve: whoever hears by one of them has another parent meanwhile. Objections outlive the wait.
func (e *Elector) mistakes(in *Input, now time.Time) {
	found := false
	for i := range in.Candidates {
		c := &in.Candidates[i]
		cool, was := e.cool[c.Ad.Peer]
		died := cool.until.Add(-cool.last)
		after := c.Said.Sub(died)
		if was && !cool.mistaken && !c.Born.IsZero() && c.Born.Before(died) && after >= lateWord && after < mistakeIn {
			cool.mistaken, found = true, true
			e.cool[c.Ad.Peer] = cool
		}
	}
	if found && now.Sub(e.hold) >= holdAgain {
		e.hold = now.Add(holdFor)
	}
}

// holds tells whether the dead have to wait.
func (e *Elector) holds(in *Input, old *Lease, now time.Time) bool {
	if old == nil || !now.Before(e.hold) {
		return false
	}
	serve := 0
	for _, a := range old.Ads {
		if !in.dead(a.Peer) {
			serve++
		}
	}
	return serve >= baseCore
}

// unseen counts those of core that are not in cs: they do not take the place of one that is.
func unseen(core, cs []*Candidate) (n int) {
	for _, c := range core {
		if !slices.Contains(cs, c) {
			n++
		}
	}
	return n
}

// inOrder are the ads of core: those of old in its order, then the others, so that nothing changes without a reason.
func inOrder(core []*Candidate, old *Lease) (ads []*Ad) {
	seats := make([]*Ad, 0, 2*MaxCore)
	if old != nil {
		for _, a := range old.Ads {
			if i := slices.IndexFunc(core, func(c *Candidate) bool { return c.Ad.Peer == a.Peer }); i >= 0 {
				seats = append(seats, core[i].Ad)
			}
		}
	}
	for _, c := range core {
		if !slices.Contains(seats, c.Ad) {
			seats = append(seats, c.Ad)
		}
	}
	return seats
}

// few tells whether the room is, or goes back to being, a mesh.
func (e *Elector) few(in *Input, old *Lease, now time.Time) bool {
	if in.Parted {
		e.parted = now
	}
	if !e.parted.IsZero() && now.Sub(e.parted) < partedStays {
		e.fewSince = time.Time{}
		return in.People < 2
	}
	if in.People > MeshAgain {
		e.fewSince = time.Time{}
	} else if e.fewSince.IsZero() {
		e.fewSince = now
	}
	if old == nil || len(old.Ads) == 0 {
		return in.People <= MeshMax
	}
	return in.People <= MeshAgain && now.Sub(e.fewSince) >= settle && in.Grant != (room.OpID{})
}

// keptBlind is the core when nobody is eligible any more: whoever of it is not known to be dead.
func keptBlind(in *Input, old *Lease) (ads []*Ad) {
	if old == nil {
		return nil
	}
	for _, a := range old.Ads {
		if !in.dead(a.Peer) && mayServe(a, in.State) == nil {
			ads = append(ads, a)
		}
	}
	return ads
}

// kept are those of the present core, and for MergeTime of the other half's, that still serve. Beyond size the weakest
// go, but only after a merge or when the core has been too large for a minute.
func (e *Elector) kept(in *Input, f *Force, cs []*Candidate, size int, now time.Time) (core []*Candidate) {
	old := f.Lease()
	other, met := f.Foreign()
	merging := other != nil && now.Sub(met) < MergeTime
	for _, c := range cs { // in the order of worth
		p := c.Ad.Peer
		if serves := old != nil && old.Holds(p) || merging && other.Holds(p); serves && !in.dead(p) && len(core) < MaxCore {
			core = append(core, c)
		}
	}
	for i := range in.Candidates { // who serves well needs not be eligible anew: a probe that failed is not a death
		c := &in.Candidates[i]
		if in.State.Role(c.Ad.Peer) == room.NoRole && !in.State.Vouched[c.Ad.Peer] && len(cs) >= baseCore {
			continue // it was there for want of anybody else
		}
		if old != nil && old.Holds(c.Ad.Peer) && !slices.Contains(core, c) && c.willing(in.State) && !in.dead(c.Ad.Peer) && len(core) < MaxCore {
			core = append(core, c)
		}
	}
	if !in.First || in.wary || in.held { // not heard of by me, but nobody else complains, or it has to wait
		core = keepUnseen(in, old, core)
	}
	if len(core) <= size || merging {
		e.spare = time.Time{}
		return core
	}
	if e.spare.IsZero() {
		e.spare = now
	}
	if now.Sub(e.spare) >= settle || other != nil && now.Sub(met) < MergeTime+settle {
		core = core[:size]
	}
	return core
}

// keepUnseen adds the core members of which a lower-ranked chair hears nothing while no majority calls them dead.
func keepUnseen(in *Input, old *Lease, core []*Candidate) []*Candidate {
	if old == nil {
		return core
	}
	for _, a := range old.Ads {
		if len(core) == MaxCore || in.dead(a.Peer) || mayServe(a, in.State) != nil || slices.ContainsFunc(core, func(c *Candidate) bool { return c.Ad.Peer == a.Peer }) {
			continue
		}
		if i := slices.IndexFunc(in.Candidates, func(c Candidate) bool { return c.Ad.Peer == a.Peer }); i >= 0 && in.Candidates[i].Live {
			continue // it lives and does not want to
		}
		core = append(core, &Candidate{Ad: a, Measured: -1})
	}
	return core
}

// dead tells whether a core member is gone: it said so, the first in rank hears nothing of it, or most of stage and
// core say that it does not serve them.
func (in *Input) dead(p peer.ID) bool {
	i := slices.IndexFunc(in.Candidates, func(c Candidate) bool { return c.Ad.Peer == p })
	switch {
	case in.left(p):
		return true
	case in.held || in.deaf:
		return false
	case in.First && (i < 0 || !in.Candidates[i].Live && !in.wary):
		return true
	}
	return in.against(p)
}

func (in *Input) left(p peer.ID) bool {
	return slices.Contains(in.Gone, p)
}

// against tells whether most of stage and core object to p.
func (in *Input) against(p peer.ID) bool {
	voters, against := 0, 0
	for _, v := range in.Voters {
		if v == p {
			continue
		}
		voters++
		if slices.Contains(in.Dead[p], v) {
			against++
		}
	}
	return 2*against > voters
}

// withoutChair takes the chair out of cs while two others are in.
func withoutChair(cs []*Candidate, me peer.ID) []*Candidate {
	others := slices.DeleteFunc(slices.Clone(cs), func(c *Candidate) bool { return c.Ad.Peer == me })
	if len(others) < baseCore {
		return cs
	}
	return others
}

// stepBack takes the chair out of the core once two others have served in it.
func (e *Elector) stepBack(core []*Candidate, me peer.ID) []*Candidate {
	others := 0
	for _, c := range core {
		if c.Ad.Peer != me && e.wasInCore[c.Ad.Peer] {
			others++
		}
	}
	if others < baseCore {
		return core
	}
	return withoutChair(core, me)
}

// improve puts a candidate that has been betterBy the weakest for a minute in its place, one in replaceGap.
func (e *Elector) improve(core, cs []*Candidate, now time.Time) []*Candidate {
	weakest := -1
	for i, c := range core {
		if e.wasInCore[c.Ad.Peer] && (weakest < 0 || c.Score() <= core[weakest].Score()) {
			weakest = i
		}
	}
	better := map[peer.ID]time.Time{}
	for _, c := range cs {
		if weakest < 0 || slices.Contains(core, c) || c.Score() < betterBy*core[weakest].Score() {
			continue
		}
		since, ok := e.better[c.Ad.Peer]
		if !ok {
			since = now
		}
		better[c.Ad.Peer] = since
		if now.Sub(since) >= settle && now.Sub(e.replaced) >= replaceGap {
			core[weakest], e.replaced, e.better = c, now, nil
			return core
		}
	}
	e.better = better
	return core
}

// flapping notes who fell out of the core by dying: it waits a minute before it can be chosen again, each time twice as
// long, up to an hour.
func (e *Elector) flapping(in *Input, old *Lease, now time.Time) {
	if e.cool == nil {
		e.cool = map[peer.ID]cooling{}
	}
	for p, c := range e.cool {
		if now.Sub(c.until) > forgetFlaps {
			delete(e.cool, p)
		}
	}
	if old == nil {
		return
	}
	for _, a := range old.Ads {
		c := e.cool[a.Peer]
		if in.dead(a.Peer) && !now.Before(c.until) && e.wasInCore[a.Peer] {
			c.last = min(max(2*c.last, coolOff), maxCoolOff)
			c.until, c.mistaken = now.Add(c.last), false
			e.cool[a.Peer] = c
		}
	}
}

// rested takes those out that cool off, while there are enough others for a core of size; otherwise they come last.
func (e *Elector) rested(cs []*Candidate, size int, now time.Time) []*Candidate {
	cooling := func(c *Candidate) bool { return now.Before(e.cool[c.Ad.Peer].until) }
	out := slices.DeleteFunc(slices.Clone(cs), cooling)
	if len(out) >= size {
		return out
	}
	for _, c := range cs {
		if cooling(c) {
			out = append(out, c)
		}
	}
	return out
}

func (e *Elector) remember(core []*Candidate) {
	e.wasInCore = map[peer.ID]bool{}
	for _, c := range core {
		e.wasInCore[c.Ad.Peer] = true
	}
}
