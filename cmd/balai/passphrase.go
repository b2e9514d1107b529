package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"

	"balai/identity"
)

// passphraseFlag says where a passphrase comes from.
type passphraseFlag struct {
	PassphraseFile string `placeholder:"FILE" help:"File, credential or pipe (/dev/fd/3) whose first line is the passphrase of your key. Nobody else may read it."`
}

// unlock gives the passphrase of the key that a daemon starts with. Of standard input nothing but a terminal is read:
// it may be what keeps the daemon alive.
func (p passphraseFlag) unlock(ctx context.Context, a *app, l lifetime) identity.Ask {
	return func() ([]byte, error) {
		switch {
		case p.PassphraseFile != "":
			return p.file()
		case isTerminal(os.Stdin) && !l.UntilEOF:
			return a.hidden(ctx, "Passphrase of your key: ")
		}
		return nil, fmt.Errorf("%w: start balai in a terminal, which asks for it, or with --passphrase-file FILE; balai identity unprotect takes it off", identity.ErrSealed)
	}
}

// given is a passphrase that exists already.
func (p passphraseFlag) given(ctx context.Context, a *app) ([]byte, error) {
	switch {
	case p.PassphraseFile != "":
		return p.file()
	case isTerminal(os.Stdin):
		return a.hidden(ctx, "Passphrase: ")
	}
	pass, err := identity.FirstLine(os.Stdin)
	if err != nil {
		return nil, usage("the passphrase is the first line of standard input: %w", err)
	}
	return pass, nil
}

// choose is a new passphrase: whoever types it blindly types it twice.
func (p passphraseFlag) choose(ctx context.Context, a *app) ([]byte, error) {
	pass, err := p.given(ctx, a)
	if err != nil || p.PassphraseFile != "" || !isTerminal(os.Stdin) {
		return pass, err
	}
	twice, err := a.hidden(ctx, "The same once more: ")
	defer clear(twice)
	if err == nil && !bytes.Equal(pass, twice) {
		err = usage("these were two different passphrases; nothing was changed")
	}
	if err != nil {
		clear(pass)
		return nil, err
	}
	return pass, nil
}

func (p passphraseFlag) file() ([]byte, error) {
	pass, err := identity.ReadPassphrase(p.PassphraseFile)
	if err != nil {
		return nil, fmt.Errorf("--passphrase-file: %w", err)
	}
	return pass, nil
}

// hidden asks for a line on the terminal, which does not show it. The end of ctx, such as Ctrl-C, gives up.
func (a *app) hidden(ctx context.Context, prompt string) ([]byte, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	type answer struct {
		line []byte
		err  error
	}
	typed := make(chan answer, 1)
	fmt.Fprint(a.err, prompt)
	go func() { // ends with the process at the latest: a read of the terminal cannot be given up
		line, err := term.ReadPassword(fd)
		typed <- answer{line, err}
	}()
	defer fmt.Fprintln(a.err)
	select {
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), term.Restore(fd, before))
	case got := <-typed:
		if got.err == nil && len(got.line) == 0 {
			got.err = usage("nothing was typed")
		}
		return got.line, got.err
	}
}

// again adds what to do to the refusal of a passphrase.
func again(err error) error {
	if errors.Is(err, identity.ErrPassphrase) {
		return fmt.Errorf("%w: try again, or take the key from a copy that you exported: balai identity import", err)
	}
	return err
}
