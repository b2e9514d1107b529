package p2p

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/wire"
)

func TestStreams(t *testing.T) {
	a, b := testHost(t), testHost(t)
	connect(t, b, a)
	done := make(chan struct{})
	a.Handle("/test/echo", 1<<20, func(s *Stream) {
		defer close(done)
		for {
			var m wire.LedgerReply
			if err := s.Read(&m); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("read: %v", err)
				}
				return
			}
			if s.Remote() != b.ID() {
				t.Errorf("remote %s", s.Remote())
			}
			if err := s.Write(&m); err != nil {
				t.Errorf("write: %v", err)
			}
		}
	})
	s, err := b.Open(testContext(t), a.ID(), "/test/echo")
	if err != nil {
		t.Fatal(err)
	}
	s.SetLimit(1 << 20)
	for _, size := range []int{0, 1, 100_000, 1_000_000} {
		m := &wire.LedgerReply{Records: [][]byte{make([]byte, size)}}
		if err := s.Write(m); err != nil {
			t.Fatal(err)
		}
		var got wire.LedgerReply
		if err := s.Read(&got); err != nil || !proto.Equal(m, &got) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-done
}

// TestStreamTooLarge: a record over the limit is refused by its length alone and the stream broken off.
func TestStreamTooLarge(t *testing.T) {
	a, b := testHost(t), testHost(t)
	connect(t, b, a)
	got := make(chan error, 1)
	a.Handle("/test/small", 100, func(s *Stream) { got <- s.Read(new(wire.Signed)) })
	s, err := b.Open(testContext(t), a.ID(), "/test/small")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(&wire.Signed{Body: make([]byte, 200)}); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if err := s.Read(new(wire.Signed)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the stream goes on: %v", err)
	}
}

// TestStreamDeadline: who says nothing is let go of.
func TestStreamDeadline(t *testing.T) {
	a, b := testHost(t), testHost(t)
	connect(t, b, a)
	got := make(chan error, 1)
	a.Handle("/test/wait", 0, func(s *Stream) {
		_ = s.SetDeadline(time.Now().Add(50 * time.Millisecond))
		got <- s.Read(new(wire.Signed))
	})
	s, err := b.Open(testContext(t), a.ID(), "/test/wait")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset() //nolint:errcheck // over
	if _, err := s.s.Write([]byte{5}); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err == nil {
		t.Error("read without an error")
	}
}

// TestStreamCap: one peer gets 16 handlers at a time.
func TestStreamCap(t *testing.T) {
	a, b := testHost(t), testHost(t)
	connect(t, b, a)
	var running atomic.Int32
	release := make(chan struct{})
	a.Handle("/test/cap", 0, func(s *Stream) {
		running.Add(1)
		<-release
	})
	broken := make(chan struct{}, maxPeerStreams+5)
	for range maxPeerStreams + 5 {
		s, err := b.Open(testContext(t), a.ID(), "/test/cap")
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Write(&wire.Signed{}) // makes the lazy negotiation happen
		_ = s.SetDeadline(time.Now().Add(time.Minute))
		go func() {
			_ = s.Read(new(wire.Signed))
			broken <- struct{}{}
		}()
	}
	for range 5 {
		<-broken
	}
	eventually(t, "16 are served", func() bool { return running.Load() == maxPeerStreams })
	if len(broken) != 0 {
		t.Errorf("%d refused", 5+len(broken))
	}
	close(release)
	for range maxPeerStreams {
		<-broken
	}
	eventually(t, "room again", func() bool {
		s, err := b.Open(testContext(t), a.ID(), "/test/cap")
		return err == nil && s.Write(&wire.Signed{}) == nil && errors.Is(s.Read(new(wire.Signed)), io.EOF)
	})
}

