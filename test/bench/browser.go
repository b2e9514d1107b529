package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// browser is a Chromium that a small Playwright script drives: one JSON line in, one out. It ends with this process.
type browser struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

// browser starts one whose microphone plays a WAV file over and over, or beeps without one.
func (l *lab) browser(ctx context.Context, wav string) (*browser, error) {
	b := &browser{cmd: exec.CommandContext(ctx, "node", filepath.Join(l.root, "test/bench/browser.mjs"), wav)}
	b.cmd.Stderr = os.Stderr
	var err error
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b.lines = bufio.NewScanner(out)
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	if err := b.answer(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *browser) close() {
	_ = b.stdin.Close()
	_ = b.cmd.Wait() // it has nothing more to say
}

// visit opens an address in a new window and returns when a text field of that name is there; with no name, when the
// page has set the title "done".
func (b *browser) visit(ctx context.Context, url, field string) error {
	line, err := json.Marshal(map[string]string{"url": url, "field": field})
	if err != nil {
		return err
	}
	if _, err := b.stdin.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := b.answer(); err != nil {
		return errors.Join(err, ctx.Err())
	}
	return nil
}

func (b *browser) answer() error {
	if !b.lines.Scan() {
		return errors.New("the browser has gone")
	}
	if text := b.lines.Text(); text != "ok" {
		return fmt.Errorf("the browser: %s", text)
	}
	return nil
}
