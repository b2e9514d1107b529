package node

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A link on which nothing comes is told dead; one without a part in any plan answers pings and is not.
func TestDeadLink(t *testing.T) {
	bubbleOf(t, "ana bo rita lena", func(w *world, p map[string]*person) {
		w.tree("rita >> ana", "rita >> bo") // lena has links, and no part
		time.Sleep(20 * time.Second)
		for _, q := range w.people {
			if d := q.buried(); len(d) > 0 {
				t.Errorf("%s buries %v", q.name, d)
			}
		}
		w.onWire(func(from, to *person, b []byte) [][]byte {
			if from == p["rita"] && to != p["bo"] {
				return nil
			}
			return [][]byte{b}
		})
		time.Sleep(2 * time.Second)
		if d := append(p["ana"].buried(), p["lena"].buried()...); len(d) > 0 {
			t.Errorf("buried early: %v", d)
		}
		time.Sleep(quietDead)
		want := []peer.ID{p["rita"].key.ID()}
		for _, q := range []string{"ana", "lena"} {
			if d := p[q].buried(); !slices.Equal(d, want) {
				t.Errorf("%s buries %v", q, d)
			}
		}
		if d := append(p["rita"].buried(), p["bo"].buried()...); len(d) > 0 {
			t.Errorf("buried though heard: %v", d)
		}
	})
}
