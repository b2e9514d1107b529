// Package overlay owns one node's place in a room: its parents, its children, its neighbours in the mesh, and the
// change between mesh and core without a gap. It opens no link and forwards no frame: it says what should be.
package overlay

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/wire"
)

// Times and limits, docs/protocol.md.
const (
	joinPatience  = 400 * time.Millisecond // then another is asked as well
	attemptEnds   = 3 * time.Second
	answerEnds    = 2 * joinPatience // after JOIN went out
	maxAttempts   = 4
	maxRedirects  = 4
	heartbeat     = 200 * time.Millisecond
	missedBeats   = 3
	aheadLimit    = 120 * time.Millisecond
	pongTime      = 400 * time.Millisecond
	silenceLimit  = 1500 * time.Millisecond
	tickStands    = time.Second
	orphanAsks    = time.Second // without a parent: ask the stage, and after twice that everybody
	cleanFor      = 5 * time.Second
	stageStays    = 3 * cleanFor // in the core, when the room goes back to the mesh
	formerFor     = 5 * time.Second
	meshDrain     = 20 * time.Second
	pendingFor    = 2 * time.Second // a caller has to say what it wants
	quitTime      = 3 * time.Second
	childSilent   = 10 * time.Second
	demoteAfter   = time.Second
	assistAfter   = 3 * time.Second
	retryFirst    = 500 * time.Millisecond
	retryMax      = 5 * time.Second
	busyLook      = 50 * time.Millisecond
	idleLook      = 200 * time.Millisecond
	maxPath       = 12
	maxAds        = 8
	maxHints      = 16
	maxKnown      = 256 // candidates whose failures are remembered
	maxPending    = 64
	maxWaiting    = 256
	waitingFor    = 10 * time.Second
	warmPerSlot   = 4   // a warm child costs heartbeats only
	widenPercent  = 125 // of slots: room for those who lose another parent
	openPerPrefix = 2   // one part in so many of the slots for one network's strangers
	shedPart      = 10  // one child in ten a second
	liarFor       = 10 * time.Minute
	liarAlone     = 5 * time.Second        // without any parent: a liar is better than silence
	stoodStill    = 600 * time.Millisecond // without a Step: I was not looking
	maxStood      = 5                      // so many times in a row, that is forgiven
	maxLosses     = 2                      // parents given up lately that make more patient
	maxSlow       = 3                      // silences of a candidate that make more patient
	calmAfter     = 20 * time.Second       // and how long without such a loss until it counts no more
)

// Config is what an overlay starts from.
type Config struct {
	Me   peer.ID
	Room room.ID
}

// Overlay is a pure state machine: Step in, actions out, Plan in between. It is not safe for concurrent use.
type Overlay struct {
	cfg   Config
	short Short
	sit   Situation
	lease *election.Lease
	now   time.Time
	out   []Action
	plan  *Plan // nil: to be made anew
	told  *Plan // as the last Step left it

	links   map[peer.ID]time.Time // open since
	pending map[peer.ID]time.Time // callers that have not said what they want
	waiting map[peer.ID]time.Time // asked me for a parent and wait here for a new lease
	lookout map[peer.ID]bool      // I wait there
	parents map[peer.ID]*parent   // asked and held
	kids    map[peer.ID]*child
	mesh    map[peer.ID]*neighbour
	helpers map[peer.ID]*helper   // carry speakers whom I cannot reach
	helped  map[peer.ID][]peer.ID // for whom I do that, and which speakers
	former  map[peer.ID]time.Time // were in the core with me: until when they are served
	peers   map[peer.ID]*equal    // the others of the core, while I am in it
	hints   []hint
	known   map[peer.ID]*failures
	liars   map[peer.ID]time.Time // are no parents until then
	found   []peer.ID

	lostAt  time.Time        // when a parent was given up last
	given   map[peer.ID]bool // who were, one soon after the other
	stood   int              // how often in a row I stood still
	vain    int              // attempts to get one since the last that succeeded, of which nobody said a word
	began   time.Time        // the last attempt
	orphan  time.Time        // without an active parent since; zero: not
	finding time.Time
	moved   time.Time // when a better silent parent was last looked for
	clean   time.Time // an active parent is fine since; zero: not
	whole   time.Time // all of the mesh is linked since; zero: not
	throne  time.Time // in the core since; zero: not
	root    time.Time // until then I count as the top of the tree, though not in the core any more
	over    bool
	shed    time.Time
	quit    bool
}

