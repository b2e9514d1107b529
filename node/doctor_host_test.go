package node

import (
	"strings"
	"testing"
	"time"

	"balai/room/session"
)

// A lost host is told of after a day, and who may do what about it.
func TestALostHostInTheDoctor(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	heard := func(d time.Duration) session.Succession {
		at := now.Add(-d)
		from := at.Add(24 * time.Hour)
		return session.Succession{HostHeardAt: &at, From: &from}
	}
	withHeir := func(x session.Succession) session.Succession {
		x.Heir, x.HeirName = "heir", "Budi"
		return x
	}
	for _, c := range []struct {
		role, me string
		x        session.Succession
		status   string
		words    []string
	}{
		{"host", "me", session.Succession{}, "ok", []string{"has no heir", "backup", "nobody can appoint"}},
		{"host", "me", withHeir(session.Succession{}), "ok", []string{"is Budi", "most moderators agree"}},
		{"moderator", "me", session.Succession{}, "", nil},
		{"moderator", "me", heard(23 * time.Hour), "", nil},
		{"moderator", "me", heard(30 * time.Hour), "warn", []string{"a day ago", "no heir", "nobody can appoint"}},
		{"moderator", "me", withHeir(heard(73 * time.Hour)), "warn", []string{"3 days ago", "The heir is Budi"}},
		{"listener", "heir", withHeir(heard(73 * time.Hour)), "warn", []string{"You are the heir", "balai room succeed"}},
	} {
		v := session.View{Name: "Tea", Me: session.Me{PeerID: c.me, Role: c.role}, Succession: c.x}
		f, ok := hostFinding(wordsIn(""), v, now)
		text := f.Title + " " + f.Detail + " " + f.Action
		if ok != (c.status != "") || f.Status != c.status {
			t.Errorf("%s, %+v: %+v", c.role, c.x, f)
		}
		for _, w := range c.words {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in %s", c.role, w, text)
			}
		}
	}
}

// A checkpoint that does not agree is told of.
func TestADifferentLedgerInTheDoctor(t *testing.T) {
	if f, ok := ledgerFinding(wordsIn(""), session.View{Name: "Tea"}); ok {
		t.Errorf("told of nothing: %+v", f)
	}
	if f, ok := ledgerFinding(wordsIn(""), session.View{Name: "Tea", Differs: true}); !ok || f.Status != "fail" || !strings.Contains(f.Title, "Tea") {
		t.Errorf("%+v", f)
	}
}
