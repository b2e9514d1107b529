package session

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/ledger"
	"balai/room/overlay"
	"balai/room/wire"
)

const (
	presencePeriod = 2 * time.Second
	presenceTTL    = 10 * time.Second
	hearsayTTL     = 4 * presencePeriod
	beatPeriod     = time.Second
	beatsPerStep   = 10
	heardPeriod    = 5 * time.Second
	bigRoom        = 16 // people; in a larger room the audience speaks of itself half as often
	beatsKept      = 16
	lateHand       = 5     // beats that a hand may lie before it was last seen down
	leapLimit      = 86400 // beats that a chair may leap
	maxLines       = 500
	maxText        = 2000 // runes of a chat line
)

// presence is what a live member says of itself.
type presence struct {
	seen          time.Time
	said          time.Time // its own last presence came then
	born          time.Time // and the first of its process
	timeMs        int64     // of its last presence
	beatMs        int64     // of its last beat
	reactMs       int64     // of its last reaction
	record        []byte    // its own peer record, as it told it last
	instance      string
	name          string
	headline      string
	muted         bool
	hand          *wire.Hand
	downAt        uint64 // beat at which its hand was last seen down
	handoutKey    []byte
	handoutMs     int64
	handoutSigned []byte // the record that said so
	source        *Source
	signed        *wire.Signed // its Source record
	signedCtr     uint32       // the counter that it tells
	sourceMs      int64        // when it was signed
	clockAt       time.Time    // when source.Now was told
	epochs        []room.EpochID
	since         time.Time // here since
	links         []overlay.Short
	direct        map[peer.ID]bool // whom it reached by a probe
	listeners     uint32           // who hear by it and are in no gossip
}

// presenceEvery is how often I say that I am here: who speaks or carries the room always as often, the audience of a large
// room, whose number makes the traffic, half as often.
func (s *Session) presenceEvery() time.Duration { return s.presenceOf(s.me) }

func (s *Session) presenceOf(p peer.ID) time.Duration {
	lease := s.carry.force.Lease()
	if s.people() <= bigRoom || s.state.Members[p].OnStage || s.state.Role(p).Authority() || lease != nil && lease.Holds(p) {
		return presencePeriod
	}
	return 2 * presencePeriod
}

func (s *Session) heardEvery() time.Duration {
	if s.people() <= bigRoom {
		return heardPeriod
	}
	return 2 * heardPeriod
}

// beatState is the chair's clock as this daemon knows it.
type beatState struct {
	term   uint64
	seq    uint64 // the highest known
	steady int    // beats of mine since the ratchet moved
	mine   bool   // the last one was mine
	chair  peer.ID
	recent []knownBeat
}

type knownBeat struct {
	seq uint64
	key string
	sig string
}

// touch keeps a member live.
func (s *Session) touch(p peer.ID, now time.Time) *presence {
	l := s.live[p]
	if l == nil {
		l = &presence{muted: true, since: now}
		s.live[p] = l
		s.dirty = true
	}
	l.seen = now
	return l
}

// expire forgets who has been silent.
func (s *Session) expire(now time.Time) {
	s.touch(s.me, now)
	for p, l := range s.live {
		if now.Sub(l.seen) > presenceTTL {
			s.gone(p, now)
		}
	}
	for p, until := range s.grace {
		if now.After(until) {
			delete(s.grace, p)
			s.gate(now)
			s.dirty = true
		}
	}
	every := s.heardEvery()
	for id, by := range s.heard {
		for p, at := range by {
			if now.Sub(at) > 2*every {
				delete(by, p)
				s.dirty = true
			}
		}
		if len(by) == 0 {
			delete(s.heard, id)
		}
	}
	for p, ms := range s.past {
		if !near(ms, now) {
			delete(s.past, p)
		}
	}
	for p, at := range s.asked {
		if now.Sub(at) > time.Minute {
			delete(s.asked, p)
		}
	}
	s.forgetClaims(now)
}

// gone drops a member that left or fell silent; a new epoch follows in a while.
func (s *Session) gone(p peer.ID, now time.Time) {
	s.forget(p)
	s.dirty = true
	s.owe(now.Add(leaveBatch), causeLeave)
}

