// Package invite owns invites: what one grants, how it is delegated, its bytes, its link and the proof that
// somebody holds it. It does not count uses, know who was revoked or ask whether an issuer is a moderator
// (room/ledger does), and it dials nothing: hints are only read and written.
package invite

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
)

// Limits of a token.
const (
	MaxChain = 3   // blocks: the issuer's and two delegations
	MaxDepth = 2   // further delegations that a block may allow
	MaxHints = 4   // two are usual
	MaxToken = 800 // characters of base64url
)

// Domains of the signatures and of the key derivation.
const (
	blockDomain = "balai-invite/1"
	claimDomain = "balai-claim/1"
	keyInfo     = "balai-invite-key/1"
)

// Signer signs for a person; identity.Key is one.
type Signer interface {
	Public() ed25519.PublicKey
	Sign(domain string, body []byte) []byte
}

// Block is one link of the chain of an invite: what its issuer grants to the next holder.
type Block struct {
	Role      room.Role // room.Listener or room.Speaker
	Depth     uint8     // how often the holder may delegate on
	Strict    bool      // only the issuer of the first block admits
	Knock     bool      // an authority is asked before each admission
	Uses      uint16    // 0 is unlimited
	NotBefore time.Time // UTC, whole seconds
	Expiry    time.Time // UTC, whole seconds
	Issuer    ed25519.PublicKey
	Audience  ed25519.PublicKey // the one person it is for; nil is anybody
	Sig       []byte            // 64 bytes
}

// Chain is the public part of an invite, all that an admitter sees: no seed, no R and no hints. Showing
// it gives nothing away but who issued it; using it needs the key of Holder.
type Chain struct {
	Host   ed25519.PublicKey
	Nonce  [16]byte          // of the room, from R
	Holder ed25519.PublicKey // of the last block
	Blocks []Block           // 1 to MaxChain
}

// Invite is a decoded token. Whoever has it may use it: it is a secret.
type Invite struct {
	Chain
	Secret room.Secret
	Hints  []Hint // unsigned; a false one admits nobody
	seed   [16]byte
}

// Format prints the invite's id whatever the verb: a token never gets into a log.
func (v Invite) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "invite "+v.ID().String()) }

// LogValue is the invite's id.
func (v Invite) LogValue() slog.Value { return slog.StringValue("invite " + v.ID().String()) }

// MarshalText refuses: an invite is written by Link and Token only, never as a part of some JSON.
func (v Invite) MarshalText() ([]byte, error) {
	return nil, errors.New("an invite is never marshalled; use Link")
}

// Terms are what Issue and Delegate grant. In Delegate a zero Role, Uses, NotBefore, Expiry, Audience and
// nil Hints mean the parent's, and a flag of the parent stays set.
type Terms struct {
	Role      room.Role
	Depth     uint8
	Uses      uint16 // 0 is unlimited
	NotBefore time.Time
	Expiry    time.Time
	Strict    bool
	Knock     bool
	Audience  peer.ID   // empty: anybody
	Grant     room.OpID // the appoint op of an issuer who is a moderator; zero for the host
	Hints     []Hint    // the most useful first: what makes the token too long falls off the end
}

// Issue makes an invite into the room that host opened with secret. The error is room.Malformed for terms
// that no token can carry, room.Depth for too deep ones.
func Issue(by Signer, host ed25519.PublicKey, secret room.Secret, t Terms) (*Invite, error) {
	return issue(by, host, secret, t, newSeed())
}

func issue(by Signer, host ed25519.PublicKey, secret room.Secret, t Terms, seed [16]byte) (*Invite, error) {
	v := &Invite{
		Chain:  Chain{Host: host, Nonce: secret.Nonce(), Holder: holderKey(seed).Public().(ed25519.PublicKey)},
		Secret: secret, Hints: t.Hints, seed: seed,
	}
	b, err := t.block(by.Public())
	if err != nil {
		return nil, err
	}
	v.Blocks = []Block{b}
	if err := v.checkNew(); err != nil {
		return nil, err
	}
	if !v.byHost(0) && t.Grant == (room.OpID{}) {
		return nil, fmt.Errorf("an issuer who is not the host needs her appoint op: %w", room.Malformed)
	}
	v.Blocks[0].Sig = by.Sign(blockDomain, v.signed(0, t.Grant))
	v.fit()
	return v, nil
}

// Delegate makes an invite of the holder's own from v, with a new key: v and what its holder has given on
// stay apart, so that each can be revoked alone. The error is room.Depth where v may not be given on,
// room.Widened where the terms exceed v's, room.Malformed for terms that no token can carry.
func (v *Invite) Delegate(t Terms) (*Invite, error) { return v.delegate(t, newSeed()) }

func (v *Invite) delegate(t Terms, seed [16]byte) (*Invite, error) {
	parent := v.last()
	b, err := t.inherit(parent).block(v.Holder)
	if err != nil {
		return nil, err
	}
	if t.Audience == "" {
		b.Audience = parent.Audience
	}
	if err := narrows(parent, &b); err != nil {
		return nil, err
	}
	d := &Invite{
		Chain:  Chain{Host: v.Host, Nonce: v.Nonce, Holder: holderKey(seed).Public().(ed25519.PublicKey)},
		Secret: v.Secret, Hints: v.Hints, seed: seed,
	}
	if t.Hints != nil {
		d.Hints = t.Hints
	}
	d.Blocks = append(append(d.Blocks, v.Blocks...), b)
	if err := d.checkNew(); err != nil {
		return nil, err
	}
	i := len(d.Blocks) - 1
	d.Blocks[i].Sig = sign(holderKey(v.seed), blockDomain, d.signed(i, room.OpID{}))
	d.fit()
	return d, nil
}

