package rtc

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"
)

// testMux is a mux without a socket.
func testMux(c *clock) *mux {
	m := &mux{own: newHosts(c.now), now: c.now, ufrags: map[string]*path{}, remotes: map[netip.AddrPort]*path{}}
	m.own.read = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.9")} }
	m.pool.New = func() any { return new(datagram) }
	return m
}

// testPath is a leg of it, reached at 127.0.0.1:5000 and from remote.
func testPath(m *mux, remote netip.AddrPort) (*path, *end) {
	p := &path{
		mux: m, count: &counters{}, streams: map[uint32]bool{}, tokens: packetRate, filled: m.now(),
		stream: func(uint32) {}, alert: func() {},
	}
	c, err := p.GetConn("mine", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:5000")))
	if err != nil {
		panic(err)
	}
	p.bind(remote)
	return p, c.(*end)
}

func (m *mux) deliver(from netip.AddrPort, b []byte) bool {
	d := &datagram{from: from, n: len(b)}
	copy(d.buf[:], b)
	return m.receive(d)
}

// stunRequest is a binding request of a user name.
func stunRequest(user string) []byte {
	b := make([]byte, 20, 64)
	binary.BigEndian.PutUint16(b, 1)
	binary.BigEndian.PutUint32(b[4:], 0x2112a442)
	b = binary.BigEndian.AppendUint16(b, 0x8022) // software, before it
	b = append(b, 0, 3, 'a', 'b', 'c', 0)
	b = binary.BigEndian.AppendUint16(b, 6)
	b = binary.BigEndian.AppendUint16(b, uint16(len(user)))
	b = append(b, user...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-20))
	return b
}

func TestOtherHostsAreDropped(t *testing.T) {
	m := testMux(newClock())
	p, _ := testPath(m, netip.MustParseAddrPort("127.0.0.1:6000"))
	for from, want := range map[string]bool{
		"127.0.0.1:6001":      true,
		"127.3.2.1:9":         true,
		"192.0.2.9:7":         true, // our own interface
		"192.0.2.10:7":        false,
		"203.0.113.5:7":       false,
		"[2001:db8::1]:7":     false,
		"[fe80::1%eth0]:7":    false,
		"[::1]:7":             false, // ours, but there is no IPv6 candidate
		"255.255.255.255:100": false,
	} {
		if got := m.deliver(netip.MustParseAddrPort(from), stunRequest("mine:theirs")); got != want {
			t.Errorf("from %s: %v, want %v", from, got, want)
		}
	}
	if m.deliver(netip.MustParseAddrPort("127.0.0.1:6002"), stunRequest("other:theirs")) {
		t.Error("a stranger's user name was let through")
	}
	if m.deliver(netip.MustParseAddrPort("127.0.0.1:6002"), []byte{22, 254, 253, 0}) {
		t.Error("DTLS of an address that never proved itself was let through")
	}
	_ = p.Close()
	if m.deliver(netip.MustParseAddrPort("127.0.0.1:6000"), stunRequest("mine:theirs")) || len(m.remotes)+len(m.ufrags) != 0 {
		t.Error("a closed leg leaves something behind")
	}
}

