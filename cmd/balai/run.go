package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/term"

	"balai/node"
)

// stopLimit is how long a stopping daemon may take after the signal before the process ends anyway.
const stopLimit = 4800 * time.Millisecond

type runCmd struct {
	API       string   `name:"api" default:"127.0.0.1:7330" placeholder:"HOST:PORT" help:"Loopback address of the page and the local API; port 0 is any."`
	Listen    []string `placeholder:"MULTIADDR" help:"Where other daemons reach this one (default: QUIC and TCP on all interfaces, any port)."`
	Bootstrap []string `placeholder:"MULTIADDR" help:"Community nodes, with /p2p/ and the id at the end."`
	NoMDNS    bool     `name:"no-mdns" help:"Do not look for others on the local network."`
	NoBrowser bool     `help:"Do not open the page."`
	Name      string   `placeholder:"NAME" help:"Your name in rooms, kept for a profile that has none yet."`
	RelayKbps int      `placeholder:"KBIT/S" help:"Upload that this daemon gives to others in a room, at most. Usual: 6000, and 100000 in a room of its own network."`
	Relay     string   `enum:"auto,never,only-lan" default:"auto" help:"May this daemon pass on other people's sealed audio in rooms that you are in. auto: when a room chooses it; never; only-lan: only in rooms that use this network's own addresses."`
	passphraseFlag
	lifetime
}

// lifetime ties a daemon to its parent process, which keeps the other end of standard input open.
type lifetime struct {
	UntilEOF bool `name:"until-eof" hidden:"" env:"-" help:"Stop when standard input ends."`
}

func (runCmd) Help() string {
	return `One line is printed when the daemon is ready; then DIR/api.json holds the address of the local API with
its token, and DIR/addrs where other daemons can reach this one. Ctrl-C ends it. A key that balai identity protect
sealed is asked for on the terminal, or opened with --passphrase-file.

Examples:
  balai run
  balai run --name Ana --bootstrap /dns/balai.example.org/udp/4330/quic-v1/p2p/12D3KooW…
  balai run --data ~/second-me --api 127.0.0.1:0 --no-browser
  balai run --listen /ip4/127.0.0.1/udp/0/quic-v1      on this machine only, any port
  balai run --relay never                              on a metered line: carry nobody else's audio
  balai run --passphrase-file ~/.balai-pass            a protected key, no terminal`
}

// readyShape is the one line of run and bootstrap with --json.
type readyShape struct {
	PeerID string   `json:"peer_id"`
	URL    string   `json:"url,omitempty"`
	Addrs  []string `json:"addrs"`
}

// Run is the daemon.
func (c *runCmd) Run(ctx context.Context, a *app) error {
	dir, err := a.dataDir()
	if err != nil {
		return err
	}
	ctx, stop := c.bound(ctx)
	defer stop()
	return again(node.Run(ctx, node.Config{
		Unlock: c.unlock(ctx, a, c.lifetime),
		Data:   dir, API: c.API, Listen: c.Listen, Bootstrap: c.Bootstrap, NoMDNS: c.NoMDNS, Relay: c.Relay, RelayKbps: max(c.RelayKbps, 0), Name: c.Name,
		Version: versionNow().Version, Log: a.logger(),
		Ready: func(r node.Ready) {
			a.ready(r, "balai is ready: "+r.URL+" (balai open shows the page)")
			if !c.NoBrowser {
				go func() { _ = openBrowser(r.Page) }() // the line above says how else; it ends by itself after openerLimit
			}
		},
	}))
}

// ready prints the one line.
func (a *app) ready(r node.Ready, line string) {
	if !a.JSON {
		fmt.Fprintln(a.out, line)
		return
	}
	_ = json.NewEncoder(a.out).Encode(readyShape{PeerID: r.PeerID, URL: r.URL, Addrs: r.Addrs})
}

// bound is ctx, ended with standard input where the flag says so. Once it has ended, the process has stopLimit to stop
// what it runs; call stop when it has.
func (l lifetime) bound(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	if l.UntilEOF {
		go func() { // ends with the process: a read of standard input cannot be given up
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	stopped := make(chan struct{})
	watch := make(chan struct{})
	go func() {
		defer close(watch)
		select {
		case <-stopped:
			return
		case <-ctx.Done():
		}
		select {
		case <-stopped:
		case <-time.After(stopLimit):
			fmt.Fprintln(os.Stderr, "balai: did not stop in time; ended")
			os.Exit(exitFailed)
		}
	}()
	return ctx, func() { close(stopped); <-watch; cancel() }
}

// logger writes text to a terminal and JSON to anything else.
func (a *app) logger() *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.Log)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if f, ok := a.err.(*os.File); ok && isTerminal(f) {
		return slog.New(slog.NewTextHandler(a.err, options))
	}
	return slog.New(slog.NewJSONHandler(a.err, options))
}

func isTerminal(f *os.File) bool {
	return term.IsTerminal(int(f.Fd()))
}
