package p2p

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// remembered is one peer kept across restarts: its newest signed record and when it was last met.
type remembered struct {
	id        peer.ID
	met       time.Time // to the second
	community bool      // served rendezvous
	record    []byte
}

// Stored form: version 1 | flags 1 (1 community) | met u64, Unix seconds | signed peer record.
const rememberedHeader = 10

func (r remembered) encode() []byte {
	b := make([]byte, 2, rememberedHeader+len(r.record))
	b[0] = 1
	if r.community {
		b[1] = 1
	}
	b = binary.BigEndian.AppendUint64(b, uint64(r.met.Unix()))
	return append(b, r.record...)
}

// decodeRemembered verifies what was stored: a store may be damaged.
func decodeRemembered(b []byte) (remembered, error) {
	if len(b) <= rememberedHeader || b[0] != 1 || b[1] > 1 {
		return remembered{}, fmt.Errorf("remembered peer: %w", room.Malformed)
	}
	rec, err := openRecord(b[rememberedHeader:])
	if err != nil {
		return remembered{}, err
	}
	met := binary.BigEndian.Uint64(b[2:])
	if met > 1<<40 {
		return remembered{}, fmt.Errorf("remembered peer: %w", room.Malformed)
	}
	return remembered{rec.PeerID, time.Unix(int64(met), 0), b[1] == 1, slices.Clone(b[rememberedHeader:])}, nil
}

// peerStore keeps remembered peers under /peers. Only rememberPeers uses it.
type peerStore struct {
	ds    ds.Batching
	log   *slog.Logger
	known map[peer.ID]remembered
}

var peersKey = ds.NewKey("/peers")

func peerKey(p peer.ID) ds.Key { return peersKey.ChildString(p.String()) }

// load reads all, drops what is damaged or old, and returns them, nodes of communities first, then those
// met last.
func (s *peerStore) load(ctx context.Context, now time.Time) []remembered {
	s.known = map[peer.ID]remembered{}
	res, err := s.ds.Query(ctx, query.Query{Prefix: peersKey.String()})
	if err != nil {
		s.log.Warn("remembered peers", "err", err)
		return nil
	}
	defer res.Close() //nolint:errcheck // read only
	for e := range res.Next() {
		if e.Error != nil {
			s.log.Warn("remembered peers", "err", e.Error)
			break
		}
		r, err := decodeRemembered(e.Value)
		if err != nil || now.Sub(r.met) > rememberFor || ds.NewKey(e.Key) != peerKey(r.id) {
			s.drop(ctx, ds.NewKey(e.Key))
			continue
		}
		s.known[r.id] = r
	}
	return s.sorted()
}

func (s *peerStore) sorted() []remembered {
	out := make([]remembered, 0, len(s.known))
	for _, r := range s.known {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b remembered) int {
		if a.community != b.community {
			if a.community {
				return -1
			}
			return 1
		}
		return cmp.Or(b.met.Compare(a.met), cmp.Compare(a.id, b.id))
	})
	return out
}

func (s *peerStore) drop(ctx context.Context, k ds.Key) {
	if err := s.ds.Delete(ctx, k); err != nil {
		s.log.Warn("remembered peers", "err", err)
	}
}

// met keeps a peer; the least useful makes room.
func (s *peerStore) met(ctx context.Context, r remembered) {
	if old, ok := s.known[r.id]; ok && r.met.Sub(old.met) < time.Hour && slices.Equal(old.record, r.record) && old.community == r.community {
		return
	}
	if _, ok := s.known[r.id]; !ok && len(s.known) >= maxRemembered {
		all := s.sorted()
		last := all[len(all)-1]
		delete(s.known, last.id)
		s.drop(ctx, peerKey(last.id))
	}
	s.known[r.id] = r
	if err := s.ds.Put(ctx, peerKey(r.id), r.encode()); err != nil {
		s.log.Warn("remembered peers", "err", err)
	}
}

// rememberPeers reconnects to remembered peers, then keeps each peer that says who it is.
func (h *Host) rememberPeers() {
	sub, err := h.host.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		h.cfg.Log.Error("remembered peers", "err", err)
		return
	}
	defer sub.Close() //nolint:errcheck // a local bus
	all := h.store.load(h.ctx, h.cfg.Now())
	for _, r := range all[:min(len(all), reconnectAtOnce)] {
		if _, err := h.Learn(r.record, "", false); err != nil || len(h.host.Peerstore().Addrs(r.id)) == 0 {
			continue
		}
		h.spawn(func() { h.dial(peer.AddrInfo{ID: r.id}, false) })
	}
	for {
		select {
		case <-h.ctx.Done():
			return
		case e, ok := <-sub.Out():
			if !ok {
				return
			}
			h.meet(e.(event.EvtPeerIdentificationCompleted))
		}
	}
}

const reconnectAtOnce = 32 // remembered peers dialled at start

func (h *Host) meet(e event.EvtPeerIdentificationCompleted) {
	if e.SignedPeerRecord == nil || e.Conn == nil || e.Conn.Stat().Limited {
		return
	}
	b, err := e.SignedPeerRecord.Marshal()
	if err != nil {
		return
	}
	if rec, err := openRecord(b); err != nil || rec.PeerID != e.Peer || len(rec.Addrs) == 0 {
		return
	}
	h.store.met(h.ctx, remembered{e.Peer, h.cfg.Now(), slices.Contains(e.Protocols, rendezvousProtocol), b})
}

// Backoff between dials of a bootstrap peer.
const (
	keepEvery    = time.Second
	keepShortest = 2 * time.Second
	keepLongest  = 5 * time.Minute
)

// keepConnected dials bootstrap peers whenever they are not connected, each with a growing pause. They
// were typed by the user: a failed dial does not put them off for longer.
func (h *Host) keepConnected() {
	type state struct {
		next  time.Time
		pause time.Duration
	}
	states := make([]state, len(h.cfg.Bootstrap))
	t := time.NewTicker(keepEvery)
	defer t.Stop()
	for {
		for i, b := range h.cfg.Bootstrap {
			s := &states[i]
			if h.host.Network().Connectedness(b.ID) == network.Connected {
				*s = state{}
				continue
			}
			if now := time.Now(); now.Before(s.next) || b.ID == h.ID() {
				continue
			}
			s.pause = min(max(2*s.pause, keepShortest), keepLongest)
			s.next = time.Now().Add(s.pause/2 + rand.N(s.pause))
			h.spawn(func() { h.dialTyped(b) })
		}
		select {
		case <-h.ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (h *Host) dialTyped(b peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(h.ctx, dialTimeout)
	defer cancel()
	if err := h.Connect(ctx, b, true); err != nil && !errors.Is(err, context.Canceled) {
		h.cfg.Log.Info("bootstrap peer does not answer", "peer", b.ID, "err", err)
	}
}
