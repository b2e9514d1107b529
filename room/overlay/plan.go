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
		pl.Feeds = append(pl.Feeds, Feed{Peer: p, Mode: o.kids[p].mode, Counted: o.kids[p].count})
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

// level is 0 in the core, else one below the lowest parent; maxPath without any.
func (o *Overlay) level() uint32 {
	if o.top() {
		return 0
	}
	level, any := uint32(0), false
	for _, p := range o.parents {
		if p.held {
			level, any = max(level, p.level+1), true
		}
	}
	if !any {
		return maxPath
	}
	return min(level, maxPath)
}

// path leads from the core to me, by the parent whose frames I hear.
func (o *Overlay) path() []Short {
	if o.top() {
		return []Short{o.short}
	}
	var best *parent
	for _, id := range sorted(o.parents) {
		p := o.parents[id]
		if p.held && (best == nil || p.mode.active() && !p.suspect() && (!best.mode.active() || best.suspect())) {
			best = p
		}
	}
	if best == nil {
		return []Short{o.short}
	}
	return append(slices.Clone(best.path[max(0, len(best.path)-maxPath+1):]), o.short)
}

// readPath checks a foreign path: of whole short ids, not too long, ending with the one who tells it.
func readPath(in [][]byte, from peer.ID) (out []Short, ok bool) {
	if len(in) == 0 || len(in) >= maxPath {
		return nil, false
	}
	for _, b := range in {
		if len(b) != len(Short{}) {
			return nil, false
		}
		out = append(out, Short(b))
	}
	return out, out[len(out)-1] == shortOf(from)
}
