package p2p

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	ic "github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/transport"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	ma "github.com/multiformats/go-multiaddr"
)

// leadGrace is how long a TCP dial waits for a QUIC dial to the same peer to begin.
const leadGrace = 20 * time.Millisecond

// lead keeps a head start of QUIC although the machine stood still: rankDials gives TCP a later moment, but where a process gets no
// processor until that has passed, as many do while they start, both dials begin at once and TCP wins. So a TCP dial
// waits until the QUIC dial to the same peer has ended or has had its time.
type lead struct {
	by time.Duration

	mu    sync.Mutex
	dials map[peer.ID]*leading
}

// leading are the QUIC dials to one peer that run.
type leading struct {
	began time.Time // the first
	n     int
	ended chan struct{} // closed when none is left and all failed
	won   bool          // one did not
}

// begin counts a QUIC dial until end is called. After one that came through TCP waits on: libp2p gives it up in a moment.
func (l *lead) begin(p peer.ID) (end func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dials == nil {
		l.dials = map[peer.ID]*leading{}
	}
	d := l.dials[p]
	if d == nil {
		d = &leading{began: time.Now(), ended: make(chan struct{})}
		l.dials[p] = d
	}
	d.n++
	return func(err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		d.won = d.won || err == nil
		if d.n--; d.n > 0 {
			return
		}
		if delete(l.dials, p); !d.won {
			close(d.ended)
		}
	}
}

func (l *lead) running(p peer.ID) *leading {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dials[p]
}

// wait returns when TCP may dial p.
func (l *lead) wait(ctx context.Context, p peer.ID) {
	if simultaneous, _, _ := network.GetSimultaneousConnect(ctx); simultaneous {
		return // through a hole, whose moment is set
	}
	if l.running(p) == nil {
		pause(ctx, leadGrace)
	}
	d := l.running(p)
	if d == nil {
		return
	}
	t := time.NewTimer(l.by - time.Since(d.began))
	defer t.Stop()
	select {
	case <-d.ended:
	case <-t.C:
	case <-ctx.Done():
	}
}

type quicTransport struct {
	transport.Transport
	lead *lead
}

func (l *lead) quic(key ic.PrivKey, m *quicreuse.ConnManager, psk pnet.PSK, gater connmgr.ConnectionGater, rcmgr network.ResourceManager) (*quicTransport, error) {
	t, err := quic.NewTransport(key, m, psk, gater, rcmgr)
	return &quicTransport{t, l}, err
}

func (t *quicTransport) Dial(ctx context.Context, addr ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	end := t.lead.begin(p)
	c, err := t.Transport.Dial(ctx, addr, p)
	end(err)
	return c, err
}

// ListenOrder is that of the transport within: after those that share its port.
func (t *quicTransport) ListenOrder() int {
	return t.Transport.(interface{ ListenOrder() int }).ListenOrder()
}

type tcpTransport struct {
	*tcp.TcpTransport
	lead *lead
}

func (l *lead) tcp(upgrader transport.Upgrader, rcmgr network.ResourceManager, shared *tcpreuse.ConnMgr) (*tcpTransport, error) {
	t, err := tcp.NewTCPTransport(upgrader, rcmgr, shared)
	return &tcpTransport{t, l}, err
}

func (t *tcpTransport) Dial(ctx context.Context, addr ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	t.lead.wait(ctx, p)
	return t.TcpTransport.Dial(ctx, addr, p)
}

// DialWithUpdates is Dial that tells how far it is.
func (t *tcpTransport) DialWithUpdates(ctx context.Context, addr ma.Multiaddr, p peer.ID, updates chan<- transport.DialUpdate) (transport.CapableConn, error) {
	t.lead.wait(ctx, p)
	return t.TcpTransport.DialWithUpdates(ctx, addr, p, updates)
}