// Room is the room that the invite is for.
func (c *Chain) Room() room.ID { return room.IDOf(c.Host, c.Nonce) }

// ID names the invite: the public key of its last holder.
func (c *Chain) ID() room.InviteID { return room.InviteID(c.Holder) }

// ChainIDs are the ids of the invites along the chain, the issuer's first; the last is ID.
func (c *Chain) ChainIDs() []room.InviteID {
	ids := make([]room.InviteID, 0, len(c.Blocks))
	for i := range c.Blocks {
		ids = append(ids, room.InviteID(c.next(i)))
	}
	return ids
}

// Uses are the maximum uses of each block, in the order of ChainIDs; an admission is charged to all.
func (c *Chain) Uses() []uint16 {
	uses := make([]uint16, 0, len(c.Blocks))
	for i := range c.Blocks {
		uses = append(uses, c.Blocks[i].Uses)
	}
	return uses
}

// Grant is the last block: as each block only narrows, it says all that the holder gets.
func (c *Chain) Grant() Block { return *c.last() }

// Issuer is who issued the first block: the host or a moderator.
func (c *Chain) Issuer() ed25519.PublicKey { return c.Blocks[0].Issuer }

func (c *Chain) last() *Block { return &c.Blocks[len(c.Blocks)-1] }

// next is the key of whoever block i grants to.
func (c *Chain) next(i int) ed25519.PublicKey {
	if i+1 < len(c.Blocks) {
		return c.Blocks[i+1].Issuer
	}
	return c.Holder
}

func (c *Chain) byHost(i int) bool { return i == 0 && c.Blocks[0].Issuer.Equal(c.Host) }

func (t Terms) block(issuer ed25519.PublicKey) (Block, error) {
	if t.Depth > MaxDepth {
		return Block{}, fmt.Errorf("depth %d: %w", t.Depth, room.Depth)
	}
	b := Block{
		Role: t.Role, Depth: t.Depth, Strict: t.Strict, Knock: t.Knock, Uses: t.Uses,
		NotBefore: t.NotBefore, Expiry: t.Expiry, Issuer: issuer,
	}
	if t.NotBefore.IsZero() {
		b.NotBefore = time.Unix(0, 0)
	}
	b.NotBefore, b.Expiry = b.NotBefore.UTC().Truncate(time.Second), b.Expiry.UTC().Truncate(time.Second)
	if t.Audience != "" {
		key, err := identity.PublicOf(t.Audience)
		if err != nil {
			return Block{}, fmt.Errorf("audience: %w", room.Malformed)
		}
		b.Audience = key
	}
	if !inUint32(b.NotBefore) || !inUint32(b.Expiry) {
		return Block{}, fmt.Errorf("time out of range: %w", room.Malformed)
	}
	return b, nil
}

func (t Terms) inherit(p *Block) Terms {
	if t.Role == room.NoRole {
		t.Role = p.Role
	}
	if t.Uses == 0 {
		t.Uses = p.Uses
	}
	if t.NotBefore.IsZero() {
		t.NotBefore = p.NotBefore
	}
	if t.Expiry.IsZero() {
		t.Expiry = p.Expiry
	}
	t.Strict = t.Strict || p.Strict
	t.Knock = t.Knock || p.Knock
	return t
}

func (v *Invite) checkNew() error {
	if len(v.Host) != ed25519.PublicKeySize {
		return fmt.Errorf("host key: %w", room.Malformed)
	}
	if len(v.Blocks) > MaxChain {
		return fmt.Errorf("chain of %d: %w", len(v.Blocks), room.Depth)
	}
	if err := v.last().check(); err != nil {
		return err
	}
	for i := range v.Hints {
		if err := v.Hints[i].check(v.Issuer()); err != nil {
			return err
		}
	}
	return nil
}

// fit drops hints from the end until the token is short enough.
func (v *Invite) fit() {
	if len(v.Hints) > MaxHints {
		v.Hints = v.Hints[:MaxHints]
	}
	for len(v.Token()) > MaxToken {
		v.Hints = v.Hints[:len(v.Hints)-1]
	}
}

func inUint32(t time.Time) bool { return t.Unix() >= 0 && t.Unix() <= math.MaxUint32 }

func newSeed() (s [16]byte) {
	rand.Read(s[:]) //nolint:errcheck // crypto/rand.Read never fails since Go 1.24
	return s
}

// holderKey derives the key of an invite's holder: Ed25519 from HKDF-SHA256(seed, no salt, keyInfo).
func holderKey(seed [16]byte) ed25519.PrivateKey {
	k, err := hkdf.Key(sha256.New, seed[:], nil, keyInfo, ed25519.SeedSize)
	if err != nil {
		panic("impossible: hkdf of 32 bytes: " + err.Error())
	}
	return ed25519.NewKeyFromSeed(k)
}
