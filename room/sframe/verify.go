package sframe

import (
	"crypto/ed25519"
	"time"
)

const (
	// UnsignedLimit is how long a frame may have been played without a block before its source is muted.
	UnsignedLimit = 600 * time.Millisecond
	// AskAfter is when a missing block is asked for: it and its repetition should have come by then.
	AskAfter = BlockDelay + 120*time.Millisecond
	// MaxVerifies is how many blocks of one source are verified in a second; an honest one makes 5.
	MaxVerifies = 20

	keptFrames = 128
	keptBlocks = 8
)

// Standing is what is known about one received frame.
type Standing uint8

// The standings of a frame.
const (
	Pending  Standing = iota // no block has come for it
	Verified                 // its block names it
	Bad                      // its block names another, or none, at its counter
	Known                    // the same entry was taken before
)

// Verdict is what one block said about the frames received before it.
type Verdict struct {
	Verified int
	Bad      int
	Via      uint32 // the link that one of the bad frames came by, if Bad > 0
	Repeated bool   // this block was verified before; nothing else is set
	Forked   bool   // its speaker signed another over some of its counters; nothing else is set
}

// BlockVerifier judges the frames of one remote source by its signature blocks, and tells when the source must be
// muted. Two ciphertexts with one counter are both kept until the block decides. Not safe for concurrent use.
type BlockVerifier struct {
	owner  Owner
	source uint32
	key    ed25519.PublicKey
	epochs []blockEpoch // at most KeptEpochs, oldest first

	frames [keptFrames]seen // ring
	next   int
	blocks [keptBlocks]block // ring of verified ones
	nextB  int
	muted  bool
	idle   time.Time // before it no frame is Wanted, and before late none is too late: spares a look at all of them each tick
	late   time.Time

	second   time.Time // start of the current second of verifying
	verifies int
	msg      []byte
}

type blockEpoch struct {
	n  uint64
	id EpochID
}

type seen struct {
	claim
	at       time.Time
	via      uint32
	standing Standing
	played   bool
	first    bool // of those with its counter
	held     bool // the slot is in use
}

// NewBlockVerifier verifies blocks of owner, whose Ed25519 key is key.
func NewBlockVerifier(owner Owner, key ed25519.PublicKey) *BlockVerifier {
	return &BlockVerifier{owner: owner, source: owner.Source(), key: key}
}

// Hold names an epoch whose blocks are taken. Above KeptEpochs the oldest is forgotten.
func (v *BlockVerifier) Hold(n uint64, id EpochID) {
	for _, e := range v.epochs {
		if e.id == id {
			return
		}
	}
	if len(v.epochs) == KeptEpochs {
		v.epochs = append(v.epochs[:0], v.epochs[1:]...)
	}
	v.epochs = append(v.epochs, blockEpoch{n, id})
}

// Frame records a frame that opened, or a second ciphertext at the counter of one that did: the whole entry as it
// came by link via. Played tells whether it is heard unless the answer is Bad or Known.
func (v *BlockVerifier) Frame(entry []byte, via uint32, played bool, now time.Time) Standing {
	return v.take(entry, seen{via: via, played: played, first: true, at: now})
}

// Doubted records a copy by a link that is not trusted: it is not heard and not the first at its counter, whatever comes
// after it, and only waits for its block.
func (v *BlockVerifier) Doubted(entry []byte, via uint32, now time.Time) Standing {
	return v.take(entry, seen{via: via, at: now})
}

func (v *BlockVerifier) take(entry []byte, f seen) Standing {
	if checkHeader(entry, v.source) != nil {
		return Bad
	}
	f.claim, f.held = claim{uint24(entry[6:]), entryHash(entry)}, true
	if due := f.at.Add(AskAfter); due.Before(v.idle) {
		v.idle = due
	}
	if due := f.at.Add(UnsignedLimit); due.Before(v.late) {
		v.late = due
	}
	var same *seen
	for i := range v.frames {
		g := &v.frames[i]
		if !g.held || g.ctr != f.ctr {
			continue
		}
		if g.hash == f.hash {
			same = g
		}
		f.first = f.first && !g.first
	}
	if same != nil {
		if !f.first {
			return Known
		}
		same.via, same.at, same.first, same.played = f.via, f.at, true, f.played && same.standing != Bad
		return same.standing // only links without trust had brought it
	}
	for i := range v.blocks {
		if decides, hash := v.blocks[i].claims(f.ctr); decides {
			f.judge(hash)
			break
		}
	}
	f.played = f.played && f.standing != Bad
	v.keep(f)
	return f.standing
}

// keep lays f in the place of the oldest that was not heard, or has its block.
func (v *BlockVerifier) keep(f seen) {
	for range keptFrames {
		if !v.frames[v.next].unsigned() {
			break
		}
		v.next = (v.next + 1) % keptFrames
	}
	if v.frames[v.next].unsigned() {
		if !f.played {
			return
		}
		v.muted = true // pushed out before its block came: far more frames than a speaker makes
	}
	v.frames[v.next] = f
	v.next = (v.next + 1) % keptFrames
}

func (f *seen) judge(hash *[hashLen]byte) {
	f.standing = Bad
	if hash != nil && *hash == f.hash {
		f.standing = Verified
	}
}

func (f *seen) unsigned() bool { return f.held && f.played && f.standing == Pending }

