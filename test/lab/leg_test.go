//go:build linux

package lab

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/rtp"
	"github.com/pion/transport/v2"
	"github.com/pion/transport/v2/stdnet"
	"github.com/pion/webrtc/v3"

	"balai/test/stalls"
)

const (
	uriLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level" // RFC 6464
	tick     = 20 * time.Millisecond
	perTick  = 960     // samples
	wideTOC  = 15 << 3 // an Opus packet with one hybrid frame of 20 ms, RFC 6716 table 2
	loud     = 20      // -dBov
)

// leg is a program in the place of a person's browser, in the same namespace as the daemon: it says a numbered word each
// 20 ms as an Opus packet that nothing on the way may change, and keeps when it heard whose words.
type leg struct {
	d     *person
	room  string
	pc    *webrtc.PeerConnection
	mic   *webrtc.TrackLocalStaticRTP
	from  *webrtc.RTPSender
	quit  chan struct{}
	wg    sync.WaitGroup
	pause atomic.Int32 // silent ticks between two words

	mu    sync.Mutex
	said  int
	heard map[string][]word // by who said it
}

// word is one packet heard.
type word struct {
	n  int
	at time.Time
}

// sockets opens pion's sockets within a namespace.
type sockets struct {
	*stdnet.Net
	ns *netns
}

// ListenUDP is transport.Net.
func (s *sockets) ListenUDP(network string, at *net.UDPAddr) (c transport.UDPConn, err error) {
	err = s.ns.in(func() error {
		c, err = s.Net.ListenUDP(network, at)
		return err
	})
	return c, err
}

// newPC makes a connection that talks on the namespace's loopback alone; nil is that of this process.
func newPC(t testing.TB, ns *netns) *webrtc.PeerConnection {
	t.Helper()
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uriLevel}, webrtc.RTPCodecTypeAudio); err != nil {
		t.Fatal(err)
	}
	std, err := stdnet.NewNet() // loopback is all that is used, and each namespace has it
	if err != nil {
		t.Fatal(err)
	}
	var s webrtc.SettingEngine
	if ns != nil {
		s.SetNet(&sockets{std, ns})
	}
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() && ip.To4() != nil })
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	return pc
}

// attach connects a leg to a daemon's room; it talks from the start, but the microphone is off.
func attach(d *person, room string) *leg {
	t := d.t
	t.Helper()
	l := &leg{d: d, room: room, quit: make(chan struct{}), pc: newPC(t, d.at), heard: map[string][]word{}}
	t.Cleanup(l.close)
	var err error
	if l.mic, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, "mic", "mic"); err != nil {
		t.Fatal(err)
	}
	tr, err := l.pc.AddTransceiverFromTrack(l.mic, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	for range 3 {
		if err == nil {
			_, err = l.pc.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	l.from = tr.Sender()
	l.pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { l.listen(tr) })
	up := make(chan struct{})
	var once sync.Once
	l.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			once.Do(func() { close(up) })
		}
	})
	o, err := l.pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(l.pc)
	if err := l.pc.SetLocalDescription(o); err != nil {
		t.Fatal(err)
	}
	<-gathered
	var answer sdp
	d.do("POST", "/rooms/"+room+"/audio", sdp(l.pc.LocalDescription().SDP), &answer)
	if err := l.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: string(answer)}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-up:
	case <-time.After(patience):
		t.Fatal(d.name + ": the leg does not connect")
	}
	l.wg.Go(l.talk)
	return l
}

func (l *leg) close() {
	select {
	case <-l.quit:
		return
	default:
	}
	close(l.quit)
	l.wg.Wait()
	_ = l.pc.GracefulClose()
}

// talk says a word each tick of the clock, or after as many silent ticks as pause says.
func (l *leg) talk() {
	level := uint8(0)
	for _, h := range l.from.GetParameters().HeaderExtensions {
		if h.URI == uriLevel {
			level = uint8(h.ID)
		}
	}
	began := time.Now()
	silent := 0
	for i, said := 0, 0; ; i, said = i+1+silent, said+1 {
		select {
		case <-l.quit:
			return
		case <-time.After(time.Until(began.Add(time.Duration(i) * tick))):
		}
		p := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: uint16(said), Timestamp: uint32(i) * perTick, Marker: said == 0 || silent > 0}, Payload: payload(l.d.name, said)}
		_ = p.SetExtension(level, []byte{loud | 0x80}) // without it the level counts as unknown
		_ = l.mic.WriteRTP(p)                          // a leg that has ended sends nothing
		l.mu.Lock()
		l.said = said + 1
		l.mu.Unlock()
		silent = int(l.pause.Load())
	}
}

// payload is a word as an Opus packet that no decoder ever sees.
func payload(who string, n int) []byte { return fmt.Appendf([]byte{wideTOC}, " %s %d", who, n) }

func (l *leg) listen(tr *webrtc.TrackRemote) {
	for {
		p, _, err := tr.ReadRTP()
		if err != nil {
			return
		}
		var who string
		var n int
		if k, err := fmt.Sscanf(string(p.Payload[min(1, len(p.Payload)):]), " %s %d", &who, &n); err != nil || k != 2 {
			continue
		}
		l.mu.Lock()
		l.heard[who] = append(l.heard[who], word{n, time.Now()})
		l.mu.Unlock()
	}
}

// count is how many words of somebody were heard since a moment.
func (l *leg) count(who *person, since time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.heard[who.name]
	for i := len(w) - 1; i >= 0 && w[i].at.After(since); i-- {
		n++
	}
	return n
}

// hears waits until half a second of somebody's words is heard from now on.
func (l *leg) hears(who *person) {
	l.d.t.Helper()
	now := time.Now()
	eventually(l.d.t, l.d.name+" hears "+who.name, func() bool { return l.count(who, now) >= 25 })
}

// gap is the longest time between two words of somebody from one moment to another, without that in which the machine stood
// still. Nothing heard: all of it.
func (l *leg) gap(who *person, from, to time.Time) (most time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := from
	for _, w := range l.heard[who.name] {
		if w.at.After(from) && w.at.Before(to) {
			most = max(most, stalls.Ran(last, w.at))
			last = w.at
		}
	}
	return max(most, stalls.Ran(last, to))
}
