package api

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"sync"
	"time"
)

const (
	codeLife = 60 * time.Second
	maxCodes = 64 // outstanding; the oldest gives way
	secret   = 32 // bytes of a code and of a token
)

// Codes are the one-time codes that a page trades for the bearer token. The zero value is ready.
type Codes struct {
	Now func() time.Time // nil: time.Now

	mu  sync.Mutex
	out []code // oldest first
}

type code struct {
	text  string
	until time.Time
}

// Mint makes a code that Redeem takes once within a minute.
func (c *Codes) Mint() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := code{text: newSecret(), until: c.now().Add(codeLife)}
	if len(c.out) == maxCodes {
		c.out = c.out[1:]
	}
	c.out = append(c.out, k)
	return k.text
}

// Redeem tells whether text is a code that is not older than a minute and was not redeemed before. It takes as long
// for a near miss as for a far one.
func (c *Codes) Redeem(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, good, kept := c.now(), false, c.out[:0]
	for _, k := range c.out {
		same := subtle.ConstantTimeCompare([]byte(k.text), []byte(text)) == 1
		fresh := now.Before(k.until)
		good = good || (same && fresh)
		if !same && fresh {
			kept = append(kept, k)
		}
	}
	c.out = kept
	return good
}

func (c *Codes) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// newSecret is 32 random bytes in base64url, 43 characters. The first is never a dash, which a command line
// would take for a flag.
func newSecret() string {
	var b [secret]byte
	for {
		rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never fails since Go 1.24
		if s := base64.RawURLEncoding.EncodeToString(b[:]); s[0] != '-' {
			return s
		}
	}
}
