package node

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/node/api"
	"balai/node/p2p"
	"balai/room"
	"balai/room/ledger"
	"balai/room/session"
	"balai/room/wire"
)

const (
	lobbyTopic   = "balai/rooms/0" // one shard now
	maxAd        = 2 << 10
	maxListings  = 1000
	maxPerSigner = 8 // rooms that one key lists
	adSkew       = 90 * time.Second
	maxAdTTL     = 90 * time.Second
	hallSweep    = 5 * time.Second
	maxAdTags    = 8
	maxAdHints   = 2
)

// hallway keeps the rooms that the lobby tells of. Any goroutine.
type hallway struct {
	d     *daemon
	topic *p2p.Topic
	out   chan []byte

	mu   sync.Mutex // guards what follows
	ads  map[room.ID]*heardAd
	mine map[room.ID][]byte
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
	ahead  time.Duration // of the signer's clock, as far as the ad tells
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
	if err != nil || len(ad.Rendezvous) != len(room.Secret{}) || !decent(&ad) {
		return nil, p2p.Reject
	}
	g, err := ledger.ParseGenesis(ad.Genesis)
	if errors.Is(err, room.NeedsNewer) {
		return nil, p2p.Ignore // for others it is right
	}
	if err != nil || g.Nonce != room.Secret(ad.Rendezvous).Nonce() {
		return nil, p2p.Reject
	}
	a := &heardAd{ad: &ad, id: g.Room(), signer: signer, policy: g.Policy, issued: time.UnixMilli(ad.IssuedMs)}
	a.until = a.issued.Add(min(time.Duration(ad.TtlS)*time.Second, maxAdTTL))
	a.ahead = a.issued.Sub(now)
	if a.host, err = hostPeer(g); err != nil {
		return nil, p2p.Reject
	}
	if signer != a.host && !appointed(&ad, a) {
		return nil, p2p.Reject
	}
	if now.After(a.until) || a.ahead > adSkew {
		return nil, p2p.Ignore
	}
	return a, p2p.Accept
}

