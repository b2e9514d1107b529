package overlay

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Plan is what should be now. It is the same value until something changes.
func (o *Overlay) Plan() *Plan {
	if o.plan == nil {
		o.plan = o.draw()
	}
	return o.plan
}

// Parents are the parents held, in order.
func (o *Overlay) Parents() (out []Parent) {
	for _, id := range sorted(o.parents) {
		if p := o.parents[id]; p.held {
			out = append(out, Parent{id, p.mode, p.suspect()})
		}
	}
	return out
}

// draw makes the plan.
func (o *Overlay) draw() *Plan {
	pl := &Plan{Accept: !o.quit && !o.meshMode(), Core: o.inCore(), Clock: o.top(), Level: o.level(), Path: o.path()}
	links, dial := map[peer.ID]bool{}, map[peer.ID]bool{}
	for p := range o.mesh {
		links[p] = true
		dial[p] = slices.Contains(o.sit.Dial, p)
	}
	up := o.uplinks()
	for p, a := range o.parents {
		links[p], dial[p] = true, true
		if a.held {
			pl.Parents = append(pl.Parents, p)
		}
	}
	for p, h := range o.helpers {
		if h.granted {
			pl.Parents = append(pl.Parents, p)
		}
	}
	for p := range o.pending {
		links[p] = true
	}
	for p := range o.waiting {
		links[p] = true
	}
	for p := range o.lookout {
		links[p], dial[p] = true, true
	}
	o.drawFeeds(pl, links, dial)
	for p := range links {
		pl.Links = append(pl.Links, p)
		if dial[p] {
			pl.Dial = append(pl.Dial, p)
		}
	}
	slices.Sort(pl.Links)
	slices.Sort(pl.Dial)
	slices.Sort(pl.Parents)
	pl.Parents, pl.Up = slices.Compact(pl.Parents), up
	return pl
}

// uplinks get my own frames: the mesh, and, on stage, the parents.
func (o *Overlay) uplinks() (up []peer.ID) {
	for p, n := range o.mesh {
		if !n.since.IsZero() {
			up = append(up, p)
		}
	}
	for p, a := range o.parents {
		if a.held && o.sit.OnStage {
			up = append(up, p)
		}
	}
	slices.Sort(up)
	return slices.Compact(up)
}

// drawFeeds adds children, those helped, and the others of the core.
func (o *Overlay) drawFeeds(pl *Plan, links, dial map[peer.ID]bool) {
	for _, p := range sorted(o.kids) {
		links[p] = true
		pl.Feeds = append(pl.Feeds, Feed{Peer: p, Mode: o.kids[p].mode})
	}
	for _, p := range sorted(o.helped) {
		if o.kids[p] == nil || !o.kids[p].mode.active() {
			links[p] = true
			pl.Feeds = append(pl.Feeds, Feed{Peer: p, Mode: Assist, Only: o.helped[p], Direct: true})
		}
	}
	o.drawEquals(pl, links, dial)
	for _, p := range sorted(o.former) {
		if _, open := o.links[p]; open && o.peers[p] == nil {
			o.drawCore(pl, p, links)
		}
	}
}
