package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/node"
)

type identityCmd struct {
	Show      identityShowCmd      `cmd:"" default:"withargs" help:"Show your peer id and fingerprint."`
	Protect   identityProtectCmd   `cmd:"" help:"Put a passphrase on your key."`
	Unprotect identityUnprotectCmd `cmd:"" help:"Take the passphrase off your key."`
	Export    identityExportCmd    `cmd:"" help:"Save a copy of your key that a passphrase protects."`
	Import    identityImportCmd    `cmd:"" help:"Restore your key from such a copy."`
}

func (identityCmd) Help() string {
	return `You are your key: DIR/identity.key. There is no account and nobody can give a lost key back, so export it. Who
takes the disk takes the key, unless a passphrase protects it; balai run asks for that at each start.

Examples:
  balai identity show
  balai identity protect                       from now on balai run asks for the passphrase
  balai identity export balai-key.pem          a copy for a safe place
  balai identity import balai-key.pem --data ~/restored`
}

type identityShape struct {
	PeerID    string `json:"peer_id"`
	Words     string `json:"words"`
	File      string `json:"file"`
	Protected bool   `json:"protected"` // by a passphrase
}

type identityShowCmd struct{}

func (identityShowCmd) Help() string {
	return `Reads the key file and needs no daemon and no passphrase. The words are for reading aloud: whoever sees the
same six words has the right peer.

Examples:
  balai identity show
  balai identity show --json`
}

// Run shows who I am.
func (identityShowCmd) Run(a *app) error {
	path, _, err := a.keyFile()
	if err != nil {
		return err
	}
	return a.showKey(path)
}

// showKey tells whose key the file at path is.
func (a *app) showKey(path string) error {
	name, sealed, err := identity.Inspect(path)
	if err != nil {
		return err
	}
	id, err := peer.Decode(name)
	if err != nil {
		return fmt.Errorf("%w (%s)", identity.ErrCorrupt, path)
	}
	shape := identityShape{PeerID: name, Words: identity.Fingerprint(id), File: path, Protected: sealed}
	return a.show(shape, func(w io.Writer) {
		protection := "no passphrase; balai identity protect puts one on it"
		if sealed {
			protection = "by a passphrase"
		}
		fmt.Fprintf(w, "peer id\t%s\nwords\t%s\nfile\t%s\nprotected\t%s\n", shape.PeerID, shape.Words, shape.File, protection)
	})
}

// keyFile is where my key lies and whether it is sealed.
func (a *app) keyFile() (path string, sealed bool, err error) {
	dir, err := a.dataDir()
	if err != nil {
		return "", false, err
	}
	path = filepath.Join(dir, node.KeyFile)
	_, sealed, err = identity.Inspect(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no identity at %s yet; `balai run` makes one", path)
	}
	return path, sealed, err
}

type identityProtectCmd struct{ passphraseFlag }

func (identityProtectCmd) Help() string {
	return `Replaces DIR/identity.key by one that only the passphrase opens (Argon2id, XChaCha20-Poly1305), in one step: a
power cut leaves the old file or the new one. A daemon that runs is not disturbed. The passphrase is asked for twice on
a terminal, and is else the first line of --passphrase-file or of standard input. Take one that nobody guesses, such as
six words drawn by dice: who has the file can try as many as the hardware gives.

Nobody can open the key when the passphrase is forgotten, so export a copy too. To change the passphrase take the old
one off and put the new one on. What the file held before may still lie in unused parts of the disk, in snapshots and
in backups: to be sure, protect a new key before you use it.

Examples:
  balai identity protect
  pass show balai | balai identity protect
  balai run --passphrase-file ~/.balai-pass    how a daemon without a terminal starts from then on`
}

// Run seals the key in its place.
func (c *identityProtectCmd) Run(ctx context.Context, a *app) error {
	path, sealed, err := a.keyFile()
	if err != nil {
		return err
	}
	if sealed {
		return fmt.Errorf("%s is protected already; to change the passphrase: balai identity unprotect, then balai identity protect", path)
	}
	k, err := identity.Load(path, nil)
	if err != nil {
		return err
	}
	pass, err := c.choose(ctx, a)
	if err != nil {
		return err
	}
	defer clear(pass)
	if err := k.Protect(path, pass); err != nil {
		return err
	}
	return a.showKey(path)
}

type identityUnprotectCmd struct{ passphraseFlag }

func (identityUnprotectCmd) Help() string {
	return `Replaces DIR/identity.key by one that opens without a passphrase, in one step. The passphrase is asked for on a
terminal, and is else the first line of --passphrase-file or of standard input.

Examples:
  balai identity unprotect`
}

// Run opens the key in its place.
func (c *identityUnprotectCmd) Run(ctx context.Context, a *app) error {
	path, sealed, err := a.keyFile()
	if err != nil {
		return err
	}
	if !sealed {
		return fmt.Errorf("%s has no passphrase", path)
	}
	k, err := identity.Load(path, func() ([]byte, error) { return c.given(ctx, a) })
	if err != nil {
		return again(err)
	}
	if err := k.Unprotect(path); err != nil {
		return err
	}
	return a.showKey(path)
}

type identityExportCmd struct {
	File string `arg:"" help:"New file to write."`
	passphraseFlag
}

func (identityExportCmd) Help() string {
	return `The file is written new and never over another one. A protected key is exported under its own passphrase. It is
asked for on a terminal, and is else the first line of --passphrase-file or of standard input.

Examples:
  balai identity export balai-key.pem
  pass show balai | balai identity export balai-key.pem`
}

// Run writes the sealed key.
func (c *identityExportCmd) Run(ctx context.Context, a *app) error {
	path, sealed, err := a.keyFile()
	if err != nil {
		return err
	}
	read := c.choose
	if sealed {
		read = c.given
	}
	pass, err := read(ctx, a)
	if err != nil {
		return err
	}
	defer clear(pass)
	k, err := identity.Load(path, func() ([]byte, error) { return bytes.Clone(pass), nil })
	if err != nil {
		return again(err)
	}
	data, err := k.Seal(pass)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return a.showKey(c.File)
}

type identityImportCmd struct {
	File    string `arg:"" help:"A file that export wrote."`
	Protect bool   `help:"Leave the passphrase on the key, as balai identity protect does."`
	passphraseFlag
}

func (identityImportCmd) Help() string {
	return `The passphrase is asked for on a terminal, and is else the first line of --passphrase-file or of standard input.
A key that is there already is never replaced: name another folder with --data, or move DIR/identity.key away first. One
key must not run on two machines at once.

Examples:
  balai identity import balai-key.pem
  balai identity import balai-key.pem --protect     balai run asks for the passphrase`
}

// Run restores the key.
func (c *identityImportCmd) Run(ctx context.Context, a *app) error {
	dir, err := a.dataDir()
	if err != nil {
		return err
	}
	sealed, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	pass, err := c.given(ctx, a)
	if err != nil {
		return err
	}
	defer clear(pass)
	k, err := identity.Open(sealed, pass)
	if err != nil {
		return again(err)
	}
	path := filepath.Join(dir, node.KeyFile)
	if c.Protect {
		err = k.SaveSealed(path, pass)
	} else {
		err = k.Save(path)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("there is an identity at %s already; it was left alone", path)
	}
	if err != nil {
		return err
	}
	return a.showKey(path)
}
