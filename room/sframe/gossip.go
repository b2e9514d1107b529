package sframe

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

// gossipHead is epoch id 16 | step u32; the nonce and the ciphertext follow.
const gossipHead = epochIDLen + 4

// GossipOverhead is by how much SealGossip makes a payload longer, in bytes.
const GossipOverhead = gossipHead + nonceLen + tagLen

// GossipEpoch tells under which epoch and step a gossip payload was sealed, before it is opened.
// ErrMalformed if the payload is too short to be one.
func GossipEpoch(payload []byte) (id EpochID, step uint32, err error) {
	if len(payload) < GossipOverhead {
		return id, 0, fmt.Errorf("%w: gossip payload of %d bytes", ErrMalformed, len(payload))
	}
	copy(id[:], payload)
	return id, binary.BigEndian.Uint32(payload[epochIDLen:]), nil
}

// SealGossip seals plain for topic of room under the epoch's present step: epoch id 16 | step u32 | nonce 12 |
// AES-128-GCM with topic || the first 20 bytes as additional data.
func (e Epoch) SealGossip(room [32]byte, topic string, plain []byte) []byte {
	var nonce [nonceLen]byte
	_, _ = rand.Read(nonce[:]) // never fails (crypto/rand)
	return e.sealGossip(room, topic, nonce, plain)
}

func (e Epoch) sealGossip(room [32]byte, topic string, nonce [nonceLen]byte, plain []byte) []byte {
	b := make([]byte, 0, GossipOverhead+len(plain))
	b = append(b, e.ID[:]...)
	b = binary.BigEndian.AppendUint32(b, e.Step)
	b = append(b, nonce[:]...)
	return e.gossipKey(room).Seal(b, nonce[:], plain, gossipData(topic, b))
}

// OpenGossip opens a payload of this epoch, ratcheting a copy forward at most MaxAhead steps. ErrNoKey for another
// epoch, ErrStep for a step behind or too far ahead, ErrForged if it does not authenticate, ErrMalformed if short.
func (e Epoch) OpenGossip(room [32]byte, topic string, payload []byte) ([]byte, error) {
	id, step, err := GossipEpoch(payload)
	if err != nil {
		return nil, err
	}
	if id != e.ID {
		return nil, fmt.Errorf("%w: epoch %v", ErrNoKey, id)
	}
	at, err := e.Advance(step)
	if err != nil {
		return nil, err
	}
	nonce := payload[gossipHead : gossipHead+nonceLen]
	plain, err := at.gossipKey(room).Open(nil, nonce, payload[gossipHead+nonceLen:], gossipData(topic, payload))
	if err != nil {
		return nil, fmt.Errorf("%w: gossip", ErrForged)
	}
	return plain, nil
}

func (e Epoch) gossipKey(room [32]byte) cipher.AEAD {
	return newGCM(expand(e.Secret, string(e.info("balai-gossip/1", room)), keyLen))
}

func gossipData(topic string, payload []byte) []byte {
	return append([]byte(topic), payload[:gossipHead]...)
}

func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return aead
}
