package node

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/wire"
)

// takeLease puts a lease in force if it is the one to follow, and returns it; nil when it is not, or is no news.
func (b *relayBook) takeLease(s *wire.Signed, now time.Time) *election.Lease {
	held := b.force.Lease()
	if s == nil || held != nil && string(held.Signed.Sig) == string(s.Sig) {
		return nil
	}
	l, err := election.ParseLease(s, b.id)
	if err != nil || l.Issued.Sub(now) > relaySkew {
		return nil
	}
	chair := peer.ID("")
	if b.led(now) {
		chair = b.digest.by
	}
	state, ranked := b.stateFor(l), b.ranked(l)
	err = b.force.Take(l, state, ranked, chair, now)
	if errors.Is(err, election.ErrTerm) && !held.Fresh(now) && state.Role(l.By).Authority() {
		var force election.Force // I was out of touch: what came between I cannot know
		if err = force.Take(l, state, ranked, chair, now); err == nil {
			b.force = force
		}
	}
	if err != nil {
		return nil
	}
	return l
}

// stateFor is the room as a lease's rules need it. Of the core I know only what the lease says: its signer answers for it.
func (b *relayBook) stateFor(l *election.Lease) *room.State {
	s := &room.State{
		Room: b.id, Policy: b.genesis.Policy, Host: b.founder, Members: map[peer.ID]room.Member{}, Removed: map[peer.ID]room.OpID{}, Vouched: map[peer.ID]bool{},
	}
	if b.authority(l.By) && l.By != b.founder && !b.removed[identity.ShortID(l.By)] {
		s.Moderators = []peer.ID{l.By}
	}
	if _, ok := b.place(l.By); ok {
		s.Members[l.By] = room.Member{Peer: l.By, Role: room.Speaker, OnStage: true}
	}
	for _, a := range l.Ads {
		s.Vouched[a.Peer] = true
		if b.removed[identity.ShortID(a.Peer)] {
			s.Removed[a.Peer] = room.OpID{}
		}
	}
	return s
}

// ranked is the order of succession as far as I know it: authorities as the digest has them, the founder before all
// without one, then others who showed a line of grants, then the stage.
func (b *relayBook) ranked(l *election.Lease) (out []peer.ID) {
	known := b.known()
	known[identity.ShortID(l.By)] = l.By
	if held := b.force.Lease(); held != nil {
		known[identity.ShortID(held.By)] = held.By
	}
	add := func(p peer.ID) {
		if p != "" && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if b.digest != nil {
		for _, a := range b.digest.authorities {
			add(known[a])
		}
	}
	add(b.founder)
	var askers []peer.ID
	for p := range b.askers {
		askers = append(askers, p)
	}
	slices.Sort(askers)
	for _, p := range askers {
		add(p)
	}
	if b.digest != nil {
		for _, m := range b.digest.stage {
			add(known[m.peer])
		}
	}
	return out
}

// known are the peers behind short ids, as far as they showed themselves.
func (b *relayBook) known() map[overlay.Short]peer.ID {
	out := map[overlay.Short]peer.ID{identity.ShortID(b.founder): b.founder}
	for p := range b.askers {
		out[identity.ShortID(p)] = p
	}
	for p := range b.sources {
		out[identity.ShortID(p)] = p
	}
	return out
}

// situation is what the overlay has to know. Of the guests, with the invites by which they came, those of a revoked branch
// go.
func (b *relayBook) situation(slots int, ad *wire.Signed, guests map[peer.ID][]room.InviteID) overlay.Situation {
	s := overlay.Situation{CoreOnly: true, Slots: slots, Ad: ad, Removed: maps.Clone(b.removed)}
	for p, chain := range guests {
		if b.cutOff(chain) {
			s.Removed[identity.ShortID(p)] = true
		}
	}
	if b.digest == nil {
		return s
	}
	known := b.known()
	for _, m := range b.digest.stage {
		if p := known[m.peer]; p != "" && p != b.me && !b.removed[m.peer] {
			s.Stage = append(s.Stage, p)
		}
	}
	slices.Sort(s.Stage)
	s.Stage = slices.Compact(s.Stage)
	return s
}

// media is what the media path has to know: whose frames may pass, and under which epochs they are signed.
func (b *relayBook) media(plan *overlay.Plan) session.Media {
	m := session.Media{Room: b.id, Me: session.Source{Peer: b.me}, Seal: -1, Commits: b.commits, Plan: plan}
	for p, s := range b.sources {
		src := s.Source
		at, onStage := b.place(p)
		src.Allowed = onStage && at.source == src.ID && !at.muted && !b.removed[at.peer]
		m.Sources = append(m.Sources, src)
	}
	slices.SortFunc(m.Sources, func(x, y session.Source) int { return slices.Compare([]byte(x.Peer), []byte(y.Peer)) })
	return m
}

// stageSources are the signed sources of those on stage.
func (b *relayBook) stageSources() (out []*wire.Signed) {
	if b.digest == nil {
		return nil
	}
	known := b.known()
	for _, m := range b.digest.stage {
		if s := b.sources[known[m.peer]]; s != nil && s.ID == m.source {
			out = append(out, s.signed)
		}
	}
	return out
}

// takeNews is what the children have to hear, in records that fit a link's stream.
func (b *relayBook) takeNews() []*wire.DigestRecord {
	n := b.news
	b.news = relayNews{}
	if b.digest == nil || !n.digest && len(n.sources) == 0 && len(n.ops) == 0 {
		return nil
	}
	return digestRecords(b.digest.signed, n.sources, n.ops)
}

// all is what a new child has to hear; sources that an ADMIT carried already are left out.
func (b *relayBook) all(told int) []*wire.DigestRecord {
	if b.digest == nil {
		return nil
	}
	return digestRecords(b.digest.signed, b.stageSources()[told:], b.ops)
}

func digestRecords(digest *wire.Signed, sources, ops []*wire.Signed) (out []*wire.DigestRecord) {
	r := &wire.DigestRecord{Digest: digest, Ops: ops}
	size := proto.Size(r)
	for _, s := range sources {
		if n := proto.Size(s) + 4; size+n > maxRelayTold {
			out, r, size = append(out, r), &wire.DigestRecord{Digest: digest}, proto.Size(digest)+n
		} else {
			size += n
		}
		r.Sources = append(r.Sources, s)
	}
	return append(out, r)
}

// fillAdmit adds the sources of those on stage to an ADMIT, as many as fit, and tells how many.
func (b *relayBook) fillAdmit(a *wire.JoinAnswer) int {
	size := proto.Size(a)
	for _, s := range b.stageSources() {
		if size += proto.Size(s) + 4; size > maxRelayTold {
			break
		}
		a.Sources = append(a.Sources, s)
	}
	return len(a.Sources)
}
