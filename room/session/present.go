package session

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/ledger"
	"balai/room/overlay"
)

const (
	membersPage  = 200
	audiencePage = 200
	wordsDomain  = "balai-epoch-words/1"
)

// makeView tells the room as it is.
func (s *Session) makeView() View {
	v := View{
		ID: s.cfg.Room.String(), State: s.phase, Local: s.cfg.Local, Tags: []string{}, Stage: []OnStage{}, AudienceList: []Person{},
		Hands: []string{}, Knocks: []Person{}, Core: []string{}, Relays: []RelayView{}, Vouched: []string{}, Forked: []ForkView{}, Unconfirmed: []Person{}, Encryption: "no_key", Carrier: "direct",
		Succession: Succession{Agreed: []string{}, Against: []string{}},
		Me:         Me{PeerID: s.idOf(s.me), Role: room.NoRole.String(), Muted: true},
	}
	if s.phase == Refused {
		v.Reason, v.ClockAheadMS, v.Clocks = s.reason.String(), s.clockAhead.Milliseconds(), s.clocks
	}
	if s.state == nil {
		return v
	}
	s.viewPolicy(&v)
	s.viewPeople(&v)
	s.viewDoubts(&v)
	s.viewForks(&v)
	s.viewSuccession(&v)
	v.Differs = s.ledger.Differs() != nil
	if s.beat.chair != "" {
		v.Chair = s.idOf(s.beat.chair)
	}
	if e, ok := s.keys.sealing(); ok {
		v.Encryption = "on"
		v.Epoch = EpochView{N: e.N, Step: e.Step, Words: identity.Words(wordsDomain, e.ID[:])}
	}
	s.viewCarry(&v)
	return v
}

// viewCarry tells by whom the room is carried.
func (s *Session) viewCarry(v *View) {
	lease, uses := s.carry.force.Lease(), map[peer.ID]string{}
	for _, p := range s.carry.overlay.Parents() {
		switch {
		case p.Suspect:
			uses[p.Peer] = "suspect"
		case p.Mode == overlay.Warm:
			uses[p.Peer] = "warm"
		default:
			uses[p.Peer] = "parent"
		}
	}
	for _, p := range s.carry.overlay.Plan().Parents { // in a mesh: who helps
		if _, known := uses[p]; !known && (lease == nil || !lease.Holds(p)) {
			uses[p] = "parent"
		}
	}
	if lease != nil {
		v.NoRelay = lease.NoRelay
		for _, ad := range lease.Ads {
			v.Core = append(v.Core, s.idOf(ad.Peer))
			v.Relays = append(v.Relays, s.relayView(ad, uses[ad.Peer]))
			delete(uses, ad.Peer)
		}
	}
	for _, p := range sortedKeys(uses) { // further down the tree than the core
		v.Relays = append(v.Relays, RelayView{PeerID: s.idOf(p), Name: s.nameOf(p), Kind: kindOf(s.state.Role(p)), HoldsKey: s.state.Role(p) != room.NoRole, Use: uses[p]})
	}
	for p, ok := range s.state.Vouched {
		if ok {
			v.Vouched = append(v.Vouched, p.String())
		}
	}
	slices.Sort(v.Vouched)
	v.Assist = len(v.Core) == 0 && v.Members > election.MeshMax
	if len(v.Relays) > 0 {
		v.Carrier = "relay"
	}
	for _, l := range s.report.Links {
		if l.Degraded {
			v.Carrier = "degraded"
		}
	}
	if s.phase == Live && !s.reached() && len(s.others()) > 0 {
		v.Carrier = "connecting"
	}
}

// reached tells whether a media link that has a place in the room is open, with a relay or with another person, or was a
// moment ago. A caller who is still to say what it wants has none.
func (s *Session) reached() bool {
	return !s.carry.lost.IsZero() || slices.ContainsFunc(s.carry.overlay.Plan().Links, func(p peer.ID) bool {
		_, open := s.carry.linked[p]
		return open && s.hasPlace(p)
	})
}

