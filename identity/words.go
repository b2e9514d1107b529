package identity

import (
	"crypto/sha256"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/tyler-smith/go-bip39/wordlists"
)

const (
	// FingerprintDomain separates the words of a peer id from all other words.
	FingerprintDomain = "balai-fingerprint/1"

	// ShortIDLen is the length in bytes of a short id.
	ShortIDLen = 8

	wordCount = 6
	wordBits  = 11 // the BIP-39 list has 2^11 words
)

// ShortID is the first 8 bytes of SHA-256 of the peer id's bytes: for lists where a whole id is too long, never for a
// decision that a chosen key could turn.
func ShortID(p peer.ID) [ShortIDLen]byte {
	sum := sha256.Sum256([]byte(p))
	return [ShortIDLen]byte(sum[:ShortIDLen])
}

// Words are the first 66 bits of SHA-256(domain || 0x00 || b) as six words of the English BIP-39 list, joined by
// spaces. They are made to be read aloud and are never translated.
func Words(domain string, b []byte) string {
	sum := RecordID(domain, b)
	words := make([]string, wordCount)
	for i := range words {
		words[i] = wordlists.English[bitsAt(sum[:], i*wordBits)]
	}
	return strings.Join(words, " ")
}

// Fingerprint are the words of a peer id.
func Fingerprint(p peer.ID) string { return Words(FingerprintDomain, []byte(p)) }

// bitsAt is the 11-bit number that begins at bit pos, the most significant bit first.
func bitsAt(b []byte, pos int) int {
	n := 0
	for i := pos; i < pos+wordBits; i++ {
		n = n<<1 | int(b[i/8]>>(7-i%8)&1)
	}
	return n
}
