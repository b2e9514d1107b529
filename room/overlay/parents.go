package overlay

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/election"
	"balai/room/wire"
)

// parent is one that I asked to be my parent, and then one that is.
type parent struct {
	began     time.Time     // when I turned to it
	asked     time.Time     // JOIN sent; zero: its link is not open yet
	redirects uint32        // that led to it
	slow      time.Duration // times as long as usual it may take to answer
	mode      Mode          // asked for, then granted

	held    bool
	counts  bool      // I count with it
	told    feed      // what it knows of my wish
	since   time.Time // held
	active  time.Time // frames flow since
	level   uint32
	path    []Short
	tick    uint64
	ticked  time.Time // when its tick last moved
	last    time.Time // last sign of life
	ahead   time.Time // since when it has been ahead of what I hold by aheadLimit
	behind  time.Time // since when another has been ahead of it
	doubt   time.Time // suspect since
	lied    time.Time // brought frames that were not their speaker's, perhaps deceived itself
	pings   int
	leaving time.Time // it said goodbye and serves until then
	full    time.Time // it has no room for more than silence until then
}

// feed is what a child wants of a parent.
type feed struct {
	mode   Mode
	counts bool
}

func (p *parent) suspect() bool {
	return !p.doubt.IsZero() || !p.leaving.IsZero() || !p.lied.IsZero()
}

// unheard notes that id said nothing although it was asked.
func (o *Overlay) unheard(id peer.ID) {
	o.failure(id).mute++
	o.vain++
}

// pace is the time between two attempts: twice as long after each round in which nobody said a word. Many who look at once,
// because all is slow, would keep it so.
func (o *Overlay) pace() time.Duration { return joinPatience << min(o.vain/maxAttempts, maxSlow) }

// undecided tells whether p has fallen silent, and has neither answered since nor been given up.
func (p *parent) undecided() bool { return !p.doubt.IsZero() && p.leaving.IsZero() && p.lied.IsZero() }

// good tells whether p counts: held, not suspect, and in the core where I have to be.
func (o *Overlay) good(id peer.ID, p *parent) bool { return p.held && !p.suspect() && o.fit(id) }

// fit tells whether id may be a parent of mine: people on stage bring their frames to the core itself.
func (o *Overlay) fit(id peer.ID) bool {
	return !o.sit.OnStage || o.lease != nil && o.lease.Holds(id)
}

// wanted is how many parents there should be.
func (o *Overlay) wanted() (active, warm int) {
	switch {
	case o.lost():
		return 1, 0
	case o.quit, o.meshMode(), o.inCore(), o.sit.CoreOnly:
		return 0, 0
	case o.sit.OnStage:
		return 2, 0
	}
	return 1, 1
}

// lost tells whether I know neither a lease nor a mesh: whoever I ask tells me.
func (o *Overlay) lost() bool {
	mesh := len(o.sit.People) > 0 && len(o.sit.People) < election.AssistMax
	return !o.quit && !o.sit.CoreOnly && o.lease == nil && !mesh && len(o.sit.Stage)+len(o.found) > 0
}

// search asks candidates while parents are missing: several at once, another after each joinPatience.
func (o *Overlay) search() {
	active, warm := o.wanted()
	good, flowing, doubted, young, total := 0, 0, 0, 0, 0
	for _, id := range sorted(o.parents) {
		p := o.parents[id]
		switch {
		case p.held:
			if o.good(id, p) && !o.now.Before(p.full) {
				good++
			}
			if p.mode.active() && !p.suspect() {
				flowing++
			}
			if p.undecided() && o.fit(id) {
				doubted++
			}
		case active == 0:
			o.drop(id, false)
		case p.asked.IsZero() && o.now.Sub(p.began) >= min(p.slow, 2)*attemptEnds, !p.asked.IsZero() && o.now.Sub(p.asked) >= p.slow*answerEnds: // not a word
			o.drop(id, false)
			o.unheard(id)
			if p.slow > 1 && o.lease != nil && o.lease.Holds(id) { // once may be chance, or haste
				o.out = append(o.out, Dead{id})
			}
		default:
			total++
			if o.now.Sub(p.began) < o.pace() {
				young++
			}
		}
	}
	if flowing > 0 || active == 0 {
		o.orphan, o.finding = time.Time{}, time.Time{}
	} else if o.orphan.IsZero() {
		o.orphan = o.now
	}
	if good >= active+warm {
		o.vain = 0 // whoever was asked in vain was not needed
	}
	if good >= active || doubted > 1 { // there is time to see what becomes of them; of several at once it is hardly they who are silent
		good += doubted
	}
	for active+warm > good+young && total < maxAttempts && (o.vain < maxAttempts || o.now.Sub(o.began) >= o.pace()) {
		id, redirects, ok := o.candidate()
		if !ok {
			o.find()
			return
		}
		o.begin(id, redirects)
		young, total = young+1, total+1
	}
}

