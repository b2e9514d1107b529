package main

import (
	"strings"
	"testing"
)

// TestForkInWords: what it means that somebody signed two histories depends on what she is and on what was decided since.
func TestForkInWords(t *testing.T) {
	for _, c := range []struct {
		fork fork
		want string
	}{
		{fork{PeerID: "p", Name: "Budi", Role: "moderator"}, "Budi signed two different histories: what this moderator decides does not count any more"},
		{fork{PeerID: "p", Name: "Ana", Role: "host"}, "Ana signed two different histories: what this host decides does not count any more"},
		{fork{PeerID: "p", Name: "Budi", Role: "speaker"}, "Budi signed two different histories; no authority now"},
		{fork{PeerID: "p", Name: "Bu\x1b[2Jdi", Role: "moderator", Settled: true}, "Bu\ufffd[2Jdi signed two different histories; it was decided which one counts"},
	} {
		var b strings.Builder
		printRoom(&b, roomView{Forked: []fork{c.fork}})
		if !strings.Contains(b.String(), "fork\t"+c.want+"\tp\n") {
			t.Errorf("%+v: %s", c.fork, b.String())
		}
	}
}

// TestWhyRefused: of clocks that differ the words say by how much, and whose is probably wrong.
func TestWhyRefused(t *testing.T) {
	for _, c := range []struct {
		reason string
		ahead  int64
		clocks int
		want   string
	}{
		{"locked", 0, 0, "locked"},
		{"clock_off", 0, 0, "clock_off"},
		{"clock_off", -3_600_000, 1, "clock_off: of 1 who let people in the clocks are 1h0m0s behind yours; one of both is wrong. Switch on automatic time in the system's settings"},
		{"clock_off", 125_400, 3, "clock_off: of 3 who let people in the clocks are 2m5s ahead of yours; yours is probably wrong. Switch on automatic time in the system's settings"},
	} {
		if got := whyRefused(c.reason, c.ahead, c.clocks); got != c.want {
			t.Errorf("%s", got)
		}
	}
}
