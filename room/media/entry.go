// Package media owns the format of bundles and their entries, and the pure rules of the media path: duplicates, who
// is loudest, what fits into a datagram, what is kept to be sent again. It does not seal or open (room/sframe) and
// does not send (node): it has no clock and no socket.
package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	// Tick is the unit of counters and durations.
	Tick = 20 * time.Millisecond
	// HeaderLen is the length of the part of an entry that its speaker writes and no relay changes.
	HeaderLen = 9
	// MaxTicks is the longest frame, in ticks.
	MaxTicks = 6
	// MaxPayload is the longest Opus packet that is carried, in bytes.
	MaxPayload = 1000
	// MaxCounter is the highest counter of a source.
	MaxCounter = 1<<24 - 1

	seal         = 16 // bytes that sealing adds to a payload
	maxFrameBody = MaxPayload + seal
	maxSource    = 1<<24 - 1
)

// ErrMalformed refuses bytes that are not in the one form that the format allows.
var ErrMalformed = errors.New("media: malformed")

// Kind says what an entry is. 3 to 7 are skipped by their length.
type Kind uint8

// The kinds of entries.
const (
	Frame   Kind = 0 // a sealed frame
	Block   Kind = 1 // a signature block
	Record  Kind = 2 // a LinkRecord; the header is otherwise zero
	Padding Kind = 7 // zeros, to hide the size
)

// Level is how loud a frame is, in -dBov (RFC 6464): 0 loudest, 127 silence.
type Level uint8

const (
	// Silence is the lowest level.
	Silence Level = 127
	// Unknown is what a missing level counts as.
	Unknown Level = 30
)

// Header is what the speaker says of an entry in its first 9 bytes.
type Header struct {
	Kind   Kind
	Ticks  uint8 // 1 to MaxTicks for a frame, else 0
	Marker bool
	Source uint32 // 24 bits
	Epoch  uint8  // epoch number mod 16
	Step   uint8  // step mod 16
	Voice  bool   // advice of the sender's voice detector
	Level  Level
	Ctr    uint32 // 24 bits, in ticks
}

// Put writes the header's 9 bytes. Fields too large for their place are cut.
func (h *Header) Put(b *[HeaderLen]byte) {
	b[0] = byte(h.Kind)<<5 | h.Ticks&7<<2
	if h.Marker {
		b[0] |= 2
	}
	put24(b[1:], h.Source)
	b[4] = h.Epoch<<4 | h.Step&15
	b[5] = byte(h.Level) & 127
	if h.Voice {
		b[5] |= 128
	}
	put24(b[6:], h.Ctr)
}

// ParseHeader reads the 9 bytes that Put writes. ErrMalformed for a form that its kind does not allow.
func ParseHeader(b []byte) (h Header, err error) {
	if len(b) < HeaderLen {
		return h, ErrMalformed
	}
	h = Header{
		Kind: Kind(b[0] >> 5), Ticks: b[0] >> 2 & 7, Marker: b[0]&2 != 0, Source: get24(b[1:]),
		Epoch: b[4] >> 4, Step: b[4] & 15, Voice: b[5]&128 != 0, Level: Level(b[5] & 127), Ctr: get24(b[6:]),
	}
	if !h.allowed(b) {
		return Header{}, ErrMalformed
	}
	return h, nil
}

func (h *Header) allowed(b []byte) bool {
	switch h.Kind {
	case Frame:
		return b[0]&1 == 0 && h.Ticks >= 1 && h.Ticks <= MaxTicks
	case Block:
		return b[0]&31 == 0 && h.Step == 0 && b[5] == 0
	case Record:
		return b[0]&31 == 0 && [HeaderLen - 1]byte(b[1:HeaderLen]) == [HeaderLen - 1]byte{}
	}
	return true
}

// Entry is one entry of a bundle. Its slices point into the bundle.
type Entry struct {
	Header
	Head []byte // the 9 header bytes as they came
	Body []byte
	Raw  []byte // header, length and body: what is forwarded, hashed and kept
}

// AppendEntry appends header, length varint and body to dst.
func AppendEntry(dst []byte, header *[HeaderLen]byte, body []byte) []byte {
	dst = append(dst, header[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(body)))
	return append(dst, body...)
}

// ParseEntry reads one entry from the front of b and returns the rest. ErrMalformed on anything that AppendEntry
// would not write, on a body of a length that its kind does not allow, and on a cut.
func ParseEntry(b []byte) (e Entry, rest []byte, err error) {
	h, err := ParseHeader(b)
	if err != nil {
		return Entry{}, nil, err
	}
	n, size := uvarint(b[HeaderLen:], MaxBundle)
	at := HeaderLen + size
	if size == 0 || int(n) > len(b)-at {
		return Entry{}, nil, fmt.Errorf("%w: entry length", ErrMalformed)
	}
	end := at + int(n)
	if h.Kind == Frame && (n <= seal || n > maxFrameBody) {
		return Entry{}, nil, fmt.Errorf("%w: frame of %d bytes", ErrMalformed, n)
	}
	return Entry{Header: h, Head: b[:HeaderLen:HeaderLen], Body: b[at:end:end], Raw: b[:end:end]}, b[end:], nil
}

// uvarint reads a varint of at most limit in its shortest form; size 0 if it is not one.
func uvarint(b []byte, limit uint64) (v uint64, size int) {
	v, size = binary.Uvarint(b)
	if size <= 0 || v > limit || size > 1 && b[size-1] == 0 {
		return 0, 0
	}
	return v, size
}

func put24(b []byte, v uint32) { b[0], b[1], b[2] = byte(v>>16), byte(v>>8), byte(v) }

func get24(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }
