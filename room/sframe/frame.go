package sframe

import (
	"crypto/cipher"
	"crypto/sha256"
	"time"
)

const (
	// HeaderLen is the length of the header that the speaker writes and nobody changes: kind 3 bits, ticks 3,
	// marker 1, zero 1 | source u24 | epoch u4 step u4 | voice bit and level | ctr u24.
	HeaderLen = 9
	// Overhead is by how much sealing makes a payload longer, in bytes.
	Overhead = tagLen
	// MaxCounter is the last counter of a source; a new source (a new salt) must follow.
	MaxCounter = 1<<24 - 1
	// PreviousStep is how long the step before the present one still opens frames.
	PreviousStep = 2 * time.Second
	// KeptEpochs is how many epochs an Opener and a BlockVerifier hold.
	KeptEpochs = 4
	// MaxLead is how far, in ticks, a frame's counter may be ahead of what Expect said: half of the replay window, so that
	// whoever forges a frame of the future does not make the true ones look old.
	MaxLead = replayWindow / 2
	// MaxAge is how far, in ticks, a frame's counter may be behind the newest that its owner has signed: 5 s. What is older
	// was held back on its way, which is well below a second.
	MaxAge = 250
	tick   = 20 * time.Millisecond

	kindFrame = 0
	kindBlock = 1
)

// Owner is who a source belongs to: a peer in a room, for one life of its process.
type Owner struct {
	Room [32]byte
	Peer string // libp2p peer id bytes
	Salt [8]byte
}

// Source is the first 3 bytes of SHA-256("balai-source/1" || room || peer || salt), as a number.
func (o Owner) Source() uint32 {
	h := sha256.New()
	h.Write([]byte("balai-source/1"))
	h.Write(o.Room[:])
	h.Write([]byte(o.Peer))
	h.Write(o.Salt[:])
	sum := h.Sum(nil)
	return uint24(sum)
}

// frameKey is what seals the frames of one owner in one step of one epoch.
type frameKey struct {
	aead cipher.AEAD
	mask [nonceLen]byte
	step uint32
}

// key derives the owner's frame key at the present step of e.
func (o Owner) key(e Epoch) frameKey {
	info := func(label string) string {
		b := append(e.info(label, o.Room), byte(len(o.Peer)))
		b = append(b, o.Peer...)
		return string(append(b, o.Salt[:]...))
	}
	k := frameKey{step: e.Step, aead: newGCM(expand(e.Secret, info("balai-frame-key/1"), keyLen))}
	copy(k.mask[:], expand(e.Secret, info("balai-frame-nonce/1"), nonceLen))
	return k
}

// put writes mask XOR ctr.
func (k *frameKey) put(nonce *[nonceLen]byte, ctr uint32) {
	*nonce = k.mask
	nonce[9] ^= byte(ctr >> 16)
	nonce[10] ^= byte(ctr >> 8)
	nonce[11] ^= byte(ctr)
}

// Sealer seals the frames of one own source. One (key, counter) is never used twice: the counter must grow by at
// least the duration of the frame before, over all epochs and steps, or Seal refuses. Not safe for concurrent use.
type Sealer struct {
	owner   Owner
	source  uint32
	key     frameKey
	nibbles byte
	next    uint32 // the lowest counter that may be used
	nonce   [nonceLen]byte
}

// NewSealer makes the sealer of owner; it has no key until Rekey. The owner's salt must be fresh: a salt that an
// earlier process used would bring its counters back. ctr is the lowest counter that will be used.
func NewSealer(owner Owner, ctr uint32) *Sealer {
	return &Sealer{owner: owner, source: owner.Source(), next: ctr}
}

// Rekey goes on under e. Nothing else changes: counters run on.
func (s *Sealer) Rekey(e Epoch) {
	s.key, s.nibbles = s.owner.key(e), e.Nibbles()
}

// Next is the lowest counter that Seal still takes.
func (s *Sealer) Next() uint32 { return s.next }

// Nibbles is the epoch and step byte that a header for Seal must carry now.
func (s *Sealer) Nibbles() byte { return s.nibbles }

// Seal appends the sealed payload (len(plain) + Overhead bytes) to dst. The header is the additional data and must
// be one of a frame of this source under the present key. ErrCounter if its counter is not above the frame before
// by that frame's duration; ErrNoKey before Rekey; ErrMalformed for any other header.
func (s *Sealer) Seal(dst, header, plain []byte) ([]byte, error) {
	if err := checkHeader(header, s.source); err != nil {
		return dst, err
	}
	if s.key.aead == nil || header[4] != s.nibbles {
		return dst, ErrNoKey
	}
	ctr := uint24(header[6:])
	if ctr < s.next {
		return dst, ErrCounter
	}
	s.next = ctr + ticks(header)
	s.key.put(&s.nonce, ctr)
	return s.key.aead.Seal(dst, s.nonce[:], plain, header[:HeaderLen]), nil
}

// Opener opens the frames of one remote source. It holds up to KeptEpochs epochs and a replay window. Not safe for
// concurrent use.
type Opener struct {
	owner  Owner
	source uint32
	held   []heldEpoch // oldest first
	window window
	nonce  [nonceLen]byte
	said   uint32 // where the counter was, as its owner has signed
	at     time.Time
	oldest uint32 // what is older was held back
}

