package rtc

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	maxDatagram = 2048 // larger packets are not ours
	queueLen    = 64   // packets waiting for one local address of one leg
	maxRemotes  = 64   // addresses one leg may be reached from
	maxStreams  = 8    // SSRCs one leg may send
	packetRate  = 1000 // packets a second a leg may send, all kinds; Opus at 2.5 ms is 400
)

// mux is the one UDP socket. It stands below ICE and lets through only what comes from this machine and belongs to a leg:
// STUN by user name, everything else by an address that proved itself with an authenticated STUN request.
type mux struct {
	conn  *net.UDPConn
	bound netip.Addr // unspecified: all own addresses
	port  uint16
	own   *hosts
	now   func() time.Time
	done  chan struct{} // closed when read returns
	pool  sync.Pool

	mu      sync.Mutex
	ufrags  map[string]*path
	remotes map[netip.AddrPort]*path
}

type datagram struct {
	from netip.AddrPort
	n    int
	buf  [maxDatagram]byte
}

func listen(at netip.AddrPort, now func() time.Time) (*mux, error) {
	network, addr := "udp", at
	if !at.Addr().IsValid() {
		addr = netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port())
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil && !at.Addr().IsValid() { // no IPv6 here
		addr = netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
	}
	if err != nil {
		return nil, err
	}
	m := &mux{
		conn: conn, bound: addr.Addr(), own: newHosts(now), now: now, done: make(chan struct{}),
		ufrags: map[string]*path{}, remotes: map[netip.AddrPort]*path{},
	}
	if ua, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		m.port = ua.AddrPort().Port()
	}
	m.pool.New = func() any { return new(datagram) }
	go m.read()
	return m, nil
}

func (m *mux) close() error {
	err := m.conn.Close()
	<-m.done
	return err
}

// addrs is where legs can be reached now.
func (m *mux) addrs() []net.Addr {
	all := []netip.Addr{m.bound}
	if m.bound.IsUnspecified() {
		all = m.own.candidates()
	}
	var out []net.Addr
	for _, a := range all {
		if m.bound.Is4() && !a.Is4() {
			continue
		}
		out = append(out, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, m.port)))
	}
	return out
}

