package sframe

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"balai/test/seeded"
)

func randomEpoch(r *rand.Rand, n uint64) Epoch {
	e := Epoch{N: n}
	for i := range len(e.Secret) / 8 {
		binary.BigEndian.PutUint64(e.Secret[8*i:], r.Uint64())
	}
	e.ID = idOf(e.Secret)
	return e
}

func randomOwner(r *rand.Rand) (o Owner) {
	o = speaker
	binary.BigEndian.PutUint64(o.Salt[:], r.Uint64())
	return o
}

// heard is one thing that somebody recorded: a frame or a gossip message, and when it was said.
type heard struct {
	at         time.Time
	head, body []byte // of gossip the body alone
	ctr        uint32
}

// Trust 35: people speak and write over some epochs, whose steps come each 8 to 10 s; a newcomer gets the step of the moment
// that she is admitted. Of all that was recorded she opens nothing that is older than 10 s, and all that follows.
func TestRandomNewcomers(t *testing.T) {
	seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		owner := randomOwner(r)
		s, e, now := NewSealer(owner, 0), randomEpoch(r, uint64(1+r.IntN(40))), t0
		e = must(t, e, uint32(r.IntN(300)))
		s.Rekey(e)
		nextStep := now.Add(time.Duration(r.IntN(10_000)) * time.Millisecond)
		admitted := t0.Add(time.Duration(5+r.IntN(30)) * time.Second)
		newcomer := NewOpener(owner, 0)
		var hers *Epoch
		var before, after []heard
		for end := admitted.Add(15 * time.Second); now.Before(end); now = now.Add(time.Duration(20+r.IntN(600)) * time.Millisecond) {
			if hers == nil && !now.Before(admitted) {
				given := e
				hers = &given
				newcomer.Hold(e, now)
			}
			if !now.Before(nextStep) {
				nextStep = nextStep.Add(time.Duration(8000+r.IntN(1300)) * time.Millisecond)
				if e = must(t, e, e.Step+1); r.IntN(4) == 0 {
					e = randomEpoch(r, e.N+1)
					if hers != nil {
						newcomer.Hold(e, now)
					}
				}
				s.Rekey(e)
			}
			ctr := max(uint32(now.Sub(t0)/tick), s.Next())
			h := frameHeader(s.source, e, ctr, 1)
			body, err := s.Seal(nil, h[:], []byte("word"))
			if err != nil {
				t.Fatal(err)
			}
			x := heard{at: now, head: h[:], body: body, ctr: ctr}
			if hers == nil {
				before = append(before, x, heard{at: now, body: e.SealGossip(testRoom, "ops", []byte("line"))})
				continue
			}
			after = append(after, x)
			if _, err := newcomer.Open(nil, x.head, x.body, now); err != nil {
				t.Fatalf("what was said %v after she came: %v", now.Sub(admitted), err)
			}
		}
		thief := NewOpener(owner, 0) // what her key would open without regard to the counter's floor
		thief.Hold(*hers, admitted)
		for _, x := range before {
			var err error
			if x.head == nil {
				_, err = hers.OpenGossip(testRoom, "ops", x.body)
			} else {
				_, err = thief.Open(nil, x.head, x.body, admitted)
			}
			for back := range min(hers.Step, 4) { // or what she has, taken for the secret of a step before
				e := *hers
				e.Step -= back + 1
				if _, bad := e.OpenGossip(testRoom, "ops", x.body); x.head == nil && bad == nil {
					err = nil
				}
			}
			if age := admitted.Sub(x.at); err == nil && age > 10*time.Second {
				t.Fatalf("opens what was said %v before she came", age)
			}
		}
		if len(after) == 0 {
			t.Fatal("nothing was said after she came")
		}
	})
}

// Trust 34, as keys go: whoever was kicked keeps the keys that he had, at any step, and opens nothing that is sealed from the
// new epoch on; the others do, whichever of the kept epochs it is and though its number comes again after sixteen.
func TestRandomKicks(t *testing.T) {
	seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		owner := randomOwner(r)
		s, old, honest := NewSealer(owner, 0), NewOpener(owner, 0), NewOpener(owner, 0)
		n, ctr := uint64(1+r.IntN(20)), uint32(0)
		var his []Epoch
		kicked := 2 + r.IntN(5)
		for i := range kicked + 1 + r.IntN(18) {
			e := must(t, randomEpoch(r, n), uint32(r.IntN(20)))
			n++
			honest.Hold(e, t0)
			if i < kicked {
				old.Hold(e, t0)
				his = append(his, e)
			}
			if i+1 < kicked && r.IntN(2) == 0 {
				continue
			}
			s.Rekey(e)
			for range 1 + r.IntN(4) {
				ctr += 1 + r.Uint32N(30)
				h := frameHeader(s.source, e, ctr, 1)
				body, err := s.Seal(nil, h[:], []byte("word"))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := honest.Open(nil, h[:], body, t0); err != nil {
					t.Fatalf("epoch %d: %v", e.N, err)
				}
				if _, err := old.Open(nil, h[:], body, t0); (err == nil) != (i < kicked) {
					t.Fatalf("epoch %d of %d that he had: %v", i, kicked, err)
				}
				line := e.SealGossip(testRoom, "ops", []byte("line"))
				opened := slices.ContainsFunc(his, func(k Epoch) bool { _, err := k.OpenGossip(testRoom, "ops", line); return err == nil })
				if opened != (i < kicked) {
					t.Fatalf("gossip of epoch %d of %d that he had: opened %v", i, kicked, opened)
				}
			}
		}
	})
}

