package node

import (
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/rtc"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/sframe"
)

const (
	flowQueue = 256             // bundles and microphone frames waiting
	flowBusy  = media.Tick      // how often the flow looks at its timers while somebody speaks
	flowIdle  = 5 * media.Tick  // and otherwise
	ringSize  = 32              // own entries kept: 20 frames and their blocks
	maxAge    = media.RingTime  // an older frame is dropped
	maxDrift  = 10              // ticks that the microphone's clock may be away from mine
	micIdle   = 25 * media.Tick // after which an older leg may take the microphone back
	repeatIn  = 3 * media.Tick  // a block is sent a second time this long after the first
	reportIn  = time.Second     // between reports
	speakHold = 15 * media.Tick // without a frame nobody speaks any more
	speakOver = media.Level(50) // -dBov; a quieter voice is not speech

	packetOverhead = 60 // bytes that IP, UDP and QUIC add to a bundle, about
)

// mediaLink is a media link to one peer, as the flow uses it. Send copies the bundle and never blocks.
type mediaLink interface {
	Remote() peer.ID
	Handle() uint32 // to put into bundles; 0 while unknown
	Seq() uint16    // the next number of this link
	Send(bundle []byte) bool
}

// player is a browser leg that plays: a slot of it is one track.
type player interface {
	Play(slot int, f rtc.PlayFrame) error
}

// flowConfig is what a flow needs. Report, Pulse, Dead and Lied run on the flow's goroutine and must not block.
type flowConfig struct {
	Sign       func(domain string, body []byte) []byte // Ed25519 over domain || 0 || body
	Report     func(session.Report)
	Pulse      func(overlay.Pulse) // of every linked peer, at each of its heartbeats and at least once a second
	Dead       func(mediaLink)     // a link on which nothing has been heard for quietDead
	Lied       func(overlay.Lied)  // of a parent
	Redundancy int                 // earlier frames sent with each frame even where no loss is seen, 0 to 3
	Log        *slog.Logger
	Now        func() time.Time
}

// flow is the media path of one room in this daemon. Up: a microphone frame is sealed, signed, bundled and sent on
// the links that the plan names. Down: a link's bundle is parsed, its frames are opened, judged by their signature
// blocks, the loudest three are played, and what is new goes on to those whom the plan feeds. One goroutine owns all of
// it; the methods are safe from any goroutine.
type flow struct {
	cfg   flowConfig
	in    chan input
	calls chan func()
	born  time.Time     // bundles tell the milliseconds since then: no step of the wall clock shows in them
	woken chan struct{} // a new plan is there
	stop  chan struct{}
	done  chan struct{}
	pool  sync.Pool // *[]byte for microphone frames

	gate sync.Mutex    // held while a microphone frame is sealed and sent
	open bool          // may it be? Closed by Plan at once
	next session.Media // the latest plan

	// Owned by run.
	plan    session.Media
	start   time.Time // when the own source began, and at which counter
	base    uint32
	owner   sframe.Owner
	sealer  *sframe.Sealer
	signer  *sframe.BlockSigner
	own     *media.Ring
	repeat  []byte // the last block, to be sent a second time
	again   time.Time
	blocks  sentBlocks
	mic     *flowLeg
	micHeat time.Time // when the microphone in use last sent
	voiced  bool      // own frames that are kept come from it
	steady  steady
	lack    int // bytes of earlier frames that the next bundle should have and has not
	me      voice
	legs    []*flowLeg // those that play
	links   map[mediaLink]*linkState
	out     []*linkState           // one link for each peer that the plan gives a role
	ups     []*linkState           // those of out that own frames go to at once
	feeds   []*linkState           // those of out that frames are forwarded to
	latest  map[peer.ID]*linkState // the newest link of each peer
	remotes map[uint32]*remote
	relay   relay
	bads    []toldBad
	buried  time.Time // when bury last looked

	// What heartbeats carry.
	path     [][]byte
	above    peer.ID // whom the core's tick comes from; empty: any parent
	coreTick uint64
	spoken   uint32 // my own newest frame

	loudest media.Loudest
	report  session.Report
	told    time.Time
	changed bool   // somebody started or stopped to speak
	sent    uint64 // bytes, ever
	sentWas uint64 // when upKbps was last counted
	sentAt  time.Time
	upKbps  uint32
	vias    uint32

	behindVia map[uint32]peer.ID // whose links these are, or lately were: who closes one has still brought what it brought

	// Reused for each bundle.
	head    [media.HeaderLen]byte
	body    []byte
	entry   []byte
	plain   []byte
	builder media.Builder
	entries [media.MaxEntries]media.Entry
	primary [1][]byte
	copies  [][]byte
	bad     []uint32 // counters of frames that were passed on and should not have been
}

// input is a bundle of a link, a frame of a microphone, or a peer to ping.
type input struct {
	ping  peer.ID
	link  mediaLink
	data  []byte
	mic   *flowLeg
	frame rtc.UpFrame
	buf   *[]byte // holds the frame's payload
	at    time.Time
}

// newFlow starts a flow without a plan: it neither sends nor plays. The caller must Close it.
func newFlow(cfg flowConfig) *flow {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Report == nil {
		cfg.Report = func(session.Report) {}
	}
	if cfg.Dead == nil {
		cfg.Dead = func(mediaLink) {}
	}
	if cfg.Lied == nil {
		cfg.Lied = func(overlay.Lied) {}
	}
	if cfg.Pulse == nil {
		cfg.Pulse = func(overlay.Pulse) {}
	}
	f := &flow{
		cfg: cfg, in: make(chan input, flowQueue), calls: make(chan func()), woken: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
		links: map[mediaLink]*linkState{}, latest: map[peer.ID]*linkState{}, behindVia: map[uint32]peer.ID{}, remotes: map[uint32]*remote{},
		body: make([]byte, 0, media.MaxBundle), entry: make([]byte, 0, media.MaxBundle), plain: make([]byte, 0, media.MaxBundle),
	}
	f.born = cfg.Now()
	f.plan.Seal, f.plan.Plan = -1, &overlay.Plan{}
	f.steady = makeSteady()
	f.relay.hold = time.NewTimer(time.Hour)
	f.relay.hold.Stop()
	f.pool.New = func() any { b := make([]byte, 0, media.MaxPayload); return &b }
	go f.run()
	return f
}

// Close ends the flow and waits for it.
func (f *flow) Close() {
	close(f.stop)
	<-f.done
}

// Plan gives the flow what the session decided. When it returns with Send false, no frame of the microphone is sent
// any more; the rest of the plan is in force a moment later.
func (f *flow) Plan(m session.Media) {
	f.gate.Lock()
	f.next = m
	f.open = f.open && m.Send
	f.gate.Unlock()
	select {
	case f.woken <- struct{}{}:
	default:
	}
}

// AddLink takes a new link into use, RemoveLink forgets it.
func (f *flow) AddLink(l mediaLink)    { f.call(func() { f.addLink(l) }) }
func (f *flow) RemoveLink(l mediaLink) { f.call(func() { f.dropLink(l) }) }

// Receive takes a bundle that came by l; it is the flow's to keep. It never blocks: when the flow is far behind, the
// bundle is lost.
func (f *flow) Receive(l mediaLink, bundle []byte) {
	f.put(input{link: l, data: bundle, at: f.cfg.Now()})
}

// Ping asks p for a sign of life: its pong, or any other bundle, shows in the next Pulse. It never blocks.
func (f *flow) Ping(p peer.ID) { f.put(input{ping: p, at: f.cfg.Now()}) }

// Attach makes the flow's end of a leg that is about to be answered. Close it when the leg has ended.
func (f *flow) Attach() *flowLeg { return &flowLeg{flow: f} }

// flowLeg is one leg as the flow sees it. Legs come and go; the own source goes on.
type flowLeg struct {
	flow *flow

	// Owned by the flow's run.
	player player
	gone   bool // closed: what still comes is late
	began  bool
	offset uint32 // own counter minus the leg's
}