// hasPlace tells whether p is a member, a relay, or hears by me or I by it.
func (s *Session) hasPlace(p peer.ID) bool {
	pl, lease := s.carry.overlay.Plan(), s.carry.force.Lease()
	return s.state.Role(p) != room.NoRole || lease != nil && lease.Holds(p) || slices.Contains(pl.Parents, p) ||
		slices.ContainsFunc(pl.Feeds, func(f overlay.Feed) bool { return f.Peer == p })
}

func (s *Session) relayView(ad *election.Ad, use string) RelayView {
	r := RelayView{PeerID: s.idOf(ad.Peer), Name: s.nameOf(ad.Peer), Kind: kindOf(s.state.Role(ad.Peer)), HoldsKey: s.state.Role(ad.Peer) != room.NoRole, Me: ad.Peer == s.me, Vouched: s.state.Vouched[ad.Peer], Use: use}
	return r
}

func kindOf(r room.Role) string {
	if r == room.NoRole {
		return "community"
	}
	return "member"
}

func sortedKeys[V any](m map[peer.ID]V) []peer.ID {
	return slices.Sorted(maps.Keys(m))
}

func (s *Session) viewPolicy(v *View) {
	p := s.state.Policy
	v.Name, v.Topic, v.Visibility, v.Language = p.Name, p.Topic, p.Visibility.String(), p.Language
	v.Tags, v.ConstantRate = append(v.Tags, p.Tags...), p.ConstantRate
	v.Host, v.HostName, v.Locked = s.idOf(s.state.Host), s.nameOf(s.state.Host), s.state.Locked
	v.CreatedAt = s.ledger.Created().UTC()
	if !p.StartsAt.IsZero() {
		at := p.StartsAt.UTC()
		v.StartsAt = &at
	}
}

func (s *Session) viewPeople(v *View) {
	m := s.state.Members[s.me]
	hands := s.hands()
	v.Me = Me{
		PeerID: s.idOf(s.me), Role: s.state.Role(s.me).String(), OnStage: m.OnStage, Hand: slices.Contains(hands, s.me),
		Muted: s.muted || m.Muted, Audio: s.report.Leg,
	}
	v.Me.Speaking = s.report.Speaking && m.OnStage && !v.Me.Muted
	for _, p := range hands {
		v.Hands = append(v.Hands, s.idOf(p))
	}
	here := append(s.others(), s.me)
	slices.SortFunc(here, s.byRankThenTime)
	for _, p := range here {
		v.Members++
		if s.state.Members[p].OnStage {
			v.Stage = append(v.Stage, s.onStage(p))
			continue
		}
		v.Audience++
		if len(v.AudienceList) < audiencePage {
			v.AudienceList = append(v.AudienceList, s.person(p, hands))
		}
	}
	if beyond := s.people() - v.Members; beyond > 0 {
		v.Members, v.Audience = v.Members+beyond, v.Audience+beyond
	}
	if s.guest {
		v.Me.Role = room.Listener.String()
	}
	if s.state.Role(s.me).Authority() {
		for p, k := range s.knocks {
			v.Knocks = append(v.Knocks, Person{PeerID: s.idOf(p), Name: nameOr(k.admission.Name, p), Role: k.admission.Role.String()})
		}
		slices.SortFunc(v.Knocks, func(a, b Person) int { return strings.Compare(a.PeerID, b.PeerID) })
	}
}

// byRankThenTime orders people: host, moderators, then who came first.
func (s *Session) byRankThenTime(a, b peer.ID) int {
	if ra, rb := s.state.Role(a), s.state.Role(b); ra != rb && (ra.Authority() || rb.Authority()) {
		return int(rb) - int(ra)
	}
	if c := s.state.Members[a].Since.Compare(s.state.Members[b].Since); c != 0 {
		return c
	}
	return bytes.Compare([]byte(a), []byte(b))
}

func (s *Session) person(p peer.ID, hands []peer.ID) Person {
	v := Person{PeerID: s.idOf(p), Name: s.nameOf(p), Role: s.state.Role(p).String(), Muted: s.state.Members[p].Muted}
	if i := slices.Index(hands, p); i >= 0 {
		place := i + 1
		v.Hand = &place
	}
	return v
}

