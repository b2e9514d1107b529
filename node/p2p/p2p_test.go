package p2p

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		code = leaks()
	}
	os.Exit(code)
}

// leaks waits until the goroutines of all tests are gone; on a busy machine they take longer than goleak has patience.
func leaks() (code int) {
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if err = goleak.Find(leakOptions()...); err == nil {
			return 0
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// leakOptions name what other packages start for the life of the process.
func leakOptions() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/ipfs/go-log/v2/writer.(*MirrorWriter).logRoutine"),
	}
}

func newKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const (
	onQUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
	onTCP  = "/ip4/127.0.0.1/tcp/0"
)

// testConfig listens on loopback alone, so that nothing maps ports; mDNS is off.
func testConfig(t testing.TB, listen ...string) Config {
	if len(listen) == 0 {
		listen = []string{onQUIC, onTCP}
	}
	c := Config{Key: newKey(t)}
	for _, l := range listen {
		c.Listen = append(c.Listen, ma.StringCast(l))
	}
	return c
}

func start(t testing.TB, c Config) *Host {
	t.Helper()
	h, err := New(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return h
}

func testHost(t testing.TB, listen ...string) *Host { return start(t, testConfig(t, listen...)) }

func info(h *Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.host.Addrs()} }

// connect makes a dial b, private addresses allowed.
func connect(t testing.TB, a, b *Host) {
	t.Helper()
	a.AllowPrivate(b.ID())
	if err := a.Connect(testContext(t), info(b), true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both connected", func() bool {
		return b.host.Network().Connectedness(a.ID()) == network.Connected
	})
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// limit bounds what a test waits for; a pass never depends on how long it took.
const limit = 60 * time.Second

// noLeaks waits until no goroutine is left but those of before.
func noLeaks(t *testing.T, before goleak.Option) {
	t.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if err = goleak.Find(append(leakOptions(), before)...); err == nil { // it tries for half a second
			return
		}
	}
	t.Error(err)
}

// eventually waits for something that must come; how long it takes is no condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}
