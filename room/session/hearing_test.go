package session

import (
	"slices"
	"testing"
	"time"

	"balai/room"
	"balai/room/media"
	"balai/room/sframe"
)

// hearing seals real frames by the media plan of each soul and opens them by the plan of each other, as their media paths
// do: it tells how long one has not heard another.
type hearing struct {
	w       *world
	sealers map[*soul]*mouth
	openers map[[2]*soul]*sframe.Opener
	deaf    map[[2]*soul]time.Time // since when the second has not heard the first
	longest time.Duration
	frames  int
}

// mouth is what a soul seals with.
type mouth struct {
	owner  sframe.Owner
	sealer *sframe.Sealer
	epoch  sframe.Epoch
}

func newHearing(w *world) *hearing {
	return &hearing{w: w, sealers: map[*soul]*mouth{}, openers: map[[2]*soul]*sframe.Opener{}, deaf: map[[2]*soul]time.Time{}}
}

// listen lets each of these say one frame to each other now, and fails when one has not heard another for longer than
// limit.
func (h *hearing) listen(limit time.Duration, souls ...*soul) {
	h.w.t.Helper()
	now := time.Now()
	for _, a := range souls {
		head, body := h.say(a, now)
		for _, b := range souls {
			if a == b {
				continue
			}
			pair := [2]*soul{a, b}
			if h.opens(pair, head, body, now) {
				delete(h.deaf, pair)
				h.frames++
				continue
			}
			since, known := h.deaf[pair]
			if !known {
				since = now
				h.deaf[pair] = now
			}
			gap := now.Sub(since)
			if h.longest = max(h.longest, gap); gap > limit {
				h.w.t.Fatalf("%s has not heard %s for %v; %s", b.name, a.name, gap, h.w)
			}
		}
	}
}

// say is a frame of a; without a body while she has no key.
func (h *hearing) say(a *soul, now time.Time) (head [media.HeaderLen]byte, body []byte) {
	m := a.media()
	if m.Seal < 0 || m.Seal >= len(m.Epochs) {
		return head, nil
	}
	e, x := m.Epochs[m.Seal], h.sealers[a]
	owner := sframe.Owner{Room: a.room, Peer: string(a.id), Salt: m.Me.Salt}
	if x == nil || x.owner != owner {
		x = &mouth{owner: owner, sealer: sframe.NewSealer(owner, 0)}
		h.sealers[a] = x
	}
	if x.epoch != e {
		x.epoch = e
		x.sealer.Rekey(e)
	}
	f := media.Header{
		Kind: media.Frame, Ticks: 1, Source: owner.Source(), Epoch: uint8(e.N & 15), Step: uint8(e.Step & 15), Ctr: x.sealer.Next(),
	}
	f.Put(&head)
	body, err := x.sealer.Seal(nil, head[:], []byte("a word of "+a.name))
	if err != nil {
		h.w.t.Fatal(err)
	}
	return head, body
}

// opens tells whether the second of a pair knows the source of the first and opens a frame of it.
func (h *hearing) opens(pair [2]*soul, head [media.HeaderLen]byte, body []byte, now time.Time) bool {
	m := pair[1].media()
	i := slices.IndexFunc(m.Sources, func(s Source) bool { return s.Peer == pair[0].id })
	if body == nil || i < 0 || m.Sources[i].Salt != h.sealers[pair[0]].owner.Salt {
		return false
	}
	o := h.openers[pair]
	if o == nil {
		o = sframe.NewOpener(h.sealers[pair[0]].owner, 0)
		h.openers[pair] = o
	}
	for _, e := range m.Epochs {
		o.Hold(e, now)
	}
	_, err := o.Open(nil, head[:], body, now)
	return err == nil
}

// Trust 53 without a partition: two moderators let somebody in and draw a new key at the same moment, again and again.
// Everybody goes on hearing everybody, and the newcomers are heard and hear as soon as they are in.
func TestTwoModeratorsAtOnce(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(3, 0)
		other := l[0]
		host.act(room.Appoint, other)
		in := append([]*soul{host, mod}, l...)
		w.settle(in...)
		h := newHearing(w)
		links := []*soul{mod, other}
		for round := range 4 {
			before := host.inForce()
			var fresh []*soul
			for i, m := range links {
				p := w.person([]string{"Ana", "Ben"}[i])
				p.join(m.invites(InviteTerms{Role: room.Speaker}))
				fresh = append(fresh, p)
			}
			w.after(time.Duration(round) * 30 * time.Millisecond) // before, while and after they are let in
			for _, m := range links {
				m.in(func(s *Session) { s.rekey(time.Now(), causeKick) })
			}
			for end := time.Now().Add(8 * time.Second); time.Now().Before(end); w.after(20 * time.Millisecond) {
				h.listen(0, in...)
			}
			in = append(in, fresh...)
			w.settle(in...)
			if n := host.inForce(); n <= before {
				t.Fatalf("epoch %d after %d: no new key", n, before)
			}
			for end := time.Now().Add(12 * time.Second); time.Now().Before(end); w.after(100 * time.Millisecond) {
				h.listen(0, in...)
				w.mutual(in...)
			}
		}
		t.Logf("%d frames heard by %d people, epoch %d", h.frames, len(in), host.inForce())
	})
}
