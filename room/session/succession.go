package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

// The heir whom the genesis names takes over a room whose host is lost, when most moderators agree. No daemon agrees by
// itself: the heir's asks the moderators' by streams for as long as her wish stands, and each shows the question to its
// person.

const (
	hostSilence = 24 * time.Hour // the host is not heard for so long: then the heir may ask. A night's sleep is less
	wishStands  = time.Hour      // from when the heir asked
	wishPeriod  = 5 * time.Second
	questionTTL = 4 * wishPeriod // a question that is not asked again is over
	heardStored = time.Hour      // when the host was heard is stored this often, and when she falls silent
)

// errNoModerator says why an heir has nobody to ask.
var errNoModerator = fmt.Errorf("nobody can agree: the room has no moderator besides you: %w", ErrForbidden)

// errNotAsked refuses an answer to no question.
var errNotAsked = fmt.Errorf("no heir asks you now: %w", ErrUnknown)

// succession is what this daemon knows of the host's absence and of the heir's wish.
type succession struct {
	host   peer.ID   // whose silence is measured
	heard  time.Time // when she was heard last, by this daemon's clock; when I came, if never
	stored time.Time // the value of heard that the disk holds

	wish wish

	// At a moderator.
	question room.OpID // the cut that I am asked to agree to
	asked    time.Time // when the last time
	answers  map[room.OpID]bool
}

// wish is the heir's, while she asks the moderators.
type wish struct {
	until   time.Time // zero: none
	cut     room.OpID // the host's last op, which the votes name
	votes   map[peer.ID]room.Consent
	against map[peer.ID]bool
	tried   map[peer.ID]time.Time
}

// loadHeard takes up when an earlier run heard the host: seconds u64, then her peer id.
func (s *Session) loadHeard(b []byte) {
	if len(b) <= 8 {
		return
	}
	at := time.Unix(int64(binary.BigEndian.Uint64(b)), 0)
	if now := time.Now(); at.After(now) {
		at = now
	}
	s.heir.host, s.heir.heard, s.heir.stored = peer.ID(b[8:]), at, at
}

// tendHost keeps in mind when the host was heard.
func (s *Session) tendHost(now time.Time) {
	h, x := s.state.Host, &s.heir
	if h == s.me || s.guest {
		*x = succession{}
		return
	}
	if x.host != h {
		*x = succession{host: h, heard: now}
	}
	here := s.hostHere()
	if here { // a question is over, and the word given to it: her next absence is another
		x.heard, x.answers = now, nil
		if !x.asked.IsZero() {
			x.asked, s.dirty = time.Time{}, true
		}
	}
	if wait := x.heard.Sub(x.stored); wait >= heardStored || !here && wait > 0 {
		x.stored = x.heard
		b := append(binary.BigEndian.AppendUint64(nil, uint64(x.heard.Unix())), h...)
		if err := s.cfg.Ports.Save("host", b); err != nil {
			s.cfg.Log.Warn("when the host was heard is not stored", "err", err)
		}
	}
	if !x.asked.IsZero() && now.Sub(x.asked) > questionTTL {
		x.asked, s.dirty = time.Time{}, true
	}
	s.tendWish(now)
}

// hostHere tells whether the host speaks here, or I am she.
func (s *Session) hostHere() bool {
	l := s.live[s.state.Host]
	return s.state.Host == s.me || l != nil && !l.said.IsZero()
}

// wantRoom begins the heir's wish. Asking again begins it anew: who had said no is asked again.
func (s *Session) wantRoom(now time.Time) error {
	if s.phase != Live {
		return ErrOver
	}
	s.tendHost(now)
	switch {
	case s.ledger.Heir() != s.me || s.state.Host == s.me:
		return ErrForbidden
	case s.hostHere():
		return fmt.Errorf("the host is here: %w", ErrForbidden)
	case now.Sub(s.since) < presenceTTL:
		return fmt.Errorf("you have just come, and the host may be here: %w", room.Busy)
	case now.Before(s.heir.heard.Add(hostSilence)):
		return fmt.Errorf("the host has to be silent for %v, and was heard %v ago: %w", hostSilence, now.Sub(s.heir.heard).Round(time.Minute), ErrForbidden)
	case s.votesNeeded() > len(s.electors()):
		return errNoModerator
	}
	s.heir.wish = wish{
		until: now.Add(wishStands), cut: s.ledger.LastOfHost().Hash,
		votes: map[peer.ID]room.Consent{}, against: map[peer.ID]bool{}, tried: map[peer.ID]time.Time{},
	}
	s.dirty = true
	s.tendWish(now)
	return nil
}

// electors are the moderators besides the heir.
func (s *Session) electors() []peer.ID {
	return slices.DeleteFunc(slices.Clone(s.state.Moderators), func(p peer.ID) bool { return p == s.ledger.Heir() })
}

// votesNeeded is how many electors have to agree: with the heir, if she is a moderator, more than half of all moderators.
func (s *Session) votesNeeded() int {
	mods := len(s.state.Moderators)
	return max(mods/2+1-(mods-len(s.electors())), 1)
}

// tendWish asks the moderators who are here and have not answered.
func (s *Session) tendWish(now time.Time) {
	w := &s.heir.wish
	if w.until.IsZero() {
		return
	}
	if now.After(w.until) || s.hostHere() {
		*w, s.dirty = wish{}, true
		return
	}
	if cut := s.ledger.LastOfHost().Hash; cut != w.cut { // an op of hers that came late: the votes name another
		w.cut, s.dirty = cut, true
		clear(w.votes)
	}
	for _, p := range s.electors() {
		if _, agreed := w.votes[p]; agreed || w.against[p] || s.live[p] == nil || now.Sub(w.tried[p]) < wishPeriod {
			continue
		}
		w.tried[p] = now
		s.askVote(p, w.cut)
	}
}

