package media

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var t0 = time.Unix(1_790_000_000, 0)

func entry(t testing.TB, h Header, n int) Entry {
	t.Helper()
	var b [HeaderLen]byte
	h.Put(&b)
	body := make([]byte, n)
	for i := range body {
		body[i] = byte(i)
	}
	e, rest, err := ParseEntry(AppendEntry(nil, &b, body))
	if err != nil || len(rest) != 0 {
		t.Fatal(err)
	}
	return e
}

func frame(t testing.TB, source, ctr uint32) Entry {
	return entry(t, Header{Kind: Frame, Ticks: 1, Source: source, Level: 40, Ctr: ctr}, 96)
}

func TestHeaderRoundTrip(t *testing.T) {
	for range 10_000 {
		h := Header{
			Kind: Frame, Ticks: uint8(1 + rand.IntN(6)), Marker: rand.IntN(2) == 0, Source: rand.Uint32N(1 << 24),
			Epoch: uint8(rand.IntN(16)), Step: uint8(rand.IntN(16)), Voice: rand.IntN(2) == 0, Level: Level(rand.IntN(128)), Ctr: rand.Uint32N(1 << 24),
		}
		var b [HeaderLen]byte
		h.Put(&b)
		if got, err := ParseHeader(b[:]); err != nil || got != h {
			t.Fatalf("%+v -> %+v %v", h, got, err)
		}
	}
}

// Each file of testdata: comment, expect (ok or malformed), bundle in hex, and what is in it.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatal("vectors missing", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { vector(t, name) })
	}
}

