package ledger

import (
	"balai/room"
	"balai/room/wire"
)

// Limits of what is kept aside: ops with a good signature that name what is not held. An author without a held
// chain may be anybody, so all of those share little room. Who was refused comes again with a sync, in order.
const (
	maxAside   = 16384 // ops
	maxAuthor  = 4096  // of one author with a held chain
	maxUnknown = 512   // of all others together
	maxDead    = 4096  // void ops remembered
	maxWanted  = 256   // names told by Wanted
)

// held names an op by id and key: one body may be signed by two keys.
type held struct {
	id  room.OpID
	key string
}

// aside is an op that waits for one name.
type aside struct {
	op      *room.Op
	signed  *wire.Signed
	key     held
	need    room.Seen
	unknown bool
}

// waiting keeps ops aside.
type waiting struct {
	ops     map[held]*aside
	by      map[room.OpID][]*aside // what waits for an id
	dead    map[held]struct{}
	author  map[string]int
	unknown int
}

func newWaiting() waiting {
	return waiting{ops: map[held]*aside{}, by: map[room.OpID][]*aside{}, dead: map[held]struct{}{}, author: map[string]int{}}
}

func (w *waiting) isDead(k held) bool {
	_, dead := w.dead[k]
	return dead
}

func (w *waiting) kill(k held) {
	if len(w.dead) < maxDead {
		w.dead[k] = struct{}{}
	}
}

// putAside keeps an op until what it misses is held. The error is room.Busy.
func (l *Ledger) putAside(p *aside, missing room.Seen) (Status, error) {
	w := &l.wait
	p.unknown = l.authors[p.op.Author] == nil
	full := len(w.ops) >= maxAside || p.unknown && w.unknown >= maxUnknown || w.author[p.key.key] >= maxAuthor
	if full && !w.askedFor(p) {
		return Refused, room.Busy
	}
	w.ops[p.key] = p
	w.author[p.key.key]++
	if p.unknown {
		w.unknown++
	}
	w.park(p, missing)
	return Pending, nil
}

// askedFor tells whether an op of another known author waits for p: such ops are taken whatever the limits, or
// a chain with many branches could keep a cut from being linked.
func (w *waiting) askedFor(p *aside) bool {
	for _, q := range w.by[p.op.ID] {
		if !q.unknown && q.key.key != p.key.key {
			return true
		}
	}
	return false
}

func (w *waiting) park(p *aside, missing room.Seen) {
	p.need = missing
	w.by[missing.Hash] = append(w.by[missing.Hash], p)
}

// freed takes what waited for id.
func (w *waiting) freed(id room.OpID) []*aside {
	out := w.by[id]
	delete(w.by, id)
	return out
}

// drop forgets an op that waits for nothing any more.
func (w *waiting) drop(p *aside) {
	delete(w.ops, p.key)
	if w.author[p.key.key]--; w.author[p.key.key] <= 0 {
		delete(w.author, p.key.key)
	}
	if p.unknown {
		w.unknown--
	}
}