// hint is somebody whom another named as a parent.
type hint struct {
	peer      peer.ID
	redirects uint32
	at        time.Time
}

// failures say when a candidate is worth asking again.
type failures struct {
	next  time.Time
	pause time.Duration
	mute  int // times in a row that it said nothing in time
}

// slow is how many times longer than usual a candidate gets to answer: where it or I am too slow, what is given up just before
// the answer comes was work for nothing, each time.
func (f *failures) slow() time.Duration { return 1 << min(f.mute, maxSlow) }

// New is an overlay that knows nothing yet.
func New(cfg Config) *Overlay {
	return &Overlay{
		cfg: cfg, short: identity.ShortID(cfg.Me), links: map[peer.ID]time.Time{}, pending: map[peer.ID]time.Time{}, waiting: map[peer.ID]time.Time{}, lookout: map[peer.ID]bool{},
		parents: map[peer.ID]*parent{}, kids: map[peer.ID]*child{}, mesh: map[peer.ID]*neighbour{},
		helpers: map[peer.ID]*helper{}, helped: map[peer.ID][]peer.ID{}, former: map[peer.ID]time.Time{}, peers: map[peer.ID]*equal{}, known: map[peer.ID]*failures{}, liars: map[peer.ID]time.Time{}, given: map[peer.ID]bool{},
	}
}

// Step takes an event, nil when only time has passed, and what the media path saw since the last call, the newest of each peer;
// it returns what to do. The plan may have changed.
func (o *Overlay) Step(e Event, now time.Time, seen ...Pulse) []Action {
	stood := now.Sub(o.now)
	o.now, o.out = now, nil
	o.forgive(stood)
	for i := range seen {
		o.pulse(&seen[i])
	}
	switch e := e.(type) {
	case Situation:
		o.situation(e)
	case Leased:
		o.leased(e.Lease)
	case Linked:
		o.linked(e.Peer)
	case Unlinked:
		o.unlinked(e.Peer)
	case Lied:
		o.lied(&e)
	case Got:
		o.got(&e)
	case Found:
		o.found = e.Peers[:min(len(e.Peers), maxHints)]
	case Load:
		o.over = e.Over
	case Quit:
		o.leaveAll()
	}
	o.timers()
	o.closeOthers()
	return o.out
}

// closeOthers forgets the links that the plan ends: no Unlinked has to follow.
func (o *Overlay) closeOthers() {
	pl := o.Plan()
	if pl == o.told {
		return
	}
	o.told = pl
	for p := range o.links {
		if _, keep := slices.BinarySearch(pl.Links, p); !keep {
			delete(o.links, p)
		}
	}
}

// Next is when Step should be called if nothing happens before. A late or early call is harmless.
func (o *Overlay) Next() time.Time {
	wait := idleLook
	if !o.orphan.IsZero() {
		wait = busyLook
	}
	for _, p := range o.parents {
		if !p.held || p.suspect() {
			wait = busyLook
		}
	}
	return o.now.Add(wait)
}

func (o *Overlay) timers() {
	o.expirePending()
	o.health()
	o.tendMesh()
	o.tendCore()
	o.tendChildren()
	o.search()
	o.balance()
	o.tellFeeds()
}

func (o *Overlay) situation(s Situation) {
	o.sit, o.plan = s, nil
	for p := range o.links {
		if o.removed(p) {
			o.forget(p)
		}
	}
	for p := range o.parents {
		if o.removed(p) {
			o.forget(p)
		}
	}
}

func (o *Overlay) removed(p peer.ID) bool { return o.sit.Removed[identity.ShortID(p)] }

// forget drops p in every role.
func (o *Overlay) forget(p peer.ID) {
	o.plan = nil
	delete(o.links, p)
	delete(o.pending, p)
	delete(o.waiting, p)
	delete(o.lookout, p)
	delete(o.kids, p)
	delete(o.former, p)
	delete(o.mesh, p)
	delete(o.helpers, p)
	delete(o.helped, p)
	if o.parents[p] != nil {
		delete(o.parents, p)
		o.rebase()
	}
}

