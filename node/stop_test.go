package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v3"
	"go.uber.org/goleak"

	"balai/node/api"
	"balai/room"
	"balai/room/session"
	"balai/test/stalls"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := leaks(lifelong); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// leaks waits until no goroutine is left but those that are known; on a busy machine they take longer than goleak has patience.
func leaks(known ...goleak.Option) (err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err = goleak.Find(known...); err == nil { // it tries for half a second
			return nil
		}
	}
	return err
}

// lifelong is what another package starts for the life of the process.
var lifelong = goleak.IgnoreAnyFunction("github.com/ipfs/go-log/v2/writer.(*MirrorWriter).logRoutine")

// newPage is a browser's side of a leg, on loopback: a microphone and three tracks to hear.
func newPage(t *testing.T) (pc *webrtc.PeerConnection, offer string) {
	t.Helper()
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() && ip.To4() != nil })
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetICEMulticastDNSMode(1) // disabled
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(m)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	mic, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}, "mic", "mic")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pc.AddTransceiverFromTrack(mic, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			t.Fatal(err)
		}
	}
	d, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(d); err != nil {
		t.Fatal(err)
	}
	<-gathered
	return pc, pc.LocalDescription().SDP
}

// running is a daemon as the command line runs it.
type running struct {
	t     *testing.T
	ready Ready
	stop  context.CancelFunc
	ended chan error
	dir   string
}

func runDaemon(t *testing.T, name string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, stop: cancel, ended: make(chan error, 1), dir: t.TempDir()}
	up := make(chan Ready, 1)
	go func() {
		r.ended <- Run(ctx, Config{
			Data: r.dir, API: "127.0.0.1:0", Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}, NoMDNS: true, Name: name,
			Log: testLog().With("who", name), Ready: func(r Ready) { up <- r },
		})
	}()
	t.Cleanup(func() { cancel() })
	select {
	case r.ready = <-up:
	case err := <-r.ended:
		t.Fatal(err)
	}
	return r
}

// post sends an offer and reads the answer.
func (r *running) post(path, offer string) string {
	r.t.Helper()
	return r.ask(http.MethodPost, path, offer, http.StatusCreated)
}

