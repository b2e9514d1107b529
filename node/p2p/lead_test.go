package p2p

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

func TestLead(t *testing.T) {
	for _, c := range []struct {
		name              string
		begins, ends, tcp time.Duration // ends 0: never
		err               error
		punch             bool
		want              time.Duration
	}{
		{"no QUIC dial", time.Hour, 0, 0, nil, false, leadGrace},
		{"both at once", 0, 0, 0, nil, false, quicLead},
		{"TCP was first by a moment", time.Millisecond, 0, 0, nil, false, quicLead + time.Millisecond},
		{"QUIC fails", 0, 30 * time.Millisecond, 0, errors.New("refused"), false, 30 * time.Millisecond},
		{"QUIC is through", 0, 30 * time.Millisecond, 0, nil, false, quicLead},
		{"QUIC had its time", 0, 0, 2 * quicLead, nil, false, 2 * quicLead},
		{"a hole has its moment", 0, 0, 0, nil, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := lead{by: quicLead}
				ctx := t.Context()
				if c.punch {
					ctx = network.WithSimultaneousConnect(ctx, true, "test")
				}
				began := time.Now()
				over := make(chan struct{})
				go func() {
					defer close(over)
					if pause(t.Context(), c.begins); c.begins < time.Hour {
						end := l.begin("p")
						pause(t.Context(), cmp.Or(c.ends, time.Hour))
						end(c.err)
					}
				}()
				synctest.Wait()
				pause(t.Context(), c.tcp)
				l.wait(ctx, "p")
				if got := time.Since(began); got != c.want {
					t.Errorf("TCP begins after %v, want %v", got, c.want)
				}
				<-over
				if len(l.dials) > 0 {
					t.Errorf("left: %v", l.dials)
				}
			})
		})
	}
}

// A process that stood still begins all its dials at once: QUIC is what comes of it all the same.
func TestLeadOverTheWire(t *testing.T) {
	b := testHost(t)
	for range 20 {
		dials := lead{by: limit} // a busy machine
		a, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.DisableRelay(), libp2p.Transport(dials.quic), libp2p.Transport(dials.tcp),
			libp2p.SwarmOpts(swarm.WithDialRanker(func(addrs []ma.Multiaddr) (all []network.AddrDelay) {
				for _, addr := range addrs {
					all = append(all, network.AddrDelay{Addr: addr})
				}
				return all
			})))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err = a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range a.Network().ConnsToPeer(b.ID()) {
			if !has(c.RemoteMultiaddr(), ma.P_QUIC_V1) {
				t.Errorf("connected by %v", c.RemoteMultiaddr())
			}
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