// Block takes a block. ErrMalformed, ErrNoKey if its epoch is not held, ErrForged if the signature is not the
// speaker's, ErrBusy if too many came in this second.
// A block mutes the source if the first copy at a counter is bad and no other link's copy verified; else, if any frame
// verified, it unmutes it. Later copies that are bad were never heard, and mute nobody.
func (v *BlockVerifier) Block(header, body []byte, now time.Time) (Verdict, error) {
	b, err := parseBlock(header, body, v.source)
	if err != nil {
		return Verdict{}, err
	}
	for i := range v.blocks {
		if k := &v.blocks[i]; k.n > 0 && k.first == b.first && k.sig == b.sig {
			return Verdict{Repeated: true}, nil
		}
	}
	if err := v.signed(header, body, b.epoch, now); err != nil {
		return Verdict{}, err
	}
	forked := v.overlaps(&b)
	v.blocks[v.nextB] = b
	v.nextB = (v.nextB + 1) % keptBlocks
	if forked {
		v.muted = true
		return Verdict{Forked: true}, nil
	}
	return v.decide(&b), nil
}

// overlaps tells whether another block is about some counters of b: a speaker signs each once.
func (v *BlockVerifier) overlaps(b *block) bool {
	for i := range v.blocks {
		if k := &v.blocks[i]; k.n > 0 && b.first <= k.last && k.first <= b.last {
			return true
		}
	}
	return false
}

func (v *BlockVerifier) latest() *block { return &v.blocks[(v.nextB+keptBlocks-1)%keptBlocks] }

// Judged tells of each copy that the latest block decides about, by which link it came and whether it is the speaker's.
func (v *BlockVerifier) Judged(yield func(via, ctr uint32, good bool)) {
	b := v.latest()
	for i := range v.frames {
		f := &v.frames[i]
		if decides, _ := b.claims(f.ctr); decides && f.held && f.standing != Pending {
			yield(f.via, f.ctr, f.standing == Verified)
		}
	}
}

// Distrust takes back what came first by a link that brought false copies and is not proved true: whoever brings such a
// counter next brings the first copy, and the source is muted no more on its account. What no block has judged yet is
// forgotten. It tells each counter.
func (v *BlockVerifier) Distrust(via uint32, taken func(ctr uint32)) {
	for i := range v.frames {
		f := &v.frames[i]
		if f.held && f.first && f.via == via && f.standing != Verified {
			f.first, f.played, f.held = false, false, f.standing == Bad
			taken(f.ctr)
		}
	}
	v.muted = v.muted && v.deceived(v.latest())
}

// signed checks the signature against every epoch that the header may mean.
func (v *BlockVerifier) signed(header, body []byte, epoch byte, now time.Time) error {
	if now.Sub(v.second) >= time.Second {
		v.second, v.verifies = now, 0
	}
	err := ErrNoKey
	at := len(body) - ed25519.SignatureSize
	for _, e := range v.epochs {
		if byte(e.n)&15 != epoch {
			continue
		}
		if v.verifies++; v.verifies > MaxVerifies {
			return ErrBusy
		}
		v.msg = append(append(v.msg[:0], BlockDomain...), 0)
		v.msg = v.owner.signedPart(v.msg, e.id, header, body[:at])
		if ed25519.Verify(v.key, v.msg, body[at:]) {
			return nil
		}
		err = ErrForged
	}
	return err
}

// decide judges the pending frames by a verified block.
func (v *BlockVerifier) decide(b *block) (out Verdict) {
	for i := range v.frames {
		f := &v.frames[i]
		if !f.held || f.standing != Pending {
			continue
		}
		decides, hash := b.claims(f.ctr)
		if !decides {
			continue
		}
		if f.judge(hash); f.standing == Bad {
			out.Bad++
			out.Via = f.via
		} else {
			out.Verified++
		}
	}
	switch {
	case out.Bad > 0 && v.deceived(b):
		v.muted = true
	case out.Verified > 0:
		v.muted = false
	}
	return out
}

// deceived reports whether a first copy that the block decides about is bad, and no copy by another link verified.
func (v *BlockVerifier) deceived(b *block) bool {
	for i := range v.frames {
		f := &v.frames[i]
		if decides, _ := b.claims(f.ctr); !decides || !f.held || !f.first || f.standing != Bad {
			continue
		}
		saved := false
		for k := range v.frames {
			g := &v.frames[k]
			saved = saved || g.held && g.ctr == f.ctr && g.via != f.via && g.standing == Verified
		}
		if !saved {
			return true
		}
	}
	return false
}

// Muted tells whether the source must not be heard at now: its block proved it false, or its oldest unsigned frame
// was played UnsignedLimit ago. The next block that verifies unmutes it.
func (v *BlockVerifier) Muted(now time.Time) bool {
	if now.Before(v.late) {
		return v.muted
	}
	v.late = now.Add(UnsignedLimit)
	for i := range v.frames {
		f := &v.frames[i]
		switch due := f.at.Add(UnsignedLimit); {
		case !f.held || !f.played:
		case !now.Before(due):
			v.muted = v.muted || f.unsigned()
			f.played = false // counted once; a late block may still judge it
		case due.Before(v.late):
			v.late = due
		}
	}
	return v.muted
}

// Wanted is the lowest counter among the frames that were played AskAfter ago or more and have no block yet: the
// block over it should be asked for.
func (v *BlockVerifier) Wanted(now time.Time) (ctr uint32, ok bool) {
	if now.Before(v.idle) {
		return 0, false
	}
	first := now
	for i := range v.frames {
		f := &v.frames[i]
		if !f.unsigned() {
			continue
		}
		if now.Sub(f.at) >= AskAfter && (!ok || f.ctr < ctr) {
			ctr, ok = f.ctr, true
		}
		if f.at.Before(first) {
			first = f.at
		}
	}
	if !ok {
		v.idle = first.Add(AskAfter)
	}
	return ctr, ok
}
