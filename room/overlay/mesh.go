package overlay

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/election"
	"balai/room/wire"
)

// neighbour is one in the mesh.
type neighbour struct {
	since        time.Time // linked since; zero: not
	lost         time.Time // wanted, and not linked, since
	mine, theirs bool      // I, it, said goodbye: hears by the core
	helper       peer.ID   // carries it to me
	asked        time.Time // the helper, when
	tried        []peer.ID // helpers that would not
}

// helper is a third member that carries some speakers to me.
type helper struct{ granted bool }

const (
	helpPatience = time.Second
	maxHelped    = 8 // speakers that I carry to one member
)

// turn begins to change from mesh to core or back.
func (o *Overlay) turn() {
	o.clean, o.whole = time.Time{}, time.Time{}
	for _, n := range o.mesh {
		n.mine, n.theirs = false, false
	}
}

// tendMesh keeps the mesh while there is one, and ends it, or what came before it, when the other way is proven.
func (o *Overlay) tendMesh() {
	for p := range o.mesh {
		if !slices.Contains(o.sit.People, p) {
			delete(o.mesh, p)
			o.plan = nil
		}
	}
	if o.meshMode() {
		o.keepMesh()
		return
	}
	o.endMesh()
}

func (o *Overlay) keepMesh() {
	if len(o.sit.People) >= election.AssistMax && (o.lease == nil || o.lease.NoRelay) {
		return // too many for a mesh, whatever I know of a lease: those who are linked stay
	}
	all := true
	for _, p := range o.sit.People {
		n := o.mesh[p]
		if n == nil {
			n = &neighbour{since: o.links[p], lost: o.now}
			o.mesh[p], o.plan = n, nil
		}
		if h := o.helpers[n.helper]; n.since.IsZero() && (h == nil || !h.granted) {
			all = false
		}
		o.seekHelp(p, n)
	}
	if !all {
		o.whole = time.Time{}
		return
	}
	if o.whole.IsZero() {
		o.whole = o.now
	}
	stay := cleanFor
	if o.sit.OnStage {
		stay = stageStays // others still hear me by the core
	}
	if o.now.Sub(o.whole) >= stay {
		for _, id := range sorted(o.parents) {
			o.release(id)
		}
	}
}

// endMesh says goodbye to the neighbours after a while of clean audio by the core. A mesh link ends when both have: who
// does not hear by the core is still served directly.
func (o *Overlay) endMesh() {
	clean := o.inCore()
	for id, p := range o.parents {
		clean = clean || o.good(id, p) && p.mode.active()
	}
	if !clean {
		o.clean = time.Time{}
		return
	}
	if o.clean.IsZero() {
		o.clean = o.now
	}
	if o.now.Sub(o.clean) < cleanFor {
		return
	}
	for _, p := range sorted(o.mesh) {
		n := o.mesh[p]
		if !n.mine && !n.since.IsZero() {
			n.mine = true
			o.bye(p, leaveMesh, 0)
		}
		if n.mine && n.theirs || n.since.IsZero() {
			delete(o.mesh, p)
			o.plan = nil
		}
	}
	clear(o.helpers)
}

// seekHelp finds a third member that hears p where I cannot, and lets it go when p and I are linked.
func (o *Overlay) seekHelp(p peer.ID, n *neighbour) {
	switch {
	case !n.since.IsZero():
		if n.helper != "" && o.now.Sub(n.since) >= cleanFor {
			h := n.helper
			n.helper, n.tried = "", nil
			o.askHelp(h)
		}
		return
	case n.helper != "":
		h := o.helpers[n.helper]
		if h != nil && (h.granted || o.now.Sub(n.asked) < helpPatience) {
			return
		}
		n.tried, n.helper, o.plan = append(n.tried, n.helper), "", nil
	case o.now.Sub(n.lost) < assistAfter:
		return
	}
	third := o.third(p, n)
	if third == "" { // all were asked: again after a while
		n.tried, n.lost = nil, o.now
		return
	}
	n.helper, n.asked = third, o.now
	if o.helpers[third] == nil {
		o.helpers[third] = &helper{}
	}
	o.askHelp(third)
}

// third is the best of those who have a link with both.
func (o *Overlay) third(p peer.ID, n *neighbour) peer.ID {
	for _, t := range o.order(o.sit.People) {
		m := o.mesh[t]
		if t != p && !o.liar(t) && m != nil && !m.since.IsZero() && slices.Contains(o.sit.Links[t], shortOf(p)) && !slices.Contains(n.tried, t) {
			return t
		}
	}
	return ""
}

// askHelp tells a helper all whom it shall carry; nobody ends it.
func (o *Overlay) askHelp(h peer.ID) {
	var only [][]byte
	for _, p := range sorted(o.mesh) {
		if o.mesh[p].helper == h {
			s := shortOf(p)
			only = append(only, s[:])
		}
	}
	if len(only) == 0 {
		delete(o.helpers, h)
	}
	o.plan = nil
	o.tell(h, &wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: &wire.Join{
		Room: o.cfg.Room[:], Mode: uint32(Assist), Only: only, Pass: o.sit.Pass,
	}}})
}

func (o *Overlay) helpGranted(h peer.ID) {
	if o.helpers[h] != nil {
		o.helpers[h].granted, o.plan = true, nil
	}
}

func (o *Overlay) helpRefused(h peer.ID) {
	if o.helpers[h] == nil || o.helpers[h].granted {
		return
	}
	delete(o.helpers, h)
	o.plan = nil
}

// help carries named neighbours to p, as far as I am linked with them and carry at all.
func (o *Overlay) help(p peer.ID, only [][]byte) {
	delete(o.pending, p)
	var carried []peer.ID
	for _, s := range only[:min(len(only), maxHelped)] {
		for id, n := range o.mesh {
			short := shortOf(id)
			if string(s) == string(short[:]) && id != p && !n.since.IsZero() {
				carried = append(carried, id)
			}
		}
	}
	slices.Sort(carried)
	o.plan = nil
	delete(o.helped, p)
	switch {
	case len(only) == 0:
	case o.sit.Slots == 0, o.quit, o.mesh[p] == nil, len(carried) < len(only), len(o.helped) >= o.sit.Slots:
		o.redirect(p, nil)
	default:
		o.helped[p] = carried
		o.admit(p, Assist)
	}
}
