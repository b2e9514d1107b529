package main

import (
	"context"
	"strings"

	"balai/node"
)

type bootstrapCmd struct {
	Listen  []string `placeholder:"MULTIADDR" help:"Where daemons reach this node (default: QUIC and TCP on all interfaces, port 4330)."`
	DNS     string   `name:"dns" placeholder:"NAME" help:"Name to announce in place of IP addresses."`
	Metrics string   `placeholder:"HOST:PORT" help:"Serve Prometheus metrics here."`
	Web     string   `placeholder:"HOST:PORT" help:"Serve the page behind https://NAME/j links here; put a TLS proxy before it."`

	RelayKbps        int  `default:"100000" placeholder:"KBIT/S" help:"Upload for the audio of rooms that ask this node to carry them (${default}); one room gets a quarter."`
	NoRelay          bool `help:"Carry no room's audio."`
	RelayVouchedOnly bool `help:"Carry only rooms whose moderators vouch for this node."`
	passphraseFlag
	lifetime
}

func (bootstrapCmd) Help() string {
	return `A community node lists open rooms, tells daemons of each other and carries their first words. A room that has
nobody to relay for it can ask it to pass on its audio, sealed. It is in no room, holds no key and hears nothing. Give people one of the lines in DIR/addrs for --bootstrap.

Examples:
  balai bootstrap --dns balai.example.org
  balai bootstrap --data /var/lib/balai --metrics 127.0.0.1:9330
  balai bootstrap --listen /ip4/127.0.0.1/udp/0/quic-v1      on this machine only, any port`
}

// Run is the community node.
func (c *bootstrapCmd) Run(ctx context.Context, a *app) error {
	dir, err := pick(a.Data, "community")
	if err != nil {
		return err
	}
	ctx, stop := c.bound(ctx)
	defer stop()
	if c.NoRelay {
		c.RelayKbps = 0
	}
	return again(node.Bootstrap(ctx, node.BootstrapConfig{
		Unlock:    c.unlock(ctx, a, c.lifetime),
		RelayKbps: c.RelayKbps, RelayVouchedOnly: c.RelayVouchedOnly,
		Data: dir, Listen: c.Listen, DNS: c.DNS, Metrics: c.Metrics, Web: c.Web, Version: versionNow().Version, Log: a.logger(),
		Ready: func(r node.Ready) {
			a.ready(r, "community node is ready: "+strings.Join(r.Addrs, " "))
		},
	}))
}
