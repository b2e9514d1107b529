package p2p

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	punchTime   = 3 * time.Second // a dial through a hole, and the one before it to known addresses
	punchEvery  = 3 * time.Second // while a link is wanted
	maxWitness  = 16              // community nodes whose word on this host's address is kept
	maxObserved = 8               // addresses told to the other side of a punch
)

// punchAgain is how long after an inbound circuit came a hole is tried anew: at first one side may not know yet
// how it looks from outside.
var punchAgain = []time.Duration{time.Second, 3 * time.Second, 6 * time.Second, 12 * time.Second}

// puncher makes holes in the routers between this host and those to whom there is only a circuit (DCUtR): the
// side that the circuit came to begins, and both dial at once. libp2p runs the same service, but believes an
// address of this host only when several others have seen it, and tries once for each circuit.
type puncher struct {
	h *Host

	mu      sync.Mutex
	service *holepunch.Service // nil until an address is known
	closed  bool
	seen    map[peer.ID]observed
	asked   time.Time // when the community nodes were last asked
}

// observed is how one community node sees this host, over either transport; nil: unknown.
type observed struct{ quic, tcp ma.Multiaddr }

// witness keeps what a community node that this host has dialled says.
func (p *puncher) witness(e event.EvtPeerIdentificationCompleted) {
	if e.Conn == nil || e.Conn.Stat().Limited || e.Conn.Stat().Direction != network.DirOutbound || e.ObservedAddr == nil ||
		!slices.Contains(e.Protocols, rendezvousProtocol) || isPrivate(e.ObservedAddr) || isCircuit(e.ObservedAddr) {
		return
	}
	p.note(e.Peer, e.ObservedAddr)
}

func (p *puncher) note(witness peer.ID, a ma.Multiaddr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, known := p.seen[witness]
	if !known && len(p.seen) >= maxWitness {
		clear(p.seen)
	}
	switch {
	case has(a, ma.P_QUIC_V1):
		o.quic = a
	case has(a, ma.P_TCP):
		o.tcp = a
	}
	p.seen[witness] = o
}

// look asks the community nodes how this host looks from outside now, and waits for the answers: a path that died may have
// died because that has changed.
func (p *puncher) look(ctx context.Context) {
	p.mu.Lock()
	if time.Since(p.asked) < observedEvery {
		p.mu.Unlock()
		return
	}
	p.asked = time.Now()
	nodes := slices.Collect(maps.Keys(p.seen))
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, n := range nodes {
		if p.h.host.Network().Connectedness(n) != network.Connected {
			continue
		}
		wg.Go(func() {
			a, err := p.h.askObserved(ctx, n)
			if err != nil {
				p.h.cfg.Log.Debug("a community node does not tell the observed address", "peer", n, "err", err)
				return
			}
			p.note(n, a)
		})
	}
	wg.Wait()
}

// addrs are the public addresses of this host as far as anybody knows, those seen by QUIC first.
func (p *puncher) addrs() []ma.Multiaddr {
	var quic, out []ma.Multiaddr
	p.mu.Lock()
	for w, o := range p.seen {
		if p.h.host.Network().Connectedness(w) != network.Connected {
			continue // this host may be elsewhere by now
		}
		if o.quic != nil {
			quic = append(quic, o.quic)
		}
		if o.tcp != nil {
			out = append(out, o.tcp)
		}
	}
	p.mu.Unlock()
	out = append(quic, out...)
	own := p.h.host.Addrs()
	if all, ok := p.h.host.(interface{ AllAddrs() []ma.Multiaddr }); ok { // also those not known to be reachable
		own = append(slices.Clone(own), all.AllAddrs()...)
	}
	for _, a := range own {
		if !isPrivate(a) && !isCircuit(a) {
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(a, b ma.Multiaddr) int {
		switch qa, qb := has(a, ma.P_QUIC_V1), has(b, ma.P_QUIC_V1); {
		case qa == qb:
			return 0
		case qa:
			return -1
		}
		return 1
	})
	var few []ma.Multiaddr
	for _, a := range out {
		if !ma.Contains(few, a) && len(few) < maxObserved {
			few = append(few, a)
		}
	}
	return few
}

// run starts the service as soon as there is an address, and keeps what community nodes say.
func (p *puncher) run() {
	sub, err := p.h.host.EventBus().Subscribe([]any{new(event.EvtPeerIdentificationCompleted), new(event.EvtLocalAddressesUpdated)})
	if err != nil {
		p.h.cfg.Log.Error("hole punching", "err", err)
		return
	}
	defer sub.Close() //nolint:errcheck // a local bus
	for {
		if err := p.start(); err != nil {
			p.h.cfg.Log.Error("hole punching", "err", err)
			return
		}
		select {
		case <-p.h.ctx.Done():
			return
		case e, ok := <-sub.Out():
			if !ok {
				return
			}
			if e, ok := e.(event.EvtPeerIdentificationCompleted); ok {
				p.witness(e)
			}
		}
	}
}

// start brings the service up, once there is an address to tell: it looks at once, and then seldom.
func (p *puncher) start() error {
	if p.up() != nil || len(p.addrs()) == 0 {
		return nil
	}
	ids, ok := p.h.host.(interface{ IDService() identify.IDService })
	if !ok {
		return errors.New("no identify service")
	}
	opts := []holepunch.Option{holepunch.DirectDialTimeout(punchTime)}
	if r := p.h.cfg.Metrics; r != nil {
		opts = append(opts, holepunch.WithMetricsTracer(holepunch.NewMetricsTracer(holepunch.WithRegisterer(r))))
	}
	s, err := holepunch.NewService(p.h.host, ids.IDService(), p.addrs, opts...)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.service = s
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return s.Close()
	}
	return nil
}

func (p *puncher) up() *holepunch.Service {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.service
}

// close ends what runs.
func (p *puncher) close() error {
	p.mu.Lock()
	p.closed = true
	s := p.service
	p.mu.Unlock()
	if s != nil {
		return s.Close()
	}
	return nil
}

// try begins a punch, unless one is under way, this side is not to begin, or it is not ready.
func (p *puncher) try(to peer.ID) {
	s := p.up()
	if s == nil || !p.leads(to) || !slices.Contains(p.h.host.Mux().Protocols(), holepunch.Protocol) {
		return
	}
	p.h.spawn(func() {
		if err := s.DirectConnect(to); err != nil && !errors.Is(err, holepunch.ErrHolePunchActive) {
			p.h.cfg.Log.Debug("hole punching", "peer", to, "err", err)
		}
	})
}

// leads tells whether there are only circuits to p, of which one came from p.
func (p *puncher) leads(to peer.ID) (inbound bool) {
	for _, c := range p.h.host.Network().ConnsToPeer(to) {
		s := c.Stat()
		if !s.Limited {
			return false
		}
		inbound = inbound || s.Direction == network.DirInbound
	}
	return inbound
}

// pursue tries again for a while after a circuit has come. Whoever opened one looks how she appears from outside.
func (p *puncher) pursue(c network.Conn) {
	if !c.Stat().Limited {
		return
	}
	p.h.spawn(func() {
		began := time.Now()
		if p.look(p.h.ctx); c.Stat().Direction != network.DirInbound {
			return
		}
		for _, at := range punchAgain {
			if !pause(p.h.ctx, at-time.Since(began)) || c.IsClosed() {
				return
			}
			p.try(c.RemotePeer())
		}
	})
}
