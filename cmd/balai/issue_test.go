package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"balai/identity"
	"balai/room"
	"balai/room/invite"
)

// links gives the scripts invites of a host who is not here: EXPIRED, GOOD and, with a bit turned, FORGED, as tokens,
// and ROOM and HOST, what they say.
func links(e *testscript.Env) error {
	k, err := identity.Generate()
	if err != nil {
		return err
	}
	secret := room.NewSecret()
	e.Setenv("HOST", k.ID().String())
	e.Setenv("ROOM", room.IDOf(k.Public(), secret.Nonce()).String())
	now := time.Now()
	for name, until := range map[string]time.Duration{"EXPIRED": -24 * time.Hour, "GOOD": time.Hour} {
		v, err := invite.Issue(k, k.Public(), secret, invite.Terms{
			Role: room.Listener, Uses: 7, NotBefore: now.Add(-48 * time.Hour), Expiry: now.Add(until),
		})
		if err != nil {
			return err
		}
		e.Setenv(name, v.Token())
		v.Blocks[0].Sig[0] ^= 1
		e.Setenv("FORGED", v.Token())
	}
	home := filepath.Join(e.WorkDir, "home")
	e.Setenv("HOME", home)
	e.Setenv("NOTE", filepath.Join(e.WorkDir, "note"))
	return os.MkdirAll(home, 0o700)
}
