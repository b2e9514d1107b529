package node

import (
	"reflect"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/overlay"
)

// A link ends, or a call fails, while another link with the same peer opens: whichever comes to speak last, the last word is
// of what is.
func TestLastWordOfALink(t *testing.T) {
	const p = peer.ID("p")
	a, b := &relayLink{}, &relayLink{}
	for _, c := range []struct {
		name string
		now  *relayLink
		says func(*relayLinks)
		want []overlay.Event
	}{
		{"ended, and there is another", b, func(k *relayLinks) { k.tellLinked(p, none) }, nil},
		{"ended", nil, func(k *relayLinks) { k.tellLinked(p, none) }, []overlay.Event{overlay.Unlinked{Peer: p}}},
		{"opened, and gone already", nil, func(k *relayLinks) { k.tellLinked(p, func(now *relayLink) bool { return now == a }) }, nil},
		{"opened, and replaced already", b, func(k *relayLinks) { k.tellLinked(p, func(now *relayLink) bool { return now == a }) }, nil},
		{"opened", a, func(k *relayLinks) { k.tellLinked(p, func(now *relayLink) bool { return now == a }) }, []overlay.Event{overlay.Linked{Peer: p}}},
	} {
		var said []overlay.Event
		k := &relayLinks{links: map[peer.ID]*relayLink{}, event: func(e overlay.Event) { said = append(said, e) }}
		if c.now != nil {
			k.links[p] = c.now
		}
		if c.says(k); !reflect.DeepEqual(said, c.want) {
			t.Errorf("%s: told %v, want %v", c.name, said, c.want)
		}
	}
}
