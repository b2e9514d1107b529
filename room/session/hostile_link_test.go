package session

import (
	"testing"

	"balai/room/overlay"
	"balai/room/wire"
)

// One peer's records do not fill the inbox: the reader of its link goes on, and what is beyond its allowance is dropped.
func TestFloodOfLinkRecords(t *testing.T) {
	w := &world{t: t}
	p := w.person("Host")
	s := New(Config{Key: p.key, Profile: profileOf(p.name), Ports: (*ports)(p)})
	one := w.person("Flooder").id
	for range 4 * inbox {
		s.Link(overlay.Got{Peer: one, Record: &wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: &wire.Join{}}}})
	}
	if n := len(s.in); n < 10 || n > inbox/2 {
		t.Errorf("%d wait", n)
	}
}