// forget drops a member; what it said before does not bring it back.
func (s *Session) forget(p peer.ID) {
	if l := s.live[p]; l != nil {
		s.past[p] = max(s.past[p], l.timeMs, l.beatMs)
	}
	delete(s.live, p)
	delete(s.asked, p)
}

// hearsay takes a member for live because another says so: its own word has to follow soon.
func (s *Session) hearsay(p peer.ID, now time.Time) {
	if s.live[p] == nil {
		s.touch(p, now).seen = now.Add(hearsayTTL - presenceTTL)
	}
}

func (s *Session) sendPresence(now time.Time) {
	s.seq++
	l := s.touch(s.me, now)
	prof := s.cfg.Profile()
	l.name, l.headline, l.muted, l.hand = prof.Name, prof.Headline, s.muted, s.hand
	heads := ledger.EncodeSeen(s.ledger.Heads())
	m := &wire.Presence{
		Room: s.cfg.Room[:], Peer: []byte(s.me), Seq: s.seq, TimeMs: now.UnixMilli(), Name: prof.Name, Headline: prof.Headline,
		Muted: s.muted, Hand: s.hand, HandoutKey: s.toldHandoutKey(now), Record: s.cfg.Ports.Record(), Instance: s.instance, Heads: heads,
		Source: s.signSource(now), Links: s.linkedShort(), Direct: s.directTold(), Listeners: uint32(s.guestsHere()),
	}
	for _, e := range s.keys.epochs {
		m.Epochs = append(m.Epochs, bytes.Clone(e.ID[:]))
	}
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Presence{Presence: wire.Sign(s.cfg.Key, wire.DomainPresence, m)}})
}

func (s *Session) gotPresence(p peer.ID, m *wire.Presence, now time.Time) {
	if s.phase != Live || s.state.Role(p) == room.NoRole {
		return
	}
	if p == s.me {
		s.gotMyself(m, now)
		return
	}
	if m.TimeMs <= s.past[p] {
		return // from before it was gone
	}
	if l := s.live[p]; l != nil && m.TimeMs <= l.timeMs {
		return // said again, by whoever: that does not keep her here
	}
	l := s.touch(p, now)
	fresh, old := l.timeMs == 0, *l
	if l.instance != string(m.Instance) {
		l.born = now
	}
	l.timeMs, l.instance, l.said = m.TimeMs, string(m.Instance), now
	prof := identity.Profile{Name: m.Name, Headline: m.Headline}
	if prof.Validate() == nil {
		l.name, l.headline = m.Name, m.Headline
	}
	s.takeHand(p, l, m.Hand, fresh)
	l.muted = m.Muted
	s.takeHandoutKey(p, m.HandoutKey)
	s.takeSource(p, m.Source)
	l.takeReach(m)
	l.epochs = l.epochs[:0]
	for _, id := range m.Epochs {
		if len(id) == 16 && len(l.epochs) < epochsKept {
			l.epochs = append(l.epochs, room.EpochID(id))
		}
	}
	if len(m.Record) > 0 && !bytes.Equal(m.Record, l.record) {
		l.record = m.Record // a new one tells of a reservation, or of another network
		s.cfg.Ports.Learn(m.Record, p)
	}
	if fresh {
		v := s.memberView(p)
		s.emit(Event{Kind: EventMember, Member: &v})
	}
	s.compareHeads(p, m.Heads)
	if fresh || !l.looksLike(&old) {
		s.dirty = true
	}
}

// looksLike tells whether nothing follows from what a presence said anew: most say the same again.
func (l *presence) looksLike(old *presence) bool {
	return l.name == old.name && l.headline == old.headline && l.muted == old.muted && l.hand == old.hand &&
		l.listeners == old.listeners && slices.Equal(l.links, old.links) && maps.Equal(l.direct, old.direct)
}