// decent tells whether what an ad says can be shown: of bounded length, and text that does not pretend.
func decent(ad *wire.Ad) bool {
	if len(ad.Name) > 200 || len(ad.Topic) > 400 || len(ad.Language) > identity.MaxLanguageBytes || len(ad.Tags) > maxAdTags || len(ad.StageNames) > maxAdTags {
		return false
	}
	texts := append([]string{ad.Name, ad.Topic, ad.Language, ad.HostName}, ad.Tags...)
	return !slices.ContainsFunc(append(texts, ad.StageNames...), func(s string) bool { return !identity.PlainLine(s) })
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
			if from == d.key.ID() {
				return p2p.Accept // publish has taken it
			}
			now := time.Now()
			a, v := readAd(data, now)
			if v == p2p.Accept {
				a.from = from
				v = h.take(a, now)
			}
			return d.counts.gossip(v)
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
				if n > peers {
					h.repeat(time.Now())
				}
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

// repeat tells my ads again, for new peers; signed anew, since gossip carries the same bytes only once.
func (h *hallway) repeat(now time.Time) {
	h.mu.Lock()
	mine := maps.Clone(h.mine)
	h.mu.Unlock()
	for id, b := range mine {
		if again := h.reissue(b, now); again != nil {
			h.publish(id, again)
		}
	}
}

// reissue is an ad of mine with the present time.
func (h *hallway) reissue(b []byte, now time.Time) *wire.Signed {
	var signed wire.Signed
	var ad wire.Ad
	if proto.Unmarshal(b, &signed) != nil {
		return nil
	}
	if _, err := wire.Open(&signed, wire.DomainAd, &ad); err != nil {
		return nil
	}
	ad.IssuedMs = now.UnixMilli()
	ad.Seq = max(ad.Seq+1, uint64(ad.IssuedMs))
	return wire.Sign(h.d.key, wire.DomainAd, &ad)
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
	now := time.Now()
	if a, v := readAd(b, now); v == p2p.Accept {
		a.from = a.signer
		h.take(a, now)
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

// take keeps the newest ad of a room; the host's beats a moderator's. What it does not keep it does not pass on.
func (h *hallway) take(a *heardAd, now time.Time) p2p.Verdict {
	h.mu.Lock()
	old := h.ads[a.id]
	if !h.wanted(a, old, now) {
		h.mu.Unlock()
		return p2p.Ignore
	}
	h.ads[a.id] = a
	h.mu.Unlock()
	if old == nil || !old.looksLike(a) {
		h.d.changed(api.ChangedHallway)
	}
	return p2p.Accept
}

// wanted decides about an ad, and makes room for it. With mu held.
func (h *hallway) wanted(a, old *heardAd, now time.Time) bool {
	if a.signer == h.d.key.ID() && h.mine[a.id] == nil {
		return false // an echo of a room that I left
	}
	if old != nil {
		if old.signer == a.signer {
			return a.ad.Seq > old.ad.Seq
		}
		return old.signer != old.host || a.signer == a.host || now.After(old.until)
	}
	n := 0
	for _, b := range h.ads {
		if b.signer == a.signer {
			n++
		}
	}
	return n < maxPerSigner && (len(h.ads) < maxListings || h.makeRoom(a.from))
}

// makeRoom forgets an ad of whoever has passed on the most, so that one peer's flood cannot push out what others tell.
// It refuses when that is the newcomer's own peer. With mu held.
func (h *hallway) makeRoom(from peer.ID) bool {
	count := map[peer.ID]int{}
	for _, a := range h.ads {
		count[a.from]++
	}
	worst := from
	for p, n := range count {
		if n > count[worst] && p != h.d.key.ID() {
			worst = p
		}
	}
	if worst == from || count[worst] <= count[from]+1 {
		return false
	}
	for id, a := range h.ads {
		if a.from == worst {
			delete(h.ads, id)
			return true
		}
	}
	return false
}

// looksLike tells whether a person would see no difference.
func (a *heardAd) looksLike(b *heardAd) bool {
	x, y := a.ad, b.ad
	return x.Name == y.Name && x.Topic == y.Topic && x.HostName == y.HostName && x.Language == y.Language && x.Stage == y.Stage && x.Audience == y.Audience &&
		slices.Equal(x.StageNames, y.StageNames) && slices.Equal(x.Tags, y.Tags)
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
	a := h.ads[id]
	h.mu.Unlock()
	if a == nil {
		return entry{}, false
	}
	return entry{id: id, secret: room.Secret(a.ad.Rendezvous), hints: a.hints()}, true
}

// hints are the signer's own peer records: an ad sends nobody to a third person's address.
func (a *heardAd) hints() (out [][]byte) {
	for _, r := range a.ad.Hints[:min(len(a.ad.Hints), maxAdHints)] {
		if p, _, ok := peerRecord(r); ok && p == a.signer {
			out = append(out, r)
		}
	}
	return out
}

// skew is how far other clocks are ahead of mine: the median of what ads said, one of each signer.
func (h *hallway) skew() time.Duration {
	bySigner := map[peer.ID]time.Duration{}
	h.mu.Lock()
	for _, a := range h.ads {
		if a.signer != h.d.key.ID() {
			bySigner[a.signer] = a.ahead
		}
	}
	h.mu.Unlock()
	if len(bySigner) < 3 {
		return 0
	}
	s := slices.Sorted(maps.Values(bySigner))
	return s[len(s)/2]
}

// listings are the rooms heard of, mine as I see them from inside.
func (h *hallway) listings() []api.Listing {
	out, at := []api.Listing{}, map[string]int{}
	h.mu.Lock()
	for _, a := range h.ads {
		l := h.listing(a)
		at[l.ID] = len(out)
		out = append(out, l)
	}
	h.mu.Unlock()
	over := map[string]bool{}
	for _, j := range h.d.allRooms() {
		v := j.s.View()
		i, listed := at[v.ID]
		switch {
		case v.State.Over():
			over[v.ID] = v.State == session.Ended
		case !listed:
			out = append(out, mineListing(v))
		case v.State == session.Live:
			issued := out[i].IssuedAt
			out[i] = mineListing(v)
			out[i].IssuedAt = issued
		default:
			out[i].State, out[i].Source = v.State, "mine"
		}
	}
	out = slices.DeleteFunc(out, func(l api.Listing) bool { return over[l.ID] })
	slices.SortFunc(out, func(a, b api.Listing) int {
		return cmp.Or(b.OnStage+b.Audience-a.OnStage-a.Audience, strings.Compare(a.ID, b.ID))
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
