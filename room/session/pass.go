package session

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

const (
	// gossipLimit is how many people are in the ledger and in the members' gossip; listeners beyond it come with a pass.
	// Each of them says each few seconds that it is here, to all others: with 64 that is more than half of what the audio takes.
	gossipLimit = 32
	passLife    = time.Hour
	passRenew   = passLife / 2
	passSlack   = maxSkew
	maxPasses   = 4096 // that one admitter remembers
	tallyPeriod = 10 * time.Second
	maxTally    = 1 << 31
	renewPause  = 5 * time.Second // between two tries
	maxChainIDs = 3
	maxPass     = 1 << 10 // bytes; written are at most 500
	maxPeerID   = 64      // bytes
)

// held is a pass that I gave.
type held struct {
	name string
	by   trail
	seen bool // in the invite itself; else by the word of who signed an earlier pass
	exp  time.Time
}

// trail is by which invites somebody came, root first, and who issued the first of them.
type trail struct {
	chain  []room.InviteID
	issuer peer.ID
}

// makePass signs a pass for p. Only for an authority.
func (s *Session) makePass(p peer.ID, role room.Role, name string, by trail, now time.Time) *wire.Signed {
	m := &wire.Pass{
		Room: s.cfg.Room[:], Peer: []byte(p), Role: uint32(role), EpochId: s.state.Epoch.ID[:], Name: name,
		NbfS: now.Unix(), ExpS: now.Add(passLife).Unix(),
	}
	if g := s.ledger.GrantOf(s.me); g != nil {
		id := ledgerID(g)
		m.Grant = id[:]
	}
	for _, c := range by.chain {
		m.Chain, m.Issuer = append(m.Chain, slices.Clone(c[:])), []byte(by.issuer)
	}
	return wire.Sign(s.cfg.Key, wire.DomainPass, m)
}

// passFor is a pass for a member, to show to relays that do not hold the ledger, or a new one for a guest who shows hers;
// nil when I am no authority.
func (s *Session) passFor(p peer.ID, old *wire.Pass, now time.Time) *wire.Signed {
	if _, authority := s.state.Rank(s.me); !authority {
		return nil
	}
	if role := s.state.Role(p); role != room.NoRole {
		return s.makePass(p, role, "", trail{}, now)
	}
	if old == nil {
		return nil
	}
	by, _ := trailOf(old) // checked
	s.forgetGuests(now)
	g := s.guests[p]
	s.guests[p] = held{old.Name, by, g.seen && g.by.issuer == by.issuer && slices.Equal(g.by.chain, by.chain), now.Add(passLife)}
	return s.makePass(p, room.Listener, old.Name, by, now)
}

// checkPass tells whether p may be here by a pass. The reason is 0 when it may. While no authority is live an expired
// pass stays good.
func (s *Session) checkPass(p peer.ID, signed *wire.Signed, now time.Time) (*wire.Pass, room.Reason) {
	if s.state.Banned[p] {
		return nil, room.Banned
	}
	if _, out := s.state.Removed[p]; out {
		return nil, room.Removed
	}
	if signed == nil {
		return nil, room.NoAdmitter
	}
	if len(signed.Body) > maxPass {
		return nil, room.Malformed
	}
	by, err := identity.PeerOf(signed.Key)
	if _, authority := s.state.Rank(by); err != nil || !authority { // before it costs a signature: anybody may show one
		return nil, room.BadSignature
	}
	var m wire.Pass
	if _, err := wire.Open(signed, wire.DomainPass, &m); err != nil {
		return nil, room.BadSignature
	}
	if _, void := s.state.Unconfirmed[p]; void && len(m.Chain) == 0 && !s.inDoubt(p) {
		return nil, room.Removed // it was given to her as a member
	}
	if string(m.Room) != string(s.cfg.Room[:]) || string(m.Peer) != string(p) || len(m.Chain) > maxChainIDs {
		return nil, room.WrongRoom
	}
	nbf, exp := time.Unix(m.NbfS, 0), time.Unix(m.ExpS, 0)
	switch {
	case now.Before(nbf.Add(-passSlack)):
		return nil, room.NotYet
	case exp.Sub(nbf) > passLife:
		return nil, room.Malformed
	case now.After(exp.Add(passSlack)) && s.firstAuthority() != "":
		return nil, room.Expired
	}
	trail, ok := trailOf(&m)
	if !ok {
		return nil, room.Malformed
	}
	if s.cutOff(trail) {
		return nil, room.Revoked // without its branch only nobody new gets in
	}
	return &m, 0
}

// trailOf is how the holder of a pass came, by the word of who signed it. False when it holds what cannot be shown, or more
// than can be kept.
func trailOf(m *wire.Pass) (t trail, ok bool) {
	if len(m.Issuer) > maxPeerID || len(m.Chain) > maxChainIDs || (identity.Profile{Name: m.Name}).Validate() != nil {
		return trail{}, false
	}
	for _, id := range m.Chain {
		if len(id) != len(room.InviteID{}) {
			return trail{}, false
		}
		t.chain = append(t.chain, room.InviteID(id))
	}
	t.issuer = peer.ID(m.Issuer)
	return t, true
}

// cutOff tells whether one of the invites was revoked with its branch.
func (s *Session) cutOff(by trail) bool {
	return slices.ContainsFunc(by.chain, func(id room.InviteID) bool {
		branch, _ := s.state.IsRevoked(id, by.issuer)
		return branch
	})
}