// ask is one request to the API; body, where there is one, is SDP.
func (r *running) ask(method, path, body string, status int) string {
	r.t.Helper()
	var where struct{ URL, Token string }
	b, err := os.ReadFile(filepath.Join(r.dir, apiFile))
	if err != nil || json.Unmarshal(b, &where) != nil {
		r.t.Fatalf("api.json: %s %v", b, err)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, where.URL+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+where.Token)
	if body != "" {
		req.Header.Set("Content-Type", "application/sdp")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // read only
	answer, _ := io.ReadAll(res.Body)
	if res.StatusCode != status {
		r.t.Fatalf("%s: %s %s", path, res.Status, answer)
	}
	return string(answer)
}

func accept(t *testing.T, pc *webrtc.PeerConnection, answer string) {
	t.Helper()
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
}

// A daemon with a room, a guest, media links, a browser leg, a sound check, a knock that waits and open event streams
// stops, and leaves no goroutine. The command line gives it stopLimit; here only the goroutines count.
func TestStoppingLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	ana, budi := runDaemon(t, "Ana"), runDaemon(t, "Budi")
	a, b := ana.client(), budi.client()
	tea, err := a.Create(t.Context(), api.NewRoom{Name: "Tea", Visibility: "unlisted"})
	if err != nil {
		t.Fatal(err)
	}
	link, err := a.Invite(t.Context(), tea.ID, api.InviteRequest{Role: "speaker", ExpiresIn: 3600})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Join(t.Context(), link.Link, "", true); err != nil {
		t.Fatal(err)
	}
	is := func(c *api.Client, id string, ok func(session.View) bool) func() bool {
		return func() bool {
			v, err := c.Room(t.Context(), id)
			return err == nil && ok(v)
		}
	}
	eventually(t, "both in the room", is(b, tea.ID, func(v session.View) bool { return v.State == session.Live && v.Members == 2 }))
	closed, err := a.Create(t.Context(), api.NewRoom{Name: "Closed", Visibility: "closed"})
	if err != nil {
		t.Fatal(err)
	}
	if link, err = a.Invite(t.Context(), closed.ID, api.InviteRequest{Role: "listener", ExpiresIn: 3600}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Join(t.Context(), link.Link, "", true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the knock", is(a, closed.ID, func(v session.View) bool { return len(v.Knocks) == 1 }))
	page, offer := newPage(t)
	accept(t, page, ana.post("/rooms/"+tea.ID+"/audio", offer))
	check, offer := newPage(t)
	accept(t, check, ana.post("/echo", offer))
	eventually(t, "the leg", is(a, tea.ID, func(v session.View) bool { return v.Me.Audio }))
	streams := make(chan error, 3)
	for range cap(streams) {
		first := make(chan struct{})
		go func() {
			seen := false
			streams <- a.Events(context.Background(), func(string, []byte) error {
				if !seen {
					seen = true
					close(first)
				}
				return nil
			})
		}()
		<-first
	}
	ana.stop()
	if err := <-ana.ended; err != nil {
		t.Errorf("stopping: %v", err)
	}
	for range cap(streams) {
		if err := <-streams; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("an event stream ended with %v", err)
		}
	}
	budi.stop()
	if err := <-budi.ended; err != nil {
		t.Errorf("stopping: %v", err)
	}
	a.Close()
	b.Close()
	for _, pc := range []*webrtc.PeerConnection{page, check} {
		if err := pc.GracefulClose(); err != nil {
			t.Error(err)
		}
	}
	if err := leaks(before, lifelong); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(ana.dir, apiFile)); !errors.Is(err, os.ErrNotExist) {
		t.Error("api.json of a daemon that has stopped")
	}
}

func (r *running) client() *api.Client {
	r.t.Helper()
	c, err := api.Dial(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func TestACommunityNodeLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := Bootstrap(ctx, BootstrapConfig{
		Data: t.TempDir(), Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, Metrics: "127.0.0.1:0", Web: "127.0.0.1:0", Ready: func(Ready) { cancel() },
	})
	if err != nil {
		t.Error(err)
	}
	if err := leaks(before, lifelong); err != nil {
		t.Error(err)
	}
}

// What fails half way up comes down again. (A port of libp2p's that is taken is not tried here: libp2p itself leaves
// goroutines then, and the process ends.)
func TestAFailedStartLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // a test's
	before := goleak.IgnoreCurrent()
	listen := []string{"/ip4/127.0.0.1/udp/0/quic-v1"}
	if Bootstrap(t.Context(), BootstrapConfig{Data: t.TempDir(), Listen: listen, Metrics: "127.0.0.1:0", Web: taken.Addr().String()}) == nil {
		t.Error("a community node without its page")
	}
	if Run(t.Context(), Config{Data: t.TempDir(), API: taken.Addr().String(), NoMDNS: true, Listen: listen}) == nil {
		t.Error("a daemon without its API")
	}
	if err := leaks(before, lifelong); err != nil {
		t.Error(err)
	}
}

// Two who leave at once do not wait for each other's goodbye until a stream's own deadline.
func TestTwoStopAtOnce(t *testing.T) {
	ana, budi := newPerson(t, "Ana"), newPerson(t, "Budi")
	guest := budi.enter(inviteTo(t, ana.open("unlisted"), session.InviteTerms{Role: room.Speaker}))
	until(t, guest, "the room", func(v session.View) bool { return v.State == session.Live })
	t.Cleanup(stalls.Watch())
	began := time.Now()
	var wg sync.WaitGroup
	wg.Go(ana.halt)
	wg.Go(budi.halt)
	wg.Wait()
	if took := stalls.Took(began); took > 9*time.Second { // the command line allows 4.8 s; a stream's deadline is 10 s
		t.Errorf("stopping took %s", took)
	}
}
