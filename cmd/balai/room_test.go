package main

import (
	"strings"
	"testing"

	"balai/room/invite"
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

// TestDecisionInWords: the reason stands with the decision, in no words that move a terminal.
func TestDecisionInWords(t *testing.T) {
	for _, c := range []struct {
		d    decision
		want string
	}{
		{decision{Words: "Ana kicked Budi"}, "  Ana kicked Budi\n"},
		{decision{Words: "Ana kicked Bu\x1bdi", Reason: "no\nisy"}, "  Ana kicked Bu\ufffddi: “no\ufffdisy”\n"},
		{decision{Words: "Ana kicked Budi", Reason: "noisy", Void: true, Why: "because"}, "  Ana kicked Budi: “noisy”  (void: because)\n"},
	} {
		var b strings.Builder
		printDecision(&b, c.d)
		if !strings.HasSuffix(b.String(), c.want) {
			t.Errorf("%q", b.String())
		}
	}
}

// TestPassingOnInWords: an inspected link says how often it may be passed on.
func TestPassingOnInWords(t *testing.T) {
	for depth, want := range map[int]string{0: "may not be passed on", 1: "may be passed on one more time", 2: "may be passed on 2 more times"} {
		var b strings.Builder
		printInspection(&b, invite.Inspection{Depth: depth})
		if !strings.Contains(b.String(), "link\t"+want+"\n") {
			t.Errorf("%d: %s", depth, b.String())
		}
	}
}
