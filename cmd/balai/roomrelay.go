package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
)

type roomRelaysCmd struct{ inRoom }

func (roomRelaysCmd) Help() string {
	return `A small room goes directly between all. A bigger one is carried by relays: members that others can reach, and
community nodes that the host or a moderator has vouched for. A relay passes on what it cannot open: a community node
holds no key and sees addresses, sizes and times; a member is in the room and hears it anyway.

Examples:
  balai room relays "Evening tea"
  balai room relays "Evening tea" --json`
}

type (
	relayView struct {
		PeerID  string `json:"peer_id"`
		Name    string `json:"name"`
		Kind    string `json:"kind"`
		Vouched bool   `json:"vouched"`
		Me      bool   `json:"me"`
		Use     string `json:"use"`
	}
	relaysView struct {
		Relays    []relayView     `json:"relays"`
		Vouched   []string        `json:"vouched"`
		Offers    []api.Community `json:"offers"`
		Answering []api.Community `json:"answering"`
	}
)

// Run prints who carries a room and who could.
func (r roomRelaysCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return call(ctx, a, c, http.MethodGet, roomPath(id, "relays"), nil, printRelays)
	})
}

func printRelays(w io.Writer, v relaysView) {
	if len(v.Relays) == 0 {
		fmt.Fprintln(w, "no relay carries this room: it goes directly between those who are in it")
	} else {
		fmt.Fprintln(w, "RELAY\tKIND\tFOR ME\tPEER")
		for _, r := range v.Relays {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", orDash(r.Name), relayKind(r), relayUse(r), r.PeerID)
		}
	}
	for _, p := range v.Vouched {
		state := "does not answer this daemon now"
		for _, n := range v.Answering {
			if n.PeerID == p {
				state = "answers"
			}
		}
		fmt.Fprintf(w, "vouched for\t%s\t%s\n", p, state)
	}
	for _, n := range v.Offers {
		fmt.Fprintf(w, "could be vouched for\t%s\t%s\n", n.PeerID, orDash(strings.Join(n.Addrs, " ")))
	}
}

func relayKind(r relayView) string {
	switch {
	case r.Me:
		return "this machine"
	case r.Kind == "community" && !r.Vouched:
		return "community node, not vouched for"
	case r.Kind == "community":
		return "community node"
	}
	return "member"
}

func relayUse(r relayView) string {
	switch r.Use {
	case "parent":
		return "carries my audio"
	case "warm":
		return "waits"
	case "suspect":
		return "falters"
	}
	return "-"
}

type roomVouchCmd struct {
	inRoom
	Relay string `arg:"" name:"peer-or-multiaddr" help:"A community node: its peer id, or its address with /p2p/ and the id at the end."`
}

func (roomVouchCmd) Help() string {
	return `Lets a community node carry the room when it grows beyond what its members can. It holds no key and cannot hear;
it sees the addresses of its neighbours, and the sizes and times of what it passes on. Hosts and moderators may; it is
written in the room's ledger. An address is dialled as it is, and nothing is written if no community node answers there.
Communities tell theirs: it is what balai bootstrap prints, and in its file DIR/addrs.

Examples:
  balai room vouch "Evening tea" /dns/balai.example.org/udp/4330/quic-v1/p2p/12D3KooW…
  balai room vouch "Evening tea" 12D3KooW…      one that balai room relays lists`
}

// Run vouches for a community node.
func (r *roomVouchCmd) Run(ctx context.Context, a *app) error {
	p, addr, err := communityNode(r.Relay)
	if err != nil {
		return err
	}
	return r.with(ctx, a, func(c *api.Client, id string) error {
		in := map[string]string{}
		if addr != "" {
			in["addr"] = addr
		}
		return say(ctx, a, c, http.MethodPut, roomPath(id, "relays", p), in, "vouched for: %s", p)
	})
}

type roomUnvouchCmd struct {
	inRoom
	Peer string `arg:"" help:"Peer id of the community node, as balai room relays lists it."`
}

func (roomUnvouchCmd) Help() string {
	return `The node carries the room no longer; its children move to other relays without a gap, if there are any.

Examples:
  balai room unvouch "Evening tea" 12D3KooW…`
}

// Run takes a voucher back.
func (r *roomUnvouchCmd) Run(ctx context.Context, a *app) error {
	p, _, err := communityNode(r.Peer)
	if err != nil {
		return err
	}
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return say(ctx, a, c, http.MethodDelete, roomPath(id, "relays", p), nil, "no longer vouched for: %s", p)
	})
}

// communityNode reads a peer id, or a multiaddr that ends with one.
func communityNode(s string) (id, addr string, err error) {
	if s = strings.TrimSpace(s); !strings.HasPrefix(s, "/") {
		p, err := peer.Decode(s)
		if err != nil {
			return "", "", usage("%s is no peer id; a community node has no other name", clean(s))
		}
		return p.String(), "", nil
	}
	info, err := peer.AddrInfoFromString(s)
	if err != nil || len(info.Addrs) == 0 {
		return "", "", usage("%s is no address of a community node: it ends with /p2p/ and its id, such as /dns/balai.example.org/udp/4330/quic-v1/p2p/12D3KooW…", clean(s))
	}
	return info.ID.String(), s, nil
}
