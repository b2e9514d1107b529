package invite

import (
	"crypto/ed25519"
	"testing"
)

// BenchmarkVerify has one block and three; the baseline is one bare Ed25519 verification a block.
func BenchmarkVerify(b *testing.B) {
	one := mustIssue(b, host, deep())
	three := mustDelegate(b, mustDelegate(b, one, Terms{Depth: 1}), Terms{})
	for name, v := range map[string]*Invite{"blocks=1": one, "blocks=3": three} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := v.Verify(v.Room(), now, grants); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("baseline=ed25519", func(b *testing.B) {
		body := make([]byte, 150)
		sig := ed25519.Sign(host.key, body)
		for b.Loop() {
			if !ed25519.Verify(host.Public(), body, sig) {
				b.Fatal("impossible")
			}
		}
	})
}

func BenchmarkParseLink(b *testing.B) {
	link := mustIssue(b, host, plain()).Link()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseLink(link); err != nil {
			b.Fatal(err)
		}
	}
}
