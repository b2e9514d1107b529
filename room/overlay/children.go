package overlay

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/election"
	"balai/room/wire"
)

// child is one that I forward to.
type child struct {
	mode   Mode
	count  bool // it counts with me
	since  time.Time
	last   time.Time // last sign of life
	prefix string
	ad     *election.Ad // it would relay too
	sent   bool         // away: told that I serve no longer
}

const ringMs = 400 // how far back a parent's ring goes

// serving tells whether I can be a parent now: in the core, or with a good parent that sends.
func (o *Overlay) serving() bool {
	if o.quit || o.sit.Slots == 0 {
		return false
	}
	if o.inCore() {
		return o.fed()
	}
	for id, p := range o.parents {
		if o.good(id, p) && p.mode.active() {
			return o.level() < maxPath-1
		}
	}
	return false
}

// feeds tells whether p is one whose frames come into the core by me: it is taken before I have anything to give.
func (o *Overlay) feeds(p peer.ID) bool {
	return o.inCore() && !o.quit && o.sit.Slots > 0 && slices.Contains(o.sit.Stage, p)
}

// join decides about a JOIN. Room and right to be here come first; nobody who is above me becomes my child.
func (o *Overlay) join(g *Got, j *wire.Join) {
	p, mode := g.Peer, granted(Mode(j.GetMode()))
	switch {
	case string(j.GetRoom()) != string(o.cfg.Room[:]):
		o.refuse(p, room.WrongRoom)
		return
	case g.Refused != 0:
		o.refuse(p, g.Refused)
		return
	case mode == Assist:
		o.help(p, j.GetOnly())
		return
	case mode == 0:
		o.refuse(p, room.Malformed)
		return
	}
	o.plan = nil
	ad := o.childAd(p, j.GetAd())
	switch {
	case o.parents[p] != nil && o.parents[p].held, o.ancestor(p):
		o.busy(p)
	case !o.serving() && !o.feeds(p):
		o.redirect(p, o.entries(p))
		if len(o.waiting) < maxWaiting {
			o.waiting[p] = o.now
		}
	case o.over, !o.room(p, mode, ad != nil), o.crowded(p, g.Prefix):
		if below := o.below(p); len(below) > 0 && j.GetRedirects() < maxRedirects {
			o.redirect(p, below)
		} else {
			o.busy(p)
		}
	default:
		o.kids[p] = &child{mode: mode, since: o.now, last: o.now, prefix: g.Prefix, ad: ad}
		o.admit(p, mode)
	}
	delete(o.pending, p)
}

// granted is the mode that a wish gets: the stripes are served whole.
func granted(m Mode) Mode {
	switch {
	case m == Single, m == Mirror, m == Warm, m == Assist:
		return m
	case m == 3, m == 4:
		return Single
	}
	return 0
}

// refuse ends the link with a reason.
func (o *Overlay) refuse(p peer.ID, r room.Reason) {
	o.tell(p, &wire.LinkRecord{Record: &wire.LinkRecord_Close{Close: &wire.LinkClose{Reason: uint32(r)}}})
	delete(o.kids, p)
	delete(o.pending, p)
	delete(o.helped, p)
	o.plan = nil
}

// ancestor tells whether p is above me on the path by which I hear.
func (o *Overlay) ancestor(p peer.ID) bool {
	return !o.top() && slices.Contains(o.path(), shortOf(p))
}

// childAd reads the ad of a child that would relay; nil if it is none.
func (o *Overlay) childAd(p peer.ID, s *wire.Signed) *election.Ad {
	if s == nil {
		return nil
	}
	ad, err := election.ParseAd(s, o.cfg.Room)
	if err != nil || ad.Peer != p || ad.Slots == 0 {
		return nil
	}
	return ad
}

// room tells whether one more child fits. A part above the slots is kept for those who need it most: people on stage,
// relays, and children that lose another parent.
func (o *Overlay) room(p peer.ID, mode Mode, relay bool) bool {
	flowing, warm := 0, 0
	for id, k := range o.kids {
		switch {
		case id == p:
		case k.mode.active():
			flowing++
		default:
			warm++
		}
	}
	limit := o.sit.Slots
	if relay || slices.Contains(o.sit.Stage, p) {
		limit = limit * widenPercent / 100
	}
	if mode.active() {
		return flowing < limit
	}
	return warm < warmPerSlot*o.sit.Slots
}