func (s *Session) askVote(p peer.ID, cut room.OpID) {
	s.wg.Go(func() {
		rep, err := s.fetch(s.ctx, p, &wire.LedgerRequest{Room: s.cfg.Room[:], Succeed: cut[:]})
		_ = s.call(s.ctx, func() error { return s.takeVote(p, cut, rep, err) })
	})
}

// takeVote counts what a moderator said; with enough votes the room is mine.
func (s *Session) takeVote(p peer.ID, cut room.OpID, rep *wire.LedgerReply, err error) error {
	w := &s.heir.wish
	if w.until.IsZero() || w.cut != cut || s.phase != Live {
		return nil
	}
	if errors.Is(err, room.Declined) {
		w.against[p], s.dirty = true, true
		return nil
	}
	if err != nil || rep.Accept == nil || !slices.Contains(s.electors(), p) {
		return nil
	}
	c, err := ledger.Agreed(rep.Accept, room.Succeed, s.cfg.Room, s.cfg.Key.Public(), cut)
	if err != nil || c.By != p {
		return nil
	}
	w.votes[p], s.dirty = c, true
	if s.hostHere() || len(w.votes) < s.votesNeeded() {
		return nil
	}
	op := room.Op{Kind: room.Succeed}
	for _, v := range sortedKeys(w.votes) {
		op.Consents = append(op.Consents, w.votes[v])
	}
	*w = wish{}
	if _, err := s.appendOp(op, time.Now(), true); err != nil {
		s.cfg.Log.Error("the room was not taken over", "err", err)
	}
	return nil
}

// askedToAgree answers the heir: with this person's word, or that she has not given it yet.
func (s *Session) askedToAgree(p peer.ID, cut []byte, now time.Time) *wire.LedgerReply {
	heir, err := identity.PublicOf(p)
	switch {
	case len(cut) != len(room.OpID{}) || err != nil:
		return refuseLedger(room.Malformed)
	case p != s.ledger.Heir() || p == s.state.Host || s.state.Role(s.me) != room.Moderator:
		return refuseLedger(room.NoAdmitter)
	case s.ledger.LastOfHost().Hash != room.OpID(cut):
		s.fetchFrom(p)
		return refuseLedger(room.Busy)
	}
	s.tendHost(now)
	x := &s.heir
	if s.hostHere() || now.Before(x.heard.Add(hostSilence)) { // an heir's daemon may be another program that asks too soon
		return refuseLedger(room.Busy)
	}
	x.question, x.asked, s.dirty = room.OpID(cut), now, true
	switch agree, answered := x.answers[x.question]; {
	case !answered:
		return refuseLedger(room.Busy)
	case !agree:
		return refuseLedger(room.Declined)
	}
	c := ledger.Agree(s.cfg.Key, room.Succeed, s.cfg.Room, heir, x.question)
	return &wire.LedgerReply{Accept: &wire.Signed{Body: c.Body, Sig: c.Sig, Key: s.cfg.Key.Public()}}
}

// isAsked tells whether the heir p waits for my word.
func (s *Session) isAsked(p peer.ID) bool {
	return s.phase == Live && !s.heir.asked.IsZero() && !s.hostHere() && p == s.ledger.Heir() && s.state.Role(s.me) == room.Moderator
}

// agree is this person's word to the heir. A yes may have been given on: it cannot be taken back.
func (s *Session) agree(p peer.ID, yes bool) error {
	if !s.isAsked(p) {
		return errNotAsked
	}
	if s.heir.answers == nil {
		s.heir.answers = map[room.OpID]bool{}
	}
	s.heir.answers[s.heir.question], s.dirty = yes || s.heir.answers[s.heir.question], true
	return nil
}

// succeed is Act of a succession: the heir wants the room, or a moderator agrees.
func (s *Session) succeed(ctx context.Context, target peer.ID) error {
	return s.call(ctx, func() error {
		if target == "" {
			return s.wantRoom(time.Now())
		}
		return s.agree(target, true)
	})
}

// viewSuccession tells of the heir, of the host's absence, and of what is asked.
func (s *Session) viewSuccession(v *View) {
	w, out := &s.heir.wish, &v.Succession
	out.Agreed, out.Against = []string{}, []string{}
	if heir := s.ledger.Heir(); heir != "" && heir != s.state.Host {
		out.Heir, out.HeirName = s.idOf(heir), s.nameOf(heir)
	}
	if s.phase != Live || s.guest || s.hostHere() || s.heir.host != s.state.Host {
		return
	}
	heard, from := s.heir.heard.UTC(), s.heir.heard.Add(hostSilence).UTC()
	out.HostHeardAt, out.From = &heard, &from
	if out.Heir == "" {
		return
	}
	out.Needed = s.votesNeeded()
	if out.Asking = !w.until.IsZero(); out.Asking {
		for _, p := range sortedKeys(w.votes) {
			out.Agreed = append(out.Agreed, s.idOf(p))
		}
		for _, p := range sortedKeys(w.against) {
			out.Against = append(out.Against, s.idOf(p))
		}
	}
	if s.isAsked(s.ledger.Heir()) {
		agreed, answered := s.heir.answers[s.heir.question]
		out.Asked, out.Answer = true, answerWord(agreed, answered)
	}
}

func answerWord(agreed, answered bool) string {
	switch {
	case !answered:
		return ""
	case agreed:
		return "yes"
	}
	return "no"
}
