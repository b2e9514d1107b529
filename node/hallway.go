package node

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/node/api"
	"balai/node/p2p"
	"balai/room"
	"balai/room/ledger"
	"balai/room/session"
	"balai/room/wire"
)

const (
	lobbyTopic  = "balai/rooms/0" // one shard now
	maxAd       = 2 << 10
	maxListings = 1000
	adSkew      = 90 * time.Second
	maxAdTTL    = 90 * time.Second
	hallSweep   = 5 * time.Second
	skewSamples = 31
	maxAdTags   = 8
)

// hallway keeps the rooms that the lobby tells of. Any goroutine.
type hallway struct {
	d     *daemon
	topic *p2p.Topic
	out   chan []byte

	mu    sync.Mutex // guards what follows
	ads   map[room.ID]*heardAd
	mine  map[room.ID][]byte
	skews []time.Duration
}

// heardAd is the newest ad of a room.
type heardAd struct {
	ad     *wire.Ad
	id     room.ID
	policy room.Policy
	host   peer.ID
	signer peer.ID
	issued time.Time
	until  time.Time
	from   peer.ID
}

// readAd checks an ad and says what it tells. The verdict is Reject for what is false for everybody.
func readAd(data []byte, now time.Time) (*heardAd, p2p.Verdict) {
	var signed wire.Signed
	var ad wire.Ad
	if len(data) > maxAd || proto.Unmarshal(data, &signed) != nil {
		return nil, p2p.Reject
	}
	signer, err := wire.Open(&signed, wire.DomainAd, &ad)
	if err != nil || len(ad.Rendezvous) != 16 || len(ad.Name) > 200 || len(ad.Topic) > 400 || len(ad.Tags) > maxAdTags {
		return nil, p2p.Reject
	}
	g, err := ledger.ParseGenesis(ad.Genesis)
	if err != nil || g.Nonce != room.Secret(ad.Rendezvous).Nonce() {
		return nil, p2p.Reject
	}
	a := &heardAd{ad: &ad, id: g.Room(), signer: signer, policy: g.Policy, issued: time.UnixMilli(ad.IssuedMs)}
	a.until = a.issued.Add(min(time.Duration(ad.TtlS)*time.Second, maxAdTTL))
	if a.host, err = hostPeer(g); err != nil {
		return nil, p2p.Reject
	}
	if signer != a.host && !appointed(&ad, a) {
		return nil, p2p.Reject
	}
	if now.After(a.until) || a.issued.After(now.Add(adSkew)) {
		return nil, p2p.Ignore
	}
	return a, p2p.Accept
}

// appointed tells whether a moderator's ad carries the host's appoint op for its signer.
func appointed(ad *wire.Ad, a *heardAd) bool {
	op, id, err := ledger.ParseOp(ad.Appoint)
	return err == nil && id == a.id && op.Author == a.host && op.Kind == room.Appoint && slices.Contains(op.Targets, a.signer)
}

// openHallway joins the lobby.
func (d *daemon) openHallway() error {
	h := &hallway{d: d, out: make(chan []byte, publishQueue), ads: map[room.ID]*heardAd{}, mine: map[room.ID][]byte{}}
	d.hall = h
	t, err := d.host.Lobby().Join(lobbyTopic, p2p.TopicConfig{
		Validate: func(from peer.ID, data []byte) p2p.Verdict {
			a, v := readAd(data, time.Now())
			if v == p2p.Accept {
				a.from = from
				h.take(a)
			}
			return v
		},
	})
	if err != nil {
		return err
	}
	h.topic = t
	d.wg.Go(h.run)
	return nil
}

// run publishes and sweeps until the daemon stops.
func (h *hallway) run() {
	t := time.NewTicker(hallSweep)
	defer t.Stop()
	peers := -1
	for {
		select {
		case <-h.d.ctx.Done():
			_ = h.topic.Close()
			return
		case b := <-h.out:
			h.send(b)
		case <-t.C:
			h.sweep(time.Now())
			if n := h.d.host.Peers(); n != peers {
				h.repeat(n > peers)
				peers = n
				h.d.changed(api.ChangedNode)
			}
		}
	}
}

func (h *hallway) send(b []byte) {
	ctx, cancel := context.WithTimeout(h.d.ctx, publishTimeout)
	defer cancel()
	if err := h.topic.Publish(ctx, b); err != nil && !errors.Is(err, context.Canceled) {
		h.d.log.Debug("ad not published", "err", err)
	}
}

// repeat sends my ads again when new peers may not have heard them.
func (h *hallway) repeat(more bool) {
	if !more {
		return
	}
	h.mu.Lock()
	var all [][]byte
	for _, b := range h.mine {
		all = append(all, b)
	}
	h.mu.Unlock()
	for _, b := range all {
		h.send(b)
	}
}

