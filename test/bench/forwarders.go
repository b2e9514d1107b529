package main

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/webrtc/v3"
)

// udpForwarder is the least that a relay can do: each datagram that comes goes on to each child.
type udpForwarder struct {
	conn *net.UDPConn
	wg   sync.WaitGroup
}

func (f *udpForwarder) serve(o *order) (a result, err error) {
	if o.Verb != "forward" {
		return a, errVerb
	}
	if f.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		return a, err
	}
	f.wg.Go(func() {
		b := make([]byte, 1<<11)
		for {
			n, err := f.conn.Read(b)
			if err != nil {
				return
			}
			for _, to := range o.To {
				_, _ = f.conn.WriteToUDPAddrPort(b[:n], to) // what does not arrive is not counted
			}
		}
	})
	return result{UDP: []netip.AddrPort{f.conn.LocalAddr().(*net.UDPAddr).AddrPort()}}, nil
}

func (f *udpForwarder) close() {
	if f.conn != nil {
		_ = f.conn.Close()
	}
	f.wg.Wait()
}

// pionForwarder is the smallest forwarder that pion makes: what a speaker's track brings is written to one local track,
// which is a sender of each child's peer connection. Without interceptors: no reports, no repetition.
type pionForwarder struct {
	pion   *webrtc.API
	tracks [speakers]*webrtc.TrackLocalStaticRTP
	conns  []*webrtc.PeerConnection // speakers, then children
	up     sync.WaitGroup           // until each is connected
	wg     sync.WaitGroup
}

var opusCodec = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}

func (f *pionForwarder) serve(o *order) (a result, err error) {
	switch o.Verb {
	case "publish": // speaker number Child offers
		a.SDP, err = f.publish(o)
	case "subscribe": // offers to a child
		a.SDP, err = f.subscribe()
	case "answered":
		err = f.conns[speakers+o.Child].SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: o.SDP})
	case "up":
		err = waitUp(&f.up)
	default:
		err = errVerb
	}
	return a, err
}

func (f *pionForwarder) close() {
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.wg.Wait()
}

func (f *pionForwarder) publish(o *order) (_ string, err error) {
	if f.pion == nil {
		if f.pion, err = newPion(); err != nil {
			return "", err
		}
	}
	local, err := webrtc.NewTrackLocalStaticRTP(opusCodec, "audio", "speaker")
	if err != nil {
		return "", err
	}
	f.tracks[o.Child] = local
	c, err := f.connection()
	if err != nil {
		return "", err
	}
	c.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		f.wg.Go(func() {
			for {
				p, _, err := t.ReadRTP()
				if err != nil {
					return
				}
				_ = local.WriteRTP(p) // a child that is not up hears nothing
			}
		})
	})
	return answerTo(c, o.SDP)
}

func (f *pionForwarder) subscribe() (string, error) {
	c, err := f.connection()
	if err != nil {
		return "", err
	}
	for _, t := range f.tracks {
		if _, err := c.AddTransceiverFromTrack(t, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
			return "", err
		}
	}
	return offerOf(c)
}

func (f *pionForwarder) connection() (*webrtc.PeerConnection, error) {
	c, err := f.pion.NewPeerConnection(webrtc.Configuration{})
	if err == nil {
		f.conns = append(f.conns, c)
		countUp(c, &f.up)
	}
	return c, err
}

// countUp lets wg wait for the connection.
func countUp(c *webrtc.PeerConnection, wg *sync.WaitGroup) {
	wg.Add(1)
	var once sync.Once
	c.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			once.Do(wg.Done)
		}
	})
}

func waitUp(wg *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(patience):
		return errors.New("a peer connection does not come up")
	}
}

// offerOf and answerTo give an SDP with all candidates.
func offerOf(c *webrtc.PeerConnection) (string, error) {
	offer, err := c.CreateOffer(nil)
	if err != nil {
		return "", err
	}
	return gathered(c, offer)
}

func answerTo(c *webrtc.PeerConnection, offer string) (string, error) {
	if err := c.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	answer, err := c.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	return gathered(c, answer)
}

func gathered(c *webrtc.PeerConnection, d webrtc.SessionDescription) (string, error) {
	all := webrtc.GatheringCompletePromise(c)
	if err := c.SetLocalDescription(d); err != nil {
		return "", err
	}
	<-all
	return c.LocalDescription().SDP, nil
}
