package node

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"balai/identity"
	"balai/node/store"
	"balai/room/invite"
	"balai/room/session"
	"balai/room/wire"
)

// joined is the session's world.
var _ session.Ports = (*joined)(nil)

const (
	findTimeout    = 6 * time.Second
	registerPeriod = time.Hour
	registerLook   = 2 * time.Second
	maxRecords     = 1024
	maxHints       = 2
)

// Publish is session.Ports.
func (j *joined) Publish(topic string, sealed []byte) {
	select {
	case j.out <- outgoing{topic, sealed}:
	default:
		j.d.log.Warn("gossip queue is full", "topic", topic)
	}
}

// publishAll sends what waits until ctx ends, then what is left.
func (j *joined) publishAll(ctx context.Context) {
	for {
		select {
		case o := <-j.out:
			j.publishOne(o)
		case <-ctx.Done():
			for len(j.out) > 0 {
				j.publishOne(<-j.out)
			}
			return
		}
	}
}

func (j *joined) publishOne(o outgoing) {
	ctx, cancel := context.WithTimeout(j.d.ctx, publishTimeout)
	defer cancel()
	if err := j.topics[o.topic].Publish(ctx, o.data); err != nil {
		j.d.log.Debug("not published", "topic", o.topic, "err", err)
	}
}

// Members is session.Ports.
func (j *joined) Members(peers []peer.ID) {
	j.links.setMembers(peers)
	j.d.host.SetMembers(j.id.String(), peers)
}

// Links is session.Ports.
func (j *joined) Links(peers, dial []peer.ID, sources []*wire.Signed) {
	j.links.want(peers, dial, sources)
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

// RecordOf is session.Ports.
func (j *joined) RecordOf(p peer.ID) []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.records[p]
}

// Learn is session.Ports.
func (j *joined) Learn(record []byte, from peer.ID) peer.ID {
	p, err := j.d.host.Learn(record, from, j.local || j.d.host.OnLAN(from))
	if err != nil {
		j.d.log.Debug("peer record refused", "from", from, "err", err)
		return ""
	}
	if j.local {
		j.allowPrivate(p)
	}
	j.mu.Lock()
	known := len(j.records) < maxRecords
	if known {
		j.records[p] = record
	}
	j.mu.Unlock()
	if known && from != "" {
		if err := j.Save("record/"+shortKey(p), record); err != nil {
			j.d.log.Debug("peer record not stored", "err", err)
		}
	}
	return p
}

func (j *joined) allowPrivate(p peer.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.private[p] {
		j.private[p] = true
		j.d.host.AllowPrivate(p)
	}
}

func (j *joined) forbidPrivate() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for p := range j.private {
		j.d.host.ForbidPrivate(p)
	}
	clear(j.private)
}

// Save is session.Ports.
func (j *joined) Save(name string, data []byte) error {
	ctx := j.d.ctx
	base := store.Rooms.ChildString(j.id.String())
	key := base.ChildString(name)
	if rest, ok := cutOp(name); ok {
		key = store.Ledger(j.id.String()).ChildString(rest)
	}
	if data == nil {
		return j.d.store.Delete(ctx, key)
	}
	return j.d.store.Put(ctx, key, data)
}

func cutOp(name string) (string, bool) {
	const prefix = "op/"
	if len(name) > len(prefix) && name[:len(prefix)] == prefix {
		return name[len(prefix):], true
	}
	return "", false
}

