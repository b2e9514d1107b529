package rendezvous

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

var start = time.Unix(1_000_000, 0)

func TestRegister(t *testing.T) {
	r := NewRegistry([8]byte{1})
	for _, c := range []struct {
		ns   string
		ttl  time.Duration
		want Message_ResponseStatus
	}{
		{"", 0, Message_E_INVALID_NAMESPACE},
		{string(make([]byte, MaxNamespace+1)), 0, Message_E_INVALID_NAMESPACE},
		{string(make([]byte, MaxNamespace)), 0, Message_OK},
		{"a", MinTTL - 1, Message_E_INVALID_TTL},
		{"a", MaxTTL + 1, Message_E_INVALID_TTL},
		{"a", -1, Message_E_INVALID_TTL},
		{"a", MaxTTL, Message_OK},
	} {
		if got, _ := r.Register(c.ns, "p", []byte("x"), c.ttl, start); got != c.want {
			t.Errorf("%.10q %v: %v, want %v", c.ns, c.ttl, got, c.want)
		}
	}
	if _, ttl := r.Register("b", "p", []byte("x"), 0, start); ttl != DefaultTTL {
		t.Errorf("granted %v", ttl)
	}
}

func TestDiscover(t *testing.T) {
	r := NewRegistry([8]byte{1})
	for i := range 150 {
		r.Register("a", fmt.Sprint("p", i), fmt.Append(nil, "record ", i), 0, start)
	}
	r.Register("b", "q", []byte("other"), 0, start)
	first, cookie, status := r.Discover("a", 0, nil, start)
	if status != Message_OK || len(first) != MaxPage || first[0].Peer != "p0" {
		t.Fatal(status, len(first))
	}
	if _, _, status := r.Discover("b", 0, cookie, start); status != Message_E_INVALID_COOKIE {
		t.Error("a cookie of another namespace", status)
	}
	if _, _, status := NewRegistry([8]byte{2}).Discover("a", 0, cookie, start); status != Message_E_INVALID_COOKIE {
		t.Error("a cookie of another point", status)
	}
	second, cookie, _ := r.Discover("a", 0, cookie, start)
	if len(second) != 50 || second[0].Peer != "p100" {
		t.Fatal(len(second))
	}
	none, cookie, status := r.Discover("a", 0, cookie, start)
	if len(none) != 0 || status != Message_OK {
		t.Fatal(len(none), status)
	}
	r.Register("a", "p3", []byte("renewed"), 0, start.Add(time.Hour))
	again, _, _ := r.Discover("a", 0, cookie, start.Add(time.Hour))
	if len(again) != 1 || again[0].Peer != "p3" || string(again[0].Record) != "renewed" {
		t.Errorf("after a renewal: %v", again)
	}
	if some, _, _ := r.Discover("a", 7, nil, start); len(some) != 7 {
		t.Errorf("limit: %d", len(some))
	}
	late, _, _ := r.Discover("a", 0, nil, start.Add(DefaultTTL))
	if len(late) != 1 || late[0].Peer != "p3" {
		t.Errorf("after the ttl: %d", len(late))
	}
	r.Unregister("a", "p3")
	r.ExpireAll(start.Add(DefaultTTL))
	if r.total != 0 || len(r.spaces) != 0 || len(r.peers) != 0 {
		t.Errorf("left over: %d %d %d", r.total, len(r.spaces), len(r.peers))
	}
}

func TestPageBytes(t *testing.T) {
	r := NewRegistry([8]byte{})
	for i := range 50 {
		r.Register("a", fmt.Sprint(i), make([]byte, 4<<10), 0, start)
	}
	seen := 0
	var cookie []byte
	for range 20 {
		page, next, _ := r.Discover("a", 0, cookie, start)
		size := 0
		for _, g := range page {
			size += len(g.Record)
		}
		if size > maxPageBytes {
			t.Fatalf("a page of %d bytes", size)
		}
		seen += len(page)
		cookie = next
	}
	if seen != 50 {
		t.Errorf("saw %d", seen)
	}
}

func TestLimits(t *testing.T) {
	r := NewRegistry([8]byte{})
	for i := range maxPeer {
		if s, _ := r.Register(fmt.Sprint(i), "p", nil, 0, start); s != Message_OK {
			t.Fatal(i, s)
		}
	}
	if s, _ := r.Register("more", "p", nil, 0, start); s != Message_E_NOT_AUTHORIZED {
		t.Error(s)
	}
	if s, _ := r.Register("3", "p", nil, 0, start); s != Message_OK {
		t.Error("renewal at the limit:", s)
	}
	r.Unregister("", "p")
	if r.total != 0 {
		t.Errorf("%d left", r.total)
	}
	for i := range maxNamespace {
		r.Register("a", fmt.Sprint(i), nil, 0, start)
	}
	if s, _ := r.Register("a", "p", nil, 0, start); s != Message_E_UNAVAILABLE {
		t.Error(s)
	}
	for i := range maxTotal {
		r.Register(fmt.Sprint("n", i%100), fmt.Sprint(i), nil, 0, start)
	}
	if r.total != maxTotal {
		t.Errorf("total %d", r.total)
	}
	if s, _ := r.Register("z", "p", nil, 0, start.Add(DefaultTTL)); s != Message_OK || r.total != 1 {
		t.Error("after all have expired:", s, r.total)
	}
}

func FuzzCookie(f *testing.F) {
	r := NewRegistry([8]byte{1})
	f.Add("a", r.cookie("a", 7))
	f.Add("a", []byte{})
	f.Fuzz(func(t *testing.T, ns string, cookie []byte) {
		seq, ok := r.openCookie(ns, cookie)
		if ok && len(cookie) > 0 && !bytes.Equal(r.cookie(ns, seq), cookie) {
			t.Fatal("round trip")
		}
	})
}