// publish lists a room of mine.
func (h *hallway) publish(id room.ID, ad *wire.Signed) {
	b, err := proto.Marshal(ad)
	if err != nil || len(b) > maxAd {
		h.d.log.Warn("ad is too long", "bytes", len(b))
		return
	}
	h.mu.Lock()
	h.mine[id] = b
	h.mu.Unlock()
	select {
	case h.out <- b:
	default:
	}
	if a, v := readAd(b, time.Now()); v == p2p.Accept {
		h.take(a)
	}
}

// withdraw stops to list a room; what others heard ends by itself.
func (h *hallway) withdraw(id room.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.mine, id)
	if a := h.ads[id]; a != nil && a.signer == h.d.key.ID() {
		delete(h.ads, id)
	}
}

// take keeps the newest ad of a room; the host's beats a moderator's.
func (h *hallway) take(a *heardAd) {
	now := time.Now()
	h.mu.Lock()
	old := h.ads[a.id]
	if old != nil && (old.ad.Seq > a.ad.Seq && old.signer == a.signer || old.signer == old.host && a.signer != a.host && now.Before(old.until)) ||
		old == nil && len(h.ads) >= maxListings {
		h.mu.Unlock()
		return
	}
	h.ads[a.id] = a
	if a.signer != h.d.key.ID() {
		h.skews = append(h.skews, a.issued.Sub(now))
		if len(h.skews) > skewSamples {
			h.skews = h.skews[1:]
		}
	}
	h.mu.Unlock()
	if old == nil || describe(old) != describe(a) {
		h.d.changed(api.ChangedHallway)
	}
}

// describe is what of an ad a person would see change.
func describe(a *heardAd) string {
	var b strings.Builder
	b.WriteString(a.ad.Name + "\x00" + a.ad.Topic + "\x00" + a.ad.HostName + "\x00" + strings.Join(a.ad.StageNames, "\x00"))
	b.WriteString(hex.EncodeToString([]byte{byte(a.ad.Stage), byte(a.ad.Audience), byte(a.ad.Audience >> 8)}))
	return b.String()
}

func (h *hallway) sweep(now time.Time) {
	h.mu.Lock()
	n := len(h.ads)
	for id, a := range h.ads {
		if now.After(a.until) {
			delete(h.ads, id)
		}
	}
	gone := n != len(h.ads)
	h.mu.Unlock()
	if gone {
		h.d.changed(api.ChangedHallway)
	}
}

// find is how a room of the hallway is entered.
func (h *hallway) find(id room.ID) (entry, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.ads[id]
	if a == nil {
		return entry{}, false
	}
	return entry{id: id, secret: room.Secret(a.ad.Rendezvous), hints: a.ad.Hints}, true
}

// skew is how far other clocks are ahead of mine: the median of what ads said.
func (h *hallway) skew() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.skews) < 3 {
		return 0
	}
	s := slices.Clone(h.skews)
	slices.Sort(s)
	return s[len(s)/2]
}

// listings are the rooms heard of, then mine that the lobby does not list.
func (h *hallway) listings() []api.Listing {
	out, seen := []api.Listing{}, map[room.ID]bool{}
	h.mu.Lock()
	for id, a := range h.ads {
		seen[id] = true
		out = append(out, h.listing(a))
	}
	h.mu.Unlock()
	for _, j := range h.d.allRooms() {
		v := j.s.View()
		if v.State.Over() {
			continue
		}
		if !seen[j.id] {
			out = append(out, mineListing(v))
			continue
		}
		for i := range out {
			if out[i].ID == v.ID {
				out[i].State, out[i].Source = v.State, "mine"
			}
		}
	}
	slices.SortFunc(out, func(a, b api.Listing) int {
		if n := b.OnStage + b.Audience - a.OnStage - a.Audience; n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

func (h *hallway) listing(a *heardAd) api.Listing {
	l := api.Listing{
		ID: a.id.String(), Name: a.ad.Name, Topic: a.ad.Topic, Visibility: room.Open.String(), Language: a.ad.Language, Tags: append([]string{}, a.ad.Tags...),
		Host: a.host.String(), HostName: a.ad.HostName, OnStage: int(a.ad.Stage), Audience: int(a.ad.Audience), Stage: []session.Person{}, Source: "lobby", IssuedAt: a.issued.UTC(),
	}
	for _, n := range a.ad.StageNames {
		l.Stage = append(l.Stage, session.Person{Name: n})
	}
	if h.d.host.OnLAN(a.signer) {
		l.Source = "lan"
	}
	if !a.policy.StartsAt.IsZero() {
		at := a.policy.StartsAt.UTC()
		l.StartsAt = &at
	}
	return l
}

func mineListing(v session.View) api.Listing {
	l := api.Listing{
		ID: v.ID, Name: v.Name, Topic: v.Topic, Visibility: v.Visibility, Language: v.Language, Tags: v.Tags, Host: v.Host, HostName: v.HostName,
		OnStage: len(v.Stage), Audience: v.Audience, Stage: []session.Person{}, Source: "mine", State: v.State, StartsAt: v.StartsAt, IssuedAt: v.CreatedAt,
	}
	for _, p := range v.Stage {
		l.Stage = append(l.Stage, session.Person{PeerID: p.PeerID, Name: p.Name})
	}
	return l
}
