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
