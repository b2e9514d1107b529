package identity

import (
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// ErrPassphrase tells that a sealed key did not open: a wrong passphrase or a changed file, which look alike.
var ErrPassphrase = errors.New("identity: wrong passphrase, or the sealed key is damaged")

// The cost of a passphrase: the second recommended option of RFC 9106, section 4. The file names its version, not its
// cost, so that a hostile file cannot ask for more.
const (
	sealTime    = 3
	sealMemory  = 64 * 1024 // KiB
	sealThreads = 4
	saltLen     = 16

	sealDomain = "balai-sealed-key/1"
)

// Seal is the key as a text that needs pass to be read again: PEM of salt 16 | nonce 24 | XChaCha20-Poly1305 of the
// seed, under Argon2id of the passphrase, bound to the peer id beside it. An empty passphrase is refused. It takes
// about 64 MiB of memory for a moment.
func (k *Key) Seal(pass []byte) ([]byte, error) {
	if len(pass) == 0 {
		return nil, errors.New("identity: seal: an empty passphrase protects nothing")
	}
	head := make([]byte, saltLen+chacha20poly1305.NonceSizeX, saltLen+chacha20poly1305.NonceSizeX+ed25519.SeedSize+chacha20poly1305.Overhead)
	if _, err := rand.Read(head); err != nil {
		return nil, fmt.Errorf("identity: seal: %w", err)
	}
	return k.sealWith(pass, head)
}

// sealWith seals with the salt and the nonce given in head.
func (k *Key) sealWith(pass []byte, head []byte) ([]byte, error) {
	aead, err := stretch(pass, head[:saltLen])
	if err != nil {
		return nil, fmt.Errorf("identity: seal: %w", err)
	}
	seed := k.private.Seed()
	defer clear(seed)
	name := separated(sealDomain, []byte(k.id.String()))
	body := aead.Seal(head, head[saltLen:], seed, name)
	return pem.EncodeToMemory(&pem.Block{Type: sealedType, Headers: headersOf(k), Bytes: body}), nil
}

// Open reads what Seal wrote. A text that is not a sealed key is ErrCorrupt, one that does not open ErrPassphrase.
func Open(sealed []byte, pass []byte) (*Key, error) {
	if len(sealed) > maxFile {
		return nil, ErrCorrupt
	}
	block, err := parse(sealed)
	if err != nil {
		return nil, err
	}
	const head = saltLen + chacha20poly1305.NonceSizeX
	if block.Type != sealedType || len(block.Bytes) != head+ed25519.SeedSize+chacha20poly1305.Overhead {
		return nil, ErrCorrupt
	}
	aead, err := stretch(pass, block.Bytes[:saltLen])
	if err != nil {
		return nil, fmt.Errorf("identity: open: %w", err)
	}
	name := block.Headers[headerPeer]
	seed, err := aead.Open(nil, block.Bytes[saltLen:head], block.Bytes[head:], separated(sealDomain, []byte(name)))
	if err != nil {
		return nil, ErrPassphrase
	}
	defer clear(seed)
	return keyNamed(seed, name)
}

// stretch is the cipher that a passphrase gives with a salt. The cipher keeps a copy of its key until it is collected.
func stretch(pass, salt []byte) (cipher.AEAD, error) {
	key := argon2.IDKey(pass, salt, sealTime, sealMemory, sealThreads, chacha20poly1305.KeySize)
	defer clear(key)
	return chacha20poly1305.NewX(key)
}
