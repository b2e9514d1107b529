package node

import (
	"context"
	"slices"
	"strings"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"balai/node/p2p"
	"balai/node/store"
	"balai/room/election"
	"balai/room/invite"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/wire"
)

// joined is the session's world.
var _ session.Ports = (*joined)(nil)

const (
	publishQueue   = 64
	publishTimeout = 5 * time.Second
	goodbyeTimeout = time.Second // for all that is left at the end
	maxHints       = 2           // addresses that an invite carries
)

// outgoing is one message that waits for its topic.
type outgoing struct {
	topic string
	data  []byte
}

// Publish is session.Ports.
func (j *joined) Publish(topic string, sealed []byte) {
	select {
	case j.out <- outgoing{topic, sealed}:
	default:
		j.d.log.Warn("gossip queue is full", "topic", topic)
	}
}

// publishAll sends what waits until ctx ends, then what is left: goodbyes.
func (j *joined) publishAll(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case o := <-j.out:
			j.publishOne(ctx, o)
		case <-ctx.Done():
		}
	}
	last, cancel := context.WithTimeout(j.d.ctx, goodbyeTimeout)
	defer cancel()
	for len(j.out) > 0 {
		j.publishOne(last, <-j.out)
	}
}

func (j *joined) publishOne(ctx context.Context, o outgoing) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := j.topics[o.topic].Publish(ctx, o.data); err != nil {
		j.d.log.Debug("not published", "topic", o.topic, "err", err)
	}
}

// Members is session.Ports.
func (j *joined) Members(peers, leaving []peer.ID) {
	j.links.setMembers(peers, leaving)
	j.d.host.SetMembers(j.id.String(), peers)
	if len(peers) > 0 {
		j.forgetStrangers()
	}
}

// Links is session.Ports.
func (j *joined) Links(plan *overlay.Plan, sources []*wire.Signed) {
	j.links.want(plan, sources)
}

// Tell is session.Ports.
func (j *joined) Tell(p peer.ID, r *wire.LinkRecord) { j.links.tell(p, r) }

// Ping is session.Ports.
func (j *joined) Ping(p peer.ID) { j.flow.Ping(p) }

// Probe is session.Ports.
func (j *joined) Probe(ctx context.Context, p peer.ID) bool { return j.d.host.Probe(ctx, p) == nil }

// Circuits is session.Ports.
func (j *joined) Circuits(p peer.ID) []peer.ID {
	if p == j.d.key.ID() {
		return p2p.RecordCircuits(j.Record())
	}
	return p2p.RecordCircuits(j.RecordOf(p))
}

// Communities is session.Ports.
func (j *joined) Communities() []peer.ID { return j.d.host.CommunityNodes() }

// What a daemon gives as a relay, in kbit/s: to a room on the open internet, and to one on its own network.
const (
	relayCap   = 6_000
	relayCapLN = 100_000
	childKbps  = 120 // three voices and what goes with them
	relayKept  = 5   // one part in so many is kept for those who lose another parent
	maxSlots   = 250
)

// Offer is session.Ports.
func (j *joined) Offer() (ad election.Ad) {
	ad.Prefix = j.d.host.Prefix()
	if j.d.host.Reachability() == "public" {
		ad.Reach = election.ReachPublic
	}
	if j.d.cfg.Relay == "never" || j.d.cfg.Relay == "only-lan" && !j.local {
		return ad
	}
	ad.Cap, ad.Used = relayCap, j.lastReport().UpKbps
	if j.local {
		ad.Cap = relayCapLN
	}
	if limit := j.d.cfg.RelayKbps; limit > 0 {
		ad.Cap = min(ad.Cap, uint32(limit))
	}
	if onLowBattery("/sys/class/power_supply") {
		ad.Flags |= election.OnBattery
	}
	ad.Slots = min((ad.Cap-ad.Cap/relayKept)/childKbps, maxSlots)
	return ad
}

// Media is session.Ports.
func (j *joined) Media(m session.Media) { j.flow.Plan(m) }

// Open is session.Ports.
func (j *joined) Open(ctx context.Context, p peer.ID, proto string) (session.Stream, error) {
	st, err := j.d.host.Open(ctx, p, protocol.ID(proto))
	if err != nil {
		return nil, err
	}
	if proto == session.LedgerProtocol || proto == session.JoinProtocol {
		st.SetLimit(replyLimit)
	}
	return st, nil
}

// Record is session.Ports.
func (j *joined) Record() []byte { return j.d.host.Record() }

// Save is session.Ports. A failure is also the doctor's to tell, until something is stored again.
func (j *joined) Save(name string, data []byte) error { return j.d.save(j.key(name), data) }

// SaveAll is session.Ports.
func (j *joined) SaveAll(data map[string][]byte) error {
	all := make(map[ds.Key][]byte, len(data))
	for name, b := range data {
		all[j.key(name)] = b
	}
	return j.d.saveAll(all)
}

// key is where a name of the room's lies in the store.
func (j *joined) key(name string) ds.Key {
	if rest, ok := strings.CutPrefix(name, "op/"); ok {
		return store.Ledger(j.id.String()).ChildString(rest)
	}
	return store.Rooms.ChildString(j.id.String()).ChildString(name)
}

// Hints is session.Ports: where I am, and a community node that both sides can reach.
func (j *joined) Hints() []invite.Hint {
	return hintsOf(j.d.host.Addrs(), j.d.boot, j.d.host.CommunityNodes(), j.local)
}

// hintsOf chooses from own addresses and from those typed of the nodes that answer. A daemon without an address that
// others may dial names the relay that holds its circuit.
func hintsOf(addrs []ma.Multiaddr, boot []peer.AddrInfo, nodes []peer.ID, private bool) []invite.Hint {
	var own, circuits, community []invite.Hint
	add := func(to *[]invite.Hint, a ma.Multiaddr, kind invite.HintKind) {
		if h, err := invite.ParseHint(a.String(), kind); err == nil && (private || !isPrivate(a)) {
			*to = append(*to, h)
		}
	}
	for _, a := range addrs {
		relay, rest := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
		if len(rest) == 0 {
			add(&own, a, invite.HintMember)
			continue
		}
		kind := invite.HintCircuit
		if _, id := peer.SplitAddr(relay); slices.Contains(nodes, id) {
			kind = invite.HintBoth
		}
		add(&circuits, relay, kind)
	}
	for _, b := range boot {
		for _, a := range b.Addrs {
			if slices.Contains(nodes, b.ID) {
				add(&community, a.Encapsulate(ma.StringCast("/p2p/"+b.ID.String())), invite.HintRendezvous)
			}
		}
	}
	own, circuits, community = invite.MergeHints(own), invite.MergeHints(circuits), invite.MergeHints(community)
	if len(own) == 0 {
		own = circuits
	}
	slices.SortStableFunc(own, byReach)
	out := slices.Clone(own[:min(len(own), 1)])
	out = append(out, community[:min(len(community), maxHints-len(out))]...)
	if len(out) < maxHints && len(own) > 1 {
		out = append(out, own[1])
	}
	return out
}

// byReach puts an address that more people can reach first, and QUIC before TCP.
func byReach(a, b invite.Hint) int {
	rank := func(h invite.Hint) (n int) {
		if h.Addr.IsLoopback() {
			n += 4
		}
		if h.Addr.IsPrivate() {
			n += 2
		}
		if !h.QUIC {
			n++
		}
		return n
	}
	return rank(a) - rank(b)
}

func isPrivate(a ma.Multiaddr) bool {
	ip, ok := hostOf(a)
	return ok && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified())
}
