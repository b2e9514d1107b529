// Package room owns what a room is: its id, its roles, the decisions that people may take in it and the
// state that these decisions make. It does not verify, order or store decisions (room/ledger), and it
// has no clock, no socket and no goroutine.
package room

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
	"time"
)

// ID names a room and binds its host's key and its nonce: SHA-256("balai-room/1" || host key || nonce).
type ID [32]byte

// Secret is R, the rendezvous secret of a room: without it nobody can name the room's topics. It is never
// a media key and never changes.
type Secret [16]byte

var base32Lower = base32.StdEncoding.WithPadding(base32.NoPadding)

// String is lower-case base32 without padding, 52 characters.
func (id ID) String() string { return lower32(id[:]) }

// ParseID reads what String wrote. The error is Malformed.
func ParseID(s string) (ID, error) {
	var id ID
	b, err := base32Lower.DecodeString(strings.ToUpper(s))
	if err != nil || len(b) != len(id) || lower32(b) != s {
		return id, fmt.Errorf("room id %.60q: %w", s, Malformed)
	}
	return ID(b), nil
}

// IDOf derives the id of the room that host opened with nonce.
func IDOf(host ed25519.PublicKey, nonce [16]byte) ID {
	b := make([]byte, 0, 64)
	b = append(b, "balai-room/1"...)
	b = append(b, host...)
	b = append(b, nonce[:]...)
	return sha256.Sum256(b)
}

// NewSecret draws an R.
func NewSecret() Secret {
	var s Secret
	rand.Read(s[:]) //nolint:errcheck // crypto/rand.Read never fails since Go 1.24
	return s
}

// Nonce is what genesis shows of R: SHA-256("balai-nonce/1" || R)[:16].
func (s Secret) Nonce() [16]byte {
	h := sha256.Sum256(append([]byte("balai-nonce/1"), s[:]...))
	return [16]byte(h[:16])
}

// Name is a name of the room for one purpose, such as a topic: base32(HMAC-SHA256(R, purpose)).
func (s Secret) Name(purpose string) string {
	m := hmac.New(sha256.New, s[:])
	m.Write([]byte(purpose))
	return lower32(m.Sum(nil))
}

// PublicName is Name for places where outsiders see it: it changes with the UTC day.
func (s Secret) PublicName(purpose string, day time.Time) string {
	return s.Name(purpose + day.UTC().Format("2006-01-02"))
}

// String hides the secret.
func (s Secret) String() string { return "room.Secret(hidden)" }

// GoString hides the secret.
func (s Secret) GoString() string { return s.String() }

func lower32(b []byte) string { return strings.ToLower(base32Lower.EncodeToString(b)) }
