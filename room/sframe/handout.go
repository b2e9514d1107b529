package sframe

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"fmt"
)

// HandoutKey is the X25519 key to which others seal epochs for this process. It is drawn at each process start.
type HandoutKey struct {
	priv   hpke.PrivateKey
	public [32]byte
}

// NewHandoutKey draws a key.
func NewHandoutKey() *HandoutKey {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return handoutKey(k)
}

func handoutKey(k *ecdh.PrivateKey) *HandoutKey {
	priv, err := hpke.NewDHKEMPrivateKey(k)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return &HandoutKey{priv: priv, public: [32]byte(k.PublicKey().Bytes())}
}

// Public is the 32-byte X25519 key that a HandoutKey record carries.
func (k *HandoutKey) Public() [32]byte { return k.public }

// Open opens what SealHandout made for this key. ErrForged if it was not sealed for this key, room and epoch.
func (k *HandoutKey) Open(room [32]byte, id EpochID, enc, ct []byte) ([]byte, error) {
	r, err := hpke.NewRecipient(enc, k.priv, hpke.HKDFSHA256(), hpke.AES128GCM(), handoutInfo(room, id))
	if err != nil {
		return nil, fmt.Errorf("%w: handout: %w", ErrMalformed, err)
	}
	plain, err := r.Open(nil, ct)
	if err != nil {
		return nil, fmt.Errorf("%w: handout", ErrForged)
	}
	return plain, nil
}

// SealHandout seals plain to public with HPKE base mode, DHKEM(X25519, HKDF-SHA256) / HKDF-SHA256 / AES-128-GCM
// (RFC 9180). ErrMalformed if public is no X25519 key.
func SealHandout(public []byte, room [32]byte, id EpochID, plain []byte) (enc, ct []byte, err error) {
	pub, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: handout key: %w", ErrMalformed, err)
	}
	to, err := hpke.NewDHKEMPublicKey(pub)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: handout key: %w", ErrMalformed, err)
	}
	enc, s, err := hpke.NewSender(to, hpke.HKDFSHA256(), hpke.AES128GCM(), handoutInfo(room, id))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: handout key: %w", ErrMalformed, err) // a point of low order
	}
	if ct, err = s.Seal(nil, plain); err != nil {
		panic("impossible: " + err.Error())
	}
	return enc, ct, nil
}

// handoutInfo is "balai-handout/1" || 0 || room || epoch id.
func handoutInfo(room [32]byte, id EpochID) []byte {
	b := append([]byte("balai-handout/1\x00"), room[:]...)
	return append(b, id[:]...)
}
