package invite

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"balai/room"
)

// TestEveryBit flips each bit of a token and mends the checksum, as an attacker would: the token is
// refused, or only its hints differ (trust test 11). Without the mended checksum nothing is read at all.
func TestEveryBit(t *testing.T) {
	terms := deep()
	terms.Hints = []Hint{hintAt(host, "203.0.113.7", 0), hintAt(other, "2001:db8::1", HintBoth), hintAt(guest, "node.example", HintRendezvous)}
	bound := terms
	bound.Audience, bound.Knock, bound.Strict = guest.ID(), true, true
	one := mustIssue(t, host, terms)
	three := mustDelegate(t, mustDelegate(t, mustIssue(t, mod, bound), Terms{Depth: 1, Uses: 7}), Terms{})
	for _, v := range []*Invite{one, mustIssue(t, mod, bound), mustDelegate(t, one, Terms{}), three} {
		everyBit(t, v)
	}
}

func everyBit(t *testing.T, v *Invite) {
	t.Helper()
	raw := rawOf(t, v.Token())
	public := string(v.Public())
	counts := map[string]int{}
	for i := range len(raw) * 8 {
		m := append([]byte(nil), raw...)
		m[i/8] ^= 1 << (i % 8)
		if x, err := ParseLink(tokenText.EncodeToString(m)); !errors.Is(err, room.Malformed) || x != nil {
			t.Fatalf("bit %d: a false checksum was taken: %v", i, err)
		}
		if i/8 >= len(raw)-4 {
			continue
		}
		counts[outcome(t, v, public, m)]++
	}
	t.Logf("%d blocks, %d hints: %v", len(v.Blocks), len(v.Hints), counts)
	if counts["only hints differ"] == 0 || counts["bad_signature"] == 0 {
		t.Error("the test did not reach what it is about")
	}
}

// outcome is what becomes of v with its bytes changed to raw: the reason of the refusal, or that only hints differ.
func outcome(t *testing.T, v *Invite, public string, raw []byte) string {
	t.Helper()
	x, err := ParseLink(retoken(raw))
	if err == nil {
		err = x.Verify(v.Room(), now, grants)
	}
	var why room.Reason
	switch {
	case err == nil && string(x.Public()) == public && x.Secret == v.Secret && x.seed == v.seed:
		return "only hints differ"
	case err == nil:
		t.Fatalf("a forgery was taken: %x", raw)
	case !errors.As(err, &why):
		t.Fatalf("refused without a reason: %v: %x", err, raw)
	}
	return why.String()
}

