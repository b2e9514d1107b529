package p2p

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// box keeps what a topic received.
type box struct {
	mu  sync.Mutex
	got []string
}

func (b *box) put(_ peer.ID, data []byte) {
	b.mu.Lock()
	b.got = append(b.got, string(data))
	b.mu.Unlock()
}

func (b *box) has(s string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.got, s)
}

func (b *box) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.got)
}

func join(t testing.TB, g *Gossip, name string, cfg TopicConfig) (*Topic, *box) {
	t.Helper()
	b := &box{}
	if cfg.Receive == nil {
		cfg.Receive = b.put
	}
	topic, err := g.Join(name, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := topic.Close(); err != nil {
			t.Errorf("close topic: %v", err)
		}
	})
	return topic, b
}

// say publishes what changes each time until ok.
func say(t testing.TB, topic *Topic, what string, ok func(string) bool) {
	t.Helper()
	n := 0
	eventually(t, "heard: "+what, func() bool {
		n++
		s := fmt.Sprint(what, n)
		publish(t, topic, s)
		time.Sleep(50 * time.Millisecond)
		for i := max(1, n-20); i <= n; i++ {
			if ok(fmt.Sprint(what, i)) {
				return true
			}
		}
		return false
	})
}

func publish(t testing.TB, topic *Topic, s string) {
	t.Helper()
	if err := topic.Publish(context.Background(), []byte(s)); err != nil {
		t.Fatal(err)
	}
}

func TestLobby(t *testing.T) {
	a, b := testHost(t), testHost(t)
	ta, ba := join(t, a.Lobby(), "balai/rooms/0", TopicConfig{})
	tb, bb := join(t, b.Lobby(), "balai/rooms/0", TopicConfig{})
	if _, err := a.Lobby().Join("balai/rooms/0", TopicConfig{}); err == nil {
		t.Error("joined twice")
	}
	connect(t, a, b)
	// Flood publish: the first message to a peer seen in the topic needs no mesh.
	eventually(t, "a sees b", func() bool { return slices.Contains(ta.Peers(), b.ID()) })
	publish(t, ta, "first")
	eventually(t, "the first message", func() bool { return bb.has("first") })
	say(t, tb, "back", ba.has)
	if ba.has("first") {
		t.Error("own message received")
	}
	if err := ta.Publish(testContext(t), make([]byte, maxGossip)); err == nil {
		t.Error("published an oversize message")
	}
	if err := ta.Close(); err != nil {
		t.Fatal(err)
	}
	join(t, a.Lobby(), "balai/rooms/0", TopicConfig{})
}

// TestVerdicts: only Reject costs the peer that passed the message on.
func TestVerdicts(t *testing.T) {
	a, b := testHost(t), testHost(t)
	var mu sync.Mutex
	verdict := Ignore
	seen := 0
	_, ba := join(t, a.Lobby(), "t", TopicConfig{Validate: func(from peer.ID, data []byte) Verdict {
		mu.Lock()
		defer mu.Unlock()
		seen++
		return verdict
	}})
	tb, _ := join(t, b.Lobby(), "t", TopicConfig{})
	connect(t, a, b)
	eventually(t, "b sees a", func() bool { return slices.Contains(tb.Peers(), a.ID()) })
	flood := func(what string, n int) {
		mu.Lock()
		seen = 0
		mu.Unlock()
		for i := range n {
			publish(t, tb, fmt.Sprint(what, i))
		}
		eventually(t, what, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return seen >= n
		})
		time.Sleep(1500 * time.Millisecond) // a score is taken each second
	}
	flood("ignored", 30)
	if s := a.Lobby().score(b.ID()); s < 0 {
		t.Errorf("score %v after Ignore", s)
	}
	mu.Lock()
	verdict = Reject
	mu.Unlock()
	flood("rejected", 3)
	eventually(t, "the score falls", func() bool { return a.Lobby().score(b.ID()) < -10 })
	if ba.len() != 0 {
		t.Errorf("received %d", ba.len())
	}
}

func (g *Gossip) score(p peer.ID) float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.scores[p]
}