// Up takes one frame of the leg's microphone; its payload is copied. It never blocks.
func (m *flowLeg) Up(u rtc.UpFrame) {
	b := m.flow.pool.Get().(*[]byte)
	*b = append((*b)[:0], u.Payload...)
	u.Payload = *b
	if !m.flow.put(input{mic: m, frame: u, buf: b, at: m.flow.cfg.Now()}) {
		m.flow.pool.Put(b)
	}
}

// SetPlayer lets the leg play.
func (m *flowLeg) SetPlayer(p player) {
	m.flow.call(func() { m.flow.seat(m, p) })
}

// Close takes the leg away.
func (m *flowLeg) Close() { m.flow.call(func() { m.flow.detach(m); m.gone = true }) }

func (f *flow) put(i input) bool {
	select {
	case f.in <- i:
		return true
	default:
		return false
	}
}

// call runs do on the flow's goroutine and waits; after Close it does nothing.
func (f *flow) call(do func()) {
	ran := make(chan struct{})
	select {
	case f.calls <- func() { do(); close(ran) }:
		<-ran
	case <-f.done:
	}
}

// run is the flow's one goroutine.
func (f *flow) run() {
	defer close(f.done)
	timer := time.NewTimer(flowIdle)
	defer timer.Stop()
	defer f.relay.hold.Stop()
	defer f.steady.beat.Stop()
	for {
		select {
		case <-f.stop:
			return
		case do := <-f.calls:
			do()
		case <-f.woken:
			f.apply(f.cfg.Now())
		case i := <-f.in:
			f.take(&i)
		case <-timer.C:
			timer.Reset(f.tick(f.cfg.Now()))
		case <-f.steady.beat.C:
			f.steadyTick(f.cfg.Now())
		case <-f.relay.hold.C:
			f.forward(f.cfg.Now())
		}
	}
}

func (f *flow) take(i *input) {
	switch {
	case i.mic != nil:
		f.up(i.mic, &i.frame, i.at)
		f.pool.Put(i.buf)
		return
	case i.ping != "":
		f.pingNow(i.ping, i.at)
		return
	}
	if l := f.links[i.link]; l != nil {
		f.down(l, i.data, i.at)
	}
}

// up seals a frame of the microphone and sends it.
func (f *flow) up(m *flowLeg, u *rtc.UpFrame, now time.Time) {
	if f.plan.ConstantRate {
		f.enqueue(m, u, now)
		return
	}
	f.speak(m, u, now)
	f.settle(now)
}

// speak sends a frame of the microphone to the ups at once, and lays it ready for the feeds.
func (f *flow) speak(m *flowLeg, u *rtc.UpFrame, now time.Time) {
	f.gate.Lock()
	defer f.gate.Unlock()
	if !f.open {
		return
	}
	ctr, ok := f.counter(m, u, now)
	if !ok || f.plan.Seal < 0 || len(u.Payload) == 0 || len(u.Payload) > media.MaxPayload {
		f.report.Dropped++
		return
	}
	h := media.Header{Ticks: u.Ticks, Marker: u.Marker, Ctr: ctr, Voice: u.Voice, Level: media.Unknown}
	if u.HasLevel {
		h.Level = min(media.Level(u.Level), media.Silence)
	}
	f.me.hear(h.Level, now)
	f.emit(h, u.Payload, true, now)
}

// emit seals one frame and sends it; voiced: it comes from the microphone. The gate is held.
func (f *flow) emit(h media.Header, payload []byte, voiced bool, now time.Time) {
	epoch := &f.plan.Epochs[f.plan.Seal]
	h.Kind, h.Source, h.Epoch, h.Step = media.Frame, f.plan.Me.ID, uint8(epoch.N&15), uint8(epoch.Step&15)
	h.Put(&f.head)
	var err error
	if f.body, err = f.sealer.Seal(f.body[:0], f.head[:], payload); err != nil {
		f.report.Dropped++
		return
	}
	f.entry = media.AppendEntry(f.entry[:0], &f.head, f.body)
	f.spoken = h.Ctr
	f.voiced = f.voiced || voiced
	if voiced {
		f.report.Up++
	}
	if f.signer.Add(epoch.ID, f.entry, now) != nil { // the block before is due: it is full or too long ago
		f.sign(now)
		_ = f.signer.Add(epoch.ID, f.entry, now)
	}
	f.signDue(now)
	for _, l := range f.ups {
		f.copies = f.copies[:0]
		if n := l.redundancy(f.cfg.Redundancy); n > 0 {
			f.copies = f.own.Newest(f.copies, h.Source, h.Ctr, n, now)
			f.lack = (n - len(f.copies)) * len(f.entry)
		}
		f.send(l, f.entry, f.copies, 0, now)
		f.lack = 0
	}
	e := media.Entry{Header: h, Raw: f.entry}
	f.own.Put(&e, now)
	f.passOwn(&e, voiced, now)
}

