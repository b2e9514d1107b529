package session

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// removed is Removed in the session's goroutine.
func (s *Session) removed(after string) []RemovedView {
	out := []RemovedView{}
	if s.state == nil || len(s.state.Removed) == 0 {
		return out
	}
	ops, names := map[room.OpID]*room.Op{}, s.namesGiven()
	for _, e := range s.ledger.All() {
		ops[e.Op.ID] = e.Op
	}
	for _, p := range pageOf(s.state.Removed, after) {
		v := RemovedView{PeerID: p.String(), Name: nameOr(names[p], p), Banned: s.state.Banned[p]}
		if op := ops[s.state.Removed[p]]; op != nil {
			v.Kind, v.By, v.ByName, v.Reason, v.At = op.Kind.String(), op.Author.String(), s.nameOf(op.Author), op.Reason, op.Time.UTC()
		}
		out = append(out, v)
	}
	return out
}

// namesGiven is what people called themselves when they were let in, the last time.
func (s *Session) namesGiven() map[peer.ID]string {
	names := map[peer.ID]string{}
	for _, e := range s.ledger.All() {
		for _, a := range e.Op.Admissions {
			if a.Name != "" {
				names[a.Peer] = a.Name
			}
		}
	}
	return names
}

// viewForks tells who signed two histories. A ledger without forks is not looked through.
func (s *Session) viewForks(v *View) {
	if len(s.state.Forked) == 0 {
		return
	}
	for _, f := range s.ledger.Forks() { // by author
		id := s.idOf(f.Author)
		if n := len(v.Forked); n > 0 && v.Forked[n-1].PeerID == id {
			v.Forked[n-1].Settled = v.Forked[n-1].Settled && f.Decided
			continue
		}
		v.Forked = append(v.Forked, ForkView{PeerID: id, Name: s.nameOf(f.Author), Role: s.state.Role(f.Author).String(), Settled: f.Decided})
	}
}
