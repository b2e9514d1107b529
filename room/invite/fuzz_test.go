package invite

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"balai/room"
)

// seeds are the values of one field of all vectors.
func seeds(f *testing.F, field string) (out []string) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatal("no vectors", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, field+": "); ok {
				out = append(out, strings.TrimSuffix(v, "\n"))
			}
		}
	}
	return out
}

// FuzzParseLink gives raw token bytes, with a checksum that fits so that the fuzzer gets past it, and the
// same bytes as text: whatever is read is written back byte for byte, and Verify never panics.
func FuzzParseLink(f *testing.F) {
	for _, s := range seeds(f, "token") {
		f.Add([]byte(s))
		if raw, err := tokenText.DecodeString(s); err == nil {
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		texts := []string{string(b)}
		if len(b) >= 4 {
			texts = append(texts, retoken(b))
		}
		for _, s := range texts {
			v, err := ParseLink(s)
			if err != nil {
				if v != nil || !errors.Is(err, room.Malformed) {
					t.Fatalf("refused with %v and %v", v, err)
				}
				continue
			}
			if v.Token() != strings.TrimSpace(s) && v.Link() != strings.TrimSpace(s) && !strings.HasPrefix(strings.TrimSpace(s), "https://") {
				t.Fatalf("%q comes back as %q", s, v.Token())
			}
			_ = v.Verify(v.Room(), now, grants)
			_, _ = v.Inspect(now)
			for _, h := range v.Hints {
				for _, a := range h.Addrs() {
					one, err := ParseHint(a, h.Kind)
					if err != nil || one.Port != h.Port || one.Addr != h.Addr || one.DNS != h.DNS || !one.Peer.Equal(h.Peer) {
						t.Fatalf("hint %q comes back as %+v, %v", a, one, err)
					}
				}
				h.Circuits(v.Issuer())
			}
		}
	})
}

func FuzzParsePublic(f *testing.F) {
	for _, s := range seeds(f, "public") {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParsePublic(b)
		if err != nil {
			if c != nil || !errors.Is(err, room.Malformed) {
				t.Fatalf("refused with %v and %v", c, err)
			}
			return
		}
		if !bytes.Equal(c.Public(), b) {
			t.Fatalf("%x comes back as %x", b, c.Public())
		}
		_ = c.Verify(c.Room(), now, grants)
		_ = c.VerifyClaim(guest.ID(), host.ID(), b, b)
		if len(c.ChainIDs()) != len(c.Uses()) {
			t.Fatal("ids and uses differ in number")
		}
	})
}

func FuzzParseHint(f *testing.F) {
	for _, at := range []string{"203.0.113.7", "2001:db8::1", "node.example"} {
		for _, a := range hintAt(host, at, HintBoth).Addrs() {
			f.Add(a)
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHint(s, HintMember)
		if err != nil {
			return
		}
		again, err := ParseHint(h.Addrs()[0], HintMember)
		if len(h.Addrs()) != 1 || err != nil || again.Addrs()[0] != h.Addrs()[0] {
			t.Fatalf("%q reads as %v, that as %v, %v", s, h.Addrs(), again.Addrs(), err)
		}
		terms := plain()
		terms.Hints = []Hint{h}
		if v, err := ParseLink(mustIssue(t, host, terms).Link()); err != nil || v.Hints[0].Addrs()[0] != h.Addrs()[0] {
			t.Fatalf("%q does not come through a token: %v", s, err)
		}
	})
}