// inCore tells whether the lease in force names me.
func (o *Overlay) inCore() bool { return o.lease != nil && o.lease.Holds(o.cfg.Me) }

// meshMode tells whether the room is a mesh.
func (o *Overlay) meshMode() bool { return o.lease == nil || len(o.lease.Ads) == 0 }

func (o *Overlay) leased(l *election.Lease) {
	old, wasMesh, wasCore := o.lease, o.meshMode(), o.inCore()
	o.lease = l
	if old == nil || old.ID != l.ID {
		o.passOn(l)
	}
	if old != nil && slices.Equal(old.Core(), l.Core()) {
		return
	}
	o.plan, o.vain = nil, 0 // there are others to ask
	o.keepFormer(old, wasCore)
	if !o.inCore() {
		o.throne = time.Time{}
	} else if !wasCore {
		o.throne = o.now
	}
	if o.meshMode() != wasMesh {
		o.turn()
	}
}

// keepFormer goes on serving those whom a change of the core parts from me, or lets them serve me, until they have moved.
func (o *Overlay) keepFormer(old *election.Lease, wasCore bool) {
	until := o.now.Add(formerFor)
	if o.meshMode() {
		until = o.now.Add(meshDrain)
	}
	for _, p := range slices.Concat(coreOf(old), o.lease.Core()) {
		switch {
		case p == o.cfg.Me:
		case o.inCore() && o.lease.Holds(p):
			delete(o.former, p)
		case o.inCore() || wasCore:
			o.former[p] = until
		}
		if wasCore && !o.inCore() {
			o.root = until // my children have somebody above them until I have, or they have left
		}
		if !slices.Contains(coreOf(old), p) {
			delete(o.known, p) // what it was before does not matter
		}
	}
}

// top tells whether the way down begins with me.
func (o *Overlay) top() bool { return o.inCore() || o.now.Before(o.root) }

func coreOf(l *election.Lease) []peer.ID {
	if l == nil {
		return nil
	}
	return l.Core()
}

// passOn gives a new lease to those who have only me to tell them.
func (o *Overlay) passOn(l *election.Lease) {
	for _, p := range sorted(o.kids) {
		o.tell(p, &wire.LinkRecord{Record: &wire.LinkRecord_Lease{Lease: l.Signed}})
	}
	for _, p := range sorted(o.waiting) {
		o.tell(p, &wire.LinkRecord{Record: &wire.LinkRecord_Lease{Lease: l.Signed}})
	}
}

func (o *Overlay) linked(p peer.ID) {
	if o.removed(p) {
		return
	}
	o.plan = nil
	o.links[p] = o.now
	if n := o.mesh[p]; n != nil {
		n.since = o.now
	}
	if a := o.parents[p]; a != nil && !a.held && a.asked.IsZero() {
		o.ask(p, a)
		return
	}
	if !slices.Contains(o.Plan().Links, p) && len(o.pending) < maxPending {
		o.pending[p] = o.now
		o.plan = nil
	}
}

func (o *Overlay) unlinked(p peer.ID) {
	o.plan = nil
	delete(o.links, p)
	delete(o.pending, p)
	delete(o.waiting, p)
	delete(o.lookout, p)
	delete(o.kids, p)
	delete(o.helpers, p)
	delete(o.helped, p)
	if n := o.mesh[p]; n != nil {
		if !n.since.IsZero() {
			n.since, n.lost = time.Time{}, o.now
		}
		if !o.meshMode() {
			delete(o.mesh, p)
		}
	}
	if a := o.parents[p]; a != nil {
		if o.drop(p, a.held); !a.held {
			o.unheard(p)
		}
		if !a.held && o.lease != nil && o.lease.Holds(p) {
			o.out = append(o.out, Dead{p}) // nobody answers there
		}
	}
}

func (o *Overlay) expirePending() {
	for p, at := range o.pending {
		if o.now.Sub(at) >= pendingFor {
			delete(o.pending, p)
			o.plan = nil
		}
	}
	for p, at := range o.waiting {
		if o.now.Sub(at) >= waitingFor {
			delete(o.waiting, p)
			o.plan = nil
		}
	}
	if o.orphan.IsZero() && len(o.lookout) > 0 {
		clear(o.lookout)
		o.plan = nil
	}
}

