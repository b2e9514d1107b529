package invite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/test/seeded"
)

var folk = []person{guest, other, named("ana"), named("bo"), named("cy")}

func anyOf[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func randomSeed(r *rand.Rand) (s [16]byte) {
	binary.BigEndian.PutUint64(s[:], r.Uint64())
	binary.BigEndian.PutUint64(s[8:], r.Uint64())
	return s
}

// chance is true once in n times.
func chance(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

func randomTerms(r *rand.Rand, depth uint8) Terms {
	t := Terms{
		Role: anyOf(r, []room.Role{room.Listener, room.Speaker}), Depth: depth, Uses: uint16(r.IntN(4) * r.IntN(400)),
		NotBefore: now.Add(-time.Duration(r.IntN(48)) * time.Hour), Expiry: now.Add(time.Duration(1+r.IntN(480)) * time.Hour),
		Strict: chance(r, 3), Knock: chance(r, 3),
	}
	if chance(r, 3) {
		t.Audience = anyOf(r, folk).ID()
	}
	hints := []Hint{
		hintAt(host, "203.0.113.7", 0), hintAt(other, "2001:db8::1", HintBoth), hintAt(guest, "node.example", HintRendezvous), hintAt(mod, "198.51.100.9", 0),
	}
	r.Shuffle(len(hints), func(i, j int) { hints[i], hints[j] = hints[j], hints[i] })
	t.Hints = hints[:r.IntN(3)]
	return t
}

// narrower are terms that the holder of b may give on.
func narrower(r *rand.Rand, b Block) Terms {
	t := Terms{Depth: uint8(r.IntN(int(b.Depth)))}
	if chance(r, 2) {
		t.Role = room.Listener
	}
	if b.Uses > 1 && chance(r, 2) {
		t.Uses = 1 + uint16(r.IntN(int(b.Uses)))
	}
	if chance(r, 2) {
		t.Expiry = b.Expiry.Add(-time.Duration(r.IntN(50)) * time.Minute)
	}
	if chance(r, 2) {
		t.NotBefore = b.NotBefore.Add(time.Duration(r.IntN(20)) * time.Second)
	}
	t.Knock, t.Strict = chance(r, 3), chance(r, 3)
	return t
}

// randomInvite is of the host or a moderator, given on up to given times.
func randomInvite(t *testing.T, r *rand.Rand, secret room.Secret, depth uint8, given int) *Invite {
	t.Helper()
	by, terms := anyOf(r, []person{host, mod}), randomTerms(r, depth)
	if by.Public().Equal(mod.Public()) {
		terms.Grant = appoint
	}
	v, err := issue(by, host.Public(), secret, terms, randomSeed(r))
	for ; err == nil && given > 0 && v.last().Depth > 0; given-- {
		v, err = v.delegate(narrower(r, v.Grant()), randomSeed(r))
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func randomSecret(r *rand.Rand) room.Secret { return room.Secret(randomSeed(r)) }

// askAll is what the member, the page and the admitter say of an invite, who each read it from its own bytes.
func askAll(v *Invite, id room.ID, at time.Time) (out [3]error) {
	out[0] = v.Verify(id, at, grants)
	w, err := ParseLink(v.Link())
	if err == nil {
		_, err = w.VerifyOffline(at)
	}
	out[1] = err
	p, err := ParsePublic(v.Public())
	if err == nil {
		err = p.Verify(id, at, grants)
	}
	out[2] = err
	return out
}

// Trust 11 for invites of every shape: bits changed at random places, one or some, and the checksum mended.
func TestRandomBits(t *testing.T) {
	counts := map[string]int{}
	all := seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		v := randomInvite(t, r, randomSecret(r), uint8(r.IntN(MaxDepth+1)), r.IntN(3))
		raw, public := rawOf(t, v.Token()), string(v.Public())
		for range 12 {
			m, bits := slices.Clone(raw), map[int]bool{}
			for range 1 + r.IntN(2)*r.IntN(6) {
				bits[r.IntN(8*(len(raw)-4))] = true
			}
			for i := range bits {
				m[i/8] ^= 1 << (i % 8)
			}
			if _, err := ParseLink(tokenText.EncodeToString(m)); !errors.Is(err, room.Malformed) {
				t.Fatalf("a false checksum was taken: %v", err)
			}
			counts[outcome(t, v, public, m)]++
		}
	})
	t.Log(counts)
	if all && (counts["only hints differ"] == 0 || counts["bad_signature"] == 0 || counts["malformed"] == 0) {
		t.Error("the changes are tame")
	}
}

// Trust 12: whenever one comes, by whatever chain, she is early, late or in time as the last block says; and what no issuer
// may grant is refused.
func TestRandomTimes(t *testing.T) {
	counts := map[string]int{}
	all := seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		v := randomInvite(t, r, randomSecret(r), uint8(r.IntN(MaxDepth+1)), r.IntN(3))
		g := v.Grant()
		for range 4 {
			at := anyOf(r, []time.Time{g.NotBefore.Add(-Skew), g.NotBefore, g.Expiry, g.Expiry.Add(Skew)}).Add(time.Duration(r.IntN(7)-3) * time.Second)
			var want error
			switch {
			case g.NotBefore.Sub(at) > Skew:
				want = room.NotYet
			case at.Sub(g.Expiry) > Skew:
				want = room.Expired
			}
			counts[fmt.Sprint(want)]++
			for i, err := range askAll(v, v.Room(), at) {
				if !errors.Is(err, want) || want == nil && err != nil {
					t.Fatalf("%d at %v, good from %v to %v: %v, want %v", i, at, g.NotBefore, g.Expiry, err, want)
				}
			}
		}
		x := mustIssue(t, host, plain())
		x.Blocks[0].Role = anyOf(r, []room.Role{room.NoRole, room.Moderator, room.Host, room.Role(5 + r.IntN(11))})
		if _, err := ParseLink(resign(x, host).Token()); !errors.Is(err, room.Malformed) {
			t.Fatalf("role %v: %v", x.Blocks[0].Role, err)
		}
		x = mustIssue(t, host, plain())
		x.Blocks[0].Depth = uint8(MaxDepth + 1 + r.IntN(16-MaxDepth-1))
		if err := resign(x, host).Verify(x.Room(), now, grants); !errors.Is(err, room.Depth) {
			t.Fatalf("depth %d: %v", x.Blocks[0].Depth, err)
		}
		over := forge(v, Block{Role: room.Listener, NotBefore: g.NotBefore, Expiry: g.Expiry, Strict: g.Strict, Knock: g.Knock, Audience: g.Audience, Uses: g.Uses}, randomSeed(r))
		if g.Depth == 0 && len(v.Blocks) < MaxChain {
			for i, err := range askAll(over, v.Room(), now) {
				if !errors.Is(err, room.Depth) {
					t.Fatalf("%d: given on from depth 0: %v", i, err)
				}
			}
		} else if len(v.Blocks) == MaxChain {
			if _, err := ParseLink(over.Token()); !errors.Is(err, room.Malformed) {
				t.Fatalf("a chain of four: %v", err)
			}
		}
	})
	if t.Log(counts); all && len(counts) != 3 {
		t.Error("not every answer was given")
	}
}

