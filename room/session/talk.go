package session

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// sendHeard tells whom I heard in the last period.
func (s *Session) sendHeard(now time.Time) {
	m := &wire.Heard{Room: s.cfg.Room[:], Peer: []byte(s.me), TimeMs: now.UnixMilli()}
	for _, r := range s.report.Sources {
		if now.Sub(r.LastHeard) < heardPeriod && r.Opened > 0 {
			m.Sources = append(m.Sources, []byte{byte(r.ID >> 16), byte(r.ID >> 8), byte(r.ID)})
		}
	}
	if len(m.Sources) == 0 {
		return
	}
	s.gotHeard(s.me, m, now)
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Heard{Heard: wire.Sign(s.cfg.Key, wire.DomainHeard, m)}})
}

func (s *Session) gotHeard(p peer.ID, m *wire.Heard, now time.Time) {
	if s.phase != Live {
		return
	}
	for i, b := range m.Sources {
		if len(b) != 3 || i >= maxSources {
			return
		}
		id := uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
		if !s.knownSource(id) {
			continue
		}
		if s.heard[id] == nil {
			s.heard[id] = map[peer.ID]time.Time{}
		}
		s.heard[id][p] = now
		s.dirty = true
	}
}

// say is Say in the session's goroutine.
func (s *Session) say(text string) (Line, error) {
	if s.phase != Live {
		return Line{}, ErrOver
	}
	text = strings.TrimSpace(cleanText(text))
	if err := checkText(text); err != nil {
		return Line{}, err
	}
	now := time.Now()
	s.seq++
	m := &wire.Chat{Room: s.cfg.Room[:], Peer: []byte(s.me), Seq: s.seq, TimeMs: now.UnixMilli(), Text: text}
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Chat{Chat: wire.Sign(s.cfg.Key, wire.DomainChat, m)}})
	return s.addLine(s.me, m), nil
}

// checkText refuses what is too long, is not UTF-8, or holds what no honest daemon sends: control characters
// other than the ends of lines, and changes of writing direction (they make text look like another).
func checkText(text string) error {
	if text == "" || len(text) > maxText*utf8.UTFMax || !utf8.ValidString(text) || utf8.RuneCountInString(text) > maxText {
		return fmt.Errorf("a message has 1 to %d characters: %w", maxText, room.Malformed)
	}
	if strings.ContainsFunc(text, unfit) {
		return fmt.Errorf("a message holds no control characters: %w", room.Malformed)
	}
	return nil
}

func unfit(r rune) bool {
	switch {
	case r == '\n':
		return false
	case r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069', r == '\u2028', r == '\u2029':
		return true
	}
	return unicode.IsControl(r)
}

// cleanText leaves out what checkText refuses, so that pasted text can be sent.
func cleanText(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\t", " ")
	return strings.Map(func(r rune) rune {
		if unfit(r) {
			return -1
		}
		return r
	}, text)
}

func (s *Session) gotChat(p peer.ID, m *wire.Chat, _ time.Time) {
	if p != s.me && checkText(m.Text) == nil {
		s.addLine(p, m)
	}
}

func (s *Session) addLine(p peer.ID, m *wire.Chat) Line {
	id := identity.RecordID(wire.DomainChat, fmt.Appendf(nil, "%s/%d/%d", p, m.Seq, m.TimeMs))
	l := Line{ID: hex.EncodeToString(id[:8]), PeerID: p.String(), Name: s.nameOf(p), Text: m.Text, At: time.UnixMilli(m.TimeMs).UTC()}
	if slices.ContainsFunc(s.chat, func(o Line) bool { return o.ID == l.ID }) {
		return l // said again
	}
	s.chat = append(s.chat, l)
	if len(s.chat) > maxLines {
		s.chat = s.chat[len(s.chat)-maxLines:]
	}
	s.emit(Event{Kind: EventMessage, Line: &l})
	return l
}

// react is React in the session's goroutine.
func (s *Session) react(kind int) error {
	if s.phase != Live {
		return ErrOver
	}
	if kind < 1 || kind > 6 {
		return fmt.Errorf("a reaction is 1 to 6: %w", room.Malformed)
	}
	now := time.Now()
	s.seq++
	m := &wire.Reaction{Room: s.cfg.Room[:], Peer: []byte(s.me), Seq: s.seq, TimeMs: now.UnixMilli(), Kind: uint32(kind)}
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Reaction{Reaction: wire.Sign(s.cfg.Key, wire.DomainReaction, m)}})
	s.gotReaction(s.me, m, now)
	return nil
}

func (s *Session) gotReaction(p peer.ID, m *wire.Reaction, _ time.Time) {
	l := s.live[p]
	if s.phase != Live || l == nil || m.TimeMs <= l.reactMs && p != s.me {
		return // again, or overtaken
	}
	if l.reactMs = m.TimeMs; m.Kind >= 1 && m.Kind <= 6 {
		s.emit(Event{Kind: EventReaction, Reaction: &ReactionEvent{PeerID: p.String(), Kind: int(m.Kind)}})
	}
}