func (m *mux) read() {
	defer close(m.done)
	for {
		d := m.pool.Get().(*datagram)
		n, from, err := m.conn.ReadFromUDPAddrPort(d.buf[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n == len(d.buf) { // Windows reports an earlier send's ICMP error here
			m.pool.Put(d)
			continue
		}
		d.n, d.from = n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if !m.receive(d) {
			m.pool.Put(d)
		}
	}
}

// receive hands d to its leg; false if it was dropped.
func (m *mux) receive(d *datagram) bool {
	b := d.buf[:d.n]
	if len(b) == 0 || !m.own.has(d.from.Addr()) {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.remotes[d.from]
	if u := ufragOf(b); u != "" {
		p = m.ufrags[u]
	}
	if p == nil || !p.admit(b) {
		return false
	}
	e := p.endFor(d.from.Addr())
	if e == nil {
		return false
	}
	select {
	case e.in <- d:
		return true
	default:
		p.count.drop(DropFlood)
		return false
	}
}

// ufragOf returns our half of the user name of a STUN binding request, "" for anything else (RFC 8489 section 5).
func ufragOf(b []byte) string {
	const header, cookie, username = 20, 0x2112a442, 0x0006
	u16 := func(b []byte) int { return int(b[0])<<8 | int(b[1]) }
	if len(b) < header || u16(b) != 0x0001 || u16(b[4:])<<16|u16(b[6:]) != cookie || u16(b[2:]) != len(b)-header {
		return ""
	}
	for a := b[header:]; len(a) >= 4; {
		kind, n := u16(a), u16(a[2:])
		padded := 4 + (n+3)&^3
		if 4+n > len(a) || padded > len(a) {
			return ""
		}
		if kind == username {
			for i, c := range a[4 : 4+n] {
				if c == ':' {
					return string(a[4 : 4+i])
				}
			}
			return ""
		}
		a = a[padded:]
	}
	return ""
}

// path is one leg's share of the socket. It is the ice.UDPMux of that leg's agent.
type path struct {
	mux    *mux
	count  *counters
	stream func(ssrc uint32) // an SSRC not seen before; must not block
	alert  func()            // the other side ends DTLS; must not block

	// Guarded by mux.mu.
	closed  bool
	ufrags  []string
	ends    []*end
	remotes []netip.AddrPort
	media   bool            // SRTP is ready for packets
	streams map[uint32]bool // true: SRTP reads it
	tokens  float64
	filled  time.Time
}

// admit decides on a packet of this leg. Called with mux.mu held.
func (p *path) admit(b []byte) bool {
	if !p.spend() {
		p.count.drop(DropFlood)
		return false
	}
	const dtlsAlert, dtlsHeader = 21, 13
	switch {
	case b[0] < 4: // STUN (RFC 7983)
		return true
	case b[0] == dtlsAlert && p.media && len(b) >= dtlsHeader && (b[3] != 0 || b[4] != 0):
		p.alert() // encrypted, so it is not an error of the handshake
		return true
	case b[0] >= 20 && b[0] < 64: // DTLS
		return true
	case b[0] < 128 || b[0] >= 192 || len(b) < rtpHeader:
		p.count.drop(DropMalformed)
		return false
	case b[1] >= 192 && b[1] < 224: // RTCP (RFC 5761 section 4)
		p.count.drop(DropControl)
		return false
	}
	return p.media && p.follow(uint32(b[8])<<24|uint32(b[9])<<16|uint32(b[10])<<8|uint32(b[11]))
}

// follow says whether SRTP reads this SSRC; a new one is asked for, up to maxStreams. An SSRC that nobody reads would
// stop pion's SRTP session, and each one costs memory before it is authenticated.
func (p *path) follow(ssrc uint32) bool {
	ready, known := p.streams[ssrc]
	if !known && len(p.streams) < maxStreams {
		p.streams[ssrc] = false
		p.stream(ssrc)
	}
	if !ready {
		p.count.drop(DropStream)
	}
	return ready
}

// spend takes one packet from the leg's allowance.
func (p *path) spend() bool {
	now := p.mux.now()
	p.tokens = min(p.tokens+now.Sub(p.filled).Seconds()*packetRate, packetRate)
	p.filled = now
	if p.tokens < 1 {
		return false
	}
	p.tokens--
	return true
}

// endFor is the local address that a packet from remote was most likely sent to: on one machine, the same one.
func (p *path) endFor(remote netip.Addr) *end {
	var best *end
	for _, e := range p.ends {
		if e.local.Addr() == remote {
			return e
		}
		if best == nil && e.local.Addr().Is4() == remote.Is4() {
			best = e
		}
	}
	return best
}

// allow says that SRTP is ready for this SSRC.
func (p *path) allow(ssrc uint32) {
	p.mux.mu.Lock()
	defer p.mux.mu.Unlock()
	p.media = true
	p.streams[ssrc] = true
}

// ready says that SRTP is ready, before any SSRC is known.
func (p *path) ready() {
	p.mux.mu.Lock()
	defer p.mux.mu.Unlock()
	p.media = true
}

// bind sends what comes from this address to this leg, once the leg's agent has authenticated a request from there.
func (p *path) bind(remote netip.AddrPort) {
	p.mux.mu.Lock()
	defer p.mux.mu.Unlock()
	if p.closed || p.mux.remotes[remote] == p || len(p.remotes) >= maxRemotes {
		return
	}
	p.mux.remotes[remote] = p
	p.remotes = append(p.remotes, remote)
}

// GetConn returns the packet connection of one local address (ice.UDPMux).
func (p *path) GetConn(ufrag string, addr net.Addr) (net.PacketConn, error) {
	ua, ok := addr.(*net.UDPAddr)
	if !ok {
		return nil, &net.AddrError{Err: "not a UDP address", Addr: addr.String()}
	}
	p.mux.mu.Lock()
	defer p.mux.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	if p.mux.ufrags[ufrag] == nil {
		p.mux.ufrags[ufrag] = p
		p.ufrags = append(p.ufrags, ufrag)
	}
	e := &end{
		path: p, addr: ua, local: netip.AddrPortFrom(ua.AddrPort().Addr().Unmap(), ua.AddrPort().Port()),
		in: make(chan *datagram, queueLen), closed: make(chan struct{}),
	}
	p.ends = append(p.ends, e)
	return e, nil
}

// RemoveConnByUfrag ends all connections of the leg (ice.UDPMux). The agent also calls it before it asks for any.
func (p *path) RemoveConnByUfrag(string) {
	p.mux.mu.Lock()
	defer p.mux.mu.Unlock()
	p.clear()
}

// GetListenAddresses lists the addresses to offer as candidates (ice.UDPMux).
func (p *path) GetListenAddresses() []net.Addr { return p.mux.addrs() }

// Close forgets the leg; the socket stays (ice.UDPMux).
func (p *path) Close() error {
	p.mux.mu.Lock()
	defer p.mux.mu.Unlock()
	p.closed = true
	p.clear()
	return nil
}

// clear ends the connections. Called with mux.mu held.
func (p *path) clear() {
	for _, u := range p.ufrags {
		delete(p.mux.ufrags, u)
	}
	for _, r := range p.remotes {
		if p.mux.remotes[r] == p {
			delete(p.mux.remotes, r)
		}
	}
	for _, e := range p.ends {
		_ = e.Close()
	}
	p.ufrags, p.remotes, p.ends = nil, nil, nil
}

// addrs is where the leg can be reached.
func (p *path) addrs() []*net.UDPAddr {
	p.mux.mu.Lock()
	defer p.mux.mu.Unlock()
	var out []*net.UDPAddr
	for _, e := range p.ends {
		out = append(out, e.addr)
	}
	return out
}

// end is one local address of one leg, a net.PacketConn for its ICE candidate.
type end struct {
	path   *path
	addr   *net.UDPAddr
	local  netip.AddrPort
	in     chan *datagram
	closed chan struct{}
	once   sync.Once

	// Owned by the reader.
	from     netip.AddrPort
	fromAddr *net.UDPAddr
}

func (e *end) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-e.closed:
		return 0, nil, io.EOF
	case d := <-e.in:
		n := copy(b, d.buf[:d.n])
		if d.from != e.from || e.fromAddr == nil {
			e.from, e.fromAddr = d.from, net.UDPAddrFromAddrPort(d.from)
		}
		e.path.mux.pool.Put(d)
		return n, e.fromAddr, nil
	}
}

// WriteTo sends b, to this machine only; what is meant for another is swallowed.
func (e *end) WriteTo(b []byte, addr net.Addr) (int, error) {
	ua, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, &net.AddrError{Err: "not a UDP address", Addr: addr.String()}
	}
	select {
	case <-e.closed:
		return 0, io.ErrClosedPipe
	default:
	}
	to := ua.AddrPort()
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if !e.path.mux.own.has(to.Addr()) {
		return len(b), nil
	}
	if len(b) > 1 && b[0] == 1 && b[1] == 1 { // binding success: the request was authentic
		e.path.bind(to)
	}
	return e.path.mux.conn.WriteToUDPAddrPort(b, to)
}

func (e *end) Close() error {
	e.once.Do(func() { close(e.closed) })
	return nil
}

func (e *end) LocalAddr() net.Addr              { return e.addr }
func (e *end) SetDeadline(time.Time) error      { return nil }
func (e *end) SetReadDeadline(time.Time) error  { return nil }
func (e *end) SetWriteDeadline(time.Time) error { return nil }