func (s *Session) onStage(p peer.ID) OnStage {
	m, l := s.state.Members[p], s.live[p]
	v := OnStage{PeerID: s.idOf(p), Name: s.nameOf(p), Role: s.state.Role(p).String(), Muted: true, Live: l != nil}
	if p == s.me {
		v.Muted = s.muted || m.Muted
		v.HeardBy = s.heardBy(s.own.id)
		v.Speaking = s.report.Speaking && !v.Muted
		return v
	}
	if l != nil {
		v.Muted = l.muted || m.Muted
		if l.source != nil {
			v.HeardBy = s.heardBy(l.source.ID)
		}
	}
	for _, r := range s.report.Sources {
		if r.Peer == p {
			v.Speaking = r.Speaking && !v.Muted
			if r.Slot >= 0 {
				slot := r.Slot
				v.Slot = &slot
			}
		}
	}
	return v
}

// heardBy counts who heard a source lately. Listeners who are not in the ledger send no reports: they count with the member
// by whose relay they hear, and with a community node's while anybody hears.
func (s *Session) heardBy(id uint32) int {
	n := len(s.heard[id])
	for p := range s.heard[id] {
		if l := s.live[p]; p != s.me && l != nil {
			n += int(l.listeners)
		}
	}
	if _, mine := s.heard[id][s.me]; mine || id == s.own.id {
		n += s.guestsHere()
	}
	if lease := s.carry.force.Lease(); lease != nil && n > 0 {
		for p, c := range s.carry.helpers {
			if lease.Holds(p) {
				n += int(c.listeners)
			}
		}
	}
	return n
}

// nameOf is what p calls itself, or a part of its id.
func (s *Session) nameOf(p peer.ID) string {
	if p == s.me {
		return nameOr(s.cfg.Profile().Name, p)
	}
	if l := s.live[p]; l != nil && l.name != "" {
		return l.name
	}
	if s.state != nil {
		return nameOr(s.state.Members[p].Name, p)
	}
	return nameOr("", p)
}

func nameOr(name string, p peer.ID) string {
	if name != "" {
		return name
	}
	id := p.String()
	return "…" + id[max(0, len(id)-6):]
}

func (s *Session) memberView(p peer.ID) MemberView {
	m, l := s.state.Members[p], s.live[p]
	v := MemberView{PeerID: s.idOf(p), Name: s.nameOf(p), Role: s.state.Role(p).String(), OnStage: m.OnStage, Muted: m.Muted, Live: l != nil, Since: m.Since.UTC()}
	if l != nil {
		v.Headline, v.Muted = l.headline, l.muted || m.Muted
	}
	if n := len(m.Chain); n > 0 && s.state.Role(s.me).Authority() {
		v.CameBy = m.Chain[n-1].String()
	}
	if until := s.doubts[p].UTC(); s.inDoubt(p) && s.state.Role(s.me).Authority() {
		v.Unconfirmed = &until
	}
	return v
}

// members is Members in the session's goroutine.
func (s *Session) members(after string) []MemberView {
	out := []MemberView{}
	if s.state == nil {
		return out
	}
	for _, p := range pageOf(s.state.Members, after) {
		out = append(out, s.memberView(p))
	}
	return out
}

// pageOf are the peers of m that follow after, in the order of their ids as they are printed.
func pageOf[V any](m map[peer.ID]V, after string) []peer.ID {
	type printed struct {
		id string
		p  peer.ID
	}
	all := make([]printed, 0, len(m))
	for p := range m {
		if id := p.String(); id > after {
			all = append(all, printed{id, p})
		}
	}
	slices.SortFunc(all, func(a, b printed) int { return strings.Compare(a.id, b.id) })
	var out []peer.ID
	for _, a := range all[:min(len(all), membersPage)] {
		out = append(out, a.p)
	}
	return out
}

// decisions is Ledger in the session's goroutine.
func (s *Session) decisions() []Decision {
	out := []Decision{}
	if s.ledger == nil {
		return out
	}
	for _, e := range s.ledger.All() {
		out = append(out, s.decision(e))
	}
	return out
}