// candidate is whom to ask next: whom others named, the core, then, without a parent, people on stage, then whoever was
// found.
func (o *Overlay) candidate() (id peer.ID, redirects uint32, ok bool) {
	if !o.sit.OnStage {
		for i := len(o.hints) - 1; i >= 0; i-- {
			if h := o.hints[i]; o.mayAsk(h.peer) && o.now.Sub(h.at) < 2*retryMax {
				return h.peer, h.redirects, true
			}
		}
	}
	for _, p := range o.order(coreOf(o.lease)) {
		if o.mayAsk(p) {
			return p, 0, true
		}
	}
	if o.orphan.IsZero() || o.now.Sub(o.orphan) < orphanAsks {
		return "", 0, false
	}
	stage := o.order(o.sit.Stage)
	for _, p := range stage[:min(len(stage), 2)] {
		if o.mayAsk(p) {
			return p, 0, true
		}
	}
	for _, p := range o.found {
		if o.mayAsk(p) {
			return p, 0, true
		}
	}
	return "", 0, false
}

func (o *Overlay) mayAsk(p peer.ID) bool {
	if f := o.known[p]; f != nil && o.now.Before(f.next) {
		return false
	}
	if o.liar(p) && (o.orphan.IsZero() || o.now.Sub(o.orphan) < liarAlone) {
		return false
	}
	return p != o.cfg.Me && o.parents[p] == nil && o.kids[p] == nil && !o.removed(p)
}

// find asks the world for peers when nobody known is left to ask.
func (o *Overlay) find() {
	if !o.orphan.IsZero() && o.now.Sub(o.orphan) >= 2*orphanAsks && o.now.Sub(o.finding) >= 2*orphanAsks {
		o.finding = o.now
		o.out = append(o.out, Find{})
	}
}

func (o *Overlay) begin(id peer.ID, redirects uint32) {
	p := &parent{began: o.now, redirects: redirects, mode: Warm, slow: o.failure(id).slow()}
	if o.sit.OnStage {
		p.mode = Mirror
	} else if !o.flowingOrAsked() {
		p.mode = Single
	}
	o.parents[id], o.plan, o.began = p, nil, o.now
	if _, open := o.links[id]; open {
		o.ask(id, p)
	}
}

// flowingOrAsked tells whether frames come from somebody, or will.
func (o *Overlay) flowingOrAsked() bool {
	for _, p := range o.parents {
		if p.mode.active() && !p.suspect() && (p.held || o.now.Sub(p.began) < joinPatience) {
			return true
		}
	}
	return false
}

func (o *Overlay) ask(id peer.ID, p *parent) {
	p.asked = o.now
	held := false
	for _, q := range o.parents {
		held = held || q.held
	}
	o.tell(id, &wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: &wire.Join{
		Room: o.cfg.Room[:], Pass: o.sit.Pass, Mode: uint32(p.mode), HaveParent: held, Redirects: p.redirects, Ad: o.sit.Ad,
	}}})
}

