package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"
)

const (
	tick        = 20 * time.Millisecond
	tickSamples = 960 // at 48 kHz
	frameLength = 80  // of an Opus packet at 32 kbit/s
	opusFull20  = 0xf8
	speechLevel = 30 // -dBov
	levelURI    = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
)

// newPion is pion v3 as it comes, on loopback only, with Opus.
func newPion() (*webrtc.API, error) {
	m := &webrtc.MediaEngine{}
	err := m.RegisterCodec(webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1"},
		PayloadType:        111,
	}, webrtc.RTPCodecTypeAudio)
	if err != nil {
		return nil, err
	}
	if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: levelURI}, webrtc.RTPCodecTypeAudio); err != nil {
		return nil, err
	}
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() && ip.To4() != nil })
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	return webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s)), nil
}

// microphone speaks noise into a room: packets of the length and pace of speech.
type microphone struct {
	pc    *webrtc.PeerConnection
	track *webrtc.TrackLocalStaticRTP
	level uint8 // id of the header extension
	stop  chan struct{}
	wg    sync.WaitGroup
}

func newMicrophone() (*microphone, error) {
	pion, err := newPion()
	if err != nil {
		return nil, err
	}
	pc, err := pion.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, err
	}
	m := &microphone{pc: pc, stop: make(chan struct{})}
	m.track, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "mic", "mic")
	if err == nil {
		_, err = pc.AddTransceiverFromTrack(m.track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	}
	if err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *microphone) close() {
	close(m.stop)
	m.wg.Wait()
	_ = m.pc.Close()
}

// connect makes a leg to a room, turns the microphone on and talks until close.
func (m *microphone) connect(ctx context.Context, d *daemon, room string) error {
	up := make(chan struct{})
	var once sync.Once
	m.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			once.Do(func() { close(up) })
		}
	})
	offer, err := m.pc.CreateOffer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(m.pc)
	if err := m.pc.SetLocalDescription(offer); err != nil {
		return err
	}
	<-gathered
	answer, err := d.leg(ctx, room, m.pc.LocalDescription().SDP)
	if err != nil {
		return err
	}
	if err := m.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		return err
	}
	for _, h := range m.pc.GetSenders()[0].GetParameters().HeaderExtensions {
		if h.URI == levelURI {
			m.level = uint8(h.ID)
		}
	}
	select {
	case <-up:
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(patience):
		return errors.New("the microphone's leg does not connect")
	}
	if err := d.unmute(ctx, room); err != nil {
		return err
	}
	m.wg.Go(m.talk)
	return nil
}

func (m *microphone) talk() {
	clock := time.NewTicker(tick)
	defer clock.Stop()
	p := &rtp.Packet{Header: rtp.Header{Version: 2}, Payload: make([]byte, frameLength)}
	for {
		select {
		case <-m.stop:
			return
		case <-clock.C:
		}
		p.SequenceNumber++
		p.Timestamp += tickSamples
		for i := range p.Payload {
			p.Payload[i] = byte(rand.Uint32())
		}
		p.Payload[0] = opusFull20
		if m.level != 0 {
			if err := p.SetExtension(m.level, []byte{speechLevel}); err != nil {
				panic("impossible: " + err.Error())
			}
		}
		if err := m.track.WriteRTP(p); err != nil {
			return
		}
	}
}

// leg brings an SDP offer to a daemon and gives its answer.
func (d *daemon) leg(ctx context.Context, room, offer string) (string, error) {
	url, token, err := d.address()
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/api/v1/rooms/"+room+"/audio", strings.NewReader(offer))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/sdp")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}
