package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// A value lies on disk as `version 1 | check 8 | value`. The check is the first bytes of SHA-256 over the version, the
// length of the key, the key and the value, so that a changed byte is noticed in the value and in the key alike.
const (
	frameVersion = 1
	checkLen     = 8
	frameHead    = 1 + checkLen
)

func frame(key, value []byte) []byte {
	out := make([]byte, 0, frameHead+len(value))
	out = append(out, frameVersion)
	out = append(out, check(key, value)...)
	return append(out, value...)
}

// unframe is the value in framed, not copied, or an error that wraps ErrDamaged and names the key.
func unframe(key, framed []byte) ([]byte, error) {
	switch {
	case len(framed) < frameHead:
		return nil, fmt.Errorf("%w: %s is cut short", ErrDamaged, key)
	case framed[0] != frameVersion:
		return nil, fmt.Errorf("%w: %s has the unknown version %d", ErrDamaged, key, framed[0])
	case !bytes.Equal(framed[1:frameHead], check(key, framed[frameHead:])):
		return nil, fmt.Errorf("%w: %s does not match its check", ErrDamaged, key)
	}
	return framed[frameHead:], nil
}

func check(key, value []byte) []byte {
	h := sha256.New()
	var head [5]byte
	head[0] = frameVersion
	binary.BigEndian.PutUint32(head[1:], uint32(len(key))) //nolint:gosec // bbolt's keys are at most 32 KiB
	h.Write(head[:])
	h.Write(key)
	h.Write(value)
	return h.Sum(nil)[:checkLen]
}
