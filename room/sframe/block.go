package sframe

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

const (
	// BlockFrames is after how many frames a signature block is due, and how many it can list.
	BlockFrames = 10
	// BlockDelay is how long the first unsigned frame waits for its block.
	BlockDelay = 200 * time.Millisecond
	// BlockDomain separates block signatures from all others.
	BlockDomain = "balai-block/1"

	hashLen   = 8
	itemLen   = 1 + hashLen
	blockHead = 8 + 1 // wall ms u64 | n u8
	maxOffset = 255
	// MaxBlock is the longest body of a block, in bytes.
	MaxBlock = blockHead + BlockFrames*itemLen + ed25519.SignatureSize
)

// entryHash is SHA-256(whole entry)[:8]; entry is header, length and body as they travel.
func entryHash(entry []byte) (h [hashLen]byte) {
	sum := sha256.Sum256(entry)
	copy(h[:], sum[:])
	return h
}

// signedPart appends what a block's signature covers after the domain: room || epoch id || peer || salt ||
// 9 header bytes || body without signature.
func (o Owner) signedPart(dst []byte, id EpochID, header, body []byte) []byte {
	dst = append(dst, o.Room[:]...)
	dst = append(dst, id[:]...)
	dst = append(dst, o.Peer...)
	dst = append(dst, o.Salt[:]...)
	dst = append(dst, header[:HeaderLen]...)
	return append(dst, body...)
}

// BlockSigner collects the frames of one own source and makes the signature blocks over them. Not safe for
// concurrent use.
type BlockSigner struct {
	owner  Owner
	source uint32
	sign   func(domain string, body []byte) []byte

	id    EpochID
	n     byte // epoch nibble
	first uint32
	since time.Time
	items []byte // (offset, hash) of each frame
}

// NewBlockSigner signs with sign, which must return the Ed25519 signature over domain || 0x00 || body.
func NewBlockSigner(owner Owner, sign func(domain string, body []byte) []byte) *BlockSigner {
	return &BlockSigner{owner: owner, source: owner.Source(), sign: sign, items: make([]byte, 0, BlockFrames*itemLen)}
}

// Pending is the number of frames that no block covers yet.
func (s *BlockSigner) Pending() int { return len(s.items) / itemLen }

// Due is when the block over the pending frames must be made; false when there are none. A time that has passed
// means now.
func (s *BlockSigner) Due() (time.Time, bool) {
	switch s.Pending() {
	case 0:
		return time.Time{}, false
	case BlockFrames:
		return s.since, true
	}
	return s.since.Add(BlockDelay), true
}

// Add takes a frame that was sent: the whole entry, sealed under epoch id. ErrSpan if the pending block is of another
// epoch, full, or too far back: make that block first, then add again. ErrMalformed if it is no frame of this source.
func (s *BlockSigner) Add(id EpochID, entry []byte, now time.Time) error {
	if err := checkHeader(entry, s.source); err != nil {
		return err
	}
	ctr := uint24(entry[6:])
	if s.Pending() == 0 {
		s.id, s.n, s.first, s.since = id, entry[4]>>4, ctr, now
	}
	if id != s.id || s.Pending() == BlockFrames || ctr < s.first || ctr-s.first > maxOffset {
		return ErrSpan
	}
	h := entryHash(entry)
	s.items = append(append(s.items, byte(ctr-s.first)), h[:]...)
	return nil
}

// Block makes the block over the pending frames: its header, and its body appended to dst. Wall is the speaker's
// clock, which no reader compares with another. ErrSpan if nothing is pending.
func (s *BlockSigner) Block(dst []byte, wall time.Time) (header [HeaderLen]byte, body []byte, err error) {
	n := s.Pending()
	if n == 0 {
		return header, dst, ErrSpan
	}
	header = blockHeader(s.source, s.n, s.first)
	start := len(dst)
	dst = binary.BigEndian.AppendUint64(dst, uint64(max(wall.UnixMilli(), 0)))
	dst = append(append(dst, byte(n)), s.items...)
	sig := s.sign(BlockDomain, s.owner.signedPart(nil, s.id, header[:], dst[start:]))
	s.items = s.items[:0]
	return header, append(dst, sig...), nil
}

// blockHeader is kind 1, no duration, marker, step or level; ctr is the first frame's.
func blockHeader(source uint32, epoch byte, first uint32) (h [HeaderLen]byte) {
	h[0] = kindBlock << 5
	h[1], h[2], h[3] = byte(source>>16), byte(source>>8), byte(source)
	h[4] = epoch << 4
	h[6], h[7], h[8] = byte(first>>16), byte(first>>8), byte(first)
	return h
}

// block is a parsed one.
type block struct {
	first, last uint32
	epoch       byte
	n           int
	items       [BlockFrames]claim
	sig         [ed25519.SignatureSize]byte
}

type claim struct {
	ctr  uint32
	hash [hashLen]byte
}

// parseBlock reads a block of source. Offsets must start at 0 and grow.
func parseBlock(header, body []byte, source uint32) (b block, err error) {
	if len(header) < HeaderLen || len(body) < blockHead {
		return b, ErrMalformed
	}
	b.epoch, b.first = header[4]>>4, uint24(header[6:])
	b.n = int(body[8])
	if want := blockHeader(source, b.epoch, b.first); !bytes.Equal(want[:], header[:HeaderLen]) {
		return b, ErrMalformed
	}
	if b.n < 1 || b.n > BlockFrames || len(body) != blockHead+b.n*itemLen+ed25519.SignatureSize {
		return b, ErrMalformed
	}
	if binary.BigEndian.Uint64(body) > 1<<48 {
		return b, fmt.Errorf("%w: block time", ErrMalformed)
	}
	for i := range b.n {
		item := body[blockHead+i*itemLen:]
		b.items[i].ctr = b.first + uint32(item[0])
		copy(b.items[i].hash[:], item[1:])
		if i == 0 && item[0] != 0 || i > 0 && b.items[i].ctr <= b.last || b.items[i].ctr > MaxCounter {
			return b, fmt.Errorf("%w: block offsets", ErrMalformed)
		}
		b.last = b.items[i].ctr
	}
	copy(b.sig[:], body[len(body)-ed25519.SignatureSize:])
	return b, nil
}

// BlockSpan is the first and the last counter that a block lists; its signature is not looked at. ErrMalformed if it is
// no block.
func BlockSpan(header, body []byte) (first, last uint32, err error) {
	if len(header) < HeaderLen {
		return 0, 0, ErrMalformed
	}
	b, err := parseBlock(header, body, uint24(header[1:]))
	return b.first, b.last, err
}

// claims tells what the block says about ctr: whether it decides about it, and with which hash if it lists it.
func (b *block) claims(ctr uint32) (decides bool, hash *[hashLen]byte) {
	if b.n == 0 || ctr < b.first || ctr > b.last {
		return false, nil
	}
	for i := range b.n {
		if b.items[i].ctr == ctr {
			return true, &b.items[i].hash
		}
	}
	return true, nil
}
