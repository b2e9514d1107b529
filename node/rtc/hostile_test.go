package rtc

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A page that sends garbage of every kind, inside and outside SRTP, harms nobody: its own next words are heard, and so is
// another page on the same socket.
func TestHostilePage(t *testing.T) {
	e := newEngine(t)
	type side struct {
		c  *client
		up chan UpFrame
	}
	join := func() (side, *Leg) {
		s := side{newClient(t, true, Slots), make(chan UpFrame, 1<<12)}
		leg := s.c.connect(e, LegConfig{Up: func(f UpFrame) {
			f.Payload = slices.Clone(f.Payload)
			select {
			case s.up <- f:
			default:
			}
		}})
		return s, leg
	}
	bad, badLeg := join()
	good, _ := join()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	noise := make([]byte, 1400)

	// From any port of this machine, and from the page's own address.
	stranger, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback.Addr(), e.mux.port)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Close() }()
	e.mux.mu.Lock()
	from := badLeg.path.remotes[0]
	e.mux.mu.Unlock()
	for i := range 20_000 {
		b := noise[:rng.IntN(len(noise))]
		for j := range min(len(b), 64) {
			b[j] = byte(rng.Uint32())
		}
		if len(b) > 0 && i%2 == 0 {
			b[0] = 0x80 | b[0]&0x3f
		}
		if i%10 == 0 {
			_, _ = stranger.Write(b)
		}
		if len(b) > 0 && b[0] == 21 {
			continue // a DTLS alert would end the leg, as it should
		}
		d := &datagram{from: from, n: len(b)}
		copy(d.buf[:], b)
		e.mux.receive(d)
	}
	// Inside SRTP: anything an RTP packet may hold.
	const garbage = 500
	for i := range uint16(garbage) {
		b := slices.Clone(noise[:1+rng.IntN(1200)])
		for j := range min(len(b), 8) {
			b[j] = byte(rng.Uint32())
		}
		bad.c.send(i, rng.Uint32(), int(i&0x7f), b)
		time.Sleep(time.Millisecond)
	}
	// Then both pages speak. Every rule of Up holds for what comes out.
	word := []byte{0xfc, 'w', 'o', 'r', 'd', 0, 0}
	for i := range uint16(100) {
		word[5], word[6] = byte(i>>8), byte(i)
		good.c.send(i, uint32(i)*TickSamples, 10, word)
		bad.c.send(garbage+i, 5_000_000+uint32(i)*TickSamples, 10, word)
		time.Sleep(2 * time.Millisecond)
	}
	for name, s := range map[string]side{"the hostile page": bad, "the other page": good} {
		last := make(chan struct{})
		go func() { // speak on until the last word is through
			for i := uint16(garbage + 100); ; i++ {
				select {
				case <-last:
					return
				case <-time.After(Tick):
					s.c.send(i, 9_000_000+uint32(i)*TickSamples, 10, []byte{0xfc, 'e', 'n', 'd'})
				}
			}
		}()
		next, words := uint32(0), 0
		for {
			var f UpFrame
			select {
			case f = <-s.up:
			case <-time.After(patience):
				t.Fatalf("%s is shut out: %+v", name, badLeg.Stats())
			}
			if f.Ctr < next || len(f.Payload) > MaxPayload || ticksOf(f.Payload) != f.Ticks {
				t.Fatalf("%s: %+v after %d", name, f, next)
			}
			next = f.Ctr + uint32(f.Ticks)
			if bytes.HasPrefix(f.Payload, []byte("\xfcend")) {
				break
			}
			if bytes.HasPrefix(f.Payload, []byte("\xfcword")) {
				words++
			}
		}
		close(last)
		if words < 90 { // the kernel may lose some of a flooded socket
			t.Errorf("%d of 100 words of %s were heard", words, name)
		}
	}
	e.mux.mu.Lock()
	streams := len(badLeg.path.streams)
	e.mux.mu.Unlock()
	if streams > maxStreams {
		t.Fatalf("%d streams", streams)
	}
}