// Trust 37: frames come late, twice and in another order, and all of them again after any time; each opens once at most, and
// each that comes in time does.
func TestRandomReplays(t *testing.T) {
	seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		owner, e := randomOwner(r), randomEpoch(r, 3)
		s, o := NewSealer(owner, 0), NewOpener(owner, 0)
		s.Rekey(e)
		o.Hold(e, t0)
		var on []heard // on the way
		for ctr, now := uint32(r.IntN(1<<20)), t0; now.Sub(t0) < 12*time.Second; now = now.Add(3 * tick) {
			ctr += 1 + r.Uint32N(3)*r.Uint32N(40)
			h := frameHeader(s.source, e, ctr, 1)
			body, err := s.Seal(nil, h[:], []byte("word"))
			if err != nil {
				t.Fatal(err)
			}
			for copies := r.IntN(3); copies >= 0; copies-- {
				on = append(on, heard{now.Add(time.Duration(r.IntN(400)) * time.Millisecond), h[:], body, ctr})
			}
		}
		for _, x := range on { // and the record of it
			for range r.IntN(3) {
				x.at = x.at.Add(time.Duration(r.IntN(40_000)) * time.Millisecond)
				on = append(on, x)
			}
		}
		slices.SortStableFunc(on, func(a, b heard) int { return a.at.Compare(b.at) })
		opened, top := map[uint32]bool{}, uint32(0)
		for _, x := range on {
			_, err := o.Open(nil, x.head, x.body, x.at)
			inTime := top < x.ctr || top-x.ctr < replayWindow
			switch {
			case err == nil && opened[x.ctr]:
				t.Fatalf("ctr %d opens again", x.ctr)
			case err != nil && !errors.Is(err, ErrReplay):
				t.Fatalf("ctr %d: %v", x.ctr, err)
			case err != nil && !opened[x.ctr] && inTime:
				t.Fatalf("ctr %d, with %d the highest: %v", x.ctr, top, err)
			case err == nil:
				opened[x.ctr] = true
				top = max(top, x.ctr)
			}
		}
	})
}

// Trust 42: a speaker lives many lives; in each the epochs and steps go on and come back, and her program tries every counter,
// also used ones. No keystream comes twice.
func TestRandomLives(t *testing.T) {
	refused := 0
	all := seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		epochs := []Epoch{randomEpoch(r, 1), randomEpoch(r, 1), randomEpoch(r, 2)}
		for i, e := range epochs {
			epochs[i] = must(t, e, uint32(r.IntN(4)))
		}
		used := map[[16]byte]bool{} // the keystream of a frame, as its plaintext is all zeros
		for range 2 + r.IntN(4) {
			owner := randomOwner(r)
			s := NewSealer(owner, uint32(r.IntN(20)))
			for range 30 {
				i := r.IntN(len(epochs))
				if r.IntN(3) == 0 {
					s.Rekey(epochs[i])
				}
				if r.IntN(10) == 0 {
					epochs[i] = must(t, epochs[i], epochs[i].Step+1)
				}
				h := frameHeader(s.source, epochs[i], uint32(max(0, int(s.Next())+r.IntN(8)-3)), byte(1+r.IntN(6)))
				h[4] = s.Nibbles()
				body, err := s.Seal(nil, h[:], make([]byte, 16))
				if err != nil {
					refused++
					continue
				}
				if key := [16]byte(body); used[key] {
					t.Fatalf("a keystream comes twice, at %d", uint24(h[6:]))
				} else {
					used[key] = true
				}
			}
		}
	})
	if t.Logf("%d refused", refused); all && refused == 0 {
		t.Error("no counter was tried twice")
	}
}

// forger is somebody who has the key and passes the speaker's frames on by link 66.
const (
	honestLink = 1
	forgerLink = 66
)

