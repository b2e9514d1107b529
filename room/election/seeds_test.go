package election

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/test/seeded"
)

// Trust 32, as the chair goes: some people in a room, whose beats come late or not at all; the host goes, and then others, and
// some come back. When it is quiet again all who are left take the first of them for the chair, and she alone beats.
func TestRandomSuccessions(t *testing.T) {
	type member struct {
		id    peer.ID
		chair Chair
		alive bool
		beat  time.Time
		tick  time.Duration
	}
	type beat struct {
		to, from int
		at       time.Time
	}
	seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		var all []*member
		var order []peer.ID
		for i := range 2 + r.IntN(7) {
			m := &member{id: peer.ID(rune('a' + i)), alive: true, tick: time.Duration(r.IntN(250)) * time.Millisecond}
			all, order = append(all, m), append(order, m.id)
		}
		var way []beat
		run := func(from, to time.Time, loss float64) (beats []int) {
			for now := from; now.Before(to); now = now.Add(10 * time.Millisecond) {
				late := way[:0]
				for _, b := range way {
					if b.at.After(now) {
						late = append(late, b)
					} else if all[b.to].alive {
						all[b.to].chair.Heard(all[b.from].id, now)
					}
				}
				way = late
				for i, m := range all {
					if !m.alive || (now.Sub(start)-m.tick)%(250*time.Millisecond) >= 10*time.Millisecond {
						continue
					}
					_, mine, _ := m.chair.Current(order, m.id, now)
					if !mine || now.Sub(m.beat) < BeatPeriod {
						continue
					}
					m.beat = now
					m.chair.Heard(m.id, now)
					beats = append(beats, i)
					for k := range all {
						if k != i && r.Float64() >= loss {
							way = append(way, beat{k, i, now.Add(time.Duration(1+r.IntN(150)) * time.Millisecond)})
						}
					}
				}
			}
			return beats
		}
		now := start
		turn := func(d time.Duration, loss float64) (beats []int) {
			beats = run(now, now.Add(d), loss)
			now = now.Add(d)
			return beats
		}
		turn(10*time.Second, .2)
		all[0].alive = false
		for range r.IntN(4) { // at least one stays
			turn(time.Duration(r.IntN(9000))*time.Millisecond, .2)
			if m := all[1+r.IntN(len(all)-1)]; m != all[len(all)-1] {
				if m.alive = !m.alive; m.alive {
					m.chair = Chair{}
				}
			}
		}
		first := 0
		for !all[first].alive {
			first++
		}
		turn(Patience(len(all))+5*time.Second, .2)
		turn(Patience(len(all))+5*time.Second, 0)
		for _, i := range turn(10*time.Second, 0) {
			if i != first {
				t.Fatalf("%d beats, the first who is left is %d of %d", i, first, len(all))
			}
		}
		for i, m := range all {
			if chair, _, _ := m.chair.Current(order, m.id, now); m.alive && chair != all[first].id {
				t.Fatalf("%d takes %q for the chair, not %q", i, chair, all[first].id)
			}
		}
	})
}
