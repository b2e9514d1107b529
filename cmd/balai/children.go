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
	"strings"
	"sync"
	"time"
)

const (
	logName = "log"
	// childStop is how long a child may take to stop before it is killed; below it the child's own limit.
	childStop = 4500 * time.Millisecond
)

// children are processes of this same binary. Each reads standard input from here, and ends when that ends: none is
// left behind, even if this process is killed.
type children struct {
	log io.Writer

	mu   sync.Mutex
	all  []*child
	exit chan string // the name of a child that ended
}

type child struct {
	name, dir string
	cmd       *exec.Cmd
	stdin     io.Closer
	ready     chan readyShape // closed without a value if it never was
	done      chan struct{}   // closed when it has ended
}

// start runs one child in a folder of its own below dir.
func (k *children) start(name, dir string, args []string) (*child, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{
		name: name, dir: filepath.Join(dir, strings.ToLower(name)),
		ready: make(chan readyShape, 1), done: make(chan struct{}),
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(c.dir, logName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	c.cmd = exec.Command(binary, append(args, "--data", c.dir, "--json", "--until-eof")...)
	c.cmd.Stderr = log
	c.cmd.Env = withoutSettings(os.Environ())
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	if k.exit == nil {
		k.exit = make(chan string, 16)
	}
	k.all = append(k.all, c)
	k.mu.Unlock()
	go k.follow(c, out)
	return c, nil
}

// withoutSettings is the environment without BALAI_…: what was said of the demo is not said of each of its people.
func withoutSettings(env []string) (out []string) {
	for _, e := range env {
		if !strings.HasPrefix(e, envPrefix+"_") {
			out = append(out, e)
		}
	}
	return out
}

// follow reads the one line of a child and waits for its end.
func (k *children) follow(c *child, out io.Reader) {
	lines := bufio.NewScanner(out)
	var r readyShape
	if lines.Scan() && json.Unmarshal(lines.Bytes(), &r) == nil {
		c.ready <- r
	}
	close(c.ready)
	_, _ = io.Copy(io.Discard, out)
	_ = c.cmd.Wait()
	close(c.done)
	k.exit <- c.name
}

// wait gives what the child said when it was ready.
func (c *child) wait(ctx context.Context) (readyShape, error) {
	limit := time.NewTimer(readyLimit)
	defer limit.Stop()
	select {
	case r, ok := <-c.ready:
		if !ok {
			return r, fmt.Errorf("%s did not start; %s says: %s", c.name, filepath.Join(c.dir, logName), c.lastLine())
		}
		return r, nil
	case <-limit.C:
		return readyShape{}, fmt.Errorf("%s was not ready after %s", c.name, readyLimit)
	case <-ctx.Done():
		return readyShape{}, ctx.Err()
	}
}

// lastLine is the end of the child's log, for a person to read.
func (c *child) lastLine() string {
	<-c.done
	data, err := os.ReadFile(filepath.Join(c.dir, logName))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return clean(lines[len(lines)-1])
}

// gone gives the name of the first child that ends.
func (k *children) gone() <-chan string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.exit
}

// stop ends all children and waits for them; whoever does not stop in time is killed.
func (k *children) stop() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.all {
		_ = c.stdin.Close()
	}
	limit := time.NewTimer(childStop)
	defer limit.Stop()
	var errs []error
	for _, c := range k.all {
		select {
		case <-c.done:
			continue
		case <-limit.C:
			limit.Reset(0) // the others have had their time too
		}
		errs = append(errs, fmt.Errorf("%s did not stop and was killed", c.name), c.cmd.Process.Kill())
		<-c.done
	}
	return errors.Join(errs...)
}
