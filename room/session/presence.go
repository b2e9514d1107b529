package session

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

const (
	presencePeriod = 2 * time.Second
	presenceTTL    = 10 * time.Second
	beatPeriod     = time.Second
	beatsPerStep   = 10
	heardPeriod    = 5 * time.Second
	heardTTL       = 2 * heardPeriod
	beatsKept      = 16
	maxLines       = 500
	maxText        = 2000 // runes of a chat line
)

// presence is what a live member says of itself.
type presence struct {
	seen       time.Time
	timeMs     int64
	seq        uint64
	instance   string
	name       string
	headline   string
	muted      bool
	hand       *wire.Hand
	handoutKey []byte
	handoutMs  int64
	source     *Source
	signed     *wire.Signed // its Source record
	epochs     []room.EpochID
}

// beatState is the chair's clock as this daemon knows it.
type beatState struct {
	term   uint64
	seq    uint64
	last   *wire.Beat
	sig    []byte
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
		l = &presence{muted: true}
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
	for id, by := range s.heard {
		for p, at := range by {
			if now.Sub(at) > heardTTL {
				delete(by, p)
				s.dirty = true
			}
		}
		if len(by) == 0 {
			delete(s.heard, id)
		}
	}
	for h, at := range s.seen {
		if now.Sub(at) > 10*time.Minute {
			delete(s.seen, h)
		}
	}
}

// gone drops a member that left or fell silent; a new epoch follows in a while.
func (s *Session) gone(p peer.ID, now time.Time) {
	delete(s.live, p)
	s.dirty = true
	s.owe(now.Add(leaveBatch), causeLeave)
}

func (s *Session) sendPresence(now time.Time) {
	s.seq++
	l := s.touch(s.me, now)
	prof := s.cfg.Profile()
	l.name, l.headline, l.muted, l.hand = prof.Name, prof.Headline, s.muted, s.hand
	heads := ledger.EncodeSeen(s.ledger.Heads())
	m := &wire.Presence{
		Room: s.cfg.Room[:], Peer: []byte(s.me), Seq: s.seq, TimeMs: now.UnixMilli(), Name: prof.Name, Headline: prof.Headline,
		Muted: s.muted, Hand: s.hand, HandoutKey: s.signHandoutKey(now), Record: s.cfg.Ports.Record(), Instance: s.instance, Heads: heads,
		Source: s.signSource(now),
	}
	for _, e := range s.keys.epochs {
		m.Epochs = append(m.Epochs, bytes.Clone(e.ID[:]))
	}
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Presence{Presence: wire.Sign(s.cfg.Key, wire.DomainPresence, m)}})
}

func (s *Session) gotPresence(p peer.ID, m *wire.Presence, now time.Time) {
	if p == s.me || s.phase != Live || s.state.Role(p) == room.NoRole {
		return
	}
	l := s.touch(p, now)
	if m.TimeMs < l.timeMs {
		return
	}
	fresh := l.timeMs == 0
	l.timeMs, l.seq, l.instance = m.TimeMs, m.Seq, string(m.Instance)
	prof := identity.Profile{Name: m.Name, Headline: m.Headline}
	if prof.Validate() == nil {
		l.name, l.headline = m.Name, m.Headline
	}
	s.takeHand(p, l, m.Hand)
	l.muted = m.Muted
	s.takeHandoutKey(p, m.HandoutKey)
	s.takeSource(p, m.Source)
	l.epochs = l.epochs[:0]
	for _, id := range m.Epochs {
		if len(id) == 16 && len(l.epochs) < epochsKept {
			l.epochs = append(l.epochs, room.EpochID(id))
		}
	}
	if len(m.Record) > 0 && fresh {
		s.cfg.Ports.Learn(m.Record, p)
	}
	if fresh {
		v := s.memberView(p)
		s.emit(Event{Kind: EventMember, Member: &v})
	}
	s.compareHeads(p, m.Heads)
	s.dirty = true
}

