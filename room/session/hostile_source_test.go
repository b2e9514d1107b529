package session

import (
	"testing"
	"time"

	"balai/room/overlay"
	"balai/room/wire"
)

// A speaker's source of an earlier process, told again, does not take the place of the present one; and nobody but a
// parent tells digests and sources on a link.
func TestOldSourceStaysOld(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		_, stage, rest := w.crowd(3)
		w.after(5 * time.Second)
		speaker, listener := stage[1], rest[0]
		listener.in(func(s *Session) {
			now := s.live[speaker.id].source.ID
			made := func(after int64) *wire.Signed {
				var m wire.Source
				if _, err := wire.Open(s.live[speaker.id].signed, wire.DomainSource, &m); err != nil {
					t.Fatal(err)
				}
				m.TimeMs, m.Salt = m.TimeMs+after, make([]byte, 8)
				return wire.Sign(speaker.key, wire.DomainSource, &m)
			}
			s.takeSourceOf(made(-1000))
			if s.live[speaker.id].source.ID != now {
				t.Error("an old source is taken for the new one")
			}
			r := &wire.LinkRecord{Record: &wire.LinkRecord_Digest{Digest: &wire.DigestRecord{Sources: []*wire.Signed{made(1)}}}}
			s.linkEvent(overlay.Got{Peer: w.person("Stranger").id, Record: r}, nil, time.Now())
			if s.live[speaker.id].source.ID != now {
				t.Error("a stranger's record is taken")
			}
			s.takeSourceOf(made(1))
			if s.live[speaker.id].source.ID == now {
				t.Error("a newer source is not taken")
			}
		})
	})
}
