package node

import (
	"reflect"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/p2p"
	"balai/room/overlay"
	"balai/room/wire"
)

// keeperOf is a keeper that holds a link with p, or none, and whose session is say.
func keeperOf(p peer.ID, l *p2p.Link, say func(overlay.Event)) *linkKeeper {
	k := newLinkKeeper(&joined{})
	k.say = func(e overlay.Event, _ ...*wire.Signed) { say(e) }
	k.peers[p] = &wanted{link: l}
	return k
}

// As TestLastWordOfALink, for a room that one is in.
func TestLastWordOfAKeptLink(t *testing.T) {
	const p = peer.ID("p")
	a, b := &p2p.Link{}, &p2p.Link{}
	isA := func(now *p2p.Link) bool { return now == a }
	for _, c := range []struct {
		name  string
		now   *p2p.Link
		meant func(*p2p.Link) bool
		want  []overlay.Event
	}{
		{"ended, and there is another", b, noLink, nil},
		{"ended", nil, noLink, []overlay.Event{overlay.Unlinked{Peer: p}}},
		{"opened, and gone already", nil, isA, nil},
		{"opened, and replaced already", b, isA, nil},
		{"opened", a, isA, []overlay.Event{overlay.Linked{Peer: p}}},
	} {
		var said []overlay.Event
		k := keeperOf(p, c.now, func(e overlay.Event) { said = append(said, e) })
		if k.tellLinked(p, c.meant); !reflect.DeepEqual(said, c.want) {
			t.Errorf("%s: told %v, want %v", c.name, said, c.want)
		}
	}
	var said []overlay.Event
	k := keeperOf(p, b, func(e overlay.Event) { said = append(said, e) })
	delete(k.peers, p) // nobody wants it any more
	if k.tellLinked(p, isA); said != nil {
		t.Errorf("told %v of a link that nobody wants", said)
	}
}

// While the session is told that a link has ended, another opens: it hears of that one after, whatever time the first word takes.
func TestAnotherLinkOpensWhileTheEndIsTold(t *testing.T) {
	const p = peer.ID("p")
	l, said, opened := &p2p.Link{}, make(chan overlay.Event, 2), make(chan struct{})
	var k *linkKeeper
	k = keeperOf(p, nil, func(e overlay.Event) {
		if _, ended := e.(overlay.Unlinked); ended {
			k.mu.Lock()
			k.peers[p].link = l
			k.mu.Unlock()
			go func() {
				defer close(opened)
				k.tellLinked(p, func(now *p2p.Link) bool { return now == l })
			}()
			select {
			case <-opened: // it spoke in between
			case <-time.After(200 * time.Millisecond): // it waits, as it should
			}
		}
		said <- e
	})
	k.tellLinked(p, noLink)
	<-opened
	for _, want := range []overlay.Event{overlay.Unlinked{Peer: p}, overlay.Linked{Peer: p}} {
		if got := <-said; got != want {
			t.Errorf("told %T, want %T", got, want)
		}
	}
}