type heldEpoch struct {
	epoch  Epoch
	keys   [16]frameKey // by step nibble, derived when first needed
	before time.Time    // until when the step before the present one opens
}

// NewOpener opens frames of owner whose counter is at least ctr: whoever comes later cannot be fed the past.
func NewOpener(owner Owner, ctr uint32) *Opener {
	return &Opener{owner: owner, source: owner.Source(), window: newWindow(ctr)}
}

// Expect says where the owner's counter is at now, as the owner has signed. Counters are time: from then on Open takes no
// frame more than MaxLead ahead of it, or of where an earlier word and the time since put it, and none more than MaxAge
// behind the newest word. Before, it takes any.
func (o *Opener) Expect(ctr uint32, now time.Time) {
	o.oldest = max(o.oldest, max(ctr, MaxAge)-MaxAge)
	if o.at.IsZero() || int64(ctr) > int64(o.said)+int64(now.Sub(o.at)/tick) {
		o.said, o.at = ctr, now
	}
}

func (o *Opener) ahead(ctr uint32, now time.Time) bool {
	return !o.at.IsZero() && int64(ctr)-int64(o.said) > int64(now.Sub(o.at)/tick)+MaxLead
}

// Hold adds an epoch, or adopts a later step of one that is held: the step before it then opens until now +
// PreviousStep and all earlier ones are forgotten. An earlier step of a held epoch changes nothing. Above
// KeptEpochs the oldest is forgotten.
func (o *Opener) Hold(e Epoch, now time.Time) {
	for i := range o.held {
		if o.held[i].epoch.ID == e.ID {
			o.adopt(&o.held[i], e, now)
			return
		}
	}
	if len(o.held) == KeptEpochs {
		copy(o.held, o.held[1:])
		o.held = o.held[:KeptEpochs-1]
	}
	o.held = append(o.held, heldEpoch{epoch: e})
}

func (o *Opener) adopt(h *heldEpoch, e Epoch, now time.Time) {
	if e.Step <= h.epoch.Step {
		return
	}
	before, err := h.epoch.Advance(e.Step - 1)
	h.keys = [16]frameKey{}
	h.epoch, h.before = e, time.Time{}
	if err == nil {
		h.keys[before.Step&15] = o.owner.key(before)
		h.before = now.Add(PreviousStep)
	}
}

// Open appends the payload of a frame to dst. ErrMalformed if it is no frame of this source, ErrReplay if its counter
// was opened before or is too old, ErrAhead or ErrStale if it is far from what Expect said, ErrNoKey if the epoch or step is not held, ErrForged if it does not authenticate.
// Only a frame that opens marks its counter.
func (o *Opener) Open(dst, header, body []byte, now time.Time) ([]byte, error) {
	if err := checkHeader(header, o.source); err != nil {
		return dst, err
	}
	if len(body) < Overhead {
		return dst, ErrMalformed
	}
	ctr := uint24(header[6:])
	if ctr < o.oldest {
		return dst, ErrStale
	}
	if !o.window.fresh(ctr) {
		return dst, ErrReplay
	}
	if o.ahead(ctr, now) {
		return dst, ErrAhead
	}
	err := ErrNoKey
	for i := len(o.held) - 1; i >= 0; i-- {
		h := &o.held[i]
		if byte(h.epoch.N)&15 != header[4]>>4 {
			continue
		}
		k := o.keyFor(h, header[4]&15, now)
		if k == nil {
			continue
		}
		k.put(&o.nonce, ctr)
		out, bad := k.aead.Open(dst, o.nonce[:], body, header[:HeaderLen])
		if bad == nil {
			o.window.mark(ctr)
			return out, nil
		}
		err = ErrForged
	}
	return dst, err
}

// Forget lets a counter be opened again: the frame at it was not its owner's.
func (o *Opener) Forget(ctr uint32) { o.window.clear(ctr) }

// keyFor is the key of the step in [mine-1, mine+14] that is congruent to nibble, or nil. It derives ahead on a copy.
func (o *Opener) keyFor(h *heldEpoch, nibble byte, now time.Time) *frameKey {
	mine := h.epoch.Step
	ahead := (nibble - byte(mine) + 1) & 15 // 0 is mine-1
	k := &h.keys[nibble]
	if ahead == 0 {
		if mine == 0 || k.aead == nil || !now.Before(h.before) {
			*k = frameKey{}
			return nil
		}
		return k
	}
	step := mine + uint32(ahead) - 1
	if k.aead == nil || k.step != step {
		at, err := h.epoch.Advance(step)
		if err != nil {
			return nil
		}
		*k = o.owner.key(at)
	}
	return k
}

func checkHeader(h []byte, source uint32) error {
	if len(h) < HeaderLen || h[0]>>5 != kindFrame || h[0]&1 != 0 || uint24(h[1:]) != source {
		return ErrMalformed
	}
	if t := ticks(h); t < 1 || t > 6 {
		return ErrMalformed
	}
	return nil
}

func ticks(h []byte) uint32 { return uint32(h[0] >> 2 & 7) }

func uint24(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }
