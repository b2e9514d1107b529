package hostile

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	quicgo "github.com/quic-go/quic-go"
)

// Tapped is one datagram that another sent here.
type Tapped struct {
	From peer.ID
	At   time.Time
	Data []byte
}

// Tap keeps from now on every datagram of every direct QUIC connection, those that open later included, until Close.
// Only one such reader may be on a connection: call it once.
func (p *Peer) Tap() {
	p.host.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { p.tap(c) }})
	for _, c := range p.host.Network().Conns() {
		p.tap(c)
	}
}

// TapTo is Tap, but each datagram is given to heard instead, on the goroutine that reads its connection.
func (p *Peer) TapTo(heard func(Tapped)) {
	p.mu.Lock()
	p.taps = heard
	p.mu.Unlock()
	p.Tap()
}

func (p *Peer) tap(c network.Conn) {
	q, ok := quicOf(c)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || p.tapping[c.ID()] {
		return
	}
	p.tapping[c.ID()] = true
	p.wg.Go(func() { p.keep(c.RemotePeer(), q) })
}

// keep ends with the connection.
func (p *Peer) keep(from peer.ID, q *quicgo.Conn) {
	for {
		b, err := q.ReceiveDatagram(context.Background())
		if err != nil {
			return
		}
		p.mu.Lock()
		heard := p.taps
		if heard == nil {
			p.tapped = append(p.tapped, Tapped{from, time.Now(), b})
		}
		p.mu.Unlock()
		if heard != nil {
			heard(Tapped{from, time.Now(), b})
		}
	}
}

// Tapped is all that the tap has kept, oldest first.
func (p *Peer) Tapped() []Tapped {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Tapped(nil), p.tapped...)
}

// Drop closes all connections with another: it may have ended without a word.
func (p *Peer) Drop(other peer.ID) error { return p.host.Network().ClosePeer(other) }