func vector(t *testing.T, name string) {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v := map[string]string{}
	var entries []string
	for s := bufio.NewScanner(f); s.Scan(); {
		k, val, _ := strings.Cut(s.Text(), ": ")
		if k == "entry" {
			entries = append(entries, val)
		}
		v[k] = val
	}
	b, err := hex.DecodeString(v["bundle"])
	if err != nil {
		t.Fatal(err)
	}
	u, err := Parse(b)
	if v["expect"] == "malformed" {
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("taken: %+v %v", u, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	var e Entry
	for u.Next(&e) {
		if len(entries) == 0 || hex.EncodeToString(e.Raw) != entries[0] {
			t.Fatalf("entry %x", e.Raw)
		}
		entries = entries[1:]
	}
	if len(entries) != 0 {
		t.Errorf("%d entries not found", len(entries))
	}
}

func TestFillOrderAndLimit(t *testing.T) {
	var prim, blocks, red [][]byte
	for i := range uint32(3) {
		prim = append(prim, frame(t, i, 10).Raw)
		blocks = append(blocks, entry(t, Header{Kind: Block, Source: i, Ctr: 1}, 163).Raw)
		for r := range uint32(3) {
			red = append(red, frame(t, i, 9-r).Raw)
		}
	}
	for limit := 0; limit <= MaxBundle; limit++ {
		var w Builder
		w.Begin(Bundle{Handle: 300, Hops: 2}, limit)
		p, b := w.Fill(prim, blocks, red)
		if p < len(prim) && b > 0 || (p < len(prim) || b < len(blocks)) && w.Len() != p+b {
			t.Fatalf("limit %d: %d primaries, %d blocks, %d in all", limit, p, b, w.Len())
		}
		if w.Len() > 0 && len(w.Bytes()) > limit {
			t.Fatalf("limit %d: %d bytes", limit, len(w.Bytes()))
		}
		if u, err := Parse(w.Bytes()); err != nil || u.Count != uint8(w.Len()) || u.Handle != 300 || u.Hops != 2 {
			t.Fatalf("limit %d: %+v %v", limit, u, err)
		}
	}
}

// Redundancy 3, three speakers, a 1,280-byte path: nothing is refused (trust test 58).
func TestThreeSpeakersWithFullRedundancyFit(t *testing.T) {
	var prim, red [][]byte
	for i := range uint32(3) {
		prim = append(prim, frame(t, i, 10).Raw)
		for r := range uint32(3) {
			red = append(red, frame(t, i, 9-r).Raw)
		}
	}
	var w Builder
	w.Begin(Bundle{Handle: 1}, 1232)
	if p, _ := w.Fill(prim, nil, red); p != 3 || w.Len() < 9 || len(w.Bytes()) > MaxBundle {
		t.Errorf("%d primaries, %d entries, %d bytes", p, w.Len(), len(w.Bytes()))
	}
}

// One bundle for receivers with handles of any length: the same as if it had been written for each.
func TestRehead(t *testing.T) {
	var shared, alone Builder
	shared.Begin(Bundle{Handle: 1<<32 - 1}, MaxBundle)
	var in [][]byte
	for i := range uint32(40) {
		e := frame(t, i%3, i)
		if shared.Add(e.Raw) {
			in = append(in, e.Raw)
		}
	}
	if n := len(shared.Bytes()); n > MaxBundle || len(in) != shared.Len() || len(in) < 9 {
		t.Fatalf("%d bytes, %d entries", n, len(in))
	}
	for i, h := range []uint32{0, 127, 128, 1 << 20, 1<<32 - 1, 5} {
		u := Bundle{Handle: h, Seq: uint16(i), SendMs: 9, Hops: uint8(i)}
		shared.Rehead(u)
		alone.Begin(u, MaxBundle)
		alone.Fill(in, nil, nil)
		if !bytes.Equal(shared.Bytes(), alone.Bytes()) {
			t.Errorf("handle %d:\n%x\n%x", h, shared.Bytes(), alone.Bytes())
		}
	}
	if shared.Add(in[0]) {
		t.Error("added after Rehead")
	}
	if n := testing.AllocsPerRun(100, func() { shared.Rehead(Bundle{Handle: 300}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestPad(t *testing.T) {
	for size := range 1200 {
		var w Builder
		w.Begin(Bundle{Handle: 1}, MaxBundle)
		w.Pad(size)
		b := w.Bytes()
		if _, err := Parse(b); err != nil {
			t.Errorf("%d: %v", size, err)
		}
		if want := min(size, MaxBundle); len(b) != want && want >= 8+minPad {
			t.Errorf("padded to %d, want %d", len(b), want)
		}
	}
}

func TestHandle(t *testing.T) {
	for _, h := range []uint32{0, 1, 127, 128, 1<<32 - 1} {
		var w Builder
		w.Begin(Bundle{Handle: h}, MaxBundle)
		if got, ok := Handle(w.Bytes()); !ok || got != h {
			t.Errorf("%d: %d %v", h, got, ok)
		}
	}
	for _, b := range [][]byte{nil, {0x0A, 0}, {0x0B, 0, 1}, {0x0A, 0, 0x80}, {0x0A, 0, 0x80, 0}, {0x0A, 0, 255, 255, 255, 255, 255, 1}, make([]byte, 1151)} {
		if h, ok := Handle(b); ok {
			t.Errorf("%x: %d", b, h)
		}
	}
}

func TestWindowAgainstSet(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 2))
	var w Window
	taken, top := map[uint32]bool{}, uint32(0)
	for range 200_000 {
		ctr := uint32(max(0, int(top)+r.IntN(64)-40))
		if r.IntN(1000) == 0 {
			ctr += uint32(r.IntN(3000))
		}
		want := !taken[ctr] && (len(taken) == 0 || ctr > top || top-ctr < WindowSize)
		if got := w.Take(ctr); got != want {
			t.Fatalf("seed %d: ctr %d top %d: %v, want %v", seed, ctr, top, got, want)
		}
		if want {
			taken[ctr], top = true, max(top, ctr)
		}
	}
}

func TestRing(t *testing.T) {
	r := NewRing(8)
	for i := range uint32(20) {
		e := frame(t, 7, i)
		r.Put(&e, t0.Add(time.Duration(i)*Tick))
	}
	now := t0.Add(20 * Tick)
	if _, ok := r.Get(Frame, 7, 11, now); ok {
		t.Error("overwritten entry found")
	}
	want := frame(t, 7, 15)
	if got, ok := r.Get(Frame, 7, 15, now); !ok || !bytes.Equal(got, want.Raw) {
		t.Errorf("%x %v", got, ok)
	}
	if _, ok := r.Get(Frame, 7, 15, t0.Add(15*Tick+RingTime+1)); ok {
		t.Error("old entry found")
	}
	var ctrs []uint32
	for _, raw := range r.Newest(nil, 7, 19, 3, now) {
		h, _ := ParseHeader(raw)
		ctrs = append(ctrs, h.Ctr)
	}
	if len(ctrs) != 3 || ctrs[0] != 18 || ctrs[1] != 17 || ctrs[2] != 16 {
		t.Errorf("newest %v", ctrs)
	}
	if got := r.Newest(nil, 8, 19, 3, now); len(got) != 0 {
		t.Error("another source's entries")
	}
}

func FuzzParse(f *testing.F) {
	var w Builder
	w.Begin(Bundle{Handle: 300, Seq: 1, SendMs: 2, Hops: 3}, MaxBundle)
	for _, e := range []Entry{frame(f, 1, 2), entry(f, Header{Kind: Block, Source: 1, Ctr: 2}, 82), entry(f, Header{Kind: Record}, 4)} {
		w.Add(e.Raw)
	}
	f.Add(bytes.Clone(w.Bytes()))
	w.Pad(400)
	f.Add(bytes.Clone(w.Bytes()))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := Parse(b)
		if err != nil {
			return
		}
		if h, ok := Handle(b); !ok || h != u.Handle {
			t.Fatalf("handle %d %v, parsed %d", h, ok, u.Handle)
		}
		var w Builder
		w.Begin(u, MaxBundle)
		var e Entry
		for u.Next(&e) {
			raw := e.Raw
			if e.Kind <= Record {
				var h [HeaderLen]byte
				e.Put(&h)
				raw = AppendEntry(nil, &h, e.Body)
			}
			if !w.Add(raw) {
				t.Fatal("does not fit again")
			}
		}
		if !bytes.Equal(w.Bytes(), b) {
			t.Fatalf("not the same again:\n%x\n%x", b, w.Bytes())
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add(frame(f, 1, 2).Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rest, err := ParseEntry(b)
		if err == nil && !bytes.Equal(append(bytes.Clone(e.Raw), rest...), b) {
			t.Fatal("bytes lost")
		}
	})
}

func TestCodecDoesNotAllocate(t *testing.T) {
	c := newCodec(t)
	if n := testing.AllocsPerRun(1000, func() { c.once(t) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// codec encodes and decodes a bundle of three speakers with one redundant frame each.
type codec struct {
	prim, red [][]byte
	w         Builder
}

func newCodec(t testing.TB) *codec {
	c := &codec{}
	for i := range uint32(3) {
		c.prim = append(c.prim, frame(t, i, 10).Raw)
		c.red = append(c.red, frame(t, i, 9).Raw)
	}
	return c
}

func (c *codec) once(t testing.TB) {
	c.w.Begin(Bundle{Handle: 300}, MaxBundle)
	c.w.Fill(c.prim, nil, c.red)
	u, err := Parse(c.w.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	var e Entry
	n := 0
	for u.Next(&e) {
		n += len(e.Body)
	}
	if n != 6*96 {
		t.Fatal(n)
	}
}

func BenchmarkBundle(b *testing.B) {
	c := newCodec(b)
	b.ReportAllocs()
	for b.Loop() {
		c.once(b)
	}
}
