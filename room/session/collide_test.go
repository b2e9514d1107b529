package session

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"balai/identity"
	"balai/room"
)

// collide are salts by which two people have sources of the same 24 bits.
func collide(t *testing.T, a, b *soul) (of, other [8]byte) {
	t.Helper()
	salts := map[uint32][8]byte{}
	for i := range uint64(1 << 14) {
		var salt [8]byte
		binary.BigEndian.PutUint64(salt[:], i)
		salts[sourceID(a.room, a.id, salt)] = salt
	}
	for i := range uint64(1 << 20) {
		binary.BigEndian.PutUint64(other[:], i)
		if of, ok := salts[sourceID(b.room, b.id, other)]; ok {
			return of, other
		}
	}
	t.Fatal("no two salts collide")
	return of, other
}

// takes makes p speak with the source of a salt from now on.
func (p *soul) takes(salt [8]byte) {
	p.in(func(s *Session) {
		s.own = ownSource{salt: salt, id: sourceID(s.cfg.Room, s.me, salt)}
		s.due.presence, s.dirty = time.Time{}, true
	})
}

func (p *soul) source() (id uint32) {
	p.in(func(s *Session) { id = s.own.id })
	return id
}

// knows tells whether p holds q's present source.
func (p *soul) knows(q *soul) (ok bool) {
	id := q.source()
	p.in(func(s *Session) { l := s.live[q.id]; ok = l != nil && l.source != nil && l.source.ID == id })
	return ok
}

func (w *world) allKnow(all ...*soul) {
	w.t.Helper()
	w.until("each to hold each other's source", func() bool {
		for _, p := range all {
			for _, q := range all {
				if p != q && (!p.knows(q) || p.source() == q.source()) {
					return false
				}
			}
		}
		return true
	})
}

// lowerFirst orders two by their short ids.
func lowerFirst(a, b *soul) (*soul, *soul) {
	x, y := identity.ShortID(a.id), identity.ShortID(b.id)
	if bytes.Compare(x[:], y[:]) > 0 {
		return b, a
	}
	return a, b
}

// Two sources of the same 24 bits: the newcomer draws another, whoever has the lower id.
func TestANewcomersSourceIsTaken(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		w.after(presenceTTL + time.Second)
		link := host.invites(InviteTerms{Role: room.Speaker})
		w.part(mod, l[0]) // they do not hear her first source
		ana := w.person("Ana")
		ana.come(link)
		hers, held := collide(t, ana, l[0])
		ana.takes(hers)
		l[0].takes(held)
		w.heal()
		w.allKnow(host, mod, l[0], ana)
		if ana.source() == sourceID(ana.room, ana.id, hers) {
			t.Error("the newcomer keeps hers")
		}
	})
}

// After a partition of two who have been in for long the lower short id keeps the source.
func TestTwoSourcesMeet(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(2, 0)
		w.part(mod, l[1])
		w.after(15 * time.Second) // each side takes the other for gone
		low, high := lowerFirst(l[0], l[1])
		a, b := collide(t, low, high)
		low.takes(a)
		high.takes(b)
		w.after(5 * time.Second)
		w.heal()
		w.allKnow(host, mod, l[0], l[1])
		if low.source() != sourceID(low.room, low.id, a) || high.source() == low.source() {
			t.Error("it is not the lower id that keeps it")
		}
	})
}

// Who draws a source to take another's away gains nothing, whatever its id: it is refused by all.
func TestAStolenSource(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(2, 0)
		w.after(presenceTTL + time.Second)
		eve, ana := lowerFirst(l[0], l[1])
		hers, false1 := collide(t, ana, eve)
		ana.takes(hers)
		w.allKnow(host, mod, ana, eve)
		eve.takes(false1)
		w.after(20 * time.Second)
		if ana.source() != sourceID(ana.room, ana.id, hers) {
			t.Error("she gave it up")
		}
		for _, p := range []*soul{host, mod} {
			if !p.knows(ana) {
				t.Errorf("%s does not hold hers", p.name)
			}
		}
	})
}