// got takes a record of the link's stream.
func (o *Overlay) got(g *Got) {
	if _, open := o.links[g.Peer]; !open || o.removed(g.Peer) {
		return
	}
	switch r := g.Record.GetRecord().(type) {
	case *wire.LinkRecord_Join:
		o.join(g, r.Join)
	case *wire.LinkRecord_Admit:
		o.admitted(g.Peer, r.Admit)
	case *wire.LinkRecord_Redirect:
		retry := retryMax
		if !o.orphan.IsZero() {
			retry = retryFirst // it may be about to serve, or hear who does
		}
		o.redirected(g.Peer, r.Redirect.GetAds(), r.Redirect.GetLease(), retry)
	case *wire.LinkRecord_Busy:
		retry := time.Duration(r.Busy.GetRetryMs()) * time.Millisecond
		o.redirected(g.Peer, r.Busy.GetAds(), nil, min(max(retry, retryFirst), 6*retryMax))
	case *wire.LinkRecord_Leave:
		o.left(g.Peer, r.Leave)
	case *wire.LinkRecord_Feed:
		o.feed(g.Peer, r.Feed)
	case *wire.LinkRecord_Lease:
		if o.parents[g.Peer] == nil && !o.lookout[g.Peer] {
			return // nobody else has to tell me
		}
		o.out = append(o.out, Learn{From: g.Peer, Lease: r.Lease})
	}
}

// left is a goodbye in one role.
func (o *Overlay) left(p peer.ID, l *wire.LinkLeave) {
	switch l.GetAs() {
	case leaveParent:
		a := o.parents[p]
		if a == nil || !a.held {
			return
		}
		after := min(time.Duration(l.GetAfterMs())*time.Millisecond, quitTime)
		a.leaving = o.now.Add(after)
		o.takeHints(p, l.GetAds(), a.redirects)
	case leaveChild:
		delete(o.kids, p)
		o.plan = nil
	case leaveMesh:
		if n := o.mesh[p]; n != nil {
			n.theirs, o.plan = true, nil
		} else if !o.meshMode() {
			o.bye(p, leaveMesh, 0) // to me it never was a neighbour
		}
	}
}

// What a LinkLeave ends.
const (
	leaveParent = 1
	leaveChild  = 2
	leaveMesh   = 3
)

func (o *Overlay) tell(p peer.ID, r *wire.LinkRecord) {
	if _, open := o.links[p]; open {
		o.out = append(o.out, Tell{p, r})
	}
}

func (o *Overlay) bye(p peer.ID, as uint32, after time.Duration) {
	l := &wire.LinkLeave{As: as, AfterMs: uint32(after.Milliseconds())}
	if as == leaveParent {
		l.Ads = o.entries(p)
	}
	o.tell(p, &wire.LinkRecord{Record: &wire.LinkRecord_Leave{Leave: l}})
}

// leaveAll is the polite end.
func (o *Overlay) leaveAll() {
	o.quit, o.plan = true, nil
	for _, p := range sorted(o.kids) {
		o.bye(p, leaveParent, quitTime)
	}
}

// order sorts peers by SHA-256(room || me || peer): for each node another order, so that load spreads, and always the
// same one.
func (o *Overlay) order(ps []peer.ID) []peer.ID { return orderFor(o.cfg.Room, o.cfg.Me, ps) }

func orderFor(id room.ID, me peer.ID, ps []peer.ID) []peer.ID {
	key := make(map[peer.ID][32]byte, len(ps))
	for _, p := range ps {
		b := append(slices.Clone(id[:]), me...)
		key[p] = sha256.Sum256(append(b, p...))
	}
	out := slices.Clone(ps)
	slices.SortFunc(out, func(a, b peer.ID) int {
		x, y := key[a], key[b]
		return bytes.Compare(x[:], y[:])
	})
	return out
}

// sorted are the keys of m in order: no answer depends on the order of a map.
func sorted[V any](m map[peer.ID]V) []peer.ID {
	out := make([]peer.ID, 0, len(m))
	for p := range m {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}
