package sframe

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var (
	t0       = time.Unix(1_790_000_000, 0)
	testRoom = [32]byte{1, 2, 3}
	speaker  = Owner{Room: testRoom, Peer: "\x00\x24\x08\x01\x12\x20peer", Salt: [8]byte{7}}
)

func sealed(t testing.TB, s *Sealer, e Epoch, ctr uint32, payload string) (header, body []byte) {
	t.Helper()
	s.Rekey(e)
	h := frameHeader(s.source, e, ctr, 1)
	body, err := s.Seal(nil, h[:], []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return h[:], body
}

func must(t testing.TB, e Epoch, step uint32) Epoch {
	t.Helper()
	at, err := e.Advance(step)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestSecretNeverPrints(t *testing.T) {
	e := NewEpoch(1)
	for _, s := range []string{fmt.Sprint(e), fmt.Sprintf("%x %v %+v %#v %s %d", e, e, e, e, e.Secret, e.Secret)} {
		if strings.Contains(s, fmt.Sprintf("%x", [32]byte(e.Secret))[:8]) || strings.Contains(s, fmt.Sprint([32]byte(e.Secret))[1:12]) {
			t.Errorf("secret shown: %s", s)
		}
	}
}

func TestAdvance(t *testing.T) {
	e := must(t, NewEpoch(1), 5)
	for step, want := range map[uint32]error{4: ErrStep, 5: nil, 5 + MaxAhead: nil, 6 + MaxAhead: ErrStep} {
		got, err := e.Advance(step)
		if !errors.Is(err, want) || err == nil && got.Step != step {
			t.Errorf("to %d: step %d, %v", step, got.Step, err)
		}
	}
	if e.Verify() != nil || e.Step != 5 {
		t.Error("advancing changed the original")
	}
	e = NewEpoch(2)
	e.Secret[0] ^= 1
	if !errors.Is(e.Verify(), ErrForged) {
		t.Error("a secret that is not the id's was taken")
	}
}

func TestGossipRefusals(t *testing.T) {
	e := must(t, NewEpoch(9), 10)
	p := e.SealGossip(testRoom, "ops", []byte("hello"))
	other := NewEpoch(9)
	for name, c := range map[string]struct {
		e       Epoch
		room    [32]byte
		topic   string
		payload []byte
		want    error
	}{
		"same":        {e, testRoom, "ops", p, nil},
		"topic":       {e, testRoom, "stage", p, ErrForged},
		"room":        {e, [32]byte{9}, "ops", p, ErrForged},
		"other epoch": {other, testRoom, "ops", p, ErrNoKey},
		"later step":  {must(t, e, 11), testRoom, "ops", p, ErrStep},
		"far ahead":   {e, testRoom, "ops", must(t, must(t, e, 370), 371).SealGossip(testRoom, "ops", nil), ErrStep},
		"short":       {e, testRoom, "ops", p[:GossipOverhead-1], ErrMalformed},
	} {
		if _, err := c.e.OpenGossip(c.room, c.topic, c.payload); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for i := range p {
		q := bytes.Clone(p)
		q[i] ^= 4
		if _, err := e.OpenGossip(testRoom, "ops", q); err == nil {
			t.Errorf("opened with byte %d changed", i)
		}
	}
}

func TestSealerNeverUsesACounterTwice(t *testing.T) {
	e := NewEpoch(1)
	s := NewSealer(speaker, 100)
	h := frameHeader(s.source, e, 100, 3)
	if _, err := s.Seal(nil, h[:], []byte("x")); !errors.Is(err, ErrNoKey) {
		t.Errorf("sealed without a key: %v", err)
	}
	s.Rekey(e)
	try := func(e Epoch, ctr uint32) error {
		h := frameHeader(s.source, e, ctr, 3)
		_, err := s.Seal(nil, h[:], []byte("x"))
		return err
	}
	next := NewEpoch(2)
	for _, c := range []struct {
		e    Epoch
		ctr  uint32
		want error
	}{
		{e, 99, ErrCounter},
		{e, 100, nil},
		{e, 100, ErrCounter},
		{e, 102, ErrCounter},
		{e, 103, nil},
		{next, 200, ErrNoKey}, // header of a key that is not the present one
	} {
		if err := try(c.e, c.ctr); !errors.Is(err, c.want) {
			t.Errorf("ctr %d: %v, want %v", c.ctr, err, c.want)
		}
	}
	s.Rekey(next)
	if err := try(next, 103); !errors.Is(err, ErrCounter) {
		t.Errorf("a new epoch let the counter go back: %v", err)
	}
	if err := try(next, MaxCounter-1); err != nil {
		t.Error(err)
	}
	if err := try(next, MaxCounter); !errors.Is(err, ErrCounter) || s.Next() <= MaxCounter {
		t.Errorf("counter used up: %v, next %d", err, s.Next())
	}
}

// A speaker that starts again draws a new salt: its keys are others, so no (key, counter) comes back (trust test 42).
func TestRestartedSpeakerHasOtherKeys(t *testing.T) {
	e := NewEpoch(1)
	again := speaker
	again.Salt = [8]byte{8}
	a, b := NewSealer(speaker, 0), NewSealer(again, 0)
	_, ca := sealed(t, a, e, 5, "same words")
	_, cb := sealed(t, b, e, 5, "same words")
	if a.source == b.source || bytes.Equal(ca, cb) {
		t.Error("two lives of a speaker share source or keystream")
	}
	ka, kb := speaker.key(e), again.key(e)
	if ka.mask == kb.mask {
		t.Error("same nonce mask")
	}
	o := NewOpener(again, 0)
	o.Hold(e, t0)
	ha := frameHeader(b.source, e, 5, 1)
	if _, err := o.Open(nil, ha[:], ca, t0); !errors.Is(err, ErrForged) {
		t.Errorf("a frame of the first life opened in the second: %v", err)
	}
}

// Whoever gets step s opens nothing older (trust test 35).
func TestNewcomerOpensNothingOlder(t *testing.T) {
	e := NewEpoch(1)
	s := NewSealer(speaker, 0)
	const at = 40
	newcomer := NewOpener(speaker, 0)
	newcomer.Hold(must(t, e, at), t0)
	for step := uint32(at - 20); step < at; step++ {
		h, body := sealed(t, s, must(t, e, step), step*500, "before")
		if _, err := newcomer.Open(nil, h, body, t0); err == nil {
			t.Errorf("step %d opened by one who joined at %d", step, at)
		}
	}
	for step := uint32(at); step <= at+14; step++ {
		h, body := sealed(t, s, must(t, e, step), step*500, "after")
		if p, err := newcomer.Open(nil, h, body, t0); err != nil || string(p) != "after" {
			t.Errorf("step %d: %q %v", step, p, err)
		}
	}
	h, body := sealed(t, s, must(t, e, at+15), (at+15)*500, "beyond")
	if _, err := newcomer.Open(nil, h, body, t0); err == nil {
		t.Error("a step 15 ahead opened")
	}
	late := NewOpener(speaker, 1000)
	late.Hold(e, t0)
	h, body = sealed(t, NewSealer(speaker, 0), e, 999, "past")
	if _, err := late.Open(nil, h, body, t0); !errors.Is(err, ErrReplay) {
		t.Errorf("below the source's counter: %v", err)
	}
}

func TestPreviousStepOpensTwoSeconds(t *testing.T) {
	e := NewEpoch(1)
	s := NewSealer(speaker, 0)
	h1, b1 := sealed(t, s, must(t, e, 7), 10, "a")
	h2, b2 := sealed(t, s, must(t, e, 7), 11, "b")
	h0, b0 := sealed(t, s, must(t, e, 6), 12, "c")
	o := NewOpener(speaker, 0)
	o.Hold(e, t0)
	o.Hold(must(t, e, 8), t0)
	if _, err := o.Open(nil, h1, b1, t0.Add(PreviousStep-1)); err != nil {
		t.Errorf("previous step: %v", err)
	}
	if _, err := o.Open(nil, h2, b2, t0.Add(PreviousStep)); !errors.Is(err, ErrNoKey) {
		t.Errorf("previous step after its time: %v", err)
	}
	if _, err := o.Open(nil, h0, b0, t0); err == nil {
		t.Error("the step before the previous opened")
	}
	o.Hold(must(t, e, 3), t0) // going back changes nothing
	h3, b3 := sealed(t, s, must(t, e, 8), 13, "d")
	if _, err := o.Open(nil, h3, b3, t0); err != nil {
		t.Errorf("present step: %v", err)
	}
}

func TestOpenerKeepsFourEpochsAndTriesEqualNumbers(t *testing.T) {
	s := NewSealer(speaker, 0)
	o := NewOpener(speaker, 0)
	var epochs []Epoch
	for i := range uint64(5) {
		epochs = append(epochs, NewEpoch(i/2)) // two ids for one number, as after a partition
	}
	for _, e := range epochs {
		o.Hold(e, t0)
	}
	for i, e := range epochs {
		h, body := sealed(t, s, e, uint32(10+i), "x")
		if _, err := o.Open(nil, h, body, t0); (err == nil) != (i > 0) {
			t.Errorf("epoch %d of 5: %v", i, err)
		}
	}
}

// A frame that comes again, at once or 10 s later, is dropped (trust test 37).
func TestReplayIsDropped(t *testing.T) {
	e := NewEpoch(1)
	s := NewSealer(speaker, 0)
	o := NewOpener(speaker, 0)
	o.Hold(e, t0)
	var heads, bodies [][]byte
	for ctr := uint32(0); ctr < 2000; ctr++ {
		h, body := sealed(t, s, e, ctr, "x")
		heads, bodies = append(heads, h), append(bodies, body)
		if _, err := o.Open(nil, h, body, t0); err != nil {
			t.Fatal(ctr, err)
		}
	}
	for ctr := range heads {
		if _, err := o.Open(nil, heads[ctr], bodies[ctr], t0.Add(10*time.Second)); !errors.Is(err, ErrReplay) {
			t.Fatalf("ctr %d again: %v", ctr, err)
		}
	}
}

func TestOpenRefusesAnyChange(t *testing.T) {
	e := NewEpoch(1)
	h, body := sealed(t, NewSealer(speaker, 0), e, 77, "payload")
	o := NewOpener(speaker, 0)
	o.Hold(e, t0)
	for i := range 8 * (len(h) + len(body)) {
		hh, bb := bytes.Clone(h), bytes.Clone(body)
		if i < 8*len(h) {
			hh[i/8] ^= 1 << (i % 8)
		} else {
			bb[i/8-len(h)] ^= 1 << (i % 8)
		}
		if p, err := o.Open(nil, hh, bb, t0); err == nil || len(p) != 0 {
			t.Errorf("opened with bit %d changed", i)
		}
	}
	if p, err := o.Open([]byte("pre"), h, body, t0); err != nil || string(p) != "prepayload" {
		t.Errorf("a refused copy used up the counter: %q %v", p, err)
	}
}

func TestHandoutOpensForItsKeyRoomAndEpochOnly(t *testing.T) {
	k, other := NewHandoutKey(), NewHandoutKey()
	id := EpochID{5}
	public := k.Public()
	enc, ct, err := SealHandout(public[:], testRoom, id, []byte("key step"))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := k.Open(testRoom, id, enc, ct); err != nil || string(p) != "key step" {
		t.Errorf("%q %v", p, err)
	}
	if _, err := other.Open(testRoom, id, enc, ct); !errors.Is(err, ErrForged) {
		t.Errorf("another key: %v", err)
	}
	if _, err := k.Open([32]byte{}, id, enc, ct); !errors.Is(err, ErrForged) {
		t.Errorf("another room: %v", err)
	}
	if _, err := k.Open(testRoom, EpochID{}, enc, ct); !errors.Is(err, ErrForged) {
		t.Errorf("another epoch: %v", err)
	}
	for _, bad := range [][]byte{nil, make([]byte, 31), make([]byte, 32)} {
		if _, _, err := SealHandout(bad, testRoom, id, nil); !errors.Is(err, ErrMalformed) {
			t.Errorf("sealed to %x: %v", bad, err)
		}
	}
}

// The window agrees with a plain set over random walks.
func TestWindowAgainstSet(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	w, taken, top := newWindow(50), map[uint32]bool{}, uint32(0)
	for range 200_000 {
		ctr := uint32(max(0, int(top)+r.IntN(64)-40))
		if r.IntN(1000) == 0 {
			ctr += uint32(r.IntN(3000))
		}
		want := ctr >= 50 && !taken[ctr] && (len(taken) == 0 || ctr > top || top-ctr < replayWindow)
		if got := w.fresh(ctr); got != want {
			t.Fatalf("seed %d: ctr %d top %d: fresh %v, want %v", seed, ctr, top, got, want)
		}
		if want {
			w.mark(ctr)
			taken[ctr] = true
			top = max(top, ctr)
		}
	}
}

func TestSealOpenDoNotAllocate(t *testing.T) {
	f := newPair(t)
	if n := testing.AllocsPerRun(1000, func() { f.once(t) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

type pair struct {
	s                  *Sealer
	o                  *Opener
	e                  Epoch
	ctr                uint32
	head               [HeaderLen]byte
	plain, sealed, out []byte
}

func newPair(t testing.TB) *pair {
	t.Helper()
	e := NewEpoch(1)
	f := &pair{s: NewSealer(speaker, 0), o: NewOpener(speaker, 0), e: e, plain: make([]byte, 80), sealed: make([]byte, 0, 200), out: make([]byte, 0, 200)}
	f.s.Rekey(e)
	f.o.Hold(e, t0)
	return f
}

func (f *pair) once(t testing.TB) {
	f.seal(t)
	f.open(t)
}

func (f *pair) seal(t testing.TB) {
	f.ctr = (f.ctr + 1) & MaxCounter
	if f.ctr == 0 {
		f.s, f.o = NewSealer(speaker, 0), NewOpener(speaker, 0)
		f.s.Rekey(f.e)
		f.o.Hold(f.e, t0)
	}
	f.head = frameHeader(f.s.source, f.e, f.ctr, 1)
	var err error
	if f.sealed, err = f.s.Seal(f.sealed[:0], f.head[:], f.plain); err != nil {
		t.Fatal(err)
	}
}

func (f *pair) open(t testing.TB) {
	var err error
	if f.out, err = f.o.Open(f.out[:0], f.head[:], f.sealed, t0); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkSeal(b *testing.B) {
	f := newPair(b)
	b.ReportAllocs()
	for b.Loop() {
		f.seal(b)
	}
}

func BenchmarkSealOpen(b *testing.B) {
	f := newPair(b)
	b.ReportAllocs()
	for b.Loop() {
		f.once(b)
	}
}

func BenchmarkRekey(b *testing.B) {
	e := NewEpoch(1)
	s := NewSealer(speaker, 0)
	for b.Loop() {
		s.Rekey(e)
	}
}

// A frame of the far future, which another holder of the key can forge, neither opens nor makes the true ones look old.
func TestAhead(t *testing.T) {
	owner := Owner{Room: [32]byte{1}, Peer: "ana", Salt: [8]byte{2}}
	e := NewEpoch(1)
	now := time.Unix(1_000_000, 0)
	seal := func(ctr uint32) ([]byte, []byte) {
		s := NewSealer(owner, ctr)
		s.Rekey(e)
		var h [HeaderLen]byte
		src := owner.Source()
		h[0], h[1], h[2], h[3], h[4] = 1<<2, byte(src>>16), byte(src>>8), byte(src), s.Nibbles()
		h[6], h[7], h[8] = byte(ctr>>16), byte(ctr>>8), byte(ctr)
		body, err := s.Seal(nil, h[:], []byte("words"))
		if err != nil {
			t.Fatal(err)
		}
		return h[:], body
	}
	o := NewOpener(owner, 100)
	o.Hold(e, now)
	o.Expect(100, now)
	open := func(ctr uint32, at time.Time) error {
		h, body := seal(ctr)
		_, err := o.Open(nil, h, body, at)
		return err
	}
	if err := open(101, now); err != nil {
		t.Fatal(err)
	}
	if err := open(100_000, now); err != ErrAhead {
		t.Errorf("a frame of the far future: %v", err)
	}
	if err := open(100+MaxLead, now); err != nil {
		t.Errorf("as far ahead as is allowed: %v", err)
	}
	if err := open(102, now); err != nil {
		t.Errorf("the true one after it: %v", err)
	}
	if err := open(100+MaxLead+500, now.Add(10*time.Second)); err != nil {
		t.Errorf("ten seconds later: %v", err)
	}
	o.Expect(1_000_000, now.Add(11*time.Second)) // the owner has signed that it is there: I was asleep
	if err := open(1_000_010, now.Add(11*time.Second)); err != nil {
		t.Errorf("after a sleep: %v", err)
	}
}

// What was held back does not open once its owner has signed that her counter is far beyond it, though nothing newer was
// heard of her and the key is still held: she was silent, and the epoch changed. What is on its way opens.
func TestHeldBack(t *testing.T) {
	e, next := NewEpoch(1), NewEpoch(2)
	s := NewSealer(speaker, 100)
	h0, yes := sealed(t, s, e, 100, "yes")
	h1, late := sealed(t, s, e, 1000-MaxAge-1, "held back")
	h2, fine := sealed(t, s, e, 1000-MaxAge, "on its way")
	o := NewOpener(speaker, 100)
	o.Hold(e, t0)
	o.Expect(100, t0)
	now := t0.Add(18 * time.Second)
	o.Hold(next, now)
	if _, err := o.Open(nil, h0, yes, now); err != nil {
		t.Fatalf("an epoch change and 18 s alone keep nothing out: %v", err)
	}
	o.Forget(100)
	o.Expect(1000, now)
	for _, x := range [][2][]byte{{h0, yes}, {h1, late}} {
		if _, err := o.Open(nil, x[0], x[1], now); !errors.Is(err, ErrStale) {
			t.Errorf("held back: %v", err)
		}
	}
	o.Expect(300, now) // an older word
	if _, err := o.Open(nil, h1, late, now); !errors.Is(err, ErrStale) {
		t.Errorf("held back, after an older word: %v", err)
	}
	if _, err := o.Open(nil, h2, fine, now); err != nil {
		t.Errorf("on its way: %v", err)
	}
	h3, ahead := sealed(t, s, next, 1000+MaxLead, "as far ahead as may be")
	if _, err := o.Open(nil, h3, ahead, now); err != nil {
		t.Errorf("ahead: %v", err)
	}
}
