package session

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/sframe"
	"balai/room/wire"
)

// maxSources bounds what one daemon keeps of others' sources.
const maxSources = 64

// ownSource is my media source: a new salt at each process start, so that no (key, counter) comes twice.
type ownSource struct {
	salt [8]byte
	id   uint32
	ctr  uint32 // at least the highest that the media path has used

	drawn   time.Time // zero: at the start of the process
	yielded time.Time // when I last gave one up
}

func newOwnSource(id room.ID, me peer.ID) (o ownSource) {
	o.salt = [8]byte(randomBytes(8))
	o.id = sourceID(id, me, o.salt)
	return o
}

// renewAt is the counter at which a new source is drawn: half an hour of ticks before the last one.
const renewAt = sframe.MaxCounter - 90_000

// countSource follows the counter of my source id; one that nears its end is left for a new one. A report of one that was
// left may still come after that.
func (s *Session) countSource(id, ctr uint32) {
	switch {
	case id != s.own.id:
	case ctr < renewAt:
		s.own.ctr = max(s.own.ctr, ctr)
	default:
		s.drawSource(time.Now())
	}
}

// sourceID is the first 3 bytes of SHA-256("balai-source/1" || room || peer || salt).
func sourceID(id room.ID, p peer.ID, salt [8]byte) uint32 {
	return sframe.Owner{Room: id, Peer: string(p), Salt: salt}.Source()
}

func (s *Session) signSource(now time.Time) *wire.Signed {
	e, _ := s.keys.sealing()
	if m := &s.signedSource; m.signed != nil && now.Sub(m.at) < sourceAgain && s.signedFor == (sourceOf{s.own.id, e.ID}) {
		return m.signed
	}
	s.signedFor = sourceOf{s.own.id, e.ID}
	m := &wire.Source{Room: s.cfg.Room[:], Peer: []byte(s.me), Salt: s.own.salt[:], EpochId: e.ID[:], Ctr: s.own.ctr, TimeMs: now.UnixMilli()}
	s.signedSource = made{wire.Sign(s.cfg.Key, wire.DomainSource, m), now}
	return s.signedSource.signed
}

// sourceOf is what a signed source speaks of besides its counter.
type sourceOf struct {
	id    uint32
	epoch sframe.EpochID
}

// takeSource accepts a member's source unless another holds the same 24 bits.
func (s *Session) takeSource(p peer.ID, signed *wire.Signed) {
	l := s.live[p]
	if signed == nil || l == nil || p == s.me {
		return
	}
	if l.signed != nil && bytes.Equal(l.signed.Body, signed.Body) {
		return
	}
	src, ok := sourceOwner(signed, s.cfg.Room)
	if !ok || src.Peer != p {
		return
	}
	if l.source != nil && l.source.Salt == src.Salt {
		l.follow(signed, &src.Source, s.state.Members[p].OnStage)
		l.sourceMs = max(l.sourceMs, src.at)
		return // the window keeps its start
	}
	if l.source != nil && src.at <= l.sourceMs {
		return // of an earlier life, said again
	}
	if s.taken(src.ID, p) {
		s.cfg.Log.Info("source refused: in force from another peer", "peer", p)
		if src.ID == s.own.id {
			s.yield(p, l, time.Now())
		}
		return
	}
	src.Now = src.Ctr
	l.source, l.signed, l.sourceMs, l.clockAt, s.dirty = &src.Source, signed, src.at, time.Now(), true
}

// yieldAgain is the least time between two of my sources that I give up for others'.
const yieldAgain = time.Minute

// yield draws a new source when p's has the same 24 bits as mine and mine is the younger one, as far as can be known: it is
// new itself; or p came with hers from beyond a partition, and has the lower short id. Who draws such a source to take mine away
// is refused by all who hold mine, and by me.
func (s *Session) yield(p peer.ID, l *presence, now time.Time) {
	mine, theirs := identity.ShortID(s.me), identity.ShortID(p)
	lower := bytes.Compare(mine[:], theirs[:]) < 0
	young := s.since.IsZero() || now.Sub(s.since) < presenceTTL || now.Sub(s.own.drawn) < presenceTTL
	if !young && (lower || l.source != nil) || now.Sub(s.own.yielded) < yieldAgain {
		return
	}
	s.drawSource(now)
	s.own.yielded = now
}

// drawSource begins a new source of mine, which nobody here has.
func (s *Session) drawSource(now time.Time) {
	yielded := s.own.yielded
	for held := true; held; held = s.heldByOther(s.own.id, s.me) {
		s.own = newOwnSource(s.cfg.Room, s.me)
	}
	s.own.drawn, s.own.yielded = now, yielded
	s.due.presence, s.dirty = time.Time{}, true
}

// clockSlack is how far an owner's counter may be from what the media path was told last, in ticks of 20 ms.
const clockSlack = 100

