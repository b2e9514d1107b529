package node

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/node/rtc"
	"balai/room"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/sframe"
)

// world is some people in one room whose flows are joined by links in memory.
type world struct {
	t      testing.TB
	room   room.ID
	people []*person
	epochs []sframe.Epoch
	seal   int
	steady bool                     // constant rate
	plans  map[string]*overlay.Plan // by name; nil: a mesh of all

	mu    sync.Mutex
	rand  *rand.Rand
	tap   func(from, to *person, bundle []byte) [][]byte // what arrives instead; nil: all
	delay func() time.Duration
	far   map[string]time.Duration // what a person sends takes so long
	loss  float64
}

type person struct {
	w       *world
	name    string
	key     *identity.Key
	salt    [8]byte
	send    bool
	allowed bool
	keyless bool
	flow    *flow
	leg     *flowLeg
	ear     *ear
	links   map[peer.ID]*wireLink
	clock   uint32   // of the leg
	signed  uint32   // where its counter was when it last signed that
	said    []string // payloads

	mu  sync.Mutex
	rep session.Report

	pulses map[peer.ID]overlay.Pulse // the last of each peer
	dead   []peer.ID                 // whose links were told dead
	every  []overlay.Pulse
	lies   []overlay.Lied // what was said of parents, so far
}

// ear remembers what was played.
type ear struct {
	mu     sync.Mutex
	heard  map[uint32][]string // by source
	frames []rtc.PlayFrame
	slots  map[uint32]int
}

func (e *ear) Play(slot int, f rtc.PlayFrame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard[f.Source] = append(e.heard[f.Source], string(f.Payload))
	e.slots[f.Source] = slot
	f.Payload = nil
	e.frames = append(e.frames, f)
	return nil
}

func (e *ear) of(source uint32) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.heard[source]...)
}

// wireLink is one direction's end of a link: what is sent arrives at to.
type wireLink struct {
	w        *world
	from, to *person
	seq      uint16
	at       time.Time     // when something was last sent
	burst    time.Duration // a nanosecond for each bundle sent then: they arrive in their order
}

func (l *wireLink) Remote() peer.ID { return l.to.key.ID() }
func (l *wireLink) Handle() uint32  { return 300 }
func (l *wireLink) Seq() uint16     { l.seq++; return l.seq - 1 }

func (l *wireLink) Send(b []byte) bool {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.loss > 0 && w.rand.Float64() < w.loss {
		return true
	}
	arrive := [][]byte{bytes.Clone(b)}
	if w.tap != nil {
		arrive = w.tap(l.from, l.to, arrive[0])
	}
	if now := time.Now(); l.at != now {
		l.at, l.burst = now, 0
	}
	for _, a := range arrive {
		back := l.to.links[l.from.key.ID()]
		far, ok := w.far[l.from.name]
		switch {
		case ok:
		case w.delay != nil:
			far = w.delay()
		default:
			l.to.flow.Receive(back, a)
			continue
		}
		time.AfterFunc(far+l.burst, func() { l.to.flow.Receive(back, a) })
		l.burst++
	}
	return true
}

func newWorld(t testing.TB, names ...string) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(1, 2)), epochs: []sframe.Epoch{sframe.NewEpoch(1)}}
	w.room[0] = 9
	for _, n := range names {
		k := keyOf(t, n)
		p := &person{w: w, name: n, key: k, send: true, allowed: true, links: map[peer.ID]*wireLink{}, ear: &ear{heard: map[uint32][]string{}, slots: map[uint32]int{}}}
		copy(p.salt[:], n)
		p.flow = newFlow(flowConfig{Sign: k.Sign, Report: p.take, Pulse: p.pulse, Dead: p.bury, Lied: p.lied, Log: slog.New(slog.DiscardHandler)})
		p.leg = p.flow.Attach()
		p.leg.SetPlayer(p.ear)
		w.people = append(w.people, p)
		time.Sleep(apart)
	}
	for _, p := range w.people {
		for _, q := range w.people {
			if p != q {
				p.links[q.key.ID()] = &wireLink{w: w, from: p, to: q}
			}
		}
	}
	for _, p := range w.people {
		for _, l := range p.links {
			p.flow.AddLink(l)
		}
	}
	for _, p := range w.people {
		w.tell(p)
		time.Sleep(apart)
	}
	synctest.Wait()
	return w
}

// apart is how long after another clock the next one starts: of those of each flow, which tick each 20 ms, and of the test no
// two ever meet, nor with whole milliseconds between them. What happens at one instant has no order.
const apart = 1130 * time.Microsecond

// keyOf is the same key for a name in all worlds of a run: what follows from keys is the same in each.
func keyOf(t testing.TB, name string) *identity.Key {
	k, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	first, _ := keys.LoadOrStore(name, k)
	return first.(*identity.Key)
}