func (s *Session) decision(e ledger.Entry) Decision {
	op := e.Op
	d := Decision{
		ID: room.InviteID(op.ID).String(), Author: op.Author.String(), Name: s.nameOf(op.Author), Seq: op.Seq, Kind: op.Kind.String(),
		Targets: []string{}, Reason: op.Reason, At: op.Time.UTC(), Void: e.Void, Why: e.Why,
	}
	var names []string
	for _, p := range opTargets(op) {
		d.Targets = append(d.Targets, p.String())
		names = append(names, s.nameOf(p))
	}
	d.Words = strings.TrimSpace(d.Name+" "+verbs[op.Kind]+" "+strings.Join(names, ", ")) + detailOf(op)
	if e.Signed != nil {
		d.Raw, _ = proto.Marshal(e.Signed)
	}
	return d
}

// detailOf says what an op decided besides who did what to whom.
func detailOf(op *room.Op) string {
	by := func(i room.InviteID) string { return " " + i.String()[:inviteShown] }
	switch op.Kind {
	case room.Admit:
		leaf, same := op.Admissions[0].Leaf(), true
		for i := range op.Admissions {
			same = same && op.Admissions[i].Leaf() == leaf
		}
		if same && leaf != (room.InviteID{}) {
			return " by the invite" + by(leaf)
		}
	case room.Ban:
		if op.Invite != (room.InviteID{}) {
			return ", who came by the invite" + by(op.Invite)
		}
	case room.Revoke:
		if op.Branch {
			return by(op.Invite) + " and put out all who came by it"
		}
		return by(op.Invite)
	case room.TallyUses:
		return by(op.Invite) + ": " + strconv.FormatUint(op.Count, 10)
	case room.NewEpoch:
		return ", now number " + strconv.FormatUint(op.Epoch.N, 10)
	case room.SetPolicy:
		return ": " + policyWords(op.Policy)
	}
	return ""
}

// inviteShown is how much of an invite's id is told where people compare: as the page's lists do.
const inviteShown = 8

// policyWords is all that a policy says.
func policyWords(p *room.Policy) string {
	words := []string{"“" + p.Name + "”", p.Visibility.String()}
	if p.Topic != "" {
		words = append(words, "topic “"+p.Topic+"”")
	}
	if p.Language != "" {
		words = append(words, "language "+p.Language)
	}
	if len(p.Tags) > 0 {
		words = append(words, "tags "+strings.Join(p.Tags, " "))
	}
	if !p.StartsAt.IsZero() {
		words = append(words, "opens "+p.StartsAt.UTC().Format("2006-01-02 15:04 UTC"))
	}
	if p.ConstantRate {
		words = append(words, "constant rate")
	}
	if p.VouchedOnly {
		words = append(words, "carried by vouched nodes only")
	}
	return strings.Join(words, ", ")
}

func opTargets(op *room.Op) []peer.ID {
	out := slices.Clone(op.Targets)
	for _, a := range op.Admissions {
		out = append(out, a.Peer)
	}
	return out
}

// verbs say what an op did, between its author and its targets.
var verbs = map[room.Kind]string{
	room.Appoint: "made a moderator of", room.Dismiss: "dismissed", room.Transfer: "handed the room to", room.SetPolicy: "changed the room",
	room.Checkpoint: "made a checkpoint", room.End: "ended the room", room.Admit: "let in", room.Decline: "declined", room.Kick: "removed",
	room.Ban: "banned", room.Unban: "lifted the ban of", room.ToStage: "invited to the stage", room.ToAudience: "moved to the audience",
	room.Mute: "muted", room.Unmute: "unmuted", room.Lower: "lowered the hand of", room.Revoke: "revoked the invite", room.Vouch: "vouched for the relay",
	room.Unvouch: "no longer vouches for", room.Lock: "locked the room", room.Unlock: "unlocked the room", room.NewEpoch: "changed the key",
	room.TallyUses: "counted guests by the invite", room.Succeed: "took the room over as heir",
}
