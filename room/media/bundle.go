package media

import (
	"encoding/binary"
	"fmt"
	"math"
)

const (
	// MaxBundle is the longest bundle, in bytes; a path may allow less.
	MaxBundle = 1150
	// MaxEntries is how many entries a bundle can count.
	MaxEntries = 15
	// MaxHops is the highest hop count that a bundle can tell.
	MaxHops = 15

	bundleByte = 0x0A
)

// Bundle is the head of one datagram of a media link, and after Parse also its entries.
type Bundle struct {
	Flags  byte   // 0; readers ignore what they do not know
	Handle uint32 // the receiver's name for the room, told in LINK
	Seq    uint16 // of this link
	SendMs uint16 // the sender's clock when it sent, low 16 bits of milliseconds
	Hops   uint8
	Count  uint8 // entries

	rest []byte
}

// Handle reads the room handle of a datagram, to find the link it is for. False if it is no bundle. The rest is not
// looked at.
func Handle(b []byte) (handle uint32, ok bool) {
	if len(b) < 3 || len(b) > MaxBundle || b[0] != bundleByte {
		return 0, false
	}
	v, size := uvarint(b[2:], math.MaxUint32)
	return uint32(v), size > 0
}

// Parse checks a whole bundle, entries included, and returns it ready for Next. The slices that Next hands out point
// into b. ErrMalformed if anything is not in its one allowed form; nothing comes out then.
func Parse(b []byte) (Bundle, error) {
	if len(b) < 3 || len(b) > MaxBundle || b[0] != bundleByte {
		return Bundle{}, ErrMalformed
	}
	handle, size := uvarint(b[2:], math.MaxUint32)
	at := 2 + size
	if size == 0 || len(b) < at+5 {
		return Bundle{}, ErrMalformed
	}
	u := Bundle{
		Flags: b[1], Handle: uint32(handle), Seq: binary.BigEndian.Uint16(b[at:]), SendMs: binary.BigEndian.Uint16(b[at+2:]),
		Hops: b[at+4] >> 4, Count: b[at+4] & 15, rest: b[at+5:],
	}
	rest := u.rest
	for range u.Count {
		var err error
		if _, rest, err = ParseEntry(rest); err != nil {
			return Bundle{}, err
		}
	}
	if len(rest) != 0 {
		return Bundle{}, fmt.Errorf("%w: %d bytes after the last entry", ErrMalformed, len(rest))
	}
	return u, nil
}

// Next sets e to the next entry; false when there are no more.
func (u *Bundle) Next(e *Entry) bool {
	if len(u.rest) == 0 {
		return false
	}
	var err error
	*e, u.rest, err = ParseEntry(u.rest)
	return err == nil
}

// maxHead is the longest head: mark, flags, handle, seq, send ms, hops and count.
const maxHead = 2 + binary.MaxVarintLen32 + 5

// Builder writes one bundle. The zero value is ready for Begin; its buffer is used again by the next Begin. The head
// ends, and the entries begin, at maxHead: so it can be written anew for another receiver while they stay.
type Builder struct {
	buf   []byte
	start int // of the head
	limit int
	count int // entries
}

// Begin starts a bundle of at most limit bytes (never more than MaxBundle).
func (w *Builder) Begin(u Bundle, limit int) {
	w.limit, w.count = min(limit, MaxBundle), 0
	w.buf = append(w.buf[:0], make([]byte, maxHead)...)
	w.head(u)
}

// Rehead puts another head before the entries that were added: the same bundle for another receiver. Nothing can be
// added afterwards. It stays within the limit if the bundle began with the longest handle.
func (w *Builder) Rehead(u Bundle) {
	w.limit = 0
	w.head(u)
}

func (w *Builder) head(u Bundle) {
	var h [maxHead]byte
	b := append(h[:0], bundleByte, u.Flags)
	b = binary.AppendUvarint(b, uint64(u.Handle))
	b = binary.BigEndian.AppendUint16(b, u.Seq)
	b = binary.BigEndian.AppendUint16(b, u.SendMs)
	b = append(b, min(u.Hops, MaxHops)<<4|byte(w.count))
	w.start = maxHead - len(b)
	copy(w.buf[w.start:], b)
}

// Add appends a whole entry; false, and nothing done, if it does not fit any more.
func (w *Builder) Add(entry []byte) bool {
	if w.count == MaxEntries || len(w.buf)-w.start+len(entry) > w.limit {
		return false
	}
	w.buf = append(w.buf, entry...)
	w.counted()
	return true
}

// Fill adds entries in the order of their worth: primaries (the dominant speaker's first), then blocks, then what
// was sent before (newest first). It returns how many of primaries and of blocks went in, counted from their front:
// the others need another bundle. Of redundancy, what does not fit is left out.
func (w *Builder) Fill(primaries, blocks, redundancy [][]byte) (p, b int) {
	for p < len(primaries) && w.Add(primaries[p]) {
		p++
	}
	if p < len(primaries) {
		return p, 0
	}
	for b < len(blocks) && w.Add(blocks[b]) {
		b++
	}
	if b < len(blocks) {
		return p, b
	}
	for _, r := range redundancy {
		w.Add(r)
	}
	return p, b
}

// minPad is the shortest padding entry, a header and a length of 0; maxShort the longest whose length takes one byte.
const (
	minPad   = HeaderLen + 1
	maxShort = minPad + 0x7f
)

// Pad fills the bundle up to exactly size bytes with one padding entry, or two where one cannot have that length, as far
// as limit and count allow. Fewer than 10 bytes cannot be filled: nothing is done then.
func (w *Builder) Pad(size int) {
	n := min(size, w.limit) - (len(w.buf) - w.start)
	if n == maxShort+1 { // between one byte of length and two
		w.pad(minPad)
		n -= minPad
	}
	w.pad(n)
}

// pad adds one padding entry of n bytes in all.
func (w *Builder) pad(n int) {
	if n < minPad || w.count == MaxEntries {
		return
	}
	if n -= minPad; n > 0x7f {
		n--
	}
	w.buf = append(w.buf, byte(Padding)<<5, 0, 0, 0, 0, 0, 0, 0, 0)
	w.buf = binary.AppendUvarint(w.buf, uint64(n))
	w.buf = append(w.buf, make([]byte, n)...)
	w.counted()
}

func (w *Builder) counted() {
	w.count++
	w.buf[maxHead-1]++
}

// Len is the number of entries so far.
func (w *Builder) Len() int { return w.count }

// Bytes is the bundle; it is valid until the next Begin or Rehead.
func (w *Builder) Bytes() []byte { return w.buf[w.start:] }
