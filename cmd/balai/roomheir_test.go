package main

import (
	"strings"
	"testing"
	"time"

	"balai/room/session"
)

// TestInheritanceInWords: what a person reads depends on who inherits, on the host's silence, and on what is asked.
func TestInheritanceInWords(t *testing.T) {
	at := time.Date(2026, 11, 26, 18, 0, 0, 0, time.Local)
	for _, c := range []struct {
		s    session.Succession
		want []string
	}{
		{session.Succession{}, nil},
		{session.Succession{HostHeardAt: &at}, []string{"nobody: a lost host cannot be replaced", "the host was last heard 2026-11-26 18:00:00"}},
		{session.Succession{Heir: "p", HeirName: "Budi"}, []string{"Budi p"}},
		{
			session.Succession{Heir: "p", HeirName: "Budi", HostHeardAt: &at, Asking: true, Needed: 2, Agreed: []string{"a"}, Against: []string{"b"}},
			[]string{"Budi p", "the host was last heard 2026-11-26 18:00:00", "asked the moderators: 1 agreed of 2 needed, 1 do not"},
		},
		{
			session.Succession{Heir: "p", HeirName: "Bu\x1b[2Jdi", HostHeardAt: &at, Asked: true},
			[]string{"Bu\ufffd[2Jdi p", "the host was last heard 2026-11-26 18:00:00", "Bu\ufffd[2Jdi asks you for the room; ask the host by another way first, then balai room agree"},
		},
		{session.Succession{Heir: "p", HeirName: "Budi", Asked: true, Answer: "yes"}, []string{"Budi p"}},
	} {
		if got := strings.Join(inheritance(roomView{Succession: c.s}), "\n"); got != strings.Join(c.want, "\n") {
			t.Errorf("%+v:\n%s", c.s, got)
		}
	}
}

// TestDifferenceInWords: a fault of the ledger is a line of its own.
func TestDifferenceInWords(t *testing.T) {
	for _, differs := range []bool{false, true} {
		var b strings.Builder
		printRoom(&b, roomView{Differs: differs})
		if strings.Contains(b.String(), "fault\t") != differs {
			t.Errorf("differs %v: %s", differs, b.String())
		}
	}
}
