// Package node assembles the daemon: it starts the parts in order, carries audio and control between them
// and stops them again. It decides nothing about rooms (room/session) and speaks no protocol of its own.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"balai/identity"
	"balai/node/api"
	"balai/node/p2p"
	"balai/node/rtc"
	"balai/node/store"
	"balai/node/web"
)

// ErrUsage refuses settings that cannot be; the command line answers it with exit code 2.
var ErrUsage = errors.New("bad setting")

// Config is what a person's daemon is told. Only Data is required.
type Config struct {
	Data      string   // folder of the identity, the store, addrs and api.json
	API       string   // host:port of the local API; port 0 is any
	Listen    []string // multiaddrs
	Bootstrap []string // multiaddrs with /p2p/…, dialled as they are
	NoMDNS    bool
	Relay     string // auto, never, only-lan
	RelayKbps int    // upload that it gives to others in a room, in kbit/s; 0: as usual
	Name      string // display name for a profile that has none
	Version   string
	Unlock    identity.Ask // the passphrase of a sealed key; nil: such a key is refused
	Log       *slog.Logger
	Ready     func(Ready) // called once, when all is up
}

// Ready is what a started daemon tells.
type Ready struct {
	PeerID string
	Addrs  []string // dialable, with /p2p/…
	URL    string   // of the page and the API
	Page   string   // URL with a one-time code: whoever opens it within a minute is let in
}

// File names in the data folder.
const (
	KeyFile   = "identity.key"
	addrsFile = "addrs"
	apiFile   = "api.json"
)

const (
	dataMode    = 0o700
	addrsMode   = 0o644
	stopTimeout = 4 * time.Second
)

// Run starts a daemon and returns when ctx ends and all is stopped, or when it could not start.
func Run(ctx context.Context, cfg Config) error {
	d, err := newDaemon(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(d.serve(ctx), d.stop())
}

// newDaemon brings everything up but the API.
func newDaemon(ctx context.Context, cfg Config) (d *daemon, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.API == "" {
		cfg.API = "127.0.0.1:7330"
	}
	listen, boot, err := cfg.addresses()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Data, dataMode); err != nil {
		return nil, err
	}
	d = &daemon{cfg: cfg, log: cfg.Log, local: allPrivate(listen), boot: boot}
	d.init(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
			d = nil
		}
	}()
	if d.store, err = store.Open(filepath.Join(cfg.Data, "store")); err != nil {
		return d, err
	}
	if d.key, err = identity.LoadOrCreate(filepath.Join(cfg.Data, KeyFile), cfg.Unlock); err != nil {
		return d, err
	}
	if d.token, err = api.LoadOrCreateToken(cfg.Data); err != nil {
		return d, err
	}
	if err = d.loadProfile(); err != nil {
		return d, err
	}
	if d.listener, err = net.Listen("tcp", cfg.API); err != nil {
		return d, fmt.Errorf("the local API cannot listen on %s: %w (name another address with --api)", cfg.API, err)
	}
	d.host, err = p2p.New(ctx, p2p.Config{
		Key: d.key.Private(), Listen: listen, Bootstrap: boot, MDNS: !cfg.NoMDNS, Store: d.store.Datastore(store.Peers), Log: cfg.Log, Metrics: d.metrics,
	})
	if err != nil {
		return d, fmt.Errorf("the network did not start: %w", err)
	}
	if d.rtc, err = rtc.New(rtc.Config{Log: cfg.Log}); err != nil {
		return d, fmt.Errorf("audio did not start: %w", err)
	}
	if err = d.openHallway(); err != nil {
		return d, err
	}
	d.handleStreams()
	d.wg.Go(func() { d.watchHealth(d.ctx) })
	return d, d.restore(ctx)
}

