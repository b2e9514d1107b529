package invite

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// person is a Signer with a key that is the same in every run.
type person struct{ key ed25519.PrivateKey }

func named(name string) person {
	seed := sha256.Sum256([]byte("balai test person " + name))
	return person{ed25519.NewKeyFromSeed(seed[:])}
}

func (p person) Public() ed25519.PublicKey              { return p.key.Public().(ed25519.PublicKey) }
func (p person) Sign(domain string, body []byte) []byte { return sign(p.key, domain, body) }
func (p person) ID() peer.ID                            { return peerOf(p.Public()) }

var (
	host  = named("host")
	mod   = named("moderator")
	guest = named("guest")
	other = named("other")

	secret  = room.Secret([]byte("0123456789abcdef"))
	appoint = room.OpID(sha256.Sum256([]byte("the moderator's appoint op")))
	now     = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	day     = 24 * time.Hour
)

// grants knows one moderator.
func grants(issuer ed25519.PublicKey) (room.OpID, bool) { return appoint, issuer.Equal(mod.Public()) }

func seedOf(n byte) (s [16]byte) {
	for i := range s {
		s[i] = n + byte(i)
	}
	return s
}

func plain() Terms {
	return Terms{Role: room.Listener, Uses: 20, NotBefore: now.Add(-time.Hour), Expiry: now.Add(day)}
}

func deep() Terms { t := plain(); t.Depth = MaxDepth; return t }

func mustIssue(t testing.TB, by person, terms Terms) *Invite {
	t.Helper()
	if by.Public().Equal(mod.Public()) {
		terms.Grant = appoint
	}
	v, err := issue(by, host.Public(), secret, terms, seedOf(1))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustDelegate(t testing.TB, v *Invite, terms Terms) *Invite {
	t.Helper()
	d, err := v.delegate(terms, seedOf(byte(16*len(v.Blocks)+1)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// forge adds a block to v as a cheat would who has v's key and her own program: nothing is checked.
func forge(v *Invite, b Block, seed [16]byte) *Invite {
	d := &Invite{Chain: v.Chain, Secret: v.Secret, Hints: v.Hints, seed: seed}
	b.Issuer = v.Holder
	d.Holder = holderKey(seed).Public().(ed25519.PublicKey)
	d.Blocks = append(append([]Block(nil), v.Blocks...), b)
	i := len(d.Blocks) - 1
	d.Blocks[i].Sig = sign(holderKey(v.seed), blockDomain, d.signed(i, room.OpID{}))
	return d
}

// resign signs block 0 anew with whatever it says now.
func resign(v *Invite, by person) *Invite {
	v.Blocks[0].Sig = by.Sign(blockDomain, v.signed(0, appoint))
	return v
}

// retoken writes raw token bytes with a checksum that fits.
func retoken(raw []byte) string {
	body := raw[:len(raw)-4]
	return tokenText.EncodeToString(binary.BigEndian.AppendUint32(body[:len(body):len(body)], crc32.ChecksumIEEE(body)))
}

func rawOf(t testing.TB, token string) []byte {
	t.Helper()
	raw, err := tokenText.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func hintAt(of person, at string, kind HintKind) Hint {
	h := Hint{Kind: kind, Peer: of.Public(), QUIC: true, TCP: true, Port: 4001}
	if a, err := netip.ParseAddr(at); err == nil {
		h.Addr = a
	} else {
		h.DNS = at
	}
	return h
}
