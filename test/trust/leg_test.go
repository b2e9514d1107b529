package trust

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"

	"balai/test/stalls"
)

const (
	uriLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level" // RFC 6464
	uriMid   = "urn:ietf:params:rtp-hdrext:sdes:mid"         // RFC 9143
	tick     = 20 * time.Millisecond
	perTick  = 960     // samples
	wideTOC  = 15 << 3 // an Opus packet with one hybrid frame of 20 ms, RFC 6716 table 2
	loud     = 20      // -dBov
)

// leg is a program in the place of the browser: it says numbered words of its own as Opus packets, which nothing on the
// way may change, and keeps what it hears.
type leg struct {
	d    *daemon
	room string
	name string
	pc   *webrtc.PeerConnection
	mic  *webrtc.TrackLocalStaticRTP
	from *webrtc.RTPSender
	at   string // Location
	quit chan struct{}
	wg   sync.WaitGroup

	mu     sync.Mutex
	silent bool
	said   int // words so far
	heard  []word
}

// word is one packet heard: who said it and which it was.
type word struct {
	who   string
	n     int
	at    time.Time
	slot  string
	seq   uint16
	stamp uint32
}

// newPC makes a connection with so many receiving tracks that talks on loopback alone.
func newPC(t *testing.T, receive int) *webrtc.PeerConnection {
	t.Helper()
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	for _, uri := range []string{uriLevel, uriMid} {
		if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, webrtc.RTPCodecTypeAudio); err != nil {
			t.Fatal(err)
		}
	}
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() && ip.To4() != nil })
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetICEMulticastDNSMode(1) // disabled
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	for range receive {
		if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			t.Fatal(err)
		}
	}
	return pc
}

func offerOf(t *testing.T, pc *webrtc.PeerConnection) []byte {
	t.Helper()
	o, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	done := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(o); err != nil {
		t.Fatal(err)
	}
	<-done
	return []byte(pc.LocalDescription().SDP)
}

// attach connects a leg to a daemon's room: it talks from the start, but the microphone is off.
func attach(d *daemon, room, name string) *leg {
	d.t.Helper()
	t := d.t
	l := &leg{d: d, room: room, name: name, quit: make(chan struct{}), pc: newPC(t, 3)}
	var err error
	if l.mic, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, "mic", "mic"); err != nil {
		t.Fatal(err)
	}
	tr, err := l.pc.AddTransceiverFromTrack(l.mic, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
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
	resp, body := d.request("POST", "/api/v1/rooms/"+room+"/audio", "application/sdp", offerOf(t, l.pc))
	if resp.StatusCode != 201 || resp.Header.Get("Location") == "" {
		t.Fatalf("the offer: %s\n%s", resp.Status, body)
	}
	l.at = resp.Header.Get("Location")
	if err := l.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: string(body)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	select {
	case <-up:
	case <-time.After(patience):
		t.Fatal(name + ": the leg does not connect")
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

// hangUp ends the leg by the API.
func (l *leg) hangUp() {
	l.d.t.Helper()
	if resp, _ := l.d.request("DELETE", l.at, "", nil); resp.StatusCode != 204 {
		l.d.t.Fatalf("DELETE %s: %s", l.at, resp.Status)
	}
	l.close()
}

// talk says a word each tick of the clock; while silent not one packet is sent, but time goes on.
func (l *leg) talk() {
	levelID := uint8(0)
	for _, h := range l.from.GetParameters().HeaderExtensions {
		if h.URI == uriLevel {
			levelID = uint8(h.ID)
		}
	}
	began, seq, marker := time.Now(), uint16(0), true
	for i := uint32(0); ; i++ {
		select {
		case <-l.quit:
			return
		case <-time.After(time.Until(began.Add(time.Duration(i) * tick))):
		}
		l.mu.Lock()
		silent := l.silent
		if !silent {
			l.said++
		}
		n := l.said
		l.mu.Unlock()
		if silent {
			marker = true
			continue
		}
		p := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: i * perTick, Marker: marker}, Payload: payload(l.name, n)}
		_ = p.SetExtension(levelID, []byte{loud | 0x80}) // without it the level counts as unknown
		_ = l.mic.WriteRTP(p)                            // a leg that has ended sends nothing
		seq++
		marker = false
	}
}

// payload is a word as an Opus packet that no decoder ever sees.
func payload(who string, n int) []byte { return fmt.Appendf([]byte{wideTOC}, " %s %d", who, n) }

