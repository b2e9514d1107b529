package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"balai/identity"
	"balai/node"
)

type identityCmd struct {
	Show   identityShowCmd   `cmd:"" default:"withargs" help:"Show your peer id and fingerprint."`
	Export identityExportCmd `cmd:"" help:"Save your key to a file that a passphrase protects."`
	Import identityImportCmd `cmd:"" help:"Restore your key from such a file."`
}

func (identityCmd) Help() string {
	return `You are your key: DIR/identity.key. There is no account and nobody can give a lost key back, so export it.

Examples:
  balai identity show
  balai identity export balai-key.pem          the passphrase is the first line of standard input
  balai identity import balai-key.pem --data ~/restored`
}

type identityShape struct {
	PeerID string `json:"peer_id"`
	Words  string `json:"words"`
	File   string `json:"file"`
}

type identityShowCmd struct{}

func (identityShowCmd) Help() string {
	return `Reads the key file and needs no daemon. The words are for reading aloud: whoever sees the same six words
has the right peer.

Examples:
  balai identity show
  balai identity show --json`
}

// Run shows who I am.
func (identityShowCmd) Run(a *app) error {
	k, path, err := a.key()
	if err != nil {
		return err
	}
	return a.showKey(k, path)
}

func (a *app) showKey(k *identity.Key, path string) error {
	shape := identityShape{PeerID: k.ID().String(), Words: identity.Fingerprint(k.ID()), File: path}
	return a.show(shape, func(w io.Writer) {
		fmt.Fprintf(w, "peer id\t%s\nwords\t%s\nfile\t%s\n", shape.PeerID, shape.Words, shape.File)
	})
}

// key reads the key file.
func (a *app) key() (*identity.Key, string, error) {
	dir, err := a.dataDir()
	if err != nil {
		return nil, "", err
	}
	path := filepath.Join(dir, node.KeyFile)
	k, err := identity.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, path, fmt.Errorf("there is no identity at %s yet; `balai run` makes one", path)
	}
	return k, path, err
}

type identityExportCmd struct {
	File string `arg:"" help:"New file to write."`
}

func (identityExportCmd) Help() string {
	return `The passphrase is the first line of standard input. The file is written new and never over another one.

Examples:
  balai identity export balai-key.pem
  pass show balai | balai identity export balai-key.pem`
}

// Run writes the sealed key.
func (c *identityExportCmd) Run(a *app) error {
	k, _, err := a.key()
	if err != nil {
		return err
	}
	pass, err := a.passphrase()
	if err != nil {
		return err
	}
	sealed, err := k.Seal(pass)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(sealed)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return a.showKey(k, c.File)
}

type identityImportCmd struct {
	File string `arg:"" help:"A file that export wrote."`
}

func (identityImportCmd) Help() string {
	return `The passphrase is the first line of standard input. A key that is there already is never replaced: name
another folder with --data, or move DIR/identity.key away first. One key must not run on two machines at once.

Examples:
  balai identity import balai-key.pem`
}

// Run restores the key.
func (c *identityImportCmd) Run(a *app) error {
	dir, err := a.dataDir()
	if err != nil {
		return err
	}
	sealed, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	pass, err := a.passphrase()
	if err != nil {
		return err
	}
	k, err := identity.Open(sealed, pass)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, node.KeyFile)
	if err := k.Save(path); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("there is an identity at %s already; it was left alone", path)
	} else if err != nil {
		return err
	}
	return a.showKey(k, path)
}

// passphrase is the first line of standard input.
func (a *app) passphrase() (string, error) {
	if isTerminal(os.Stdin) {
		fmt.Fprint(a.err, "passphrase (it shows as you type): ")
	}
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", usage("the passphrase is the first line of standard input, and that is empty")
	}
	return line, nil
}
