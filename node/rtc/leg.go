package rtc

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v2"
	"github.com/pion/ice/v2"
	"github.com/pion/transport/v2/packetio"
	"github.com/pion/webrtc/v3"
)

const (
	disconnectedAfter = 5 * time.Second // without a packet; not an end
	failedAfter       = 25 * time.Second
	keepalive         = 2 * time.Second
	dtlsRetry         = 200 * time.Millisecond
	dtlsTimeout       = disconnectedAfter + failedAfter
)

var opusCapability = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}

// Leg is one connection. Its methods may be called from any goroutine.
type Leg struct {
	id     string
	engine *Engine
	log    *slog.Logger
	cfg    LegConfig
	offer  *offer
	path   *path
	count  counters
	up     upstream
	slots  [Slots]*slot

	api       *webrtc.API
	gatherer  *webrtc.ICEGatherer
	ice       *webrtc.ICETransport
	dtls      *webrtc.DTLSTransport
	senders   []*webrtc.RTPSender
	receivers []*webrtc.RTPReceiver // owned by run
	told      State                 // owned by run

	ctx     context.Context // ends with the leg
	cancel  context.CancelFunc
	iceNow  atomic.Int32  // webrtc.ICETransportState
	wake    chan struct{} // iceNow changed
	streams chan uint32   // SSRCs to read
	done    chan struct{} // closed when run returns
}

