package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
	"balai/room"
)

const (
	reachTimeout = 6 * time.Second // for a typed address to answer; the API gives a request 10 s
	maxTyped     = 8               // typed addresses of one node that are remembered
)

// Reach is api.Backend.
func (d *daemon) Reach(ctx context.Context, addr string) error {
	info, err := peer.AddrInfoFromString(strings.TrimSpace(addr))
	switch {
	case err != nil:
		return fmt.Errorf("the address of a community node is a multiaddr with /p2p/ and its id: %w: %w", room.Malformed, err)
	case info.ID == d.key.ID():
		return fmt.Errorf("this is the address of this daemon itself: %w", room.Malformed)
	case len(info.Addrs) == 0:
		return fmt.Errorf("the address has to say where the node is, before /p2p/: %w", room.Malformed)
	}
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	d.host.AllowPrivate(info.ID) // typed: dialled as it is
	if err := d.host.Connect(ctx, *info, true); err != nil {
		d.host.ForbidPrivate(info.ID)
		return fmt.Errorf("nobody answers at %s as this node: %w: %w", addr, api.ErrUnanswered, err)
	}
	if !slices.Contains(d.host.CommunityNodes(), info.ID) {
		d.host.ForbidPrivate(info.ID)
		return fmt.Errorf("%s answers, but is no community node: %w", info.ID, api.ErrUnanswered)
	}
	d.remember(info.ID, strings.TrimSpace(addr))
	return nil
}

// remember notes an address that answered. The node may be dialled there again, also at a private one: the permission of
// the first of its addresses stays.
func (d *daemon) remember(p peer.ID, addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.typed[p]
	if len(known) > 0 {
		d.host.ForbidPrivate(p)
	}
	if !slices.Contains(known, addr) && len(known) < maxTyped {
		d.typed[p] = append(known, addr)
	}
}

// Communities is api.Backend.
func (d *daemon) Communities() []api.Community {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []api.Community{}
	for _, p := range d.host.CommunityNodes() {
		c := api.Community{PeerID: p.String(), Addrs: append([]string{}, d.typed[p]...)}
		for _, b := range d.boot {
			if b.ID != p {
				continue
			}
			for _, a := range b.Addrs {
				if s := a.String() + "/p2p/" + c.PeerID; !slices.Contains(c.Addrs, s) {
					c.Addrs = append(c.Addrs, s)
				}
			}
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b api.Community) int { return strings.Compare(a.PeerID, b.PeerID) })
	return out
}
