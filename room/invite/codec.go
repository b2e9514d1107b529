package invite

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"balai/room"
)

// First bytes. The public part has its own, so that neither is ever read as the other.
const (
	tokenVersion  = 0x01
	publicVersion = 0x81
)

// Bits of a block's flag byte.
const (
	flagStrict   = 0x01
	flagKnock    = 0x02
	flagAudience = 0x04
	flagHost     = 0x80
	flagsKnown   = flagStrict | flagKnock | flagAudience | flagHost
	flagsKept    = flagStrict | flagKnock | flagAudience
)

// Lengths in bytes.
const (
	keyLen    = ed25519.PublicKeySize
	sigLen    = ed25519.SignatureSize
	fixedLen  = 12                                           // of a block, before its keys
	maxBlock  = fixedLen + 2*keyLen + sigLen                 // 140
	maxPublic = 2 + keyLen + 16 + keyLen + MaxChain*maxBlock // 502
	minToken  = 2 + keyLen + 16 + 16 + fixedLen + sigLen + 4 // 146
)

var tokenText = base64.RawURLEncoding.Strict()

// Token is the invite as base64url without padding:
//
//	0x01 | blocks u4, hints u4 | host key 32 | R 16 | seed 16 | blocks | hints | CRC-32 (IEEE) of all before
//
// It holds the seed: whoever reads it may use it.
func (v *Invite) Token() string {
	b := make([]byte, 0, MaxToken)
	b = append(b, tokenVersion, byte(len(v.Blocks)<<4|len(v.Hints)))
	b = append(b, v.Host...)
	b = append(b, v.Secret[:]...)
	b = append(b, v.seed[:]...)
	b = v.appendBlocks(b)
	for i := range v.Hints {
		b = v.Hints[i].append(b, v.Issuer())
	}
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return tokenText.EncodeToString(b)
}

// Public is the part that travels in HELLO:
//
//	0x81 | blocks u4, 0 | host key 32 | nonce 16 | holder key 32 | blocks
//
// The holder's public key stands for the seed, the room's nonce for R: a false admitter learns neither.
func (c *Chain) Public() []byte {
	b := make([]byte, 0, maxPublic)
	b = append(b, publicVersion, byte(len(c.Blocks)<<4))
	b = append(b, c.Host...)
	b = append(b, c.Nonce[:]...)
	b = append(b, c.Holder...)
	return c.appendBlocks(b)
}

func (c *Chain) appendBlocks(b []byte) []byte {
	for i := range c.Blocks {
		b = c.appendBlock(b, i)
	}
	return b
}

// appendBlock writes block i:
//
//	role u4, depth u4 | flags 1 | uses 2 | not before 4 | expiry 4 | [issuer 32] | [audience 32] | sig 64
func (c *Chain) appendBlock(b []byte, i int) []byte {
	k := &c.Blocks[i]
	b = c.appendFixed(b, i)
	if !c.byHost(i) {
		b = append(b, k.Issuer...)
	}
	b = append(b, k.Audience...)
	return append(b, k.Sig...)
}

func (c *Chain) appendFixed(b []byte, i int) []byte {
	k := &c.Blocks[i]
	flags := k.flags()
	if c.byHost(i) {
		flags |= flagHost
	}
	b = append(b, byte(k.Role)<<4|k.Depth, flags)
	b = binary.BigEndian.AppendUint16(b, k.Uses)
	b = binary.BigEndian.AppendUint32(b, uint32(k.NotBefore.Unix()))
	return binary.BigEndian.AppendUint32(b, uint32(k.Expiry.Unix()))
}

func (k *Block) flags() (f byte) {
	if k.Strict {
		f |= flagStrict
	}
	if k.Knock {
		f |= flagKnock
	}
	if k.Audience != nil {
		f |= flagAudience
	}
	return f
}

// signed rebuilds the body that the issuer of block i signs, under the domain "balai-invite/1":
//
//	room 32 | index 1 | the first 12 bytes of the block | [audience 32] | issuer 32
//	| block 0 not by the host: id of the issuer's appoint op 32
//	| later blocks: SHA-256 of the parent block as it stands in the token, signature included, 32
//	| public key of the next holder 32
func (c *Chain) signed(i int, appoint room.OpID) []byte {
	k := &c.Blocks[i]
	id := c.Room()
	b := make([]byte, 0, 256)
	b = append(b, id[:]...)
	b = append(b, byte(i))
	b = c.appendFixed(b, i)
	b = append(b, k.Audience...)
	b = append(b, k.Issuer...)
	switch {
	case i > 0:
		h := sha256.Sum256(c.appendBlock(make([]byte, 0, maxBlock), i-1))
		b = append(b, h[:]...)
	case !c.byHost(0):
		b = append(b, appoint[:]...)
	}
	return append(b, c.next(i)...)
}