// admitted is ADMIT. A parent is refused whose path holds me, that is too deep, or, while I have children and another
// parent, that is not above me.
func (o *Overlay) admitted(id peer.ID, a *wire.JoinAnswer) {
	if Mode(a.GetMode()) == Assist {
		o.helpGranted(id)
		return
	}
	p := o.parents[id]
	if p == nil || p.held {
		return
	}
	path, ok := readPath(a.GetPath(), id)
	mode := Mode(a.GetMode())
	if !ok || slices.Contains(path, o.short) || !o.above(a.GetLevel()) || !mode.active() && mode != Warm {
		o.bye(id, leaveChild, 0)
		o.drop(id, false)
		return
	}
	delete(o.known, id)
	o.root, o.vain = time.Time{}, 0
	p.held, p.since, p.last, p.ticked = true, o.now, o.now, o.now
	p.mode, p.told, p.level, p.path = mode, feed{mode: mode}, a.GetLevel(), path
	if mode.active() {
		p.active = o.now
	}
	o.rebase()
	if a.Lease != nil || len(a.GetSources()) > 0 {
		o.out = append(o.out, Learn{From: id, Lease: a.Lease, Sources: a.GetSources()})
	}
}

// above tells whether a parent of this level leaves the order of levels whole.
func (o *Overlay) above(level uint32) bool {
	if level+1 >= maxPath {
		return false
	}
	if len(o.kids) == 0 {
		return true
	}
	for id, p := range o.parents {
		if o.good(id, p) {
			return level < o.level()
		}
	}
	return true
}

// redirected is REDIRECT or BUSY.
func (o *Overlay) redirected(id peer.ID, ads []*wire.Signed, lease *wire.Signed, retry time.Duration) {
	o.helpRefused(id)
	p := o.parents[id]
	if p == nil {
		return
	}
	redirects := p.redirects
	o.failure(id).mute, o.vain = 0, 0
	if p.held { // the answer to a change of feed
		p.mode, p.counts, p.full, o.plan = Warm, false, o.now.Add(retry), nil
		p.told = feed{mode: Warm}
	} else {
		o.drop(id, false)
		o.failure(id).next = o.now.Add(retry)
		if !o.orphan.IsZero() && len(o.lookout) < 2 && slices.Contains(o.sit.Stage, id) {
			o.lookout[id] = true // it hears of a new lease before I do
		}
	}
	o.takeHints(id, ads, redirects)
	if lease != nil {
		o.out = append(o.out, Learn{From: id, Lease: lease})
	}
}

// takeHints remembers those whom from named, up to maxRedirects deep.
func (o *Overlay) takeHints(from peer.ID, ads []*wire.Signed, redirects uint32) {
	if redirects >= maxRedirects {
		return
	}
	learn := Learn{From: from}
	for _, s := range ads[:min(len(ads), maxAds)] {
		a, err := election.ParseAd(s, o.cfg.Room)
		if err != nil || a.Peer == o.cfg.Me {
			continue
		}
		learn.Ads = append(learn.Ads, a)
		o.hints = slices.DeleteFunc(o.hints, func(h hint) bool { return h.peer == a.Peer })
		o.hints = append(o.hints, hint{a.Peer, redirects + 1, o.now})
	}
	if n := len(o.hints); n > maxHints {
		o.hints = slices.Clone(o.hints[n-maxHints:])
	}
	if len(learn.Ads) > 0 {
		o.out = append(o.out, learn)
	}
}

// drop ends what there is with id as a parent.
func (o *Overlay) drop(id peer.ID, dead bool) {
	held := o.parents[id].held
	delete(o.parents, id)
	o.plan = nil
	f := o.failure(id)
	f.next, f.pause = o.now.Add(f.pause), min(2*f.pause, retryMax)
	if held {
		o.rebase()
	}
	if dead {
		f.next = o.now.Add(retryMax)
		o.out = append(o.out, Dead{id})
	}
}

// failure is what is known of id's failures. Those longest past are forgotten when there are too many.
func (o *Overlay) failure(id peer.ID) *failures {
	if f := o.known[id]; f != nil {
		return f
	}
	if len(o.known) >= maxKnown {
		for p, f := range o.known {
			if o.now.After(f.next) {
				delete(o.known, p)
			}
		}
	}
	if len(o.known) >= maxKnown {
		clear(o.known)
	}
	f := &failures{next: o.now, pause: retryFirst}
	o.known[id] = f
	return f
}