// parse reads a payload back; anything else was never said.
func parse(b []byte) (w word, ok bool) {
	n, err := fmt.Sscanf(string(b[min(1, len(b)):]), " %s %d", &w.who, &w.n)
	return w, err == nil && n == 2 && string(payload(w.who, w.n)) == string(b)
}

func (l *leg) listen(tr *webrtc.TrackRemote) {
	for {
		p, _, err := tr.ReadRTP()
		if err != nil {
			return
		}
		if len(p.Payload) == 0 {
			continue
		}
		w, ok := parse(p.Payload)
		if !ok {
			w.who = fmt.Sprintf("junk %x", p.Payload)
		}
		w.at, w.slot, w.seq, w.stamp = time.Now(), tr.ID(), p.SequenceNumber, p.Timestamp
		l.mu.Lock()
		l.heard = append(l.heard, w)
		l.mu.Unlock()
	}
}

// hush makes the person silent or not, and tells how many words were said so far.
func (l *leg) hush(silent bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = silent
	return l.said
}

// words are those heard of somebody since a moment.
func (l *leg) words(who string, since time.Time) (out []word) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.heard {
		if w.who == who && w.at.After(since) {
			out = append(out, w)
		}
	}
	return out
}

// junk is what was heard and never said.
func (l *leg) junk() (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.heard {
		if strings.HasPrefix(w.who, "junk") {
			out = append(out, w.who)
		}
	}
	return out
}

// hears waits until some words of somebody are heard from now on.
func (l *leg) hears(who string) {
	l.d.t.Helper()
	now := time.Now()
	eventually(l.d.t, l.name+" hears "+who, func() bool { return len(l.words(who, now)) > 5 })
}

// witness is what had been sent and opened of a speaker when a test began to look.
type witness struct {
	at           time.Time
	sent, opened uint64
	skew         time.Duration // between the two readings
}

// watch begins to look how a listener hears a speaker. The counters are told once a second: it waits until they are new.
func (h *hall) watch() witness {
	t := h.ana.t
	t.Helper()
	fresh := func(what string, now func() uint64) (n uint64) {
		was := now()
		eventually(t, what, func() bool { n = now(); return n != was })
		return n
	}
	w := witness{at: time.Now()}
	w.sent = fresh("the speaker's counter", func() uint64 { return h.ana.uplink(h.id) })
	first := time.Now()
	w.opened = fresh("the listener's counter", func() uint64 { s, _ := h.budi.stats(h.id, h.ana.id); return s.Opened })
	w.skew = time.Since(first)
	return w
}

// heardAllTheTime shows that the honest speaker was heard since: each word once, nearly all that were sent opened, and nearly
// all that opened played. Shares, so that a busy machine, on which a microphone stutters, does not move them.
func (h *hall) heardAllTheTime(w witness) {
	t := h.ana.t
	t.Helper()
	const enough = 300 // frames: what was done may have taken less time
	eventually(t, "the honest speaker has said enough", func() bool { return h.ana.uplink(h.id)-w.sent >= enough })
	h.speaks.hush(true) // the counters of both come to rest, however late they are told
	defer h.speaks.hush(false)
	var sent, opened uint64
	var all []word
	var since time.Time
	eventually(t, "nothing is on its way any more", func() bool {
		s, _ := h.budi.stats(h.id, h.ana.id)
		a, b, c := h.ana.uplink(h.id)-w.sent, s.Opened-w.opened, h.listens.words("ana", w.at)
		if a != sent || b != opened || len(c) != len(all) {
			sent, opened, all, since = a, b, c, time.Now()
		}
		return stalls.Took(since) > 2500*time.Millisecond
	})
	distinct := map[int]bool{}
	for _, x := range all {
		distinct[x.n] = true
	}
	t.Logf("of the honest speaker %d frames were sent, %d opened, %d heard", sent, opened, len(all))
	// Frames that were on their way when it began, and between the two readings; and while nobody ran, but not so many that nothing
	// is shown any more.
	stale := uint64(10+w.skew/tick) + min(sent/5, uint64(stalls.Stood(w.at, since)/tick))
	if opened+stale < sent*8/10 || uint64(len(distinct))+stale < opened*9/10 {
		t.Error("the honest speaker is not heard all the time")
	}
	if len(distinct) != len(all) {
		t.Errorf("%d words of the honest speaker were heard twice", len(all)-len(distinct))
	}
	if j := h.listens.junk(); len(j) > 0 {
		t.Errorf("heard and never said: %q", j[0])
	}
}
