package invite

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"rsc.io/qr"

	"balai/identity"
	"balai/room"
)

func TestIssueRoundTrip(t *testing.T) {
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	r := room.NewSecret()
	v, err := Issue(key, key.Public(), r, Terms{
		Role: room.Speaker, Uses: 3, Expiry: now.Add(day), Knock: true, Audience: guest.ID(),
		Hints: []Hint{{Peer: key.Public(), Addr: hintAt(guest, "198.51.100.4", 0).Addr, QUIC: true, Port: 9}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w, err := ParseLink(" \n" + v.Link() + "\t ")
	if err != nil {
		t.Fatal(err)
	}
	if w.Room() != room.IDOf(key.Public(), r.Nonce()) || w.Secret != r || w.ID() != v.ID() || w.Link() != v.Link() {
		t.Error("the link does not say what was issued")
	}
	g := w.Grant()
	if g.Role != room.Speaker || g.Uses != 3 || !g.Knock || g.Strict || !g.Audience.Equal(guest.Public()) || !g.Expiry.Equal(now.Add(day)) {
		t.Errorf("grant %+v", g)
	}
	if err := w.Verify(v.Room(), now, nil); err != nil {
		t.Error(err)
	}
	if len(w.Hints) != 1 || !strings.HasPrefix(w.Hints[0].Addrs()[0], "/ip4/198.51.100.4/udp/9/quic-v1/p2p/"+key.ID().String()) {
		t.Errorf("hints %v", w.Hints)
	}
}

func TestIssueRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Terms)
		want   room.Reason
	}{
		"moderator role":   {func(t *Terms) { t.Role = room.Moderator }, room.Malformed},
		"no role":          {func(t *Terms) { t.Role = 0 }, room.Malformed},
		"too deep":         {func(t *Terms) { t.Depth = MaxDepth + 1 }, room.Depth},
		"no expiry":        {func(t *Terms) { t.Expiry = time.Time{} }, room.Malformed},
		"expiry first":     {func(t *Terms) { t.Expiry = t.NotBefore }, room.Malformed},
		"after 2106":       {func(t *Terms) { t.Expiry = now.AddDate(90, 0, 0) }, room.Malformed},
		"audience no key":  {func(t *Terms) { t.Audience = "nobody" }, room.Malformed},
		"hint without key": {func(t *Terms) { t.Hints = []Hint{{Port: 1, TCP: true}} }, room.Malformed},
		"own circuit":      {func(t *Terms) { t.Hints = []Hint{hintAt(host, "::1", HintCircuit)} }, room.Malformed},
	} {
		terms := plain()
		c.change(&terms)
		if v, err := Issue(host, host.Public(), secret, terms); !errors.Is(err, c.want) || v != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := Issue(mod, host.Public(), secret, plain()); !errors.Is(err, room.Malformed) {
		t.Errorf("a moderator without her appoint op: %v", err)
	}
}

func TestDelegate(t *testing.T) {
	terms := deep()
	terms.Knock, terms.Audience, terms.Role = true, guest.ID(), room.Speaker
	v := mustIssue(t, mod, terms)
	d := mustDelegate(t, v, Terms{Role: room.Listener, Depth: 1, Uses: 5, Strict: true})
	e := mustDelegate(t, d, Terms{})
	for _, x := range []*Invite{v, d, e} {
		w, err := ParseLink(x.Link())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Verify(v.Room(), now, grants); err != nil {
			t.Error(err)
		}
	}
	g := e.Grant()
	if g.Role != room.Listener || g.Depth != 0 || g.Uses != 5 || !g.Knock || !g.Strict || !g.Audience.Equal(guest.Public()) || !g.Expiry.Equal(terms.Expiry) {
		t.Errorf("the grandchild grants %+v", g)
	}
	ids := e.ChainIDs()
	if len(ids) != 3 || ids[0] != v.ID() || ids[1] != d.ID() || ids[2] != e.ID() || fmt.Sprint(e.Uses()) != "[20 5 5]" {
		t.Errorf("chain %v uses %v", ids, e.Uses())
	}
	if strings.Contains(string(rawOf(t, d.Token())), string(v.seed[:])) {
		t.Error("the child's token holds the parent's seed")
	}
	for name, c := range map[string]struct {
		terms Terms
		want  room.Reason
	}{
		"role":         {Terms{Role: room.Speaker}, room.Widened},
		"depth":        {Terms{Depth: 1}, room.Widened},
		"depth beyond": {Terms{Depth: MaxDepth + 1}, room.Depth},
		"uses":         {Terms{Uses: 6}, room.Widened},
		"later":        {Terms{Expiry: terms.Expiry.Add(1 * time.Second)}, room.Widened},
		"earlier":      {Terms{NotBefore: terms.NotBefore.Add(-1 * time.Second)}, room.Widened},
		"audience":     {Terms{Audience: other.ID()}, room.Widened},
	} {
		if x, err := d.Delegate(c.terms); !errors.Is(err, c.want) || x != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := e.Delegate(Terms{}); !errors.Is(err, room.Depth) {
		t.Errorf("delegating the last: %v", err)
	}
}

// TestSizes measures the promises about the length of a token and the version of its QR code.
func TestSizes(t *testing.T) {
	const long = "community-node-of-a-long-name.balai.test" // maxDNS bytes
	bound := plain()
	bound.Audience, bound.Depth = guest.ID(), MaxDepth
	v6 := []Hint{hintAt(other, "2001:db8:1:2:3:4:5:6", HintMember), hintAt(guest, "2001:db8:1:2:3:4:5:7", HintBoth)}
	issued := func(by person, terms Terms, h ...Hint) *Invite {
		terms.Hints = h
		return mustIssue(t, by, terms)
	}
	three := func(h ...Hint) *Invite {
		d := mustDelegate(t, issued(mod, bound, h...), Terms{Depth: 1})
		return mustDelegate(t, d, Terms{})
	}
	if len(long) != maxDNS {
		t.Fatalf("the long name has %d bytes", len(long))
	}
	for _, c := range []struct {
		name           string
		v              *Invite
		chars, version int
		hints          int
	}{
		{"host, own and community ip4", issued(host, plain(), hintAt(host, "203.0.113.7", HintMember), hintAt(other, "203.0.113.8", HintBoth)), 260, 14, 2},
		{"longest of one block with IP hints", issued(mod, bound, v6...), 420, 14, 2},
		{"longest of three with IP hints", three(v6...), 800, 20, 2},
		{"three with host names", three(hintAt(other, long, 0), hintAt(guest, long, HintBoth)), 800, 20, 1},
		{"four hints", three(append(v6, v6...)...), 800, 20, 2},
	} {
		code, err := qr.Encode(c.v.Link(), qr.L)
		if err != nil {
			t.Fatal(err)
		}
		n, version := len(c.v.Token()), (code.Size-17)/4
		t.Logf("%s: %d characters, QR version %d, %d hints", c.name, n, version, len(c.v.Hints))
		if n > c.chars || version > c.version || len(c.v.Link()) != n+11 || len(c.v.Hints) != c.hints {
			t.Errorf("%s: %d characters (want <= %d), QR version %d (want <= %d), %d hints", c.name, n, c.chars, version, c.version, len(c.v.Hints))
		}
		if w, err := ParseLink(c.v.Link()); err != nil || w.Verify(w.Room(), now, grants) != nil {
			t.Errorf("%s: does not come back: %v", c.name, err)
		}
	}
}

func TestLinks(t *testing.T) {
	v := mustIssue(t, host, plain())
	web, err := v.WebLink("balai.example.org:8443")
	if err != nil || !strings.HasPrefix(web, "https://balai.example.org:8443/j#") {
		t.Fatal(web, err)
	}
	for _, s := range []string{v.Link(), web, v.Token(), "\n " + v.Token() + "\r\n"} {
		if w, err := ParseLink(s); err != nil || w.Token() != v.Token() {
			t.Errorf("%.40q…: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "balai:join#", "balai:join", "balai:open#" + v.Token(), "http://a/j#" + v.Token(), "https://a/k#" + v.Token(),
		v.Token() + "=", v.Token() + "A", v.Token()[:40] + "\n" + v.Token()[40:], v.Token()[:40] + " " + v.Token()[40:],
		v.Link() + "#", strings.Repeat("A", MaxToken+1), strings.Repeat("A", 1<<20),
	} {
		if w, err := ParseLink(s); !errors.Is(err, room.Malformed) || w != nil {
			t.Errorf("%.40q…: %v", s, err)
		}
	}
	for name, change := range map[string]func(*Terms){
		"speaker":   func(t *Terms) { t.Role = room.Speaker },
		"strict":    func(t *Terms) { t.Strict = true },
		"one guest": func(t *Terms) { t.Audience = guest.ID() },
	} {
		terms := plain()
		change(&terms)
		if _, err := mustIssue(t, host, terms).WebLink("balai.example.org"); !errors.Is(err, room.Malformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, node := range []string{"", "a/b", "a#b", "user@a", "a b"} {
		if _, err := v.WebLink(node); !errors.Is(err, room.Malformed) {
			t.Errorf("node %q: %v", node, err)
		}
	}
}

func TestInspect(t *testing.T) {
	terms := plain()
	terms.Knock, terms.Audience, terms.Depth = true, guest.ID(), 1
	v := mustIssue(t, mod, terms)
	s, err := v.Inspect(now)
	if err != nil {
		t.Fatal(err)
	}
	want := Inspection{
		Room: v.Room().String(), Host: host.ID().String(), HostWords: identity.Fingerprint(host.ID()), Role: "listener", Uses: 20,
		Expiry: terms.Expiry, NotBefore: terms.NotBefore, Depth: 1, Knock: true, Audience: guest.ID().String(),
		Invite: v.ID().String(), Issuer: "unverified", Chain: 1,
	}
	if s != want {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	old, err := mustIssue(t, host, plain()).Inspect(now.Add(2 * day))
	if err != nil || !old.Expired || old.Reason != "expired" || old.Refusal != room.Expired || old.Issuer != "host" {
		t.Errorf("an old one: %+v, %v", old, err)
	}
	early, err := mustIssue(t, host, plain()).Inspect(now.Add(-day))
	if err != nil || early.Expired || early.Reason != "not_yet" {
		t.Errorf("an early one: %+v, %v", early, err)
	}
	bad := mustIssue(t, host, plain())
	bad.Blocks[0].Uses++
	if s, err := bad.Inspect(now); !errors.Is(err, room.BadSignature) || s != (Inspection{}) {
		t.Errorf("a forged one: %+v, %v", s, err)
	}
}

// TestNothingPrintsAToken looks for the seed and R in all the ways in which a program prints by mistake.
func TestNothingPrintsAToken(t *testing.T) {
	v := mustIssue(t, host, plain())
	want := "invite " + v.ID().String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb+verb, v, *v); got != want+want {
			t.Errorf("%s prints %.80s", verb, got)
		}
	}
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("joined", "invite", v)
	if !strings.Contains(b.String(), want) || strings.Contains(b.String(), "seed") {
		t.Errorf("slog writes %s", b.String())
	}
}