// Hints is session.Ports: where I am, and a community node that both sides can reach.
func (j *joined) Hints() []invite.Hint {
	var own, community []invite.Hint
	for _, a := range j.d.host.Addrs() {
		if h, err := invite.ParseHint(a.String(), invite.HintMember); err == nil && (j.local || !isPrivate(a)) {
			own = append(own, h)
		}
	}
	nodes := j.d.host.CommunityNodes()
	for _, b := range j.d.boot {
		if !slices.Contains(nodes, b.ID) {
			continue
		}
		for _, a := range b.Addrs {
			full := a.String() + "/p2p/" + b.ID.String()
			if h, err := invite.ParseHint(full, invite.HintRendezvous); err == nil && (j.local || !isPrivate(a)) {
				community = append(community, h)
			}
		}
	}
	own, community = invite.MergeHints(own), invite.MergeHints(community)
	slices.SortStableFunc(own, byReach)
	out := own[:min(len(own), 1)]
	out = append(out[:len(out):len(out)], community[:min(len(community), maxHints-len(out))]...)
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

// Candidates is session.Ports: first whom the link names, then whom community nodes and earlier meetings know.
func (j *joined) Candidates(ctx context.Context) []peer.ID {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	var out []peer.ID
	add := func(p peer.ID) {
		if p != "" && p != j.d.key.ID() && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, r := range j.hints {
		add(j.Learn(r, ""))
	}
	if j.inv != nil {
		for _, h := range j.inv.Hints {
			add(j.followHint(ctx, h))
		}
	}
	for _, p := range j.discover(ctx) {
		add(p)
	}
	j.mu.Lock()
	for p := range j.records {
		add(p)
	}
	j.mu.Unlock()
	return out
}

// followHint learns the addresses of a hint; a member is a candidate, a rendezvous point is connected to.
func (j *joined) followHint(ctx context.Context, h invite.Hint) peer.ID {
	key := h.Peer
	if key == nil {
		key = j.inv.Issuer()
	}
	p, err := identity.PeerOf(key)
	if err != nil {
		return ""
	}
	info := peer.AddrInfo{ID: p}
	for _, s := range h.Addrs() {
		if a, err := ma.NewMultiaddr(s); err == nil {
			a, _ = peer.SplitAddr(a)
			info.Addrs = append(info.Addrs, a)
		}
	}
	if j.local {
		j.allowPrivate(p)
	}
	if err := j.d.host.Connect(ctx, info, false); err != nil {
		j.d.log.Debug("hint not reached", "peer", p, "err", err)
		if h.Kind == invite.HintMember {
			return p
		}
		return ""
	}
	if h.Kind == invite.HintMember {
		return p
	}
	return ""
}

// discover asks the community nodes who is in the room.
func (j *joined) discover(ctx context.Context) (out []peer.ID) {
	name := j.pointName(time.Now())
	for _, point := range j.d.host.CommunityNodes() {
		records, err := j.d.host.Rendezvous().Discover(ctx, point, name)
		if err != nil {
			j.d.log.Debug("rendezvous point did not answer", "point", point, "err", err)
			continue
		}
		for _, r := range records {
			if p := j.Learn(r, point); p != "" {
				out = append(out, p)
			}
		}
	}
	return out
}

func (j *joined) pointName(now time.Time) string { return j.secret.PublicName("rendezvous", now) }

// Listed is session.Ports.
func (j *joined) Listed(ad *wire.Signed, register bool) {
	j.mu.Lock()
	j.register = register
	j.mu.Unlock()
	if ad != nil {
		j.d.hall.publish(j.id, ad)
	}
}

// keepRegistered registers the room at every community node while the session wants it.
func (j *joined) keepRegistered(ctx context.Context) {
	type at struct {
		name string
		when time.Time
	}
	done := map[peer.ID]at{}
	t := time.NewTicker(registerLook)
	defer t.Stop()
	for ctx.Err() == nil {
		j.mu.Lock()
		want := j.register
		j.mu.Unlock()
		now := time.Now()
		name := j.pointName(now)
		for _, point := range j.d.host.CommunityNodes() {
			if last := done[point]; !want || last.name == name && now.Sub(last.when) < registerPeriod {
				continue
			}
			if err := j.d.host.Rendezvous().Register(ctx, point, name); err == nil {
				done[point] = at{name, now}
			}
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	ctx, cancel := context.WithTimeout(j.d.ctx, time.Second)
	defer cancel()
	for point, last := range done {
		_ = j.d.host.Rendezvous().Unregister(ctx, point, last.name)
	}
}
