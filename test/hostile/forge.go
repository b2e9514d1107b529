package hostile

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/invite"
)

// Forger writes invites from docs/protocol.md alone, without room/invite: blocks that no honest program
// signs, and a second reading of the format.
type Forger struct {
	Host   ed25519.PublicKey
	Secret room.Secret
	blocks [][]byte // as they stand in the token
	holder ed25519.PrivateKey
	seed   [16]byte // of holder
	next   byte     // the next seed
}

// Block is what a forged block says. Times in seconds since 1970.
type Block struct {
	Role, Depth, Flags byte // flags without 0x80 and 0x04
	Uses               uint16
	NotBefore, Expiry  time.Time
	Audience           ed25519.PublicKey // sets flag 0x04
}

// NewForger begins a chain with a block signed by the host's own key.
func NewForger(host *identity.Key, secret room.Secret, b Block) *Forger {
	f := &Forger{Host: host.Public(), Secret: secret, next: 1}
	f.add(b, host.Public(), host.Sign)
	return f
}

// FromLink begins with the chain of a link that somebody gave out.
func FromLink(link string) (*Forger, error) {
	v, err := invite.ParseLink(link)
	if err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(v.Token())
	if err != nil || len(raw) < 70 {
		return nil, errors.New("not a token")
	}
	f := &Forger{Host: raw[2:34], Secret: room.Secret(raw[34:50]), seed: [16]byte(raw[50:66]), next: 101}
	f.holder = holderOf(f.seed)
	p := raw[66:]
	for range raw[1] >> 4 {
		n := 12 + 64
		if p[1]&0x80 == 0 {
			n += 32
		}
		if p[1]&0x04 != 0 {
			n += 32
		}
		f.blocks, p = append(f.blocks, p[:n]), p[n:]
	}
	return f, nil
}

// Last is the last block as it reads.
func (f *Forger) Last() Block {
	p := f.blocks[len(f.blocks)-1]
	b := Block{
		Role: p[0] >> 4, Depth: p[0] & 15, Flags: p[1] & 0x03, Uses: binary.BigEndian.Uint16(p[2:]),
		NotBefore: time.Unix(int64(binary.BigEndian.Uint32(p[4:])), 0), Expiry: time.Unix(int64(binary.BigEndian.Uint32(p[8:])), 0),
	}
	if p[1]&0x04 != 0 {
		b.Audience = p[len(p)-96 : len(p)-64]
	}
	return b
}

// Delegate adds a block signed by the holder, whatever it says.
func (f *Forger) Delegate(b Block) {
	key := f.holder
	f.add(b, key.Public().(ed25519.PublicKey), func(domain string, body []byte) []byte {
		return ed25519.Sign(key, append(append([]byte(domain), 0), body...))
	})
}

func (f *Forger) add(b Block, issuer ed25519.PublicKey, sign func(string, []byte) []byte) {
	for i := range f.seed {
		f.seed[i] = f.next
	}
	f.next++
	f.holder = holderOf(f.seed)
	i := len(f.blocks)
	flags := b.Flags
	if b.Audience != nil {
		flags |= 0x04
	}
	if i == 0 {
		flags |= 0x80
	}
	fixed := []byte{b.Role<<4 | b.Depth, flags}
	fixed = binary.BigEndian.AppendUint16(fixed, b.Uses)
	fixed = binary.BigEndian.AppendUint32(fixed, uint32(b.NotBefore.Unix()))
	fixed = binary.BigEndian.AppendUint32(fixed, uint32(b.Expiry.Unix()))

	id := f.Room()
	body := append(append(id[:], byte(i)), fixed...)
	body = append(append(body, b.Audience...), issuer...)
	if i > 0 {
		parent := sha256.Sum256(f.blocks[i-1])
		body = append(body, parent[:]...)
	}
	body = append(body, f.holder.Public().(ed25519.PublicKey)...)

	if i > 0 {
		fixed = append(fixed, issuer...)
	}
	f.blocks = append(f.blocks, append(append(fixed, b.Audience...), sign("balai-invite/1", body)...))
}

// Room is the room of the chain.
func (f *Forger) Room() room.ID { return room.IDOf(f.Host, f.Secret.Nonce()) }

// Link is the link of the chain, without hints.
func (f *Forger) Link() string {
	b := append([]byte{0x01, byte(len(f.blocks) << 4)}, f.Host...)
	b = append(append(b, f.Secret[:]...), f.seed[:]...)
	for _, block := range f.blocks {
		b = append(b, block...)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return "balai:join#" + base64.RawURLEncoding.EncodeToString(b)
}

// Entry is how to try to get in with it, for a newcomer.
func (f *Forger) Entry(newcomer peer.ID) Entry {
	id, nonce := f.Room(), f.Secret.Nonce()
	public := append([]byte{0x81, byte(len(f.blocks) << 4)}, f.Host...)
	public = append(public, nonce[:]...)
	public = append(public, f.holder.Public().(ed25519.PublicKey)...)
	for _, b := range f.blocks {
		public = append(public, b...)
	}
	return Entry{Room: id, Public: public, Name: "Mallory", Claim: func(challenge []byte, admitter peer.ID) []byte {
		m := append([]byte("balai-claim/1\x00"), id[:]...)
		m = append(append(m, byte(len(newcomer))), newcomer...)
		m = append(append(m, byte(len(admitter))), admitter...)
		return ed25519.Sign(f.holder, append(m, challenge...))
	}}
}

func holderOf(seed [16]byte) ed25519.PrivateKey {
	k, err := hkdf.Key(sha256.New, seed[:], nil, "balai-invite-key/1", 32)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return ed25519.NewKeyFromSeed(k)
}
