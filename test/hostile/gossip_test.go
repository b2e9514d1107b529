package hostile_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"balai/identity"
	"balai/node/p2p"
	"balai/test/hostile"
)

// loopback is where every host of these tests listens.
func loopback() []ma.Multiaddr {
	return []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1"), ma.StringCast("/ip4/127.0.0.1/tcp/0")}
}

// honest is a host of the product in one topic of the members gossip.
type honest struct {
	*p2p.Host
	topic *p2p.Topic
	mu    sync.Mutex
	got   map[string]peer.ID // message, and who passed it on
}

const topicName = "the ops of a room"

func newHonest(t *testing.T) *honest {
	t.Helper()
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	x := &honest{got: map[string]peer.ID{}}
	if x.Host, err = p2p.New(t.Context(), p2p.Config{Key: key.Private(), Listen: loopback()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	x.topic, err = x.Members().Join(topicName, p2p.TopicConfig{Receive: x.receive})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *honest) receive(from peer.ID, data []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.got[string(data)] = from
}

func (x *honest) has(text string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, ok := x.got[text]
	return ok
}

// delivers publishes fresh messages at from until one is received at to.
func delivers(t *testing.T, from, to *honest) {
	t.Helper()
	eventually(t, "a message from one honest member to the other", func() bool {
		text := "honest " + time.Now().String()
		if err := from.topic.Publish(t.Context(), []byte(text)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		return to.has(text)
	})
}

// patience bounds what a test waits for; a pass never depends on how long it took.
const patience = 60 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v not yet: %s", patience, what)
		}
	}
}

func newHostile(t *testing.T) *hostile.Peer {
	t.Helper()
	p, err := hostile.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// twoMembers are two honest hosts that have each other as members and are connected.
func twoMembers(t *testing.T) (a, b *honest) {
	t.Helper()
	a, b = newHonest(t), newHonest(t)
	a.SetMembers("room", []peer.ID{b.ID()})
	b.SetMembers("room", []peer.ID{a.ID()})
	info := peer.AddrInfo{ID: b.ID()}
	for _, m := range b.Addrs() {
		bare, _ := peer.SplitAddr(m)
		info.Addrs = append(info.Addrs, bare)
	}
	a.AllowPrivate(b.ID())
	if err := a.Connect(t.Context(), info, true); err != nil {
		t.Fatal(err)
	}
	delivers(t, a, b)
	delivers(t, b, a)
	return a, b
}

// TestOutsiderHearsNothing is trust test 21 at the host: an outsider sees no topic, no subscriber and no
// message, and delivers none. That it would as a member shows that the test can fail.
func TestOutsiderHearsNothing(t *testing.T) {
	t.Parallel()
	a, b := twoMembers(t)
	x := newHostile(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	if _, err := x.Connect(ctx, a.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		_ = x.Subscribe(ctx, a.ID(), hostile.Members, topicName)                          // being cut off is as good
		_ = x.Publish(ctx, a.ID(), hostile.Members, topicName, []byte("outsider's word")) // the same
		delivers(t, a, b)
	}
	for _, m := range x.Heard(hostile.Members) {
		if len(m.Subscriptions) > 0 || len(m.RPC.Publish) > 0 || m.Control != nil {
			t.Errorf("the outsider heard %v", m.RPC)
		}
	}
	if a.has("outsider's word") || b.has("outsider's word") {
		t.Error("the outsider's word was delivered")
	}
	if n := len(a.topic.Peers()); n != 1 {
		t.Errorf("%d peers in the topic", n)
	}

	a.SetMembers("room", []peer.ID{b.ID(), x.ID()})
	if _, err := x.Await(ctx, hostile.Members, func(m hostile.RPC) bool { return len(m.Subscriptions) > 0 }); err != nil {
		t.Fatal("as a member it is not greeted:", err)
	}
	eventually(t, "the hostile member's word", func() bool {
		_ = x.Subscribe(ctx, a.ID(), hostile.Members, topicName)                        // tried again
		_ = x.Publish(ctx, a.ID(), hostile.Members, topicName, []byte("member's word")) // tried again
		return a.has("member's word")
	})
	if err := a.topic.Publish(ctx, []byte("for members")); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Await(ctx, hostile.Members, func(m hostile.RPC) bool { return len(m.RPC.Publish) > 0 }); err != nil {
		t.Error("as a member it hears nothing:", err)
	}
}

// TestOversize is trust test 22 at the host: a member that sends 17 KiB is cut, and the honest members hear
// each other on.
func TestOversize(t *testing.T) {
	t.Parallel()
	a, b := twoMembers(t)
	x := newHostile(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	a.SetMembers("room", []peer.ID{b.ID(), x.ID()})
	if _, err := x.Connect(ctx, a.Addrs()[0].String()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the hostile member's word", func() bool {
		_ = x.Subscribe(ctx, a.ID(), hostile.Members, topicName)                        // tried again
		_ = x.Publish(ctx, a.ID(), hostile.Members, topicName, []byte("member's word")) // tried again
		return a.has("member's word")
	})
	big := make([]byte, 17<<10)
	if err := x.Publish(ctx, a.ID(), hostile.Members, topicName, big); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream of the big message is cut", func() bool {
		return x.SayRaw(ctx, a.ID(), hostile.Members, []byte{0}) != nil
	})
	if a.has(string(big)) || b.has(string(big)) {
		t.Error("the big message was delivered")
	}
	delivers(t, a, b)
	delivers(t, b, a)
}
