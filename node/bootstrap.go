package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"balai/identity"
	"balai/node/p2p"
	"balai/node/store"
)

// BootstrapConfig is what a community node is told. Only Data is required.
type BootstrapConfig struct {
	Data    string
	Listen  []string // multiaddrs
	DNS     string   // name to announce in place of addresses
	Metrics string   // host:port for Prometheus; empty: none
	Web     string   // host:port for the page behind /j; empty: none
	Version string
	Unlock  identity.Ask // the passphrase of a sealed key; nil: such a key is refused
	Log     *slog.Logger
	Ready   func(Ready)

	RelayKbps        int  // upload for all rooms that the node carries, in kbit/s; 0: it carries none
	RelayVouchedOnly bool // only rooms whose ledger vouches for this node
}

// community is a running community node.
type community struct {
	cfg     BootstrapConfig
	store   *store.Store
	host    *p2p.Host
	topic   *p2p.Topic
	relays  *relays // nil: it carries no room
	metrics *prometheus.Registry
	servers []*http.Server
	served  chan error     // of the servers; holds one error of each
	wg      sync.WaitGroup // of the servers
}

const bootstrapPort = "4330"

// Bootstrap runs a community node until ctx ends: lobby, rendezvous point, circuit relay for control, and, for rooms
// that ask, a relay of sealed audio. It is in no room, holds no key and hears nothing.
func Bootstrap(ctx context.Context, cfg BootstrapConfig) error {
	c := &community{cfg: cfg, metrics: prometheus.NewRegistry(), served: make(chan error, 2)}
	if c.cfg.Log == nil {
		c.cfg.Log = slog.New(slog.DiscardHandler)
	}
	err := c.start(ctx)
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-c.served:
		}
	}
	return errors.Join(err, c.stop())
}

func (c *community) start(ctx context.Context) error {
	c.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if len(c.cfg.Listen) == 0 {
		for _, ip := range []string{"/ip4/0.0.0.0", "/ip6/::"} {
			c.cfg.Listen = append(c.cfg.Listen, ip+"/udp/"+bootstrapPort+"/quic-v1", ip+"/tcp/"+bootstrapPort)
		}
	}
	listen, _, err := (&Config{API: "127.0.0.1:0", Listen: c.cfg.Listen}).addresses()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.cfg.Data, dataMode); err != nil {
		return err
	}
	if c.store, err = store.Open(filepath.Join(c.cfg.Data, "store")); err != nil {
		return err
	}
	key, err := identity.LoadOrCreate(filepath.Join(c.cfg.Data, KeyFile), c.cfg.Unlock)
	if err != nil {
		return err
	}
	c.host, err = p2p.New(ctx, p2p.Config{
		Key: key.Private(), Listen: listen, Community: true, Store: c.store.Datastore(store.Peers), Log: c.cfg.Log, Metrics: c.metrics,
	})
	if err != nil {
		return fmt.Errorf("the network did not start: %w", err)
	}
	c.topic, err = c.host.Lobby().Join(lobbyTopic, p2p.TopicConfig{Validate: func(_ peer.ID, data []byte) p2p.Verdict {
		_, v := readAd(data, time.Now())
		return v
	}})
	if err != nil {
		return err
	}
	if kbps := min(max(c.cfg.RelayKbps, 0), maxRelayKbps); kbps > 0 {
		c.relays = startRelays(ctx, c.host, key, uint32(kbps), c.cfg.RelayVouchedOnly, c.cfg.Log, c.metrics)
	}
	if err := c.serveHTTP(); err != nil {
		return err
	}
	return c.announce(key.ID().String())
}

// announce writes the addresses where others can read them.
func (c *community) announce(id string) error {
	addrs := c.addrs()
	if err := writeAddrs(c.cfg.Data, addrs); err != nil {
		return err
	}
	if c.cfg.Ready != nil {
		c.cfg.Ready(Ready{PeerID: id, Addrs: addrs})
	}
	return nil
}

// addrs are the dialable addresses, under the DNS name when there is one.
func (c *community) addrs() []string {
	if c.cfg.DNS == "" {
		return addrStrings(c.host.Addrs())
	}
	var out []string
	seen := map[string]bool{}
	for _, a := range c.host.Addrs() {
		_, rest := ma.SplitFirst(a)
		s := "/dns/" + c.cfg.DNS + rest.String()
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// serveHTTP answers the metrics and the page behind /j, where asked for.
func (c *community) serveHTTP() error {
	if c.cfg.Metrics != "" {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", promhttp.HandlerFor(c.metrics, promhttp.HandlerOpts{}))
		if err := c.listenHTTP(c.cfg.Metrics, mux); err != nil {
			return fmt.Errorf("--metrics: %w", err)
		}
	}
	if c.cfg.Web != "" {
		if err := c.listenHTTP(c.cfg.Web, joinPage()); err != nil {
			return fmt.Errorf("--web: %w", err)
		}
	}
	return nil
}

func (c *community) listenHTTP(addr string, h http.Handler) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second,
		MaxHeaderBytes: maxPageHeader, ErrorLog: slog.NewLogLogger(c.cfg.Log.Handler(), slog.LevelDebug),
	}
	c.servers = append(c.servers, srv)
	c.cfg.Log.Info("serving", "addr", l.Addr().String())
	c.wg.Go(func() {
		if err := srv.Serve(limitConns(l, maxPageConns)); !errors.Is(err, http.ErrServerClosed) {
			c.served <- err
		}
	})
	return nil
}

func (c *community) stop() error {
	var errs []error
	for _, s := range c.servers {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout/2)
		if err := s.Shutdown(ctx); err != nil {
			errs = append(errs, s.Close()) // whoever still reads has had the time
		}
		cancel()
	}
	c.wg.Wait()
	if c.relays != nil {
		c.relays.stop()
	}
	if c.topic != nil {
		errs = append(errs, c.topic.Close())
	}
	if c.host != nil {
		errs = append(errs, c.host.Close())
	}
	if c.store != nil {
		errs = append(errs, c.store.Close())
	}
	return errors.Join(errs...)
}
