package main

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pion/webrtc/v3"
)

const (
	soundTime  = 30 // s recorded
	soundStart = 8  // s in which the jitter buffers find their size, not counted
	minChirps  = 30
	maxPCM     = 4 * rate * 2 * soundTime // bytes
	// opusAnswer is what a daemon asks the browser for, so that both paths carry the same packets.
	opusAnswer = "minptime=20;maxaveragebitrate=32000;stereo=0;sprop-stereo=0;usedtx=1;useinbandfec=0"
)

//go:embed page.html
var soundPage []byte

// mouthToEar sends one microphone over two paths at once, browser -> daemon -> daemon -> browser and browser -> pion ->
// browser, and compares when each chirp is heard.
func mouthToEar(ctx context.Context, l *lab) ([]figure, error) {
	s := &soundLab{heard: map[string][]float32{}}
	if err := s.start(ctx, l); err != nil {
		s.close()
		return nil, err
	}
	defer s.close()
	wav := filepath.Join(l.dir, "train.wav")
	if err := os.WriteFile(wav, trainWAV(), 0o600); err != nil {
		return nil, err
	}
	b, err := l.browser(ctx, wav)
	if err != nil {
		return nil, err
	}
	defer b.close()
	if err := b.visit(ctx, fmt.Sprintf("%s/?seconds=%d", s.url, soundTime), ""); err != nil {
		return nil, err
	}
	return s.figures()
}

// soundLab is the page with what it talks to: a forwarder made of bare pion, and two daemons in one room.
type soundLab struct {
	url       string
	server    http.Server
	served    sync.WaitGroup
	pion      forwarder
	mouth     *daemon
	ear       *daemon
	room      string
	mu        sync.Mutex // guards what follows
	heard     map[string][]float32
	pageFault error
}

func (s *soundLab) start(ctx context.Context, l *lab) (err error) {
	if err := s.pion.start(); err != nil {
		return err
	}
	if s.mouth, err = l.daemon(ctx, "mouth"); err != nil {
		return err
	}
	if s.ear, err = l.daemon(ctx, "ear"); err != nil {
		return err
	}
	if s.room, err = s.mouth.open(ctx); err != nil {
		return err
	}
	link, err := s.mouth.invite(ctx, s.room)
	if err != nil {
		return err
	}
	if _, err := s.ear.Join(ctx, link, "", true); err != nil {
		return err
	}
	if err := s.ear.live(ctx, s.room); err != nil {
		return err
	}
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.url = "http://" + listen.Addr().String()
	s.server.Handler = s.routes()
	s.served.Go(func() { _ = s.server.Serve(listen) }) // until close
	return nil
}

func (s *soundLab) close() {
	_ = s.server.Close()
	s.served.Wait()
	s.pion.close()
	for _, d := range []*daemon{s.mouth, s.ear} {
		if d != nil {
			d.stop()
		}
	}
}

func (s *soundLab) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(soundPage) })
	mux.HandleFunc("POST /pion/mouth", answer(s.pion.mouth))
	mux.HandleFunc("POST /pion/ear", answer(s.pion.ear))
	mux.HandleFunc("POST /balai/ear", answer(func(ctx context.Context, offer string) (string, error) { return s.ear.leg(ctx, s.room, offer) }))
	mux.HandleFunc("POST /balai/mouth", answer(func(ctx context.Context, offer string) (string, error) {
		sdp, err := s.mouth.leg(ctx, s.room, offer)
		if err == nil {
			err = s.mouth.unmute(ctx, s.room)
		}
		return sdp, err
	}))
	mux.HandleFunc("POST /heard/{name}", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPCM))
		pcm := make([]float32, len(data)/4)
		for i := range pcm {
			pcm[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.heard[r.PathValue("name")] = pcm
		s.pageFault = errors.Join(s.pageFault, err)
	})
	mux.HandleFunc("POST /fault", func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(io.LimitReader(r.Body, 1<<10))
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pageFault = fmt.Errorf("the page: %s", text)
	})
	return mux
}