// addresses reads the multiaddrs of the settings.
func (c *Config) addresses() (listen []ma.Multiaddr, boot []peer.AddrInfo, err error) {
	for _, s := range c.Listen {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: --listen %s: %w", ErrUsage, s, err)
		}
		listen = append(listen, a)
	}
	boot, err = parseBootstrap(c.Bootstrap)
	if err != nil {
		return nil, nil, err
	}
	switch c.Relay {
	case "", "auto", "never", "only-lan":
	default:
		return nil, nil, fmt.Errorf("%w: --relay %s: auto, never or only-lan", ErrUsage, c.Relay)
	}
	host, _, err := net.SplitHostPort(c.API)
	ip, perr := netip.ParseAddr(host)
	if err != nil || host != "localhost" && (perr != nil || !ip.IsLoopback()) {
		return nil, nil, fmt.Errorf("%w: --api %s: a loopback address and a port, such as 127.0.0.1:7330", ErrUsage, c.API)
	}
	return listen, boot, nil
}

// parseBootstrap reads multiaddrs with /p2p/…, several of one peer together.
func parseBootstrap(in []string) ([]peer.AddrInfo, error) {
	var addrs []ma.Multiaddr
	for _, s := range in {
		a, err := ma.NewMultiaddr(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("%w: --bootstrap %s: %w", ErrUsage, s, err)
		}
		addrs = append(addrs, a)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return nil, fmt.Errorf("%w: --bootstrap wants /p2p/ and the node's id at the end: %w", ErrUsage, err)
	}
	return infos, nil
}

// allPrivate tells whether every listen address is private; then rooms use private addresses by default.
func allPrivate(listen []ma.Multiaddr) bool {
	for _, a := range listen {
		ip, ok := hostOf(a)
		if !ok || !(ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast()) {
			return false
		}
	}
	return len(listen) > 0
}

func hostOf(a ma.Multiaddr) (netip.Addr, bool) {
	for _, code := range []int{ma.P_IP4, ma.P_IP6} {
		if v, err := a.ValueForProtocol(code); err == nil {
			ip, err := netip.ParseAddr(v)
			return ip, err == nil
		}
	}
	return netip.Addr{}, false
}

// serve answers the API until ctx ends.
func (d *daemon) serve(ctx context.Context) error {
	addr := d.listener.Addr().String()
	codes := &api.Codes{}
	h := api.New(api.Config{
		Backend: d, Token: d.token, Codes: codes, Web: web.FS(), Addr: addr, Version: d.cfg.Version, Log: d.log, Metrics: d.metricsHandler(),
	})
	serveCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- api.Serve(serveCtx, d.listener, h, d.log) }()
	r := Ready{PeerID: d.key.ID().String(), Addrs: addrStrings(d.host.Addrs()), URL: "http://" + addr}
	r.Page = r.URL + "/#code=" + codes.Mint()
	err := d.announce(r)
	if err == nil {
		if d.cfg.Ready != nil {
			d.cfg.Ready(r)
		}
		select {
		case <-ctx.Done():
		case err = <-served:
			return err
		}
	}
	cancel()
	d.leaveAll()
	return errors.Join(err, <-served)
}

// announce writes the files that tell other programs where this daemon is.
func (d *daemon) announce(r Ready) error {
	if err := writeAddrs(d.cfg.Data, r.Addrs); err != nil {
		return err
	}
	return api.WriteFile(d.cfg.Data, r.URL, d.token)
}

func writeAddrs(dir string, addrs []string) error {
	return store.WriteFile(filepath.Join(dir, addrsFile), []byte(strings.Join(addrs, "\n")+"\n"), addrsMode)
}

func addrStrings(in []ma.Multiaddr) (out []string) {
	for _, a := range in {
		out = append(out, a.String())
	}
	return out
}

// stop ends what newDaemon started, the last first. It leaves no goroutine.
func (d *daemon) stop() error {
	d.leaveAll()
	var errs []error
	if d.listener != nil {
		if err := d.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
		_ = os.Remove(filepath.Join(d.cfg.Data, apiFile))
	}
	if d.rtc != nil {
		errs = append(errs, d.rtc.Close())
	}
	if d.host != nil {
		errs = append(errs, d.host.Close())
	}
	d.cancel()
	d.wg.Wait()
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	return errors.Join(errs...)
}