func TestNothingIsSentElsewhere(t *testing.T) {
	e := newEngine(t)
	e.mux.own.read = func() []netip.Addr { return nil }
	p := &path{mux: e.mux, count: &counters{}, streams: map[uint32]bool{}}
	t.Cleanup(func() { _ = p.Close() })
	c, err := p.GetConn("u", e.mux.addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	success := append([]byte{1, 1}, make([]byte, 18)...)
	n, err := c.WriteTo(success, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.77:9")))
	if n != len(success) || err != nil || len(p.remotes) != 0 {
		t.Fatalf("%d %v %v", n, err, p.remotes)
	}
	sock, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sock.Close() }()
	if _, err := c.WriteTo(success, sock.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	_ = sock.SetReadDeadline(time.Now().Add(patience))
	if n, _, err := sock.ReadFromUDP(b); n != len(success) || err != nil || len(p.remotes) != 1 {
		t.Fatalf("%d %v %v", n, err, p.remotes)
	}
}

// An address speaks for the leg whose agent authenticated it last; a request alone moves nothing.
func TestAddressIsNotStolen(t *testing.T) {
	m := testMux(newClock())
	browser := netip.MustParseAddrPort("127.0.0.1:6000")
	a, ends := testPath(m, browser)
	b := &path{mux: m, count: &counters{}, streams: map[uint32]bool{}, tokens: 10, filled: m.now()}
	if _, err := b.GetConn("other", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:5000"))); err != nil {
		t.Fatal(err)
	}
	m.deliver(browser, stunRequest("other:x"))
	if m.remotes[browser] != a || !m.deliver(browser, []byte{22, 254, 253, 0}) || len(ends.in) != 1 {
		t.Fatal("an unauthenticated request moved an address")
	}
	b.bind(browser)
	if m.remotes[browser] != b {
		t.Fatal("an authenticated one did not")
	}
	_ = a.Close()
	if m.remotes[browser] != b {
		t.Fatal("the old leg took the address along")
	}
}

func TestFloodsAreCapped(t *testing.T) {
	c := newClock()
	m := testMux(c)
	browser := netip.MustParseAddrPort("127.0.0.1:6000")
	p, e := testPath(m, browser)
	asked := 0
	p.stream = func(uint32) { asked++ }
	drain := func() {
		for len(e.in) > 0 {
			<-e.in
		}
	}
	if m.deliver(browser, rtpBytes(111, 1, 1, 1, opus20)) || asked != 0 {
		t.Fatal("media before SRTP is there")
	}
	p.allow(7)
	for i := range uint32(100_000) {
		c.wait(2 * time.Millisecond)
		m.deliver(browser, rtpBytes(111, 1, 1, 1000+i, opus20))
		m.deliver(browser, []byte{0x80, 201, 0, 1, 0, 0, byte(i >> 8), byte(i), 0, 0, 0, 0})
		drain()
	}
	if asked >= maxStreams || len(p.streams) > maxStreams {
		t.Fatalf("%d streams asked for, %d kept", asked, len(p.streams))
	}
	s := p.count.stats().Dropped
	if s[DropStream] != 100_000 || s[DropControl] != 100_000 {
		t.Fatalf("%v", s)
	}
	if !m.deliver(browser, rtpBytes(111, 1, 1, 7, opus20)) {
		t.Fatal("the honest stream is shut out")
	}
	for range 3 * packetRate { // at one instant, unread
		m.deliver(browser, rtpBytes(111, 1, 1, 7, opus20))
	}
	if len(e.in) != queueLen {
		t.Fatalf("%d packets are kept", len(e.in))
	}
	drain()
	if m.deliver(browser, rtpBytes(111, 1, 1, 7, opus20)) {
		t.Fatal("the allowance has no end")
	}
	c.wait(time.Second)
	if !m.deliver(browser, rtpBytes(111, 1, 1, 7, opus20)) {
		t.Fatal("the allowance does not come back")
	}
}

func TestOwnAddressesAreReadAgain(t *testing.T) {
	c := newClock()
	reads := 0
	h := newHosts(c.now)
	var mine []netip.Addr
	h.read = func() []netip.Addr { reads++; return mine }
	a := netip.MustParseAddr("192.0.2.1")
	if h.has(a) {
		t.Fatal("a stranger is known")
	}
	mine = []netip.Addr{a, netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::5")}
	for range 1000 {
		h.has(a)
	}
	if reads != 1 {
		t.Fatalf("strangers cost %d reads", reads)
	}
	c.wait(hostsRetry)
	if !h.has(a) {
		t.Fatal("a new address is not found")
	}
	if got := h.candidates(); len(got) != 3 || got[0].String() != "127.0.0.1" {
		t.Fatalf("%v", got)
	}
	mine = nil
	c.wait(hostsFresh)
	if h.has(a) {
		t.Fatal("an old address is kept")
	}
}

// A leg on all addresses offers loopback and every interface, and only those.
func TestCandidates(t *testing.T) {
	c := newClock()
	m := testMux(c)
	m.port = 5000
	for bound, want := range map[string][]string{
		"::":        {"127.0.0.1:5000", "192.0.2.9:5000"},
		"0.0.0.0":   {"127.0.0.1:5000", "192.0.2.9:5000"},
		"127.0.0.1": {"127.0.0.1:5000"},
	} {
		m.bound = netip.MustParseAddr(bound)
		var got []string
		for _, a := range m.addrs() {
			got = append(got, a.String())
		}
		if len(got) != len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("%s: %v, want %v", bound, got, want)
		}
	}
}

func FuzzUfrag(f *testing.F) {
	f.Add(stunRequest("mine:theirs"))
	f.Add(stunRequest("mine"))
	f.Add(stunRequest(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		if u := ufragOf(b); len(u) > len(b) {
			t.Fatal(u)
		}
		m := testMux(newClock())
		browser := netip.MustParseAddrPort("127.0.0.1:6000")
		p, _ := testPath(m, browser)
		p.allow(7)
		if len(b) <= maxDatagram {
			m.deliver(browser, b)
		}
	})
}
