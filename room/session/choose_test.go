package session

import (
	"slices"
	"testing"
	"time"

	"balai/room/election"
)

// What a chair knows of a relay tells the slow from the dead: since when its process speaks, its last word, a goodbye; and
// whether anybody is heard at all.
func TestWhatAChairKnows(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, _, rest := w.crowd(9)
		w.after(20 * time.Second)
		var in *election.Input
		look := func() { host.in(func(s *Session) { in = s.electionInput(time.Now()) }) }
		of := func(p *soul) *election.Candidate {
			look()
			i := slices.IndexFunc(in.Candidates, func(c election.Candidate) bool { return c.Ad.Peer == p.key.ID() })
			if i < 0 {
				t.Fatalf("%s is no candidate", p.name)
			}
			return &in.Candidates[i]
		}
		var core []*soul
		for _, p := range rest {
			if p.now().Core {
				core = append(core, p)
			}
		}
		if len(core) < 2 {
			t.Fatalf("of the listeners %d relay", len(core))
		}
		slow, leaver := core[0], core[1]
		was := *of(slow)
		if age := time.Since(was.Said); was.Born.IsZero() || age > presencePeriod+time.Second || in.Alone {
			t.Errorf("born %v, said something %v ago, alone %t", was.Born, age, in.Alone)
		}
		w.part(slow)
		w.after(6 * time.Second)
		if c := of(slow); time.Since(c.Said) < 6*time.Second {
			t.Errorf("who is not heard said something %v ago", time.Since(c.Said))
		}
		w.heal()
		w.after(4 * time.Second)
		if c := of(slow); !c.Born.Equal(was.Born) || !c.Said.After(was.Said) {
			t.Errorf("born %v and now %v, said %v and now %v", was.Born, c.Born, was.Said, c.Said)
		}
		w.part(slow)
		slow.halt()
		w.after(time.Second) // her goodbye is lost
		w.heal()
		slow.restart()
		w.after(4 * time.Second)
		if c := of(slow); !c.Born.After(was.Born) {
			t.Error("another process is the same")
		}
		leaver.halt()
		w.after(time.Second)
		if look(); !slices.Contains(in.Gone, leaver.key.ID()) {
			t.Error("a goodbye was not heard")
		}
		leaver.restart()
		w.after(4 * time.Second)
		if look(); slices.Contains(in.Gone, leaver.key.ID()) {
			t.Error("who came again is gone")
		}
		w.part(host)
		w.after(5 * time.Second)
		if look(); !in.Alone {
			t.Error("the host hears somebody")
		}
	})
}