// widenings are what a cheat may change in the block that she gives on; false where it would widen nothing.
var widenings = []func(r *rand.Rand, parent, b *Block) bool{
	func(_ *rand.Rand, p, b *Block) bool { b.Role = room.Speaker; return p.Role == room.Listener },
	func(r *rand.Rand, p, b *Block) bool {
		b.Depth = p.Depth + uint8(r.IntN(int(MaxDepth-p.Depth)+1))
		return true
	},
	func(r *rand.Rand, p, b *Block) bool {
		b.Uses = p.Uses + 1 + uint16(r.IntN(9))
		if chance(r, 3) {
			b.Uses = 0
		}
		return p.Uses > 0
	},
	func(r *rand.Rand, p, b *Block) bool {
		b.Expiry = p.Expiry.Add(time.Duration(1+r.IntN(1e6)) * time.Second)
		return true
	},
	func(r *rand.Rand, p, b *Block) bool {
		b.NotBefore = p.NotBefore.Add(-time.Duration(1+r.IntN(1e6)) * time.Second)
		return true
	},
	func(_ *rand.Rand, p, b *Block) bool { b.Strict = false; return p.Strict },
	func(_ *rand.Rand, p, b *Block) bool { b.Knock = false; return p.Knock },
	func(r *rand.Rand, p, b *Block) bool {
		if b.Audience = nil; chance(r, 2) {
			b.Audience = named("thief").Public()
		}
		return p.Audience != nil
	},
}

// Trust 13: whoever signs a block that grants more than she has, anywhere in the chain and in any respects, gets it past
// nobody, nor does who is given it on honestly; and what only narrows passes.
func TestRandomlyWidened(t *testing.T) {
	widened := 0
	all := seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		v := randomInvite(t, r, randomSecret(r), 1+uint8(r.IntN(MaxDepth)), r.IntN(2))
		if v.last().Depth == 0 {
			return
		}
		parent := v.last()
		b := v.Grant()
		b.Depth = parent.Depth - 1
		wide := false
		for range r.IntN(4) {
			x := b
			if f := anyOf(r, widenings); f(r, parent, &x) {
				b, wide = x, true
			}
		}
		seed := randomSeed(r)
		d := forge(v, b, seed)
		if b.Depth > 0 && len(d.Blocks) < MaxChain && chance(r, 2) { // the victim gives it on as she was given it
			b.Depth--
			d = forge(d, b, randomSeed(r))
		}
		if wide {
			widened++
		}
		for i, err := range askAll(d, v.Room(), now) {
			if wide && !errors.Is(err, room.Widened) || !wide && err != nil {
				t.Fatalf("%d says %v of %+v under %+v", i, err, b, *parent)
			}
		}
	})
	if t.Logf("%d widened", widened); all && widened < seeded.Quick/3 {
		t.Error("hardly any was widened")
	}
}