// wall is where the own counter is at now, sent or not; a microphone may be maxDrift away from it.
func (f *flow) wall(now time.Time) uint32 {
	return f.base + uint32(max(now.Sub(f.start), 0)/media.Tick)
}

// counter maps the leg's clock to the own source's, which never goes back, whatever leg sends: 20 ms ticks of the
// wall, from which a microphone may be maxDrift away. False: not to be sent.
func (f *flow) counter(m *flowLeg, u *rtc.UpFrame, now time.Time) (uint32, bool) {
	if f.sealer == nil || u.Ticks < 1 || u.Ticks > media.MaxTicks || !f.takeMic(m, now) {
		return 0, false
	}
	wall := f.wall(now)
	ctr := m.offset + u.Ctr
	if drift := int32(ctr - wall); !m.began || drift > maxDrift || drift < -maxDrift {
		ctr = wall
	}
	ctr = max(ctr, f.sealer.Next())
	if int32(ctr-wall) > maxDrift || ctr > media.MaxCounter { // faster than time, or used up
		return 0, false
	}
	m.began, m.offset = true, ctr-u.Ctr
	return ctr, true
}

// takeMic lets one leg at a time speak: whoever began last, until it is silent.
func (f *flow) takeMic(m *flowLeg, now time.Time) bool {
	if m.gone {
		return false
	}
	if f.mic != m {
		if f.mic != nil && !f.mic.gone && m.began && now.Sub(f.micHeat) < micIdle {
			return false
		}
		f.mic, m.began = m, false
	}
	f.micHeat = now
	return true
}

// send makes a bundle of a frame, which may be nil, of what waits for the link (blocks, records) and of earlier
// frames.
func (f *flow) send(l *linkState, primary []byte, copies [][]byte, hops uint8, now time.Time) {
	f.primary[0] = primary
	primaries := f.primary[:]
	if primary == nil {
		primaries = nil
	}
	f.bundle(l, primaries, l.waiting, copies, hops, now)
}

// bundle sends frames, blocks and records, and earlier frames, in more than one bundle if the first two do not fit
// into one. What waits for the link must be in waiting.
func (f *flow) bundle(l *linkState, primaries, waiting, copies [][]byte, hops uint8, now time.Time) {
	handle := l.link.Handle()
	for handle != 0 && len(primaries)+len(waiting) > 0 {
		f.builder.Begin(media.Bundle{Handle: handle, Seq: l.link.Seq(), SendMs: f.millis(now), Hops: hops}, media.MaxBundle)
		np, nw := f.builder.Fill(primaries, waiting, copies)
		if np+nw == 0 {
			break // impossible: every entry fits into an empty bundle
		}
		f.even(&f.builder, f.lack)
		f.post(l, &f.builder)
		primaries, waiting, copies = primaries[np:], waiting[nw:], nil
	}
	if l.pings {
		l.pinged = now
	}
	l.drain()
}

// post hands a finished bundle to its link.
func (f *flow) post(l *linkState, b *media.Builder) {
	n := uint64(len(b.Bytes()))
	l.link.Send(b.Bytes())
	l.out++
	l.bytesOut += n
	f.sent += n + packetOverhead
}

func (f *flow) millis(now time.Time) uint16 { return uint16(now.Sub(f.born).Milliseconds()) }