// follow keeps the newest record of a source that is in force. Where the counter of somebody on stage is, is told with each
// new one: frames of long before were held back. Of others it only matters when it is far ahead of where time has brought
// it: one of the two machines slept.
func (l *presence) follow(signed *wire.Signed, src *Source, onStage bool) {
	now := time.Now()
	expected := l.source.Now
	if !onStage {
		expected += uint32(now.Sub(l.clockAt) / (20 * time.Millisecond))
	}
	if src.Ctr < l.signedCtr {
		return // an older one, said again
	}
	l.signed, l.signedCtr = signed, src.Ctr
	if d := int64(src.Ctr) - int64(expected); d > clockSlack {
		fresh := *l.source
		fresh.Now = src.Ctr
		l.source, l.clockAt = &fresh, now
	}
}

// takeSourceOf is takeSource for a record whose peer stands in it only.
func (s *Session) takeSourceOf(signed *wire.Signed) {
	var m wire.Source
	p, err := wire.Open(signed, wire.DomainSource, &m)
	if err == nil && s.state.Role(p) != room.NoRole {
		s.takeSource(p, signed)
	}
}

func (s *Session) taken(id uint32, by peer.ID) bool {
	return id == s.own.id || s.heldByOther(id, by)
}

func (s *Session) heldByOther(id uint32, by peer.ID) bool {
	for p, l := range s.live {
		if p != by && l.source != nil && l.source.ID == id {
			return true
		}
	}
	return false
}

func (s *Session) knownSource(id uint32) bool { return s.taken(id, "") }

// sourceRecords are the signed sources of those on stage, mine first, then who is longest there.
func (s *Session) sourceRecords(now time.Time) []*wire.Signed {
	out := []*wire.Signed{s.signSource(now)}
	for _, p := range s.state.Stage {
		if l := s.live[p]; p != s.me && l != nil && l.signed != nil {
			out = append(out, l.signed)
		}
	}
	return out
}

// maxTold is how large a record on a link gets by sources: what does not fit is said again every 10 s. A longer one ends the link.
const maxTold = 12 << 10

// fitting are as many sources as a record of that size may carry besides.
func fitting(size int, sources []*wire.Signed) []*wire.Signed {
	for i, src := range sources {
		if size += proto.Size(src) + 4; size > maxTold {
			return sources[:i]
		}
	}
	return sources
}

// replan tells the media path and the link keeper what follows from the state, when it changed.
func (s *Session) replan(now time.Time) {
	if s.phase != Live || !s.dirty {
		return
	}
	p := s.makePlan()
	if !samePlan(&p, &s.plan) {
		s.plan = p
		for q := range s.carry.linked {
			if !slices.Contains(p.Plan.Links, q) {
				delete(s.carry.linked, q)
			}
		}
		s.cfg.Ports.Media(p)
		s.cfg.Ports.Links(p.Plan, []*wire.Signed{s.signSource(now)})
		return
	}
	s.plan.Plan = p.Plan // drawn anew, the same place: step has to see no change in it
}

func (s *Session) makePlan() Media {
	me := s.state.Members[s.me]
	p := Media{
		Room: s.cfg.Room, Me: Source{Peer: s.me, ID: s.own.id, Salt: s.own.salt, Ctr: s.own.ctr, Allowed: me.OnStage && !me.Muted},
		Send: me.OnStage && !me.Muted && !s.muted, Epochs: slices.Clone(s.keys.epochs), Seal: s.keys.at(s.keys.seal),
		ConstantRate: s.state.Policy.ConstantRate, Commits: s.commits(), Plan: s.carry.overlay.Plan(),
	}
	for q, m := range s.state.Members {
		if q == s.me {
			continue
		}
		if l := s.live[q]; l != nil && l.source != nil {
			src := *l.source
			src.Allowed = m.OnStage && !m.Muted
			p.Sources = append(p.Sources, src)
		}
	}
	slices.SortFunc(p.Sources, func(a, b Source) int { return bytes.Compare([]byte(a.Peer), []byte(b.Peer)) })
	return p
}

// commits name the last epochs.
func (s *Session) commits() (out []room.EpochCommit) {
	for _, c := range s.state.Epochs {
		if c.N+epochsKept > s.state.Epoch.N {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b room.EpochCommit) int {
		return cmp.Or(cmp.Compare(a.N, b.N), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return out
}

// samePlan compares all but my own counter, which the media path knows better.
func samePlan(a, b *Media) bool {
	return a.Room == b.Room && a.Send == b.Send && a.Seal == b.Seal && a.Me.Allowed == b.Me.Allowed && a.ConstantRate == b.ConstantRate &&
		a.Me.Salt == b.Me.Salt && slices.Equal(a.Epochs, b.Epochs) && slices.Equal(a.Sources, b.Sources) && slices.Equal(a.Commits, b.Commits) && samePlace(a.Plan, b.Plan)
}

// toDial are the live members that I call: those who were here before me. After a while without a link
// the link keeper calls the others too.
func (s *Session) toDial() (out []peer.ID) {
	mine := s.state.Members[s.me].Since
	for _, p := range s.others() {
		theirs := s.state.Members[p].Since
		if theirs.Before(mine) || theirs.Equal(mine) && p < s.me {
			out = append(out, p)
		}
	}
	return out
}

func sortPeers(p []peer.ID) { slices.Sort(p) }