var keys sync.Map

func (p *person) take(r session.Report) { p.mu.Lock(); p.rep = r; p.mu.Unlock() }

func (p *person) report() session.Report { p.mu.Lock(); defer p.mu.Unlock(); return p.rep }

func (p *person) pulse(u overlay.Pulse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pulses == nil {
		p.pulses = map[peer.ID]overlay.Pulse{}
	}
	p.pulses[u.Peer] = u
	p.every = append(p.every, u)
}

func (p *person) bury(l mediaLink) { p.mu.Lock(); p.dead = append(p.dead, l.Remote()); p.mu.Unlock() }

func (p *person) lied(e overlay.Lied) { p.mu.Lock(); p.lies = append(p.lies, e); p.mu.Unlock() }

// accused is what p said of its parents.
func (p *person) accused() []overlay.Lied {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]overlay.Lied(nil), p.lies...)
}

func (p *person) buried() []peer.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]peer.ID(nil), p.dead...)
}

// pulseOf is the last pulse of q.
func (p *person) pulseOf(q *person) overlay.Pulse {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pulses[q.key.ID()]
}

// pulsesFrom are all pulses but the first n.
func (p *person) pulsesFrom(n int) []overlay.Pulse {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]overlay.Pulse(nil), p.every[n:]...)
}

func (p *person) owner() sframe.Owner {
	return sframe.Owner{Room: p.w.room, Peer: string(p.key.ID()), Salt: p.salt}
}

func (p *person) source() session.Source {
	return session.Source{Peer: p.key.ID(), ID: p.owner().Source(), Salt: p.salt, Now: p.signed, Allowed: p.allowed}
}

func (p *person) id() uint32 { return p.owner().Source() }

// plan tells everybody how things are now.
func (w *world) plan() {
	for _, p := range w.people {
		w.tell(p)
	}
	synctest.Wait()
}

func (w *world) tell(p *person) {
	m := session.Media{Room: w.room, Me: p.source(), Send: p.send, Epochs: append([]sframe.Epoch(nil), w.epochs...), Seal: w.seal, ConstantRate: w.steady}
	var plan overlay.Plan
	for _, q := range w.people {
		if q != p {
			m.Sources = append(m.Sources, q.source())
			plan.Links = append(plan.Links, q.key.ID())
		}
	}
	plan.Up, m.Plan = plan.Links, &plan
	if w.plans != nil {
		m.Plan = w.plans[p.name]
	}
	if p.keyless {
		for _, e := range m.Epochs {
			m.Commits = append(m.Commits, room.EpochCommit{N: e.N, ID: room.EpochID(e.ID)})
		}
		m.Epochs, m.Seal = nil, -1
	}
	p.flow.Plan(m)
}

func (w *world) close() {
	for _, p := range w.people {
		p.flow.Close()
	}
	time.Sleep(time.Second) // what is still on its way arrives at closed flows
}

// onWire lets tap see, change or drop what passes.
func (w *world) onWire(tap func(from, to *person, bundle []byte) [][]byte) {
	w.set(func() { w.tap = tap })
}

// set changes the links while they are in use.
func (w *world) set(do func()) { w.mu.Lock(); do(); w.mu.Unlock() }

func (e *ear) forget() { e.mu.Lock(); e.heard = map[uint32][]string{}; e.mu.Unlock() }

func (e *ear) played() []rtc.PlayFrame {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]rtc.PlayFrame(nil), e.frames...)
}

// say lets a microphone send one frame of 20 ms.
func (p *person) say() {
	text := fmt.Sprintf("%s %d", p.name, len(p.said))
	p.said = append(p.said, text)
	p.clock++
	p.leg.Up(rtc.UpFrame{Ctr: p.clock, Ticks: 1, Level: 25, HasLevel: true, Payload: []byte(text)})
}

// talk lets people speak together for d.
func (w *world) talk(d time.Duration, people ...*person) {
	for range d / media.Tick {
		for _, p := range people {
			p.say()
		}
		time.Sleep(media.Tick)
	}
}

func (w *world) settle() { time.Sleep(300 * time.Millisecond); synctest.Wait() }

// hears checks that p heard exactly what q said, each once.
func (w *world) hears(p, q *person) {
	w.t.Helper()
	got := p.ear.of(q.id())
	if fmt.Sprint(got) != fmt.Sprint(q.said) {
		w.t.Errorf("%s heard of %s %d frames of %d: %.300s", p.name, q.name, len(got), len(q.said), fmt.Sprint(got))
	}
}

// bubble runs a test in virtual time; it fails if a goroutine is left behind.
func bubble(t *testing.T, names []string, do func(w *world, p []*person)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, names...)
		defer w.close()
		do(w, w.people)
	})
}