// outsider is the same libp2p and the same pubsub protocol, without our gate.
func outsider(t *testing.T, c Config, opts ...pubsub.Option) (*Host, *pubsub.PubSub) {
	t.Helper()
	h := start(t, c)
	h.members.stopForTest()
	opts = append(opts,
		pubsub.WithGossipSubProtocols([]protocol.ID{membersProtocol}, func(f pubsub.GossipSubFeature, p protocol.ID) bool {
			return f == pubsub.GossipSubFeatureMesh
		}),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(), pubsub.WithMessageIdFn(messageID),
		pubsub.WithFloodPublish(true))
	ps, err := pubsub.NewGossipSub(h.ctx, h.host, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return h, ps
}

// stopForTest takes the handler away; the caller starts another pubsub under the protocol.
func (g *Gossip) stopForTest() { g.h.host.RemoveStreamHandler(g.proto) }

// TestOutsider is trust test 21.
func TestOutsider(t *testing.T) {
	a, b := testHost(t), testHost(t)
	x, xps := outsider(t, testConfig(t))
	const name = "room topic"
	xt, err := xps.Join(name)
	if err != nil {
		t.Fatal(err)
	}
	xsub, err := xt.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	a.SetMembers("room", []peer.ID{a.ID(), b.ID()})
	b.SetMembers("room", []peer.ID{a.ID(), b.ID()})
	ta, ba := join(t, a.Members(), name, TopicConfig{})
	tb, bb := join(t, b.Members(), name, TopicConfig{})
	connect(t, a, b)
	connect(t, x, a)
	connect(t, x, b)
	say(t, ta, "to b", bb.has)
	say(t, tb, "to a", ba.has)
	for i := range 10 {
		if err := xt.Publish(testContext(t), []byte(fmt.Sprint("outsider", i))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	say(t, ta, "later to b", bb.has)
	if peers := xps.ListPeers(name); len(peers) != 0 {
		t.Errorf("the outsider sees subscribers %v", peers)
	}
	for _, h := range []*Host{a, b} {
		if n := len(x.members.streams(h.ID(), network.DirInbound)); n != 0 {
			t.Errorf("a member opened %d gossip streams to the outsider: it may see topics", n)
		}
	}
	for _, topic := range []*Topic{ta, tb} {
		if slices.Contains(topic.Peers(), x.ID()) {
			t.Error("a member sees the outsider in the topic")
		}
	}
	if ba.has("outsider0") || bb.has("outsider0") || ba.has("outsider9") || bb.has("outsider9") {
		t.Error("the outsider delivered")
	}
	ctx, cancel := context.WithTimeout(testContext(t), 500*time.Millisecond)
	defer cancel()
	for {
		m, err := xsub.Next(ctx)
		if err != nil {
			break
		}
		if m.ReceivedFrom != x.ID() {
			t.Errorf("the outsider received %q", m.Data)
		}
	}
}

// TestAdmission: admitted on a live connection, a peer hears and is heard; expelled, neither; and again.
func TestAdmission(t *testing.T) {
	a, b := testHost(t), testHost(t)
	const name = "room topic"
	ta, ba := join(t, a.Members(), name, TopicConfig{})
	tb, bb := join(t, b.Members(), name, TopicConfig{})
	connect(t, a, b)
	b.SetMembers("room", []peer.ID{a.ID()}) // b knows a as a member before a lets b in
	conns := a.host.Network().ConnsToPeer(b.ID())
	for round := range 3 {
		a.SetMembers("room", []peer.ID{b.ID(), a.ID()})
		a.SetMembers("room", []peer.ID{b.ID(), a.ID()})
		say(t, ta, fmt.Sprint(round, " to b "), bb.has)
		say(t, tb, fmt.Sprint(round, " to a "), ba.has)
		a.SetMembers("room", nil)
		eventually(t, "cut", func() bool { return len(ta.Peers()) == 0 })
		na, nb := ba.len(), bb.len()
		for i := range 5 {
			publish(t, ta, fmt.Sprint("secret ", round, i))
			publish(t, tb, fmt.Sprint("expelled ", round, i))
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(300 * time.Millisecond)
		if ba.has(fmt.Sprint("expelled ", round, 4)) || bb.has(fmt.Sprint("secret ", round, 0)) {
			t.Errorf("gossip across the gate (%d, %d before)", na, nb)
		}
	}
	if now := a.host.Network().ConnsToPeer(b.ID()); len(now) == 0 || now[0] != conns[0] {
		t.Error("the connection was not kept")
	}
}

// TestRoomsApart: a member of one room, let in by the gate, neither hears nor speaks in another.
func TestRoomsApart(t *testing.T) {
	a, b := testHost(t), testHost(t)
	var mu sync.Mutex
	inTwo := false
	a.SetMembers("one", []peer.ID{b.ID()})
	b.SetMembers("one", []peer.ID{a.ID()})
	t1, _ := join(t, a.Members(), "one", TopicConfig{})
	_, b1 := join(t, b.Members(), "one", TopicConfig{})
	t2, a2 := join(t, a.Members(), "two", TopicConfig{Peers: func(p peer.ID) bool {
		mu.Lock()
		defer mu.Unlock()
		return inTwo
	}})
	x2, b2 := join(t, b.Members(), "two", TopicConfig{})
	connect(t, a, b)
	say(t, t1, "one ", b1.has)
	for i := range 5 {
		publish(t, t2, fmt.Sprint("two ", i))
		publish(t, x2, fmt.Sprint("intruder ", i))
		time.Sleep(20 * time.Millisecond)
	}
	say(t, t1, "one later ", b1.has)
	if b2.len() != 0 || a2.len() != 0 {
		t.Errorf("across rooms: %v %v", b2.got, a2.got)
	}
	mu.Lock()
	inTwo = true
	mu.Unlock()
	a.SetMembers("two", []peer.ID{b.ID()})
	say(t, t2, "welcome ", b2.has)
	say(t, x2, "thanks ", a2.has)
}

// TestSubscribedEarly: who subscribed before this host joined is in the topic at once; but not who may not
// take part in it.
func TestSubscribedEarly(t *testing.T) {
	a, b := testHost(t), testHost(t)
	a.SetMembers("one", []peer.ID{b.ID()})
	b.SetMembers("one", []peer.ID{a.ID()})
	_, b1 := join(t, b.Members(), "one", TopicConfig{})
	_, b2 := join(t, b.Members(), "two", TopicConfig{})
	connect(t, a, b)
	eventually(t, "b's subscriptions", func() bool { return len(a.members.ps.ListPeers("two")) == 1 })
	t1, _ := join(t, a.Members(), "one", TopicConfig{Peers: func(peer.ID) bool { return true }})
	publish(t, t1, "the first word")
	eventually(t, "heard", func() bool { return b1.has("the first word") })
	t2, _ := join(t, a.Members(), "two", TopicConfig{Peers: func(peer.ID) bool { return false }})
	publish(t, t2, "secret")
	say(t, t1, "later ", b1.has)
	if len(t2.Peers()) != 0 || b2.len() != 0 {
		t.Errorf("in the topic: %v, heard %v", t2.Peers(), b2.got)
	}
}

// TestOversize is trust test 22: the stream of the sender is cut, and once it is honest it is heard again.
// Pubsub alone gives up on the stream: it offers the oversize message again by IHAVE, is cut each time,
// and stops trying.
func TestOversize(t *testing.T) {
	cx := testConfig(t)
	cx.gossipLimit = 1 << 20
	a, x := testHost(t), start(t, cx)
	const name = "room topic"
	a.SetMembers("room", []peer.ID{x.ID()})
	x.SetMembers("room", []peer.ID{a.ID()})
	ta, ba := join(t, a.Members(), name, TopicConfig{})
	xt, bx := join(t, x.Members(), name, TopicConfig{})
	connect(t, x, a)
	say(t, xt, "before ", ba.has)
	for i := range 2 {
		old := a.members.streams(x.ID(), network.DirInbound)
		big := string(make([]byte, 20_000+i))
		if err := xt.t.Publish(testContext(t), []byte(big)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the stream is cut", func() bool {
			now := a.members.streams(x.ID(), network.DirInbound)
			return len(old) == 0 || len(now) == 0 || now[0] != old[0]
		})
		say(t, xt, fmt.Sprint("after ", i, " "), ba.has)
		say(t, ta, fmt.Sprint("to x ", i, " "), bx.has)
		if ba.has(big) {
			t.Error("an oversize message got through")
		}
	}
}

// TestFlood is trust test 25: a flood is held to a burst and a trickle.
func TestFlood(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	f := newFlow(now)
	passed := 0
	late := 0
	for i := range 10_000 { // ten seconds at 1,000 a second
		now = now.Add(time.Millisecond)
		if f.take(100, now) {
			passed++
			if i > 2000 {
				late++
			}
		}
	}
	if late > 8*trickleRate+1 {
		t.Errorf("%d messages after two seconds", late)
	}
	if passed < flowBurst || passed > 2*flowBurst {
		t.Errorf("%d messages in all", passed)
	}
	now = now.Add(20 * time.Second)
	for range 1000 { // an honest relay of 64 people
		now = now.Add(20 * time.Millisecond)
		if !f.take(500, now) {
			t.Fatal("an honest rate is held back")
		}
	}
	if f.take(bytesBurst+1, now) {
		t.Error("too many bytes passed")
	}
}

// TestFloodOnTheWire: of 2,000 messages in some two seconds a burst arrives, and others are heard meanwhile.
func TestFloodOnTheWire(t *testing.T) {
	a, x, c := testHost(t), testHost(t), testHost(t)
	_, ba := join(t, a.Lobby(), "t", TopicConfig{})
	xt, _ := join(t, x.Lobby(), "t", TopicConfig{})
	ct, _ := join(t, c.Lobby(), "t", TopicConfig{})
	connect(t, a, x)
	connect(t, a, c)
	eventually(t, "a is in the topic", func() bool {
		return slices.Contains(xt.Peers(), a.ID()) && slices.Contains(ct.Peers(), a.ID())
	})
	began := time.Now()
	for i := range 2000 {
		publish(t, xt, fmt.Sprint("flood ", i))
		time.Sleep(time.Millisecond)
	}
	flooded, took := ba.len(), time.Since(began)
	if most := 2*flowBurst + int(trickleRate*took.Seconds()); flooded > most { // a slow machine takes longer, and the trickle goes on
		t.Errorf("%d of 2000 passed in %v", flooded, took)
	}
	say(t, ct, "honest ", ba.has)
	eventually(t, "the burst", func() bool { return ba.len() >= flowBurst/2 })
}