// forged is what he makes of an entry: other words, another header, or a frame of a counter that was never sent.
func forged(r *rand.Rand, entry []byte) []byte {
	f := slices.Clone(entry)
	switch r.IntN(3) {
	case 0:
		f[len(f)-1-r.IntN(len(f)-HeaderLen-2)] ^= 1 + byte(r.IntN(255))
	case 1:
		f[5] ^= 1 + byte(r.IntN(255))
	default:
		f[8] ^= 1
	}
	return f
}

// Trust 36: a member forges some of another's frames and passes them on. Where the honest copies come by somebody else too the
// speaker is heard on and the honest link never blamed; where the forger is all there is, the source is silent 0.6 s
// after the first forgery that was heard, at the latest, and heard again when he stops.
func TestRandomForgers(t *testing.T) {
	heardOn, silenced, slowest := 0, 0, time.Duration(0)
	all := seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		x := newTrial(t)
		covered, share, lossy := r.IntN(2) == 0, 1+r.IntN(9), r.IntN(3) == 0
		from, to := 20+r.IntN(40), 80+r.IntN(40)
		opened := map[uint32]bool{}
		var since time.Time // the first forgery that was played and not yet known
		for i := range 160 {
			e := x.frame()
			played := func(entry []byte) bool { // as an Opener decides it: one of each counter
				ctr := uint24(entry[6:])
				defer func() { opened[ctr] = true }()
				return !opened[ctr]
			}
			if i%2 == 1 && !covered { // so that a counter beside it was never sent
				x.ctr++
			}
			evil := i >= from && i < to && r.IntN(10) < share
			f := forged(r, e)
			switch {
			case !evil && covered:
				x.v.Frame(e, honestLink, played(e), x.now)
			case !evil:
				x.v.Frame(e, forgerLink, played(e), x.now)
			case covered && r.IntN(2) == 0:
				x.v.Frame(e, honestLink, played(e), x.now)
				x.v.Frame(f, forgerLink, played(f), x.now)
			case covered:
				x.v.Frame(f, forgerLink, played(f), x.now)
				x.v.Frame(e, honestLink, played(e), x.now)
			default:
				if heard := played(f); x.v.Frame(f, forgerLink, heard, x.now) == Pending && heard && since.IsZero() && !x.v.Muted(x.now) {
					since = x.now
				}
			}
			if at, ok := x.b.Due(); ok && !at.After(x.now) {
				if h, body := x.block(); !lossy || r.IntN(5) > 0 || i > to {
					if v := x.take(h, body); v.Bad > 0 && v.Via != forgerLink {
						t.Fatalf("link %d is blamed", v.Via)
					}
				}
			}
			muted := x.v.Muted(x.now)
			if muted {
				if covered && !lossy && evil && f[8] == e[8] {
					t.Fatalf("an honest copy came, and she is silenced at %d", i)
				}
				if !since.IsZero() {
					slowest = max(slowest, x.now.Sub(since))
				}
				since, silenced = time.Time{}, silenced+1
			}
			if !since.IsZero() && x.now.Sub(since) > UnsignedLimit {
				t.Fatalf("a forgery is heard for %v", x.now.Sub(since))
			}
			if i >= to+50 {
				if heardOn++; muted {
					t.Fatalf("silenced for good, %d frames after the last forgery", i-to)
				}
			}
		}
	})
	if t.Logf("%d frames while silenced, %d heard on; the slowest after %v", silenced, heardOn, slowest); all && (silenced == 0 || slowest < 100*time.Millisecond) {
		t.Error("nobody was silenced")
	}
}

// Trust 63: each of many listeners loses a fifth of the blocks, of their repetitions, of what she asks for and of the answers,
// for 36 s of talk with pauses of any length: nobody honest is muted.
func TestRandomLosses(t *testing.T) {
	const speakers = 8
	var all [speakers]struct {
		x            *trial
		said, blocks []spoken
	}
	for i := range all {
		r, a := seeded.Rand(uint64(i)), &all[i]
		left, quiet := 0, true
		a.x = newTrial(t)
		a.said, a.blocks = a.x.speak(36*50, func() bool {
			if left--; left < 0 {
				if left, quiet = 1+r.IntN(120), !quiet; quiet {
					left /= 3
				}
			}
			return quiet
		})
	}
	asks := 0
	every := seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		a := &all[r.IntN(speakers)]
		v := NewBlockVerifier(speaker, a.x.public)
		v.Hold(a.x.e.N, a.x.e.ID)
		asked, _ := listenFor(t, v, a.said, a.blocks, r)
		asks += asked
	})
	if t.Logf("%d blocks asked for", asks); every && asks == 0 {
		t.Error("nothing was lost")
	}
}
