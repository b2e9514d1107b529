package session

import (
	"testing"
	"testing/synctest"
	"time"

	"balai/identity"
	"balai/room"
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

// The media path is told where the counter of somebody on stage is with each new record, whatever her clock shows, and never
// less than before; of the audience only when it leaps.
func TestCounterIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, off := range []time.Duration{-maxSkew, 0, maxSkew} {
			s, ana, ben := still(t), mustKey(t), mustKey(t)
			s.letIn(t, ana.ID(), room.Speaker)
			s.letIn(t, ben.ID(), room.Listener)
			say := func(k *identity.Key, ctr uint32) uint32 {
				s.touch(k.ID(), time.Now())
				m := &wire.Source{Room: s.cfg.Room[:], Peer: []byte(k.ID()), Salt: make([]byte, 8), EpochId: make([]byte, 16), Ctr: ctr, TimeMs: time.Now().Add(off).UnixMilli()}
				s.takeSource(k.ID(), wire.Sign(k, wire.DomainSource, m))
				for _, src := range s.makePlan().Sources {
					if src.Peer == k.ID() {
						return src.Now
					}
				}
				t.Fatal("no source")
				return 0
			}
			for ctr := uint32(1000); ctr < 10_000; ctr += 200 { // 4 s
				if got := say(ana, ctr); got != ctr {
					t.Fatalf("off %v: at %d told is %d", off, ctr, got)
				}
				if got := say(ana, ctr-200); got != ctr {
					t.Fatalf("off %v: an old record takes it from %d to %d", off, ctr, got)
				}
				if got := say(ben, ctr); got != 1000 {
					t.Fatalf("of the audience %d is told", got)
				}
				time.Sleep(4 * time.Second)
			}
			if got := say(ben, 20_000); got != 20_000 {
				t.Errorf("after a sleep %d is told", got)
			}
		}
	})
}
