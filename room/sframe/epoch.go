// Package sframe owns the keys of a room's media and gossip: epochs and their ratchet, sealed frames after the
// model of RFC 9605, sealed gossip, handouts, and the signature blocks that bind frames to their speaker. It does
// not own the layout of bundles, who may speak, or when an epoch changes: it has no clock and no socket.
package sframe

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// MaxAhead is how many steps a copy of an epoch may be ratcheted forward at once: one hour of steps.
	MaxAhead = 360

	secretLen  = 32
	epochIDLen = 16
	keyLen     = 16 // AES-128
	nonceLen   = 12
	tagLen     = 16
)

// Refusals of this package. All are the peer's doing except ErrCounter and ErrSpan, which are the caller's.
var (
	ErrMalformed = errors.New("sframe: malformed")
	ErrStep      = errors.New("sframe: step behind or too far ahead")
	ErrNoKey     = errors.New("sframe: no key for this epoch and step")
	ErrForged    = errors.New("sframe: authentication failed")
	ErrReplay    = errors.New("sframe: counter seen before or too old")
	ErrAhead     = errors.New("sframe: counter ahead of its owner's clock")
	ErrCounter   = errors.New("sframe: counter would be used twice or is used up")
	ErrSpan      = errors.New("sframe: block would span an epoch or is full")
	ErrStale     = errors.New("sframe: counter far behind its owner's clock")
	ErrBusy      = errors.New("sframe: too many blocks to verify")
)

// Secret is E(n, s), the secret of one step of one epoch. It prints as nothing.
type Secret [secretLen]byte

// Format hides the secret from every verb of fmt and from logs.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// next is E(n, s+1).
func (s Secret) next() Secret {
	var n Secret
	copy(n[:], expand(s, "balai-ratchet/1", secretLen))
	return n
}

// EpochID names an epoch without telling its secret: SHA-256("balai-epoch/1" || E(n, 0))[:16].
type EpochID [epochIDLen]byte

func (id EpochID) String() string { return fmt.Sprintf("%x", id[:]) }

// Epoch is one epoch at one step. It is a value: Advance works on a copy.
type Epoch struct {
	N      uint64
	ID     EpochID
	Step   uint32
	Secret Secret // E(N, Step)
}

// NewEpoch draws a fresh secret for epoch n, at step 0.
func NewEpoch(n uint64) Epoch {
	e := Epoch{N: n}
	_, _ = rand.Read(e.Secret[:]) // never fails (crypto/rand)
	e.ID = idOf(e.Secret)
	return e
}

func idOf(s Secret) (id EpochID) {
	h := sha256.New()
	h.Write([]byte("balai-epoch/1"))
	h.Write(s[:])
	copy(id[:], h.Sum(nil))
	return id
}

// Verify reports whether the secret belongs to the id. Only step 0 can be checked: the ratchet has no way back,
// so a later step is trusted as far as whoever handed it out, and proves itself by opening what others seal.
func (e Epoch) Verify() error {
	if e.Step == 0 && idOf(e.Secret) != e.ID {
		return fmt.Errorf("%w: epoch %d: secret does not match id", ErrForged, e.N)
	}
	return nil
}

// Advance returns the epoch at step, at most MaxAhead further on. ErrStep if step lies behind or too far ahead.
func (e Epoch) Advance(step uint32) (Epoch, error) {
	if step < e.Step || step-e.Step > MaxAhead {
		return Epoch{}, fmt.Errorf("%w: from %d to %d", ErrStep, e.Step, step)
	}
	for e.Step < step {
		e.Secret = e.Secret.next()
		e.Step++
	}
	return e, nil
}

// Nibbles is the byte that a frame's header carries for this epoch and step: N mod 16, Step mod 16.
func (e Epoch) Nibbles() byte { return byte(e.N)<<4 | byte(e.Step)&15 }

// info is label || 0 || room || epoch id || step u32.
func (e Epoch) info(label string, room [32]byte) []byte {
	b := make([]byte, 0, 160)
	b = append(b, label...)
	b = append(b, 0)
	b = append(b, room[:]...)
	b = append(b, e.ID[:]...)
	return binary.BigEndian.AppendUint32(b, e.Step)
}

// expand is HKDF-Expand with SHA-256 (RFC 5869 §2.3).
func expand(s Secret, info string, n int) []byte {
	k, err := hkdf.Expand(sha256.New, s[:], info, n)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return k
}
