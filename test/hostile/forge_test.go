package hostile_test

import (
	"errors"
	"testing"
	"time"

	"balai/identity"
	"balai/room"
	"balai/room/invite"
	"balai/test/hostile"
)

// TestForgerAgrees shows that what the forger writes is what room/invite reads: its honest blocks pass, from
// its own beginning and from a link, and so do its claims. What is refused below is refused for its lie.
func TestForgerAgrees(t *testing.T) {
	host, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	now, secret := time.Now(), room.NewSecret()
	b := hostile.Block{Role: 2, Depth: 2, Uses: 9, NotBefore: now.Add(-time.Hour), Expiry: now.Add(time.Hour), Audience: host.Public(), Flags: 3}
	own := hostile.NewForger(host, secret, b)
	v, err := invite.Issue(host, host.Public(), secret, invite.Terms{Role: room.Speaker, Depth: 2, Uses: 9, Expiry: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	linked, err := hostile.FromLink(v.Link())
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*hostile.Forger{"own": own, "linked": linked} {
		for depth := byte(1); ; depth-- {
			next := f.Last()
			next.Depth = depth
			f.Delegate(next)
			e := f.Entry(host.ID())
			c, err := invite.ParsePublic(e.Public)
			if err != nil {
				t.Fatal(name, err)
			}
			if w, err := invite.ParseLink(f.Link()); err != nil || string(w.Public()) != string(e.Public) {
				t.Errorf("%s: the link is read as something else: %v", name, err)
			}
			nonce := []byte("a challenge")
			if err := errors.Join(c.Verify(f.Room(), now, nil), c.VerifyClaim(host.ID(), host.ID(), nonce, e.Claim(nonce, host.ID()))); err != nil {
				t.Errorf("%s at depth %d: %v", name, depth, err)
			}
			if depth == 0 {
				break
			}
		}
		wide := f.Last()
		f.Delegate(wide)
		if _, err := invite.ParsePublic(f.Entry(host.ID()).Public); !errors.Is(err, room.Malformed) {
			t.Errorf("%s: a chain of four: %v", name, err)
		}
	}
}