// Trust 14: an invite of one room in another, with any of what names the room exchanged.
func TestRandomOtherRoom(t *testing.T) {
	seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		a := randomInvite(t, r, randomSecret(r), uint8(r.IntN(3)), r.IntN(3))
		b := randomInvite(t, r, randomSecret(r), uint8(r.IntN(3)), r.IntN(3))
		if err := a.Verify(b.Room(), now, grants); !errors.Is(err, room.WrongRoom) {
			t.Fatalf("as it is: %v", err)
		}
		x, what := a.Chain, 1+r.IntN(7)
		if what&1 > 0 {
			x.Nonce = b.Nonce
		}
		if what&2 > 0 {
			x.Blocks = slices.Clone(x.Blocks)
			i := r.IntN(min(len(x.Blocks), len(b.Blocks)))
			x.Blocks[i] = b.Blocks[i]
		}
		if what&4 > 0 {
			x.Holder = b.Holder
		}
		if x.Nonce == b.Nonce && x.Holder.Equal(b.Holder) && len(x.Blocks) == len(b.Blocks) && len(x.Blocks) == 1 && what&2 > 0 {
			return // it is B's now
		}
		if err := x.Verify(b.Room(), now, grants); !errors.Is(err, room.WrongRoom) && !errors.Is(err, room.BadSignature) {
			t.Fatalf("with parts %b of B: %v", what, err)
		}
		nonce := randomSeed(r)
		y := b.Chain
		y.Holder = a.Holder
		y.Blocks[len(y.Blocks)-1].Audience = nil
		y.Blocks[len(y.Blocks)-1].Strict = false
		if err := y.VerifyClaim(guest.ID(), host.ID(), nonce[:], a.Claim(guest.ID(), host.ID(), nonce[:])); !errors.Is(err, room.BadSignature) {
			t.Fatalf("the claim: %v", err)
		}
	})
}

// Trust 15: of all joins that were ever recorded, each is good for its own newcomer, admitter, invite and challenge alone.
func TestRandomReplays(t *testing.T) {
	type join struct {
		v        *Invite
		who, at  peer.ID
		nonce    [16]byte
		recorded []byte
	}
	seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		var joins []join
		for range 4 {
			terms := plain()
			terms.Depth = uint8(r.IntN(3))
			v, err := issue(host, host.Public(), secret, terms, randomSeed(r))
			if err == nil && terms.Depth > 0 && chance(r, 2) {
				v, err = v.delegate(Terms{}, randomSeed(r))
			}
			if err != nil {
				t.Fatal(err)
			}
			j := join{v: v, who: anyOf(r, folk).ID(), at: anyOf(r, []person{host, mod}).ID(), nonce: randomSeed(r)}
			j.recorded = v.Claim(j.who, j.at, j.nonce[:])
			joins = append(joins, j)
		}
		for i, a := range joins {
			for k, b := range joins { // b's record where a's is due, with some of b's circumstances
				v, who, at, nonce := a.v, a.who, a.at, a.nonce
				if chance(r, 2) {
					who = b.who
				}
				if chance(r, 2) {
					v = b.v
				}
				if chance(r, 2) {
					at = b.at
				}
				err := v.VerifyClaim(who, at, nonce[:], b.recorded)
				if good := i == k; good && err != nil || !good && !errors.Is(err, room.BadSignature) {
					t.Fatalf("record %d in the place of %d: %v", k, i, err)
				}
			}
		}
	})
}

// Trust 16: an invite for one person lets nobody else in, however it was given on.
func TestRandomAudience(t *testing.T) {
	seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		hers, thief := anyOf(r, folk), anyOf(r, folk)
		terms := plain()
		terms.Depth = uint8(r.IntN(MaxDepth + 1))
		bound := r.IntN(int(terms.Depth) + 1) // which block binds it
		if bound == 0 {
			terms.Audience = hers.ID()
		}
		v, err := issue(host, host.Public(), secret, terms, randomSeed(r))
		for i := 1; err == nil && v.last().Depth > 0; i++ {
			given := Terms{Depth: v.last().Depth - 1}
			if i == bound {
				given.Audience = hers.ID()
			}
			v, err = v.delegate(given, randomSeed(r))
		}
		if err != nil {
			t.Fatal(err)
		}
		nonce := randomSeed(r)
		for _, p := range []person{hers, thief} {
			err := v.VerifyClaim(p.ID(), host.ID(), nonce[:], v.Claim(p.ID(), host.ID(), nonce[:]))
			if p.ID() == hers.ID() && err != nil || p.ID() != hers.ID() && !errors.Is(err, room.WrongAudience) {
				t.Fatalf("of %v, who is hers %v: %v", p.ID(), p.ID() == hers.ID(), err)
			}
		}
	})
}