// parseToken reads what Token wrote and nothing else: every value has one form. The error is room.Malformed.
func parseToken(s string) (*Invite, error) {
	if len(s) > MaxToken {
		return nil, fmt.Errorf("token of %d characters: %w", len(s), room.Malformed)
	}
	raw, err := tokenText.DecodeString(s)
	if err != nil || len(raw) < minToken || tokenText.EncodedLen(len(raw)) != len(s) {
		return nil, fmt.Errorf("token is not base64url: %w", room.Malformed)
	}
	body, sum := raw[:len(raw)-4], binary.BigEndian.Uint32(raw[len(raw)-4:])
	if crc32.ChecksumIEEE(body) != sum {
		return nil, fmt.Errorf("token checksum: %w", room.Malformed)
	}
	r := &reader{p: body}
	head := r.take(2)
	if head[0] != tokenVersion {
		return nil, fmt.Errorf("token version %d: %w", head[0], room.Malformed)
	}
	v := &Invite{}
	v.Host = r.key()
	copy(v.Secret[:], r.take(16))
	copy(v.seed[:], r.take(16))
	v.Nonce = v.Secret.Nonce()
	r.blocks(&v.Chain, int(head[1]>>4))
	r.hints(v, int(head[1]&0x0f))
	if r.bad || len(r.p) > 0 {
		return nil, fmt.Errorf("token: %w", room.Malformed)
	}
	v.Holder = holderKey(v.seed).Public().(ed25519.PublicKey)
	return v, nil
}

// ParsePublic reads what Public wrote and nothing else. The signatures are not checked (Verify does). The
// error is room.Malformed.
func ParsePublic(b []byte) (*Chain, error) {
	if len(b) < 2 || len(b) > maxPublic || b[0] != publicVersion || b[1]&0x0f != 0 {
		return nil, fmt.Errorf("invite of %d bytes: %w", len(b), room.Malformed)
	}
	r := &reader{p: b[2:]}
	c := &Chain{Host: r.key()}
	copy(c.Nonce[:], r.take(16))
	c.Holder = r.key()
	r.blocks(c, int(b[1]>>4))
	if r.bad || len(r.p) > 0 {
		return nil, fmt.Errorf("invite: %w", room.Malformed)
	}
	return c, nil
}

// reader takes fields off the front; bad stays set once anything was wrong.
type reader struct {
	p   []byte
	bad bool
}

// take returns the next n bytes, or n zeros when there are fewer.
func (r *reader) take(n int) []byte {
	if len(r.p) < n {
		r.bad, r.p = true, nil
		return make([]byte, n)
	}
	b := r.p[:n]
	r.p = r.p[n:]
	return b
}

func (r *reader) key() ed25519.PublicKey { return bytes.Clone(r.take(keyLen)) }

func (r *reader) blocks(c *Chain, n int) {
	if n < 1 || n > MaxChain {
		r.bad = true
		return
	}
	for i := 0; i < n && !r.bad; i++ {
		c.Blocks = append(c.Blocks, r.block(c, i))
	}
}

func (r *reader) block(c *Chain, i int) Block {
	f := r.take(fixedLen)
	flags := f[1]
	k := Block{
		Role: room.Role(f[0] >> 4), Depth: f[0] & 0x0f,
		Strict: flags&flagStrict != 0, Knock: flags&flagKnock != 0,
		Uses:      binary.BigEndian.Uint16(f[2:]),
		NotBefore: time.Unix(int64(binary.BigEndian.Uint32(f[4:])), 0).UTC(),
		Expiry:    time.Unix(int64(binary.BigEndian.Uint32(f[8:])), 0).UTC(),
	}
	if flags&flagHost != 0 {
		k.Issuer = c.Host
	} else {
		k.Issuer = r.key()
	}
	if flags&flagAudience != 0 {
		k.Audience = r.key()
	}
	k.Sig = bytes.Clone(r.take(sigLen))
	byHost := k.Issuer.Equal(c.Host) // has one form in block 0, and none later
	if flags&^flagsKnown != 0 || k.check() != nil || byHost != (flags&flagHost != 0) || byHost && i > 0 {
		r.bad = true
	}
	return k
}

// check tells whether a block can be in a token at all.
func (k *Block) check() error {
	if k.Role != room.Listener && k.Role != room.Speaker {
		return fmt.Errorf("an invite as %v: %w", k.Role, room.Malformed)
	}
	if !k.Expiry.After(k.NotBefore) {
		return fmt.Errorf("expiry is not after the beginning: %w", room.Malformed)
	}
	return nil
}

func (r *reader) hints(v *Invite, n int) {
	if n > MaxHints || r.bad {
		r.bad = true
		return
	}
	for i := 0; i < n && !r.bad; i++ {
		v.Hints = append(v.Hints, r.hint(v.Issuer()))
	}
}
