package session

import (
	"maps"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// confirmWait is how long somebody stays whose admission turned out void, for another authority to confirm.
const confirmWait = 10 * time.Minute

// withDoubts is the ledger's state with those as members who were in, and heard here, when their admission became void: for
// confirmWait, and once for each void. A void admission of somebody who was not in lets nobody in: what a dismissed moderator
// writes after her cut is worth nothing, whatever its date. They are not in Stage, so they never lead the room.
func (s *Session) withDoubts(st, old *room.State, now time.Time) *room.State {
	maps.DeleteFunc(s.doubts, func(p peer.ID, _ time.Time) bool { _, still := st.Unconfirmed[p]; return !still })
	var in []peer.ID
	for p := range st.Unconfirmed {
		until, known := s.doubts[p]
		if _, was := old.Members[p]; !known && was && s.wasHeard(p) {
			until = now.Add(confirmWait)
			s.doubts[p] = until
		}
		if now.Before(until) {
			in = append(in, p)
		}
	}
	if len(in) == 0 {
		return st
	}
	out := *st
	out.Members = maps.Clone(st.Members)
	for _, p := range in {
		out.Members[p] = st.Unconfirmed[p].Member
	}
	return &out
}

func (s *Session) wasHeard(p peer.ID) bool {
	l := s.live[p]
	return p == s.me || l != nil && !l.said.IsZero()
}

// endDoubts puts out whom nobody confirmed in time.
func (s *Session) endDoubts(now time.Time) {
	for p, until := range s.doubts {
		if _, in := s.state.Members[p]; in && !now.Before(until) {
			s.afterLedger(now)
			return
		}
	}
}

// inDoubt tells whether p is in only until another authority confirms.
func (s *Session) inDoubt(p peer.ID) bool {
	_, in := s.state.Members[p]
	_, doubted := s.doubts[p]
	return in && doubted
}

// confirmed tells whether p is a member by the ledger itself.
func (s *Session) confirmed(p peer.ID) bool { return s.state.Role(p) != room.NoRole && !s.inDoubt(p) }

// viewDoubts tells an authority who waits to be confirmed.
func (s *Session) viewDoubts(v *View) {
	if !s.state.Role(s.me).Authority() {
		return
	}
	for _, p := range sortedKeys(s.doubts) {
		if s.inDoubt(p) {
			until := s.doubts[p].UTC()
			v.Unconfirmed = append(v.Unconfirmed, Person{
				PeerID: s.idOf(p), Name: s.nameOf(p), Role: s.state.Role(p).String(), ByName: s.nameOf(s.state.Members[p].By), Until: &until,
			})
		}
	}
}