// gotMyself hears a presence of my own key: an echo, what an earlier process said, or a second device. Of two
// the one that came later goes; if both are new or both old, the one with the higher instance.
func (s *Session) gotMyself(m *wire.Presence, now time.Time) {
	if bytes.Equal(m.Instance, s.instance) || m.TimeMs < s.since.UnixMilli() {
		return
	}
	const young = uint64(presenceTTL / presencePeriod)
	newcomer, newer := now.Sub(s.since) < presenceTTL, m.Seq <= young
	if newcomer && !newer || newcomer == newer && bytes.Compare(s.instance, m.Instance) > 0 {
		s.refuse(room.SecondDevice)
	}
}

func (s *Session) gotLeave(p peer.ID, m *wire.Leave, now time.Time) {
	l := s.live[p]
	if s.phase != Live || p == s.me || m.TimeMs < s.past[p] || l != nil && (m.TimeMs < l.timeMs || l.instance != "" && l.instance != string(m.Instance)) {
		return
	}
	if l != nil {
		s.gone(p, now)
	}
	if lease := s.carry.force.Lease(); lease != nil && lease.Holds(p) {
		s.carry.leavers[p] = now
	}
	s.past[p] = m.TimeMs
}

// ranked is the order of succession among live people: host, moderators, speakers by time on stage.
func (s *Session) ranked() []peer.ID {
	out := append([]peer.ID{s.state.Host}, s.state.Moderators...)
	for _, p := range s.state.Stage {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// takeChair sends the beat when it is my turn; each tenth moves the ratchet.
func (s *Session) takeChair(now time.Time) {
	ranked := s.ranked()
	chair, mine, _ := s.chair.Current(ranked, s.me, now)
	if chair != s.beat.chair {
		s.beat.chair, s.dirty = chair, true
	}
	if !mine || !s.due.passed(&s.due.beat, now, beatPeriod) {
		return
	}
	if !s.beat.mine {
		s.beat.term++
		s.beat.mine, s.beat.steady = true, 0
	}
	// By the room's clock, so that a chair that heard no beat before it goes on where the others were.
	s.beat.seq = max(s.beat.seq+1, s.age(now))
	e, ok := s.keys.sealing()
	if s.beat.steady++; ok && s.beat.steady >= beatsPerStep {
		s.beat.steady = 0
		s.adoptStep(room.EpochID(e.ID), e.Step+1, now)
		e, _ = s.keys.sealing()
	}
	b := &wire.Beat{Room: s.cfg.Room[:], Term: s.beat.term, Seq: s.beat.seq, EpochId: e.ID[:], Step: e.Step, TimeMs: now.UnixMilli(), Heads: ledger.EncodeSeen(s.ledger.Heads())}
	signed := wire.Sign(s.cfg.Key, wire.DomainBeat, b)
	s.chair.Heard(s.me, now)
	s.remember(signed, b)
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Beat{Beat: signed}})
}

// age is how long ago the room was opened, in beats.
func (s *Session) age(now time.Time) uint64 {
	return uint64(max(now.Sub(s.ledger.Created()), 0) / beatPeriod)
}

func (s *Session) remember(signed *wire.Signed, b *wire.Beat) {
	s.beat.recent = append(s.beat.recent, knownBeat{b.Seq, string(signed.Key), string(signed.Sig)})
	if len(s.beat.recent) > beatsKept {
		s.beat.recent = s.beat.recent[1:]
	}
	if s.hand != nil && len(s.hand.BeatSig) == 0 { // raised before any beat was heard
		s.hand = s.newHand()
		s.due.presence, s.dirty = time.Time{}, true
	}
}

func (s *Session) gotBeat(p peer.ID, signed *wire.Signed, b *wire.Beat, now time.Time) {
	if s.phase != Live || p == s.me {
		return
	}
	ranked := s.ranked()
	if !slices.Contains(ranked, p) || b.TimeMs <= s.past[p] {
		return
	}
	if l := s.live[p]; l != nil {
		if b.TimeMs <= l.beatMs {
			return // again, or overtaken
		}
		l.beatMs = b.TimeMs
	}
	s.chair.Heard(p, now)
	if len(b.EpochId) == 16 {
		s.adoptStep(room.EpochID(b.EpochId), b.Step, now)
	}
	if chair, _, _ := s.chair.Current(ranked, s.me, now); chair != p {
		return
	}
	s.touch(p, now).beatMs = b.TimeMs
	s.beat.mine, s.beat.term = false, b.Term
	if b.Seq <= max(s.beat.seq, s.age(now))+leapLimit {
		s.beat.seq = max(s.beat.seq, b.Seq)
		s.remember(signed, b)
	}
	s.compareHeads(p, b.Heads)
}