// rememberTrail remembers by which invites a child came whose pass is good: when one is revoked with its branch, she is cut off.
func (s *Session) rememberTrail(p peer.ID, m *wire.Pass) {
	if by, ok := trailOf(m); ok && len(by.chain) > 0 {
		s.carry.trails[p] = by
	}
}

// cutAfter is how long guests of a revoked branch are still told of it, so that an honest one knows why she is out.
const cutAfter = time.Second

// cutGuests are those whom I let in or feed although their branch was revoked since.
func (s *Session) cutGuests(now time.Time) (out []peer.ID) {
	if now.Before(s.carry.cut) {
		return nil
	}
	for p, g := range s.guests {
		if s.cutOff(g.by) {
			out = append(out, p)
		}
	}
	for p, by := range s.carry.trails {
		if _, mine := s.guests[p]; !mine && s.cutOff(by) {
			out = append(out, p)
		}
	}
	sortPeers(out)
	return out
}

// asGuest lets a listener in by a pass, beyond those whom the ledger holds.
func (s *Session) asGuest(n *newcomer, now time.Time) {
	a := s.admission(n)
	s.forgetGuests(now)
	if !s.isGuestBy(&a) {
		for i, id := range a.Chain {
			if a.Uses[i] > 0 {
				s.passed[id]++
			}
		}
	}
	s.guests[n.peer] = held{a.Name, trail{a.Chain, a.Issuer}, true, now.Add(passLife)}
	s.dirty = true
}

// forgetGuests forgets those whose passes ran out when there are too many, and then everybody: what a pass says stands in it.
func (s *Session) forgetGuests(now time.Time) {
	if len(s.guests) < maxPasses {
		return
	}
	for p, g := range s.guests {
		if now.After(g.exp) {
			delete(s.guests, p)
		}
	}
	if len(s.guests) >= maxPasses {
		clear(s.guests)
	}
}

// takeUpTallies goes on counting where an earlier process of mine ended.
func (s *Session) takeUpTallies() {
	for _, e := range s.ledger.All() {
		if e.Op.Kind == room.TallyUses && e.Op.Author == s.me {
			n := max(s.tallied[e.Op.Invite], int(min(e.Op.Count, maxTally)))
			s.tallied[e.Op.Invite], s.passed[e.Op.Invite] = n, n
		}
	}
}

// isGuestBy tells whether somebody is let in by a pass already, and by the same invite: by another she comes as anybody does,
// is charged and has to knock.
func (s *Session) isGuestBy(a *room.Admission) bool {
	g, already := s.guests[a.Peer]
	return already && slices.Equal(g.by.chain, a.Chain)
}

// mayBeGuest tells whether a newcomer comes by a pass: a listener, when the ledger holds as many people as gossip carries.
func (s *Session) mayBeGuest(n *newcomer) bool {
	a := s.admission(n)
	if s.isGuestBy(&a) && !n.claim.Member {
		return true
	}
	return a.Role == room.Listener && !n.claim.Member && !s.mustKnock(n) && len(s.live)+len(s.admits.waiting) >= s.limit
}

// tallyGuests writes down how often invites with a limit were used by passes.
func (s *Session) tallyGuests(now time.Time) {
	if len(s.passed) == 0 || !s.due.passed(&s.due.tally, now, tallyPeriod) {
		return
	}
	for id, n := range s.passed {
		if n <= s.tallied[id] {
			continue
		}
		op := room.Op{Kind: room.TallyUses, Invite: id, Count: uint64(n), Root: s.guestRoot(id)}
		if _, err := s.appendOp(op, now, true); err != nil {
			s.cfg.Log.Warn("uses of an invite not written down", "err", err)
			return
		}
		s.tallied[id] = n
		return // one a second is enough
	}
}

// guestRoot is SHA-256 over the ids, in order, of those who came by an invite: what the tally speaks of.
func (s *Session) guestRoot(id room.InviteID) (root room.OpID) {
	var all []peer.ID
	for p, g := range s.guests {
		if slices.Contains(g.by.chain, id) {
			all = append(all, p)
		}
	}
	sortPeers(all)
	h := sha256.New()
	for _, p := range all {
		h.Write([]byte(p))
	}
	return room.OpID(h.Sum(nil))
}

// renewPass asks an authority for a new pass before mine runs out.
func (s *Session) renewPass(now time.Time) {
	if _, authority := s.state.Rank(s.me); authority {
		if s.pass == nil || now.Sub(s.passAt) >= passRenew {
			s.takePass(s.makePass(s.me, s.state.Role(s.me), "", trail{}, now), now)
		}
		return
	}
	if s.pass != nil && now.Sub(s.passAt) < passRenew {
		return
	}
	if now.Sub(s.passTry) < renewPause {
		return
	}
	s.passTry = now
	var here []peer.ID
	for _, p := range append([]peer.ID{s.state.Host}, s.state.Moderators...) {
		if s.live[p] != nil && p != s.me {
			here = append(here, p)
		}
	}
	if len(here) > 0 {
		s.fetchFrom(here[s.dice.IntN(len(here))])
	}
}

// takePass keeps a pass that an authority gave me.
func (s *Session) takePass(signed *wire.Signed, now time.Time) {
	if signed == nil {
		return
	}
	m, reason := s.checkPass(s.me, signed, now)
	if reason != 0 {
		return
	}
	s.pass, s.passAt, s.dirty = signed, time.Unix(m.NbfS, 0), true
}