func (s *Session) publishLeave(now time.Time) {
	m := &wire.Leave{Room: s.cfg.Room[:], Peer: []byte(s.me), TimeMs: now.UnixMilli(), Instance: s.instance}
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Leave{Leave: wire.Sign(s.cfg.Key, wire.DomainLeave, m)}})
}

func (s *Session) gotLeave(p peer.ID, m *wire.Leave, now time.Time) {
	if l := s.live[p]; l != nil && p != s.me && m.TimeMs >= l.timeMs {
		s.gone(p, now)
	}
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
	if s.beat.last == nil || s.beat.last.Term != s.beat.term || s.beat.seq == 0 {
		s.beat.term++
	}
	s.beat.seq++
	e, ok := s.keys.sealing()
	if ok && s.beat.seq%beatsPerStep == 0 {
		s.adoptStep(room.EpochID(e.ID), e.Step+1)
		e, _ = s.keys.sealing()
	}
	b := &wire.Beat{Room: s.cfg.Room[:], Term: s.beat.term, Seq: s.beat.seq, EpochId: e.ID[:], Step: e.Step, TimeMs: now.UnixMilli(), Heads: ledger.EncodeSeen(s.ledger.Heads())}
	signed := wire.Sign(s.cfg.Key, wire.DomainBeat, b)
	s.chair.Heard(s.me, now)
	s.remember(signed, b)
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Beat{Beat: signed}})
}

func (s *Session) remember(signed *wire.Signed, b *wire.Beat) {
	s.beat.last, s.beat.sig = b, signed.Sig
	s.beat.recent = append(s.beat.recent, knownBeat{b.Seq, string(signed.Key), string(signed.Sig)})
	if len(s.beat.recent) > beatsKept {
		s.beat.recent = s.beat.recent[1:]
	}
}

func (s *Session) gotBeat(p peer.ID, signed *wire.Signed, b *wire.Beat, now time.Time) {
	if s.phase != Live || p == s.me {
		return
	}
	ranked := s.ranked()
	rank := slices.Index(ranked, p)
	if rank < 0 {
		return
	}
	s.chair.Heard(p, now)
	if chair, _, _ := s.chair.Current(ranked, s.me, now); chair != p {
		return
	}
	s.touch(p, now)
	s.beat.term, s.beat.seq = b.Term, b.Seq
	s.remember(signed, b)
	if len(b.EpochId) == 16 {
		s.adoptStep(room.EpochID(b.EpochId), b.Step)
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
		s.hand = &wire.Hand{}
		if n := len(s.beat.recent); n > 0 {
			k := s.beat.recent[n-1]
			s.hand = &wire.Hand{Beat: k.seq, BeatSig: []byte(k.sig), Chair: []byte(k.key)}
		}
	}
	s.touch(s.me, time.Now()).hand = s.hand
	s.due.presence, s.dirty = time.Time{}, true
	s.tellHand(s.me)
	return nil
}

// takeHand accepts a raised hand unless it names a beat that was not so.
func (s *Session) takeHand(p peer.ID, l *presence, h *wire.Hand) {
	had := l.hand != nil
	if h != nil {
		if had && h.Beat == l.hand.Beat {
			return
		}
		for _, k := range s.beat.recent {
			if k.seq == h.Beat && k.key == string(h.Chair) && k.sig != string(h.BeatSig) {
				h = nil
				break
			}
		}
	}
	l.hand = h
	if had != (h != nil) {
		s.tellHand(p)
	}
}

// handOf is p's raised hand, unless an authority lowered it.
func (s *Session) handOf(p peer.ID) (*wire.Hand, bool) {
	l := s.live[p]
	if l == nil || l.hand == nil || s.state.Members[p].OnStage {
		return nil, false
	}
	if low, ok := s.state.Lowered[p]; ok && l.hand.Beat <= low {
		return nil, false
	}
	return l.hand, true
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
