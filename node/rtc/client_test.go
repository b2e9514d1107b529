package rtc

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// patience is how long a test waits for what must come; nothing passes by being quick.
const patience = 10 * time.Second

func newEngine(t testing.TB) *Engine {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("RTC_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	e, err := New(Config{Log: log, Listen: loopback})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// heard is one packet a client received, and on which slot.
type heard struct {
	track string
	*rtp.Packet
}

// client is a pion peer connection in the place of the browser.
type client struct {
	t       testing.TB
	pc      *webrtc.PeerConnection
	mic     *webrtc.TrackLocalStaticRTP
	sender  *webrtc.RTPSender
	heard   chan heard
	stop    chan struct{}
	levelID uint8
}

// newClient makes a connection with so many receiving tracks, and a microphone if send.
func newClient(t testing.TB, send bool, receive int) *client {
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
	c := &client{t: t, pc: pc, heard: make(chan heard, 1<<12), stop: make(chan struct{})}
	t.Cleanup(c.close)
	if send {
		c.mic, err = webrtc.NewTrackLocalStaticRTP(opusCapability, "mic", "mic")
		if err != nil {
			t.Fatal(err)
		}
		tr, err := pc.AddTransceiverFromTrack(c.mic, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		if err != nil {
			t.Fatal(err)
		}
		c.sender = tr.Sender()
	}
	for range receive {
		_, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio,
			webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
		if err != nil {
			t.Fatal(err)
		}
	}
	pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := tr.ReadRTP()
			if err != nil {
				return
			}
			select {
			case c.heard <- heard{tr.ID(), p}:
			case <-c.stop:
				return
			}
		}
	})
	return c
}

func (c *client) close() {
	select {
	case <-c.stop:
		return
	default:
	}
	close(c.stop)
	_ = c.pc.GracefulClose()
}

func (c *client) offer() string {
	c.t.Helper()
	d, err := c.pc.CreateOffer(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	done := webrtc.GatheringCompletePromise(c.pc)
	if err := c.pc.SetLocalDescription(d); err != nil {
		c.t.Fatal(err)
	}
	<-done
	return c.pc.LocalDescription().SDP
}

func (c *client) accept(answer string) {
	c.t.Helper()
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		c.t.Fatalf("%v\n%s", err, answer)
	}
	if c.sender != nil {
		for _, h := range c.sender.GetParameters().HeaderExtensions {
			if h.URI == uriLevel {
				c.levelID = uint8(h.ID)
			}
		}
	}
}

// connect puts the client on a leg and waits for both to be connected.
func (c *client) connect(e *Engine, cfg LegConfig) *Leg {
	c.t.Helper()
	up := make(chan struct{}, 1)
	told := cfg.State
	cfg.State = func(s State) {
		if told != nil {
			told(s)
		}
		if s == Connected {
			select {
			case up <- struct{}{}:
			default:
			}
		}
	}
	theirs := c.connected()
	leg, answer, err := e.Answer(c.t.Context(), c.offer(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.accept(answer)
	c.await(up)
	c.await(theirs)
	return leg
}

// connected has something when the client is connected; what it sends before is lost.
func (c *client) connected() <-chan struct{} {
	ch := make(chan struct{}, 1)
	c.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			ch <- struct{}{}
		}
	})
	return ch
}

// await waits for one side to be connected.
func (c *client) await(side <-chan struct{}) {
	c.t.Helper()
	select {
	case <-side:
	case <-time.After(patience):
		c.t.Fatal("not connected")
	}
}

// send sends one packet of the microphone.
func (c *client) send(seq uint16, stamp uint32, level int, payload []byte) {
	c.t.Helper()
	p := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: stamp}, Payload: payload}
	if level >= 0 {
		if err := p.SetExtension(c.levelID, []byte{byte(level)}); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.mic.WriteRTP(p); err != nil {
		c.t.Fatal(err)
	}
}

// hear waits for the next packet.
func (c *client) hear() heard {
	c.t.Helper()
	select {
	case h := <-c.heard:
		return h
	case <-time.After(patience):
		c.t.Fatal("nothing heard")
		return heard{}
	}
}

// speech is the Opus packets of testdata/speech.opus: 20 ms each, mono.
func speech(t testing.TB) [][]byte {
	t.Helper()
	raw, err := os.ReadFile("testdata/speech.opus")
	if err != nil {
		t.Fatal(err)
	}
	all, err := oggPackets(raw)
	if err != nil || len(all) < 300 {
		t.Fatalf("%d packets, %v", len(all), err)
	}
	return all[2:] // head and tags
}

// oggPackets takes the packets of an Ogg stream apart (RFC 3533 section 6).
func oggPackets(b []byte) ([][]byte, error) {
	var out [][]byte
	var part []byte
	for len(b) > 0 {
		const header = 27
		if len(b) < header || string(b[:4]) != "OggS" {
			return nil, errors.New("not an Ogg page")
		}
		n := int(b[26])
		if len(b) < header+n {
			return nil, io.ErrUnexpectedEOF
		}
		laces, body := b[header:header+n], b[header+n:]
		for _, l := range laces {
			if len(body) < int(l) {
				return nil, io.ErrUnexpectedEOF
			}
			part = append(part, body[:l]...)
			body = body[l:]
			if l < 255 {
				out, part = append(out, part), nil
			}
		}
		b = body
	}
	return out, nil
}

// rtpBytes builds a raw RTP packet.
func rtpBytes(pt uint8, seq uint16, stamp, ssrc uint32, payload []byte) []byte {
	b := make([]byte, rtpHeader, rtpHeader+len(payload))
	b[0], b[1] = 0x80, pt
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], stamp)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return append(b, payload...)
}
