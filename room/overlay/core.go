package overlay

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// equal is another of the core, while I am in it too.
type equal struct {
	last   time.Time // last sign of life, or when its link was opened
	missed time.Time // without a link since; zero: linked
	cut    time.Time // its link is closed until then, to be opened anew
}

// tendCore keeps the links of the core: one that is silent is closed and opened again, and its peer told to be dead.
func (o *Overlay) tendCore() {
	if !o.inCore() {
		if len(o.peers) > 0 {
			clear(o.peers)
			o.plan = nil
		}
		return
	}
	core := o.lease.Core()
	if o.now.Sub(o.throne) >= formerFor {
		for _, p := range sorted(o.parents) { // what they send comes first hand now
			if o.parents[p].held {
				o.release(p)
			}
		}
	}
	for p := range o.peers {
		if !slices.Contains(core, p) {
			delete(o.peers, p)
			o.plan = nil
		}
	}
	slow := o.patience()
	for _, p := range core {
		if p != o.cfg.Me && !o.removed(p) {
			o.tendEqual(p, slow)
		}
	}
}

func (o *Overlay) tendEqual(p peer.ID, slow time.Duration) {
	e := o.peers[p]
	if e == nil {
		e = &equal{missed: o.now}
		o.peers[p], o.plan = e, nil
	}
	_, linked := o.links[p]
	switch {
	case !linked:
		if e.missed.IsZero() {
			e.missed = o.now
		}
		if !e.cut.IsZero() && !o.now.Before(e.cut) {
			e.cut, o.plan = time.Time{}, nil
		}
		if o.now.Sub(e.missed) >= time.Second && !o.dials(p) {
			o.plan = nil
		}
		return
	case !e.missed.IsZero():
		e.missed, e.last = time.Time{}, o.now
	}
	if o.now.Sub(e.last) >= slow*silenceLimit {
		o.gaveUp(p)
		e.cut, o.plan = o.now.Add(retryFirst), nil
		delete(o.links, p)
		delete(o.kids, p)
		delete(o.mesh, p)
		delete(o.former, p)
		o.out = append(o.out, Dead{p})
	}
}

// fed tells whether frames reach me in the core: from another of it, or from people on stage.
func (o *Overlay) fed() bool {
	if len(o.peers) == 0 || o.sit.OnStage {
		return true
	}
	for _, e := range o.peers {
		if e.missed.IsZero() {
			return true
		}
	}
	return slices.ContainsFunc(o.sit.Stage, func(p peer.ID) bool { return o.kids[p] != nil })
}

// dials tells whether the plan lets me call p.
func (o *Overlay) dials(p peer.ID) bool {
	_, ok := slices.BinarySearch(o.Plan().Dial, p)
	return ok
}

// drawEquals adds the others of the core to the plan. The later in order calls, and whoever has waited for a second.
func (o *Overlay) drawEquals(pl *Plan, links, dial map[peer.ID]bool) {
	for _, p := range sorted(o.peers) {
		e := o.peers[p]
		if e.cut.IsZero() {
			o.drawCore(pl, p, links)
			dial[p] = p < o.cfg.Me || !e.missed.IsZero() && o.now.Sub(e.missed) >= time.Second
		}
	}
}

// drawCore adds one of the core: each forwards to it what came from the speakers themselves.
func (o *Overlay) drawCore(pl *Plan, p peer.ID, links map[peer.ID]bool) {
	links[p] = true
	if !o.liar(p) {
		pl.Parents = append(pl.Parents, p)
	}
	if k := o.kids[p]; k == nil || !k.mode.active() {
		pl.Feeds = append(pl.Feeds, Feed{Peer: p, Mode: Mirror, Direct: true})
	}
}