// answer serves SDP offers.
func answer(f func(context.Context, string) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		offer, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
		var sdp string
		if err == nil {
			sdp, err = f(r.Context(), string(offer))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(w, sdp)
	}
}

func (s *soundLab) figures() ([]figure, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pageFault != nil {
		return nil, s.pageFault
	}
	var sent []float64
	for _, t := range onsets(s.heard["mouth"]) {
		if t > soundStart && t < soundTime-lagMax {
			sent = append(sent, t)
		}
	}
	pion, balai := delays(sent, onsets(s.heard["pion"])), delays(sent, onsets(s.heard["balai"]))
	var a, b, added []float64
	for i := range sent {
		if !math.IsNaN(pion[i]) && !math.IsNaN(balai[i]) {
			a, b, added = append(a, balai[i]), append(b, pion[i]), append(added, balai[i]-pion[i])
		}
	}
	fmt.Fprintf(os.Stderr, "bench: %d chirps sent, %d heard on both paths\n", len(sent), len(added))
	if len(added) < minChirps {
		return nil, fmt.Errorf("only %d chirps were heard", len(added))
	}
	p95 := plain("mouth to ear over two daemons, p95, vs. one bare pion", quantile(a, 0.95), "ms")
	base := quantile(b, 0.95)
	ratio := p95.Value / base
	p95.Baseline, p95.Ratio = &base, &ratio
	return []figure{
		against("mouth to ear over two daemons, median, vs. one bare pion", a, b, "ms"),
		p95,
		plain("mouth to ear, added by two daemons and their link, median", median(added), "ms").gate(40, 10),
		plain("mouth to ear, added by two daemons and their link, p95", quantile(added, 0.95), "ms"),
		plain("chirps of the train lost on either path", float64(len(sent)-len(added))/float64(len(sent))*100, "%"),
	}, nil
}

// forwarder is the least that pion v3 needs to carry one track from one browser to another.
type forwarder struct {
	api   *webrtc.API
	track *webrtc.TrackLocalStaticRTP
	wg    sync.WaitGroup
	mu    sync.Mutex // guards all
	all   []*webrtc.PeerConnection
}

func (f *forwarder) start() (err error) {
	if f.api, err = newPion(); err != nil {
		return err
	}
	f.track, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "forwarded", "forwarded")
	return err
}

func (f *forwarder) close() {
	defer f.wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, pc := range f.all {
		_ = pc.Close()
	}
}

func (f *forwarder) mouth(ctx context.Context, offer string) (string, error) {
	return f.answer(ctx, offer, func(pc *webrtc.PeerConnection) error {
		pc.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
			for { // until the connection is closed
				p, _, err := t.ReadRTP()
				if err != nil || f.track.WriteRTP(p) != nil {
					return
				}
			}
		})
		return nil
	})
}

func (f *forwarder) ear(ctx context.Context, offer string) (string, error) {
	return f.answer(ctx, offer, func(pc *webrtc.PeerConnection) error {
		s, err := pc.AddTrack(f.track)
		if err == nil {
			f.wg.Go(func() { // until the connection is closed; reports must be read
				for b := make([]byte, 1500); ; {
					if _, _, err := s.Read(b); err != nil {
						return
					}
				}
			})
		}
		return err
	})
}

func (f *forwarder) answer(ctx context.Context, offer string, prepare func(*webrtc.PeerConnection) error) (string, error) {
	pc, err := f.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return "", err
	}
	f.mu.Lock()
	f.all = append(f.all, pc)
	f.mu.Unlock()
	if err := prepare(pc); err != nil {
		return "", err
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	a, err := pc.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(a); err != nil {
		return "", err
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(patience):
		return "", errors.New("no candidates")
	}
	return withOpus(pc.LocalDescription().SDP), nil
}

// withOpus puts opusAnswer in the place of pion's own parameters.
func withOpus(sdp string) string {
	return strings.ReplaceAll(sdp, "minptime=10;useinbandfec=1", opusAnswer)
}