// balance lets frames flow from as many parents as they should, and drops those that are not needed any more.
func (o *Overlay) balance() {
	active, warm := o.wanted()
	if active == 0 {
		return
	}
	var flowing, silent, spare []peer.ID
	for _, id := range sorted(o.parents) {
		p := o.parents[id]
		switch {
		case !p.held:
		case !o.good(id, p):
			spare = append(spare, id)
		case p.mode.active():
			flowing = append(flowing, id)
		default:
			silent = append(silent, id)
		}
	}
	silent = o.rankSilent(silent)
	for i := 0; len(flowing) < active && i < len(silent); {
		if id := silent[i]; o.now.Before(o.parents[id].full) {
			i++
		} else {
			o.setMode(id)
			flowing, silent = append(flowing, id), slices.Delete(silent, i, i+1)
		}
	}
	if len(flowing) > active && o.settled(flowing) {
		slices.SortStableFunc(flowing, func(a, b peer.ID) int { return o.parents[a].active.Compare(o.parents[b].active) })
		for _, id := range flowing[active:] {
			p := o.parents[id]
			p.mode, p.counts, o.plan = Warm, false, nil
			silent = append(silent, id)
		}
		flowing = flowing[:active]
	}
	if len(silent) == warm && len(flowing) == active && warm > 0 {
		o.seekBetter(silent[0])
	}
	for len(silent) > warm && len(flowing) >= active {
		o.release(silent[len(silent)-1])
		silent = silent[:len(silent)-1]
	}
	for _, id := range spare {
		p := o.parents[id]
		over := !p.leaving.IsZero() && o.now.After(p.leaving)
		if over || (!p.leaving.IsZero() || !o.fit(id)) && len(flowing) >= active && o.settled(flowing) {
			o.release(id)
		}
	}
}

// rankSilent puts those of the core first, in my own order, so that the silent load spreads over the whole core.
func (o *Overlay) rankSilent(ids []peer.ID) []peer.ID {
	if len(ids) < 2 {
		return ids
	}
	core := o.order(coreOf(o.lease))
	place := func(id peer.ID) int {
		if i := slices.Index(core, id); i >= 0 {
			return i
		}
		return len(core)
	}
	slices.SortStableFunc(ids, func(a, b peer.ID) int { return place(a) - place(b) })
	return ids
}

// seekBetter asks, now and then, a core member that comes before the silent parent in my order: after a change of the
// core nobody else would go to the new one.
func (o *Overlay) seekBetter(silent peer.ID) {
	if o.now.Sub(o.moved) < cleanFor {
		return
	}
	o.moved = o.now
	for _, p := range o.order(coreOf(o.lease)) {
		if p == silent {
			return
		}
		if o.mayAsk(p) {
			o.begin(p, 0)
			return
		}
	}
}

// settled tells whether frames have come from each of ids for a while.
func (o *Overlay) settled(ids []peer.ID) bool {
	return !slices.ContainsFunc(ids, func(id peer.ID) bool { return o.now.Sub(o.parents[id].active) < demoteAfter })
}

// setMode lets frames flow from a silent parent, or, on stage, marks what flows as one of two.
func (o *Overlay) setMode(id peer.ID) {
	p := o.parents[id]
	p.mode, p.active, o.plan = Single, o.now, nil
	if o.sit.OnStage {
		p.mode = Mirror
	}
}

// tellFeeds tells each parent what I want of it, when that is new. One of those that send counts me, as long as it sends:
// people are counted where they hear, and for a while some hear from several.
func (o *Overlay) tellFeeds() {
	counted := false
	for _, p := range o.parents {
		counted = counted || p.counts
	}
	for _, id := range sorted(o.parents) {
		p := o.parents[id]
		if !p.held {
			continue
		}
		if !counted && p.mode.active() {
			p.counts, counted = true, true
		}
		if want := (feed{p.mode, p.counts}); want != p.told {
			p.told = want
			o.tell(id, &wire.LinkRecord{Record: &wire.LinkRecord_Feed{Feed: &wire.Feed{Mode: uint32(p.mode), Counted: p.counts}}})
		}
	}
}

// release leaves a parent politely.
func (o *Overlay) release(id peer.ID) {
	o.bye(id, leaveChild, 0)
	delete(o.parents, id)
	o.rebase()
}

// rebase is to be called when parents, their levels or their paths changed.
func (o *Overlay) rebase() { o.plan = nil }
