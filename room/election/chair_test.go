package election

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

var (
	start  = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	host   = peer.ID("host")
	mod    = peer.ID("mod")
	ana    = peer.ID("ana")
	ranked = []peer.ID{host, mod, ana}
)

func at(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }

func TestTheHostBeatsAtOnce(t *testing.T) {
	var c Chair
	if chair, mine, _ := c.Current(ranked, host, at(0)); chair != host || !mine {
		t.Fatalf("chair %q, mine %v", chair, mine)
	}
}

func TestSuccessionWaitsByRank(t *testing.T) {
	var m, a Chair
	for s := 0.0; s <= 5; s++ {
		m.Current(ranked, mod, at(s))
		a.Current(ranked, ana, at(s))
		m.Heard(host, at(s))
		a.Heard(host, at(s))
	}
	for _, tt := range []struct {
		s      float64
		m, a   bool
		chairA peer.ID
	}{
		{7.9, false, false, host}, {9.4, false, false, ""}, {9.5, true, false, ""}, {10.9, true, false, ""}, {11, true, true, ana},
	} {
		if _, mine, _ := m.Current(ranked, mod, at(tt.s)); mine != tt.m {
			t.Errorf("%.1f s: moderator beats %v, want %v", tt.s, mine, tt.m)
		}
		if chair, mine, _ := a.Current(ranked, ana, at(tt.s)); mine != tt.a || chair != tt.chairA {
			t.Errorf("%.1f s: speaker sees %q, beats %v", tt.s, chair, mine)
		}
	}
	a.Heard(mod, at(11.2))
	if chair, mine, _ := a.Current(ranked, ana, at(11.3)); chair != mod || mine {
		t.Errorf("the lower rank beats, but the chair is %q", chair)
	}
}

// A beat names a term, but Heard does not even take it: a speaker who signs term 2^31 gains nothing.
func TestALowerRankWinsWhateverTheTerm(t *testing.T) {
	var c Chair
	for s := 0.0; s < 60; s++ {
		c.Heard(host, at(s))
		c.Heard(ana, at(s+.5))
		if chair, _, _ := c.Current(ranked, mod, at(s+.6)); chair != host {
			t.Fatalf("%.0f s: chair %q", s, chair)
		}
	}
}

func TestWakeAt(t *testing.T) {
	var c Chair
	_, mine, wake := c.Current(ranked, ana, at(0))
	if mine || !wake.Equal(at(6)) {
		t.Fatalf("mine %v, wake after %v", mine, wake.Sub(start))
	}
	if _, mine, _ := c.Current(ranked, ana, wake); !mine {
		t.Fatal("woken at wakeAt, and yet not chair")
	}
}