// TestEveryCharacterBit does the same to the text: a link that was changed on the way is never read.
func TestEveryCharacterBit(t *testing.T) {
	token := mustIssue(t, host, plain()).Token()
	for i := range len(token) * 8 {
		m := []byte(token)
		m[i/8] ^= 1 << (i % 8)
		if strings.TrimSpace(string(m)) == token {
			t.Fatal("impossible")
		}
		if _, err := ParseLink(string(m)); !errors.Is(err, room.Malformed) {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
}

func TestPublicEveryBit(t *testing.T) {
	v := mustDelegate(t, mustIssue(t, mod, deep()), Terms{})
	raw := v.Public()
	for i := range len(raw) * 8 {
		m := append([]byte(nil), raw...)
		m[i/8] ^= 1 << (i % 8)
		if c, err := ParsePublic(m); err == nil && c.Verify(v.Room(), now, grants) == nil {
			t.Fatalf("bit %d: a forgery was taken", i)
		}
	}
	if strings.Contains(string(raw), string(v.seed[:])) || strings.Contains(string(raw), string(v.Secret[:])) {
		t.Error("the public part holds the seed or R")
	}
}

// TestTimes is trust test 12: expired, early, a role that no invite grants, depth overflow; with the skew.
func TestTimes(t *testing.T) {
	v := mustIssue(t, host, plain())
	g := v.Grant()
	for _, c := range []struct {
		at   time.Time
		want error
	}{
		{g.NotBefore, nil},
		{g.NotBefore.Add(-Skew), nil},
		{g.NotBefore.Add(-Skew - time.Nanosecond), room.NotYet},
		{g.Expiry.Add(Skew), nil},
		{g.Expiry.Add(Skew + time.Nanosecond), room.Expired},
	} {
		if err := v.Verify(v.Room(), c.at, grants); !errors.Is(err, c.want) {
			t.Errorf("at %v: %v, want %v", c.at, err, c.want)
		}
	}
	for _, r := range []room.Role{room.NoRole, room.Moderator, room.Host, 15} {
		x := mustIssue(t, host, plain())
		x.Blocks[0].Role = r
		if _, err := ParseLink(resign(x, host).Token()); !errors.Is(err, room.Malformed) {
			t.Errorf("%v: %v", r, err)
		}
	}
	x := mustIssue(t, host, plain())
	x.Blocks[0].Depth = MaxDepth + 1
	if err := resign(x, host).Verify(x.Room(), now, grants); !errors.Is(err, room.Depth) {
		t.Errorf("a depth of %d: %v", MaxDepth+1, err)
	}
	d := forge(v, v.Grant(), seedOf(3))
	if err := d.Verify(v.Room(), now, grants); !errors.Is(err, room.Depth) {
		t.Errorf("given on from depth 0: %v", err)
	}
	e := mustDelegate(t, mustDelegate(t, mustIssue(t, host, deep()), Terms{Depth: 1}), Terms{})
	if _, err := ParseLink(forge(e, e.Grant(), seedOf(9)).Token()); !errors.Is(err, room.Malformed) {
		t.Errorf("a chain of four: %v", err)
	}
}

// TestWidened is trust test 13: a holder with her own program signs a block that grants more than she has.
func TestWidened(t *testing.T) {
	terms := plain()
	terms.Depth, terms.Strict, terms.Knock, terms.Audience = 1, true, true, guest.ID()
	v := mustIssue(t, host, terms)
	for name, c := range map[string]struct {
		change func(*Block)
		want   error
	}{
		"honest":            {func(*Block) {}, nil},
		"narrower":          {func(b *Block) { b.Uses, b.Expiry = 1, b.Expiry.Add(-time.Hour) }, nil},
		"role":              {func(b *Block) { b.Role = room.Speaker }, room.Widened},
		"depth":             {func(b *Block) { b.Depth = 1 }, room.Widened},
		"uses":              {func(b *Block) { b.Uses++ }, room.Widened},
		"unlimited uses":    {func(b *Block) { b.Uses = 0 }, room.Widened},
		"expiry":            {func(b *Block) { b.Expiry = b.Expiry.Add(time.Second) }, room.Widened},
		"not before":        {func(b *Block) { b.NotBefore = b.NotBefore.Add(-time.Second) }, room.Widened},
		"strict cleared":    {func(b *Block) { b.Strict = false }, room.Widened},
		"knock cleared":     {func(b *Block) { b.Knock = false }, room.Widened},
		"audience cleared":  {func(b *Block) { b.Audience = nil }, room.Widened},
		"audience replaced": {func(b *Block) { b.Audience = other.Public() }, room.Widened},
		"all flags cleared": {func(b *Block) { b.Strict, b.Knock, b.Audience = false, false, nil }, room.Widened},
	} {
		b := v.Grant()
		b.Depth = 0
		c.change(&b)
		d := forge(v, b, seedOf(3))
		if err := d.Verify(v.Room(), now, grants); !errors.Is(err, c.want) {
			t.Errorf("%s: the member says %v, want %v", name, err, c.want)
		}
		w, err := ParseLink(d.Link())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := w.VerifyOffline(now); !errors.Is(err, c.want) {
			t.Errorf("%s: the page says %v, want %v", name, err, c.want)
		}
		p, err := ParsePublic(d.Public())
		if err != nil || !errors.Is(p.Verify(v.Room(), now, grants), c.want) {
			t.Errorf("%s: the admitter does not agree", name)
		}
	}
}

// TestWidenedBelow widens in the third block against the second, which the first would allow.
func TestWidenedBelow(t *testing.T) {
	terms := deep()
	terms.Role = room.Speaker
	v := mustDelegate(t, mustIssue(t, host, terms), Terms{Role: room.Listener, Depth: 1, Uses: 2})
	b := v.Grant()
	b.Role, b.Depth = room.Speaker, 0
	if err := forge(v, b, seedOf(3)).Verify(v.Room(), now, grants); !errors.Is(err, room.Widened) {
		t.Error(err)
	}
}

// TestSpliced takes a good block from one chain into another.
func TestSpliced(t *testing.T) {
	v := mustIssue(t, host, deep())
	terms := deep()
	terms.Role, terms.Uses = room.Speaker, 0
	wide, err := issue(host, host.Public(), secret, terms, v.seed) // the same holder key, a wider parent
	if err != nil {
		t.Fatal(err)
	}
	d := mustDelegate(t, v, Terms{})
	d.Blocks[0] = wide.Blocks[0]
	if err := d.Verify(v.Room(), now, grants); !errors.Is(err, room.BadSignature) {
		t.Errorf("a child under another parent: %v", err)
	}
	cut := *mustDelegate(t, v, Terms{})
	cut.Blocks = cut.Blocks[:1] // the parent alone with the child's key
	if err := cut.Verify(v.Room(), now, grants); !errors.Is(err, room.BadSignature) {
		t.Errorf("a cut chain: %v", err)
	}
}

// TestOtherRoom is trust test 14: room A's invite in room B, as it is and with the ids exchanged.
func TestOtherRoom(t *testing.T) {
	a := mustIssue(t, host, plain())
	b, err := Issue(host, host.Public(), room.NewSecret(), plain())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(b.Room(), now, grants); !errors.Is(err, room.WrongRoom) {
		t.Errorf("as it is: %v", err)
	}
	x := a.Chain
	x.Nonce = b.Nonce
	if err := x.Verify(b.Room(), now, grants); !errors.Is(err, room.BadSignature) {
		t.Errorf("with B's nonce: %v", err)
	}
	nonce := make([]byte, 32)
	claim := a.Claim(guest.ID(), host.ID(), nonce)
	y := b.Chain
	y.Holder = a.Holder
	if err := y.VerifyClaim(guest.ID(), host.ID(), nonce, claim); !errors.Is(err, room.BadSignature) {
		t.Errorf("the claim: %v", err)
	}
}

// TestAudience is trust test 16, and TestClaim what makes a recorded join useless (15).
func TestAudience(t *testing.T) {
	terms := plain()
	terms.Audience, terms.Depth = guest.ID(), 1
	v := mustIssue(t, host, terms)
	nonce := make([]byte, 32)
	for _, x := range []*Invite{v, mustDelegate(t, v, Terms{})} {
		if err := x.VerifyClaim(guest.ID(), host.ID(), nonce, x.Claim(guest.ID(), host.ID(), nonce)); err != nil {
			t.Error(err)
		}
		if err := x.VerifyClaim(other.ID(), host.ID(), nonce, x.Claim(other.ID(), host.ID(), nonce)); !errors.Is(err, room.WrongAudience) {
			t.Errorf("another key: %v", err)
		}
		if err := x.Admits(other.ID(), host.ID()); !errors.Is(err, room.WrongAudience) {
			t.Errorf("another key, asked before: %v", err)
		}
	}
}

func TestClaim(t *testing.T) {
	v := mustIssue(t, host, plain())
	nonce, fresh := []byte("the challenge of this connection"), []byte("the challenge of the next try...")
	claim := v.Claim(guest.ID(), mod.ID(), nonce)
	if err := v.VerifyClaim(guest.ID(), mod.ID(), nonce, claim); err != nil {
		t.Fatal(err)
	}
	long := append([]byte(mod.ID()[1:]), nonce...)
	for name, err := range map[string]error{
		"replayed":         v.VerifyClaim(guest.ID(), mod.ID(), fresh, claim),
		"other newcomer":   v.VerifyClaim(other.ID(), mod.ID(), nonce, claim),
		"other admitter":   v.VerifyClaim(guest.ID(), host.ID(), nonce, claim),
		"other invite":     mustDelegate(t, mustIssue(t, host, deep()), Terms{}).VerifyClaim(guest.ID(), mod.ID(), nonce, claim),
		"fields moved":     v.VerifyClaim(guest.ID(), mod.ID()[:1], long, claim),
		"no signature":     v.VerifyClaim(guest.ID(), mod.ID(), nonce, nil),
		"a long signature": v.VerifyClaim(guest.ID(), mod.ID(), nonce, append(claim[:64:64], 0)),
	} {
		if !errors.Is(err, room.BadSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStrict(t *testing.T) {
	terms := plain()
	terms.Strict = true
	v := mustIssue(t, mod, terms)
	if err := v.Admits(guest.ID(), mod.ID()); err != nil {
		t.Error(err)
	}
	if err := v.Admits(guest.ID(), host.ID()); !errors.Is(err, room.NoAdmitter) {
		t.Errorf("at another admitter: %v", err)
	}
}

// TestModerator shows that a moderator's invite stands and falls with her appoint op.
func TestModerator(t *testing.T) {
	v := mustIssue(t, mod, plain())
	if err := v.Verify(v.Room(), now, grants); err != nil {
		t.Error(err)
	}
	dismissed := func(ed25519.PublicKey) (room.OpID, bool) { return room.OpID{}, false }
	again := func(ed25519.PublicKey) (room.OpID, bool) { return room.OpID{1}, true }
	for name, g := range map[string]Grants{"dismissed": dismissed, "appointed again": again} {
		if err := v.Verify(v.Room(), now, g); !errors.Is(err, room.BadSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if vouched, err := v.VerifyOffline(now); vouched || err != nil {
		t.Errorf("offline: %v, %v", vouched, err)
	}
	d := mustDelegate(t, mustIssue(t, mod, deep()), Terms{})
	d.Blocks[0].Uses++
	if _, err := d.VerifyOffline(now); !errors.Is(err, room.BadSignature) {
		t.Errorf("offline, a forged parent of a good child: %v", err)
	}
}
