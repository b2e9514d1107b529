package media

import (
	"bytes"
	"errors"
	"testing"
)

// frames takes an Opus packet apart as RFC 6716, section 3.2, says, without what PadOpus uses.
func frames(p []byte) (config byte, out [][]byte, ok bool) {
	if len(p) == 0 {
		return 0, nil, false
	}
	config, code, b := p[0]>>2, p[0]&3, p[1:]
	length := func() (int, bool) {
		if len(b) == 0 {
			return 0, false
		}
		n := int(b[0])
		b = b[1:]
		if n >= 252 {
			if len(b) == 0 {
				return 0, false
			}
			n += 4 * int(b[0])
			b = b[1:]
		}
		return n, n <= len(b)
	}
	equal := func(m int) bool {
		if m == 0 || len(b)%m != 0 {
			return false
		}
		for n := len(b) / m; m > 0; m-- {
			out, b = append(out, b[:n]), b[n:]
		}
		return true
	}
	switch code {
	case 0:
		return config, [][]byte{b}, true
	case 1:
		return config, out, equal(2)
	case 2:
		n, ok := length()
		if !ok {
			return 0, nil, false
		}
		return config, [][]byte{b[:n], b[n:]}, true
	}
	if len(b) == 0 {
		return 0, nil, false
	}
	head := b[0]
	b = b[1:]
	pad := 0
	for more := head&0x40 != 0; more; {
		if len(b) == 0 {
			return 0, nil, false
		}
		if more = b[0] == 255; more {
			pad += 254
		} else {
			pad += int(b[0])
		}
		b = b[1:]
	}
	m := int(head & 0x3f)
	if head&0x80 == 0 {
		if pad > len(b) {
			return 0, nil, false
		}
		b = b[:len(b)-pad]
		return config, out, equal(m)
	}
	var sizes []int
	for range m - 1 {
		n, ok := length()
		if !ok {
			return 0, nil, false
		}
		sizes = append(sizes, n)
	}
	if pad > len(b) || m == 0 {
		return 0, nil, false
	}
	b = b[:len(b)-pad]
	for _, n := range sizes {
		if n > len(b) {
			return 0, nil, false
		}
		out, b = append(out, b[:n]), b[n:]
	}
	return config, append(out, b), true
}

func TestPadOpus(t *testing.T) {
	zeros := make([]byte, 400)
	for name, p := range map[string][]byte{
		"silence": {0xf8, 0xff, 0xfe}, "nothing": {0x08}, "one": append([]byte{0x78}, bytes.Repeat([]byte{7}, 60)...),
		"two alike": {0x79, 1, 2, 3, 4}, "two": {0x7a, 3, 1, 2, 3, 4, 5}, "three alike": {0x7b, 3, 1, 2, 3},
		"three": {0x7b, 0x83, 1, 2, 9, 8, 8, 7}, "padded": {0x7b, 0x41, 2, 5, 5, 0, 0}, "padded long": append([]byte{0x7b, 0x41, 255, 0, 5, 5}, zeros[:254]...),
	} {
		_, want, ok := frames(p)
		if !ok {
			t.Fatalf("%s is no packet", name)
		}
		for size := len(p); size < 800; size++ {
			got, err := PadOpus([]byte{1}, p, size)
			if err != nil || len(got) != size+1 || got[0] != 1 {
				t.Fatalf("%s at %d: %d bytes, %v", name, size, len(got)-1, err)
			}
			config, is, ok := frames(got[1:])
			if !ok || config != p[0]>>2 || len(is) != len(want) || !bytes.Equal(bytes.Join(is, []byte{255}), bytes.Join(want, []byte{255})) {
				t.Fatalf("%s at %d: %x", name, size, got)
			}
		}
		if _, err := PadOpus(nil, p, len(p)-1); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s made shorter: %v", name, err)
		}
	}
	for _, p := range [][]byte{{}, {0x7b}, {0x7b, 0}, {0x7b, 0x41}, {0x7b, 0x41, 255}, {0x7b, 0x41, 3, 1}} {
		if got, err := PadOpus(nil, p, 100); !errors.Is(err, ErrMalformed) || got != nil {
			t.Errorf("%x: %x, %v", p, got, err)
		}
	}
}

func FuzzPadOpus(f *testing.F) {
	f.Add([]byte{0xf8, 0xff, 0xfe}, 110)
	f.Add([]byte{0x7b, 0x41, 255, 0, 5, 5}, 300)
	f.Fuzz(func(t *testing.T, p []byte, size int) {
		if size > 2000 {
			return
		}
		got, err := PadOpus(nil, p, size)
		if err != nil {
			return
		}
		if len(got) != size {
			t.Fatalf("%d bytes, want %d", len(got), size)
		}
		config, want, ok := frames(p)
		if !ok {
			return // a decoder refuses both
		}
		if c, is, ok := frames(got); !ok || c != config || !bytes.Equal(bytes.Join(is, nil), bytes.Join(want, nil)) {
			t.Fatalf("%x became %x", p, got)
		}
	})
}