// crowded keeps strangers of one network from taking all places.
func (o *Overlay) crowded(p peer.ID, prefix string) bool {
	if prefix == "" {
		return false
	}
	n := 0
	for id, k := range o.kids {
		if id != p && k.prefix == prefix {
			n++
		}
	}
	return n >= max(1, o.sit.Slots/openPerPrefix)
}

func (o *Overlay) admit(p peer.ID, mode Mode) {
	a := &wire.JoinAnswer{Mode: uint32(mode), Level: o.level(), RingMs: ringMs}
	for _, s := range o.path() {
		a.Path = append(a.Path, s[:])
	}
	if o.lease != nil {
		a.Lease = o.lease.Signed
	}
	o.tell(p, &wire.LinkRecord{Record: &wire.LinkRecord_Admit{Admit: a}})
}

func (o *Overlay) redirect(p peer.ID, ads []*wire.Signed) {
	r := &wire.Redirect{Ads: ads}
	if o.lease != nil {
		r.Lease = o.lease.Signed
	}
	o.tell(p, &wire.LinkRecord{Record: &wire.LinkRecord_Redirect{Redirect: r}})
	delete(o.kids, p)
}

func (o *Overlay) busy(p peer.ID) {
	o.tellBusy(p, nil)
	delete(o.kids, p)
}

func (o *Overlay) tellBusy(p peer.ID, ads []*wire.Signed) {
	if len(ads) == 0 {
		ads = o.entries(p)
	}
	retry := retryFirst + time.Duration(len(o.pending))*busyLook
	b := &wire.Busy{Ads: ads, RetryMs: uint32(min(retry, retryMax).Milliseconds())}
	o.tell(p, &wire.LinkRecord{Record: &wire.LinkRecord_Busy{Busy: b}})
}

// entries are the others of the core, for one who cannot stay here.
func (o *Overlay) entries(not peer.ID) (ads []*wire.Signed) {
	if o.lease == nil {
		return nil
	}
	for _, a := range o.lease.Ads {
		if a.Peer != o.cfg.Me && a.Peer != not {
			ads = append(ads, a.Signed)
		}
	}
	return ads
}

// below are children that would relay, another few for each who asks.
func (o *Overlay) below(p peer.ID) (ads []*wire.Signed) {
	var ids []peer.ID
	for id, k := range o.kids {
		if k.ad != nil && id != p {
			ids = append(ids, id)
		}
	}
	for _, id := range orderFor(o.cfg.Room, p, ids) {
		if len(ads) < maxAds {
			ads = append(ads, o.kids[id].ad.Signed)
		}
	}
	return ads
}

// feed is a child's wish for more or less.
func (o *Overlay) feed(p peer.ID, f *wire.Feed) {
	k, mode := o.kids[p], granted(Mode(f.GetMode()))
	if k == nil || mode == 0 || mode == Assist {
		return
	}
	if mode.active() && !k.mode.active() && !o.room(p, mode, true) { // the part kept back is for this
		o.tellBusy(p, o.below(p)) // it stays, silent, till it has found another
		return
	}
	if k.mode != mode || k.count != f.GetCounted() {
		k.mode, k.count, o.plan = mode, f.GetCounted(), nil
	}
}

// tendChildren forgets the silent, and, while the upload is at its limit, sends a few away each second.
func (o *Overlay) tendChildren() {
	for p, k := range o.kids {
		if o.now.Sub(k.last) >= childSilent {
			delete(o.kids, p)
			o.plan = nil
		}
	}
	if o.sit.Slots == 0 && !o.inCore() && !o.meshMode() {
		for _, p := range sorted(o.kids) { // they have three seconds, and end it themselves
			if k := o.kids[p]; !k.sent {
				k.sent = true
				o.bye(p, leaveParent, quitTime)
			}
		}
	}
	for p, until := range o.former {
		if o.now.After(until) {
			delete(o.former, p)
			o.plan = nil
		}
	}
	if !o.over {
		o.shed = time.Time{}
		return
	}
	if o.shed.IsZero() {
		o.shed = o.now
	}
	if o.now.Sub(o.shed) < time.Second || len(o.entries("")) == 0 {
		return
	}
	o.shed = o.now
	var flowing []peer.ID
	for _, p := range sorted(o.kids) {
		if o.kids[p].mode.active() && !slices.Contains(o.sit.Stage, p) {
			flowing = append(flowing, p)
		}
	}
	slices.SortStableFunc(flowing, func(a, b peer.ID) int { return o.kids[b].since.Compare(o.kids[a].since) })
	for _, p := range flowing[:(len(flowing)+shedPart-1)/shedPart] {
		o.bye(p, leaveParent, quitTime)
	}
}