// raiseHand is RaiseHand in the session's goroutine.
func (s *Session) raiseHand(raised bool) error {
	if s.phase != Live {
		return ErrOver
	}
	if raised == (s.hand != nil) {
		return nil
	}
	s.hand = nil
	if raised {
		s.hand = s.newHand()
	}
	s.touch(s.me, time.Now()).hand = s.hand
	s.due.presence, s.dirty = time.Time{}, true
	s.tellHand(s.me)
	return nil
}

// newHand is a hand at the last beat heard.
func (s *Session) newHand() *wire.Hand {
	if n := len(s.beat.recent); n > 0 {
		k := s.beat.recent[n-1]
		return &wire.Hand{Beat: k.seq, BeatSig: []byte(k.sig), Chair: []byte(k.key)}
	}
	return &wire.Hand{}
}

// takeHand accepts a raised hand unless it names a beat that was not so, or one at which it was still down.
func (s *Session) takeHand(p peer.ID, l *presence, h *wire.Hand, fresh bool) {
	had := l.hand != nil
	switch {
	case h == nil:
		l.downAt = s.beat.seq
	case had && h.Beat == l.hand.Beat && bytes.Equal(h.BeatSig, l.hand.BeatSig):
		return
	case !fresh && h.Beat+lateHand < l.downAt || !s.beatWasSo(h):
		h = nil
	}
	l.hand = h
	if had != (h != nil) {
		s.tellHand(p)
	}
}

// beatWasSo is false for a beat that I know otherwise.
func (s *Session) beatWasSo(h *wire.Hand) bool {
	for _, k := range s.beat.recent {
		if k.seq == h.Beat && k.key == string(h.Chair) && k.sig != string(h.BeatSig) {
			return false
		}
	}
	return len(h.BeatSig) <= ed25519.SignatureSize && len(h.Chair) <= ed25519.PublicKeySize && h.Beat < math.MaxUint64-lateHand
}

// handOf is p's raised hand, unless an authority lowered it.
func (s *Session) handOf(p peer.ID) (*wire.Hand, bool) {
	l := s.live[p]
	if l == nil || l.hand == nil || s.state.Members[p].OnStage {
		return nil, false
	}
	if low, ok := s.loweredAt(p); ok && l.hand.Beat <= low {
		return nil, false
	}
	return l.hand, true
}

// loweredAt is the beat at and before which a hand of p is down, if any is: not one that no beat can have reached by now, or one
// decision took it down for ever.
func (s *Session) loweredAt(p peer.ID) (low uint64, ok bool) {
	low, ok = s.state.Lowered[p]
	return low, ok && low <= max(s.beat.seq, s.age(time.Now()))+leapLimit
}

// hands is the queue, the same for all: by beat, then by hash of the beat's signature and the peer.
func (s *Session) hands() []peer.ID {
	type raised struct {
		p    peer.ID
		beat uint64
		tie  [32]byte
	}
	var q []raised
	for p := range s.live {
		if h, up := s.handOf(p); up {
			q = append(q, raised{p, h.Beat, sha256.Sum256(append(slices.Clone(h.BeatSig), p...))})
		}
	}
	slices.SortFunc(q, func(a, b raised) int {
		if a.beat != b.beat {
			if a.beat < b.beat {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.tie[:], b.tie[:])
	})
	out := make([]peer.ID, len(q))
	for i, r := range q {
		out[i] = r.p
	}
	return out
}

func (s *Session) tellHand(p peer.ID) {
	pos := slices.Index(s.hands(), p) + 1
	s.emit(Event{Kind: EventHand, Hand: &HandEvent{PeerID: p.String(), Raised: pos > 0, Position: pos}})
}
