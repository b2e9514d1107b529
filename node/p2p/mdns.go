package p2p

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	ma "github.com/multiformats/go-multiaddr"
)

// mdnsService is the service name of libp2p's mDNS discovery that peers of this kind share. The name of
// the instance is random at each start.
const mdnsService = "_balai._udp"

// lan is who was heard on the local network, newest heard last kept.
type lan struct {
	mu    sync.Mutex
	peers map[peer.ID]time.Time
}

// OnLAN tells whether p was heard by mDNS since the start.
func (h *Host) OnLAN(p peer.ID) bool {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	_, ok := h.lan.peers[p]
	return ok
}

// startMDNS announces and listens; a network without multicast is no reason not to start.
func (h *Host) startMDNS() {
	s := mdns.NewMdnsService(h.host, mdnsService, heard{h})
	if err := s.Start(); err != nil {
		h.cfg.Log.Warn("no discovery on the local network", "err", err)
		_ = s.Close() // nothing runs
		return
	}
	h.mdns = s
}

// heard takes the peers that mDNS finds.
type heard struct{ h *Host }

// HandlePeerFound notes a peer and connects to it, its private addresses allowed: they were heard here.
func (n heard) HandlePeerFound(info peer.AddrInfo) {
	h := n.h
	if info.ID == h.ID() || !h.enter() {
		return
	}
	defer h.wg.Done()
	info.Addrs = slices.DeleteFunc(slices.Clone(info.Addrs), func(a ma.Multiaddr) bool {
		_, rest := splitCircuit(a)
		return len(a) == 0 || len(rest) > 0 || isNamed(a)
	})
	info.Addrs = info.Addrs[:min(len(info.Addrs), maxRecordAddrs)]
	gone, first := h.lan.note(info.ID, h.cfg.Now())
	if gone != "" {
		h.gate.forbidAddrs(gone)
	}
	h.gate.allowAddrs(info.ID, info.Addrs)
	if first {
		h.cfg.Log.Debug("heard on the local network", "peer", info.ID)
	}
	h.dial(info, first)
}

// note enters p; the one heard longest ago makes room.
func (l *lan) note(p peer.ID, now time.Time) (gone peer.ID, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.peers == nil {
		l.peers = map[peer.ID]time.Time{}
	}
	if _, known := l.peers[p]; !known {
		first = true
		if len(l.peers) >= maxLAN {
			for q, at := range l.peers {
				if gone == "" || at.Before(l.peers[gone]) {
					gone = q
				}
			}
			delete(l.peers, gone)
		}
	}
	l.peers[p] = now
	return gone, first
}

// dial connects on this package's own account, a few at a time.
func (h *Host) dial(info peer.AddrInfo, force bool) bool {
	select {
	case h.dialSem <- struct{}{}:
	case <-h.ctx.Done():
		return false
	}
	defer func() { <-h.dialSem }()
	ctx, cancel := context.WithTimeout(h.ctx, dialTimeout)
	defer cancel()
	err := h.Connect(ctx, info, force)
	if err != nil {
		h.cfg.Log.Debug("dial", "peer", info.ID, "err", err)
	}
	return err == nil
}
