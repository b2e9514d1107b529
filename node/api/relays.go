package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// maxRelays bounds the relays that a room is opened with: a core has no more members.
const maxRelays = 8

type vouchIn struct {
	Addr string `json:"addr,omitempty"` // multiaddr with /p2p/ and the id of the path; dialled as it is
}

func (h *handler) relayRoutes() []route {
	const pattern = "/rooms/{id}/relays/{peer}"
	return []route{
		get("/rooms/{id}/relays", "By whom the room is carried, the community nodes vouched for, and those that could be.", h.relays),
		do(http.MethodPut, pattern, "Vouches for a community relay; with an address, once it answers there.", h.vouch).or(http.StatusBadGateway),
		do(http.MethodDelete, pattern, "Takes the voucher for a community relay back.", h.unvouch),
	}
}

func (h *handler) relays(c *call, _ none) (relaysOut, error) {
	rm, err := h.room(c)
	if err != nil {
		return relaysOut{}, err
	}
	v := rm.View()
	out := relaysOut{Relays: v.Relays, Vouched: v.Vouched}
	for _, n := range h.backend.Communities() {
		if slices.Contains(v.Vouched, n.PeerID) {
			out.Answering = append(out.Answering, n)
		} else {
			out.Offers = append(out.Offers, n)
		}
	}
	return out, nil
}

func (h *handler) vouch(c *call, in vouchIn) error {
	rm, p, err := h.relay(c)
	if err != nil {
		return err
	}
	if in.Addr != "" {
		if named, err := peerOf(in.Addr); err != nil || named != p {
			return malformed("the address does not end with /p2p/%s", p)
		}
		if _, err := h.reach(c.r.Context(), []string{in.Addr}); err != nil {
			return err
		}
	}
	return decide(c.r.Context(), rm, room.Vouch, p)
}

func (h *handler) unvouch(c *call, _ none) error {
	rm, p, err := h.relay(c)
	if err != nil {
		return err
	}
	return decide(c.r.Context(), rm, room.Unvouch, p)
}

// decide writes a decision, and returns when the room's view shows it.
func decide(ctx context.Context, rm Room, kind room.Kind, p peer.ID) error {
	if err := rm.Act(ctx, kind, p, ""); err != nil {
		return err
	}
	_, _ = rm.Lines(ctx) // a room answers one thing after the other, each with its view made; the decision stands anyway
	return nil
}

// relay is the room and the peer of the path.
func (h *handler) relay(c *call) (Room, peer.ID, error) {
	rm, err := h.room(c)
	if err != nil {
		return nil, "", err
	}
	p, err := c.peer()
	return rm, p, err
}

// reach dials typed addresses at the same time and gives the peers that they name, each once. A peer is reached when one
// of its addresses answers.
func (h *handler) reach(ctx context.Context, addrs []string) ([]peer.ID, error) {
	if len(addrs) > maxRelays {
		return nil, malformed("a room is opened with at most %d relays", maxRelays)
	}
	var peers []peer.ID
	named := make([]peer.ID, len(addrs))
	for i, a := range addrs {
		p, err := peerOf(a)
		if err != nil {
			return nil, err
		}
		if named[i] = p; !slices.Contains(peers, p) {
			peers = append(peers, p)
		}
	}
	answers := make([]error, len(addrs))
	var wg sync.WaitGroup
	for i, a := range addrs {
		wg.Go(func() { answers[i] = h.backend.Reach(ctx, a) })
	}
	wg.Wait()
	reached, failed := map[peer.ID]bool{}, map[peer.ID]error{}
	for i, p := range named {
		reached[p] = reached[p] || answers[i] == nil
		failed[p] = cmp.Or(failed[p], answers[i])
	}
	for _, p := range peers {
		if !reached[p] {
			return nil, failed[p]
		}
	}
	return peers, nil
}

// peerOf is the peer that a multiaddr ends with.
func peerOf(addr string) (peer.ID, error) {
	if i := strings.LastIndex(addr, "/p2p/"); i >= 0 {
		if p, ok := parsePeer(addr[i+len("/p2p/"):]); ok {
			return p, nil
		}
	}
	return "", malformed("the address of a community node ends with /p2p/ and its id, such as /dns/balai.example.org/udp/4330/quic-v1/p2p/12D3KooW…")
}
