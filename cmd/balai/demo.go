package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"balai/node/api"
)

type demoCmd struct {
	Listen    string `default:"127.0.0.1:0" placeholder:"HOST:PORT" help:"Loopback address of the launcher page."`
	NoBrowser bool   `help:"Do not open the launcher page."`
	lifetime
}

func (demoCmd) Help() string {
	return `Starts a community node and three people, Ana, Budi and Citra, each a daemon of its own with its own key
and folder, all on this machine only. The printed link is a page with a button for each of them. Ctrl-C ends all;
without --data their folders are removed then.

Examples:
  balai demo
  balai demo --data ~/balai-demo --no-browser
  balai demo --json`
}

// demoPeople are who you can be.
var demoPeople = []string{"Ana", "Budi", "Citra"}

// readyLimit is how long a child may take to be ready.
const readyLimit = 30 * time.Second

type demoShape struct {
	Launcher  string       `json:"launcher"`
	Data      string       `json:"data"`
	Community []string     `json:"community"` // multiaddrs
	People    []demoPerson `json:"people"`
}

type demoPerson struct {
	Name   string `json:"name"`
	PeerID string `json:"peer_id"`
	URL    string `json:"url"`
	Data   string `json:"data"`
}

// Run is the demo until ctx ends.
func (c *demoCmd) Run(ctx context.Context, a *app) (err error) {
	dir, remove, err := c.folder(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	ctx, stop := c.bound(ctx)
	defer stop()
	kids := &children{log: a.err}
	defer func() { err = errors.Join(err, kids.stop()) }()
	shape, err := startDemo(ctx, kids, dir)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped while it started
		}
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("the launcher page cannot listen on %s: %w", c.Listen, err)
	}
	shape.Launcher = "http://" + l.Addr().String() + "/"
	served := make(chan error, 1)
	serveCtx, cancel := context.WithCancel(ctx)
	go func() { served <- serveLauncher(serveCtx, l, shape.People) }()
	defer func() { cancel(); err = errors.Join(err, <-served) }()
	if err := a.show(shape, func(w io.Writer) { printDemo(w, shape) }); err != nil {
		return err
	}
	if !c.NoBrowser {
		go func() { _ = openBrowser(shape.Launcher) }() // the link is printed
	}
	select {
	case <-ctx.Done():
		return nil
	case name := <-kids.gone():
		return fmt.Errorf("%s ended by itself; its log is in %s", name, filepath.Join(dir, strings.ToLower(name), logName))
	}
}

// folder is where the demo keeps its people: the one named, or a new one that is removed at the end.
func (c *demoCmd) folder(a *app) (dir string, remove func() error, err error) {
	if a.Data != "" {
		dir, err = filepath.Abs(a.Data)
		return dir, func() error { return nil }, err
	}
	dir, err = os.MkdirTemp("", "balai-demo-")
	return dir, func() error { return os.RemoveAll(dir) }, err
}

// startDemo starts the community node, then the people at once, and waits until all are ready.
func startDemo(ctx context.Context, kids *children, dir string) (demoShape, error) {
	shape := demoShape{Data: dir}
	loopback := []string{"--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--listen", "/ip4/127.0.0.1/tcp/0"}
	node, err := kids.start("Community", dir, append([]string{"bootstrap"}, loopback...))
	if err != nil {
		return shape, err
	}
	ready, err := node.wait(ctx)
	if err != nil {
		return shape, err
	}
	shape.Community = ready.Addrs
	var people []*child
	for _, name := range demoPeople {
		args := append([]string{"run", "--api", "127.0.0.1:0", "--no-mdns", "--no-browser", "--name", name}, loopback...)
		for _, addr := range ready.Addrs {
			args = append(args, "--bootstrap", addr)
		}
		kid, err := kids.start(name, dir, args)
		if err != nil {
			return shape, err
		}
		people = append(people, kid)
	}
	for _, kid := range people {
		ready, err := kid.wait(ctx)
		if err != nil {
			return shape, err
		}
		shape.People = append(shape.People, demoPerson{Name: kid.name, PeerID: ready.PeerID, URL: ready.URL, Data: kid.dir})
	}
	return shape, nil
}

func printDemo(w io.Writer, d demoShape) {
	fmt.Fprintf(w, `The demo is ready: %s

  1. Open that link. It has a button for each of %s.
  2. As one of them start a room and copy an invite link from it.
  3. As another one paste the link, join, and raise a hand.
  4. As the first one invite that hand to the stage. Turn the microphones on: you hear each other.

Everything is in %s. Ctrl-C ends the demo.
`, d.Launcher, strings.Join(demoPeople, ", "), d.Data)
}

// pageOf mints a code at a person's daemon and gives the address that opens her page with it.
func pageOf(ctx context.Context, data string) (string, error) {
	c, err := api.Dial(data)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.PageURL(ctx)
}