func (e *Engine) newLeg(o *offer, cfg LegConfig) (*Leg, error) {
	var raw [20]byte
	_, _ = rand.Read(raw[:])
	l := &Leg{
		id:     strings.ToLower(base32.StdEncoding.EncodeToString(raw[:])),
		engine: e, cfg: cfg, offer: o,
		wake: make(chan struct{}, 1), streams: make(chan uint32, maxStreams), done: make(chan struct{}),
	}
	l.log = e.log.With("leg", l.id[:6])
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.count.state.Store(uint32(Connecting))
	l.path = &path{
		mux: e.mux, count: &l.count, streams: map[uint32]bool{}, filled: e.now(), tokens: packetRate,
		stream: func(ssrc uint32) { l.streams <- ssrc }, // never blocks: path asks for maxStreams at most
		alert:  l.end,
	}
	l.up = upstream{now: e.now, count: &l.count, up: cfg.Up}
	for _, s := range o.sections {
		if s.slot >= 0 {
			l.slots[s.slot] = newSlot(slotName(s.slot), s, e.now)
		}
		if s.up {
			l.up.payloadType, l.up.levelID = s.opus, s.levelID
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return nil, ErrClosed
	case len(e.legs) >= MaxLegs:
		return nil, ErrBusy
	}
	e.legs[l.id] = l
	e.wg.Add(1)
	return l, nil
}

// open makes the transports, waits for our addresses and starts the leg.
func (l *Leg) open(ctx context.Context) (string, error) {
	var err error
	l.api = webrtc.NewAPI(webrtc.WithSettingEngine(l.settings()))
	if l.gatherer, err = l.api.NewICEGatherer(webrtc.ICEGatherOptions{}); err != nil {
		return "", err
	}
	gathered := make(chan struct{})
	var once sync.Once
	l.gatherer.OnLocalCandidate(func(c *webrtc.ICECandidate) {
		if c == nil {
			once.Do(func() { close(gathered) })
		}
	})
	if err := l.gatherer.Gather(); err != nil {
		return "", err
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return "", ctx.Err()
	case <-l.ctx.Done():
		return "", ErrClosed
	}
	l.ice = l.api.NewICETransport(l.gatherer)
	l.ice.OnConnectionStateChange(func(s webrtc.ICETransportState) {
		l.iceNow.Store(int32(s))
		select {
		case l.wake <- struct{}{}:
		default:
		}
	})
	if l.dtls, err = l.api.NewDTLSTransport(l.ice, nil); err != nil {
		return "", err
	}
	answer, err := l.describe()
	if err != nil {
		return "", err
	}
	go l.run()
	return answer, nil
}

// settings keeps pion to one socket, no name look-ups, and SRTP with AEAD where the other side has it.
func (l *Leg) settings() webrtc.SettingEngine {
	var s webrtc.SettingEngine
	s.LoggerFactory = pionLogs{l.log}
	s.SetICEUDPMux(l.path)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetICETimeouts(disconnectedAfter, failedAfter, keepalive)
	s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	s.SetDTLSRetransmissionInterval(dtlsRetry)
	s.SetDTLSConnectContextMaker(func() (context.Context, func()) { return context.WithTimeout(l.ctx, dtlsTimeout) })
	s.BufferFactory = func(kind packetio.BufferPacketType, _ uint32) io.ReadWriteCloser {
		if kind == packetio.RTPBufferPacket {
			return newSink(l.up.packet)
		}
		return newSink(nil)
	}
	return s
}

// describe makes the senders, whose SSRCs stay for the life of the leg, and the answer.
func (l *Leg) describe() (string, error) {
	me, err := l.gatherer.GetLocalParameters()
	if err != nil {
		return "", err
	}
	cert, err := l.dtls.GetLocalParameters()
	if err != nil {
		return "", err
	}
	out := &local{
		ufrag: me.UsernameFragment, pwd: me.Password, addrs: l.path.addrs(),
		constant: l.cfg.ConstantRate,
		hash:     cert.Fingerprints[0].Algorithm, print: cert.Fingerprints[0].Value,
	}
	if len(out.addrs) == 0 {
		return "", errors.New("no address to be reached at")
	}
	var id [8]byte
	_, _ = rand.Read(id[:])
	out.session = binary.BigEndian.Uint64(id[:]) >> 2
	for n, t := range l.slots {
		if t == nil {
			continue
		}
		s, err := l.api.NewRTPSender(t, l.dtls)
		if err != nil {
			return "", err
		}
		p := s.GetParameters()
		if err := s.Send(p); err != nil {
			return "", err
		}
		l.senders = append(l.senders, s)
		out.ssrcs[n] = uint32(p.Encodings[0].SSRC)
	}
	return l.offer.answer(out), nil
}

// abandon drops a leg that never ran.
func (l *Leg) abandon() {
	l.cancel()
	l.teardown()
}

// run is the leg's goroutine: connect, follow the state, take up new streams, end.
func (l *Leg) run() {
	defer close(l.done)
	connected := make(chan error, 1)
	go func() { connected <- l.connect() }()
	l.report(Connecting)
	streams := (chan uint32)(nil) // read once SRTP is there
	for l.ctx.Err() == nil {
		select {
		case <-l.ctx.Done():
		case err := <-connected:
			connected = nil
			if err != nil {
				l.log.Info("browser leg did not connect", "error", err)
				l.cancel()
				break
			}
			streams = l.streams
			l.begin()
		case ssrc := <-streams:
			l.read(ssrc)
		case <-l.wake:
		}
		l.follow(streams != nil)
	}
	l.stop()
	if connected != nil && <-connected == nil {
		l.stop() // it came through while we closed
	}
	l.teardown()
	l.report(Closed)
}

// follow turns pion's ICE state into ours.
func (l *Leg) follow(up bool) {
	switch webrtc.ICETransportState(l.iceNow.Load()) {
	case webrtc.ICETransportStateConnected, webrtc.ICETransportStateCompleted:
		if up {
			l.report(Connected)
		}
	case webrtc.ICETransportStateDisconnected:
		l.report(Disconnected)
	case webrtc.ICETransportStateFailed, webrtc.ICETransportStateClosed:
		l.cancel()
	}
}

// connect blocks until ICE and DTLS are through, or the leg ends.
func (l *Leg) connect() error {
	role := webrtc.ICERoleControlled
	err := l.ice.Start(nil, webrtc.ICEParameters{UsernameFragment: l.offer.ufrag, Password: l.offer.pwd}, &role)
	if err != nil {
		return err
	}
	dtlsRole := webrtc.DTLSRoleServer // theirs
	if l.offer.setup == "active" {
		dtlsRole = webrtc.DTLSRoleClient
	}
	return l.dtls.Start(webrtc.DTLSParameters{
		Role: dtlsRole, Fingerprints: []webrtc.DTLSFingerprint{{Algorithm: l.offer.hash, Value: l.offer.print}},
	})
}

// begin lets media through.
func (l *Leg) begin() {
	for _, s := range l.offer.sections {
		if s.up && s.ssrc != 0 {
			l.up.expect(s.ssrc, l.engine.now())
			l.read(s.ssrc)
		}
	}
	l.path.ready()
}

// read opens the SRTP stream of an SSRC, whose packets then reach the upstream.
func (l *Leg) read(ssrc uint32) {
	r, err := l.api.NewRTPReceiver(webrtc.RTPCodecTypeAudio, l.dtls)
	if err != nil {
		return
	}
	l.receivers = append(l.receivers, r)
	e := webrtc.RTPDecodingParameters{RTPCodingParameters: webrtc.RTPCodingParameters{SSRC: webrtc.SSRC(ssrc)}}
	if err := r.Receive(webrtc.RTPReceiveParameters{Encodings: []webrtc.RTPDecodingParameters{e}}); err != nil {
		l.log.Debug("stream not opened", "error", err)
		return
	}
	l.path.allow(ssrc)
}

// stop closes the transports, which ends connect. First DTLS, and with it SRTP: a packet for a receiver that has stopped would
// be one of an SSRC that nobody reads, at which pion's SRTP session stands still and never ends.
func (l *Leg) stop() {
	if l.dtls != nil {
		_ = l.dtls.Stop()
	}
	for _, r := range l.receivers {
		_ = r.Stop()
	}
	for _, s := range l.senders {
		_ = s.Stop()
	}
	if l.ice != nil {
		_ = l.ice.GracefulStop()
	}
}

// teardown gives back what the leg holds of the engine.
func (l *Leg) teardown() {
	if l.gatherer != nil {
		_ = l.gatherer.GracefulClose()
	}
	_ = l.path.Close()
	l.engine.mu.Lock()
	delete(l.engine.legs, l.id)
	l.engine.mu.Unlock()
	l.count.state.Store(uint32(Closed))
	l.engine.wg.Done()
}

// report tells a change of state. Called by run only.
func (l *Leg) report(s State) {
	if s == l.told {
		return
	}
	l.told = s
	l.count.state.Store(uint32(s))
	if l.cfg.State != nil {
		l.cfg.State(s)
	}
}

// end asks the leg to end.
func (l *Leg) end() { l.cancel() }

// Close ends the leg and waits for its goroutines.
func (l *Leg) Close() {
	l.end()
	<-l.done
}

// Done is closed when the leg has ended.
func (l *Leg) Done() <-chan struct{} { return l.done }

// ID is the leg's name, 160 bits that cannot be guessed, lower-case base32.
func (l *Leg) ID() string { return l.id }

// Stats counts what the leg did so far.
func (l *Leg) Stats() Stats { return l.count.stats() }

// Sends says whether the other side has a microphone track.
func (l *Leg) Sends() bool { return l.up.payloadType != 0 }

// Plays is the number of slots that the other side hears, 0 to Slots.
func (l *Leg) Plays() int {
	n := 0
	for _, t := range l.slots {
		if t != nil {
			n++
		}
	}
	return n
}

// Play sends one frame to a slot, at once; Payload is not kept. A frame up to one second older than the slot's newest is
// played into the hole it left. Errors: ErrSlot, ErrFrame, ErrLate, ErrNotConnected, ErrClosed.
func (l *Leg) Play(slot int, f PlayFrame) error {
	if slot < 0 || slot >= Slots || l.slots[slot] == nil {
		return ErrSlot
	}
	if f.Ticks < 1 || f.Ticks > 6 || len(f.Payload) == 0 || len(f.Payload) > MaxPayload {
		return ErrFrame
	}
	switch State(l.count.state.Load()) {
	case Connecting:
		return ErrNotConnected
	case Closed:
		return ErrClosed
	}
	err := l.slots[slot].play(&f)
	switch {
	case err == nil:
		l.count.down.Add(1)
	case err == ErrLate:
		l.count.late.Add(1)
	}
	return err
}

// sink stands where pion would keep packets to be read: it hands them over as they come.
type sink struct {
	take   func([]byte)
	once   sync.Once
	closed chan struct{}
}

func newSink(take func([]byte)) *sink { return &sink{take: take, closed: make(chan struct{})} }

func (s *sink) Write(b []byte) (int, error) {
	if s.take != nil {
		s.take(b)
	}
	return len(b), nil
}

// Read waits for the end; nobody reads.
func (s *sink) Read([]byte) (int, error) {
	<-s.closed
	return 0, io.EOF
}

func (s *sink) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}
