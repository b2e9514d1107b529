// Package identity owns who speaks: a person's Ed25519 key and its file, the peer id, domain-separated signatures,
// fingerprint words and the profile. It does not own what a person may do in a room, nor any record's format.
package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ErrNotEd25519 tells that a peer id does not carry an Ed25519 public key.
var ErrNotEd25519 = errors.New("identity: the peer id is not that of an Ed25519 key")

// Key is a person's private key. It never changes once made and may be used from any goroutine. No way of printing
// or logging it shows more than its peer id.
type Key struct {
	private ed25519.PrivateKey
	libp2p  crypto.PrivKey
	id      peer.ID
}

// Generate makes a new key from the system's random source. It touches no file.
func Generate() (*Key, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return nil, fmt.Errorf("identity: generate: %w", err)
	}
	return fromSeed(seed)
}

// fromSeed makes the key of a 32-byte seed (RFC 8032, section 5.1.5).
func fromSeed(seed []byte) (*Key, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("identity: a seed of %d bytes, want %d", len(seed), ed25519.SeedSize)
	}
	private := ed25519.NewKeyFromSeed(seed)
	wrapped, err := crypto.UnmarshalEd25519PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	id, err := peer.IDFromPrivateKey(wrapped)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return &Key{private: private, libp2p: wrapped, id: id}, nil
}

// ID is the key's peer id.
func (k *Key) ID() peer.ID { return k.id }

// Private is the key as libp2p wants it. Callers must not log or store it.
func (k *Key) Private() crypto.PrivKey { return k.libp2p }

// Public is a copy of the 32-byte public key.
func (k *Key) Public() ed25519.PublicKey {
	return append(ed25519.PublicKey(nil), k.private[ed25519.SeedSize:]...)
}

// Sign is the 64-byte Ed25519 signature over domain || 0x00 || body. The domain names the record type and its
// version, for example "balai-op/1", and must not hold a zero byte.
func (k *Key) Sign(domain string, body []byte) []byte {
	return ed25519.Sign(k.private, separated(domain, body))
}

// String is the peer id, so that a key printed by mistake shows nothing secret.
func (k *Key) String() string { return "key of " + k.id.String() }

// Format prints what String does, whatever the verb.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue is the peer id: slog never sees the key.
func (k *Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText refuses: a key is written by Save and Seal only, never as a part of some JSON.
func (k *Key) MarshalText() ([]byte, error) {
	return nil, errors.New("identity: a key is never marshalled; use Save or Seal")
}

// Verify tells whether sig is pub's signature over domain || 0x00 || body. Keys and signatures of a wrong length are
// false, never a panic.
func Verify(pub ed25519.PublicKey, domain string, body, sig []byte) bool {
	if len(pub) != ed25519.PublicKeySize || len(sig) != ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(pub, separated(domain, body), sig)
}

// RecordID is SHA-256(domain || 0x00 || body): the name of a signed record, over the same bytes as its signature.
func RecordID(domain string, body []byte) [32]byte {
	return sha256.Sum256(separated(domain, body))
}

// PeerOf is the peer id of an Ed25519 public key of 32 bytes.
func PeerOf(pub ed25519.PublicKey) (peer.ID, error) {
	wrapped, err := crypto.UnmarshalEd25519PublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("identity: peer of: %w", err)
	}
	return peer.IDFromPublicKey(wrapped)
}

// PublicOf is the public key that an Ed25519 peer id carries. Any other peer id is ErrNotEd25519.
func PublicOf(p peer.ID) (ed25519.PublicKey, error) {
	wrapped, err := p.ExtractPublicKey()
	if err != nil || wrapped.Type() != crypto.Ed25519 {
		return nil, ErrNotEd25519
	}
	raw, err := wrapped.Raw()
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, ErrNotEd25519
	}
	return raw, nil
}

// separated is domain || 0x00 || body in a slice of its own.
func separated(domain string, body []byte) []byte {
	out := make([]byte, 0, len(domain)+1+len(body))
	out = append(out, domain...)
	out = append(out, 0)
	return append(out, body...)
}