func TestLearn(t *testing.T) {
	h := testHost(t, onTCP)
	k := newKey(t)
	p, _ := peer.IDFromPrivateKey(k)
	from := newID(t)
	seal := func(seq uint64, addrs ...string) []byte {
		r := &peer.PeerRecord{PeerID: p, Seq: seq}
		for _, a := range addrs {
			r.Addrs = append(r.Addrs, ma.StringCast(a))
		}
		env, err := record.Seal(r, k)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := env.Marshal()
		return b
	}
	good := seal(5, "/ip4/1.1.1.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1/p2p/"+from.String()+"/p2p-circuit")
	if id, err := h.Learn(good, from, false); err != nil || id != p {
		t.Fatal(id, err)
	}
	if got := h.host.Peerstore().Addrs(p); len(got) != 1 || got[0].String() != "/ip4/1.1.1.1/tcp/1" {
		t.Errorf("kept %v", got)
	}
	if _, err := h.Learn(seal(4, "/ip4/2.2.2.2/tcp/1"), from, false); err != nil {
		t.Fatal(err)
	}
	if got := h.host.Peerstore().Addrs(p); len(got) != 1 {
		t.Errorf("an older record was taken: %v", got)
	}
	if _, err := h.Learn(seal(6, "/ip4/10.0.0.2/tcp/1"), from, true); err != nil {
		t.Fatal(err)
	}
	if got := h.host.Peerstore().Addrs(p); len(got) != 2 {
		t.Errorf("private addresses were asked for: %v", got)
	}
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	other, _ := record.Seal(&peer.PeerRecord{PeerID: from, Seq: 9, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/3.3.3.3/tcp/1")}}, k)
	forged, _ := other.Marshal()
	for what, c := range map[string]struct {
		rec  []byte
		want room.Reason
	}{
		"empty":     {nil, room.Malformed},
		"junk":      {[]byte("junk"), room.Malformed},
		"large":     {make([]byte, maxRecord+1), room.Malformed},
		"signature": {bad, room.BadSignature},
		"another's": {forged, room.BadSignature},
	} {
		if _, err := h.Learn(c.rec, from, true); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if got := h.host.Peerstore().Addrs(from); len(got) != 0 {
		t.Errorf("a forged record was taken: %v", got)
	}
}

// TestReferrer: who names many peers that do not answer is not listened to.
func TestReferrer(t *testing.T) {
	d := newDialBook()
	now := time.Unix(1_000_000, 0)
	bad, good := newID(t), newID(t)
	for range badReferrals {
		if d.silenced(bad, now) {
			t.Fatal("too early")
		}
		p := newID(t)
		d.newer(&peer.PeerRecord{PeerID: p, Seq: 1}, bad, now)
		d.done(p, false, nil, now)
	}
	if !d.silenced(bad, now) || d.silenced(good, now) {
		t.Error("the wrong one is silenced")
	}
	if d.silenced(bad, now.Add(retryAfter)) {
		t.Error("silenced for ever")
	}
	for range maxReferrals + 100 {
		d.newer(&peer.PeerRecord{PeerID: newFastID(), Seq: 1}, bad, now)
	}
	if len(d.peers) > maxReferrals {
		t.Errorf("%d entries", len(d.peers))
	}
}

var fastID uint32

func newFastID() peer.ID {
	fastID++
	return peer.ID([]byte{0, 4, byte(fastID >> 24), byte(fastID >> 16), byte(fastID >> 8), byte(fastID)})
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{3, 1, 2, 3})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{0x80, 0x80, 0x04, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readFrame(bufio.NewReader(bytes.NewReader(b)), 1000)
		if err != nil {
			if got != nil {
				t.Fatal("bytes with an error")
			}
			return
		}
		if len(got) > 1000 || !bytes.Contains(b, got) {
			t.Fatalf("%d bytes", len(got))
		}
	})
}

func FuzzOpenRecord(f *testing.F) {
	k := newKey(f)
	p, _ := peer.IDFromPrivateKey(k)
	env, err := record.Seal(peer.PeerRecordFromAddrInfo(peer.AddrInfo{ID: p, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/1.1.1.1/tcp/1")}}), k)
	if err != nil {
		f.Fatal(err)
	}
	good, _ := env.Marshal()
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := openRecord(b)
		if (rec == nil) == (err == nil) {
			t.Fatal(rec, err)
		}
		if err == nil && rec.PeerID != p && bytes.Equal(b, good) {
			t.Fatal("not the signer")
		}
		r, err := decodeRemembered(b)
		if err == nil && !bytes.Equal(r.encode(), b) {
			t.Fatal("round trip")
		}
	})
}

// TestNewAddresses: a peer that could not be dialled is tried again at once when a record brings an address that was not.
func TestNewAddresses(t *testing.T) {
	d, now, p, from := newDialBook(), time.Unix(1_000_000, 0), newID(t), newID(t)
	quic, tcp := ma.StringCast("/ip4/192.0.2.1/udp/1/quic-v1"), ma.StringCast("/ip4/192.0.2.1/tcp/1")
	d.newer(&peer.PeerRecord{PeerID: p, Seq: 1, Addrs: []ma.Multiaddr{quic}}, from, now)
	d.done(p, false, []ma.Multiaddr{quic}, now)
	d.newer(&peer.PeerRecord{PeerID: p, Seq: 1, Addrs: []ma.Multiaddr{quic}}, from, now)
	if !d.failedLately(p, now) {
		t.Error("tried again at the same address")
	}
	d.newer(&peer.PeerRecord{PeerID: p, Seq: 2, Addrs: []ma.Multiaddr{quic, tcp}}, from, now)
	if d.failedLately(p, now) {
		t.Error("left alone, though there is another address")
	}
}
