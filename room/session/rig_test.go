package session

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/invite"
	"balai/room/ledger"
	"balai/room/overlay"
	"balai/room/sframe"
	"balai/room/wire"
	"balai/test/seeded"
)

// world is a whole room in one process: sessions, and between them gossip and streams with seeded delay,
// loss, duplication and partition. Time is the bubble's.
type world struct {
	t       *testing.T
	wg      sync.WaitGroup
	mu      sync.Mutex // guards what follows
	seed    uint64
	rng     *rand.Rand            // for whoever tells the story
	roads   map[[3]int]*rand.Rand // from one to another: so that no order of goroutines decides anything
	all     []*soul
	limit   int // people in the ledger; 0: as usual
	loss    float64
	dup     float64
	slow    time.Duration // the longest delay of a message
	cut     func(a, b *soul) bool
	block   func(a, b *soul) bool // no media link
	said    []sealed              // all gossip that was ever published
	order   map[[2]int]time.Time  // when the last gossip from one reaches another, which no later one overtakes; nil: any may
	sent    map[*soul]loads       // by whom; nil: nobody counts
	answers []answered            // since the meter began, in order
}

// sealed is one gossip message as it went over the wire.
type sealed struct {
	by    *soul
	topic string
	data  []byte
	at    time.Time
}

// soul is one person: a key, what her disk holds, and the session that runs now.
type soul struct {
	w    *world
	name string
	n    int // its place in all
	key  *identity.Key
	id   peer.ID
	room room.ID
	r    room.Secret

	s     *Session
	stop  context.CancelFunc
	ended chan struct{}

	mu      sync.Mutex // guards what follows
	disk    map[string][]byte
	full    bool // the disk takes no more
	gate    map[peer.ID]bool
	known   map[peer.ID]bool
	moved   string             // part of its peer record: empty, or # and a word
	heardOf map[peer.ID]string // the newest of those of others
	hints   []peer.ID
	seen    map[[32]byte]bool // gossip that pubsub saw
	heard   int               // gossip that the session took
	plan    Media
	links   []peer.ID
	place   *overlay.Plan
	lanes   map[peer.ID]*lane
	calling map[peer.ID]bool
	gives   election.Ad // what it offers as a relay
	events  []Event
	ad      *wire.Signed
	serve   func(proto string, st *pipe) bool // set by a hostile one; false: as usual
	candide func(ctx context.Context) []peer.ID
}

// simulate runs f once for each seed; the seed stands in the name of the subtest. Whatever chance decides follows from it:
// keys and secrets, who is slow, what is lost.
func simulate(t *testing.T, seeds int, f func(t *testing.T, w *world)) {
	t.Helper()
	first, last := uint64(1), uint64(seeds)
	if only, ok := seeded.Only(); ok {
		first, last = only, only
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { tell(t, seed, f) })
	}
}

// tell is one story.
func tell(t *testing.T, seed uint64, f func(t *testing.T, w *world)) {
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, seed: seed, rng: seeded.Rand(seed), roads: map[[3]int]*rand.Rand{}}
		w.slow = time.Duration(5+w.rng.IntN(75)) * time.Millisecond
		w.dup = .2 * w.rng.Float64()
		defer w.close()
		f(t, w)
	})
}

func (w *world) close() {
	for _, p := range w.all {
		p.halt()
	}
	w.wg.Wait()
}

// after lets time pass.
func (w *world) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// until lets time pass until ok, for at most a minute.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	w.within(time.Minute, what, ok)
}

func (w *world) within(d time.Duration, what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(d); ; {
		synctest.Wait()
		if ok() {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("waited %v in vain for %s; %s", d, what, w)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// String tells where everybody is.
func (w *world) String() string {
	var b strings.Builder
	for _, p := range w.all {
		if p.s == nil {
			continue
		}
		v := p.s.View()
		fmt.Fprintf(&b, "\n  %s: %s %s, %s, members %d, epoch %d.%d", p.name, v.State, v.Reason, v.Me.Role, v.Members, v.Epoch.N, v.Epoch.Step)
	}
	return b.String()
}

// chance draws with one of the world's own probabilities.
func (w *world) chance(from, to *soul, p *float64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *p > 0 && w.road(byGossip, from, to).Float64() < *p
}

// What goes from one to another, each by its own chance.
const (
	byGossip = iota
	byStream
	byLink
)

// road is the chance of what goes from one to another. The caller holds mu.
func (w *world) road(kind int, from, to *soul) *rand.Rand {
	key := [3]int{kind, from.n, to.n}
	if w.roads[key] == nil {
		w.roads[key] = rand.New(rand.NewPCG(w.seed, uint64(kind)<<40|uint64(from.n)<<20|uint64(to.n)))
	}
	return w.roads[key]
}

// weather sets what share of gossip is lost, and what share comes twice.
func (w *world) weather(loss, dup float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loss, w.dup = loss, dup
}

// recorded is all gossip until now.
func (w *world) recorded() []sealed {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.said)
}

func (w *world) delay(kind int, from, to *soul) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := time.Millisecond + time.Duration(w.road(kind, from, to).Int64N(int64(w.slow)))
	if kind == byGossip && w.order != nil {
		road := [2]int{from.n, to.n}
		d = max(d, time.Until(w.order[road])+time.Microsecond)
		w.order[road] = time.Now().Add(d)
	}
	return d
}

// part cuts the world in two; nobody on one side reaches the other until heal.
func (w *world) part(one ...*soul) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = func(a, b *soul) bool { return slices.Contains(one, a) != slices.Contains(one, b) }
}

func (w *world) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = nil
}

func (w *world) apart(a, b *soul) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut != nil && w.cut(a, b)
}

func (w *world) find(p peer.ID) *soul {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, q := range w.all {
		if q.id == p {
			return q
		}
	}
	return nil
}

// person is somebody who has not entered yet.
func (w *world) person(name string) *soul {
	k := mustKey(w.t)
	p := &soul{w: w, name: name, key: k, id: k.ID(), gives: generous}
	p.reset()
	w.mu.Lock()
	p.n = len(w.all)
	w.all = append(w.all, p)
	w.mu.Unlock()
	return p
}

// reset empties disk and memory.
func (p *soul) reset() {
	p.disk, p.known, p.heardOf, p.seen = map[string][]byte{}, map[peer.ID]bool{}, map[peer.ID]string{}, map[[32]byte]bool{}
}

func (w *world) people(names ...string) []*soul {
	out := make([]*soul, len(names))
	for i, n := range names {
		out[i] = w.person(n)
	}
	return out
}

func testLog(who string) *slog.Logger {
	if os.Getenv("BALAI_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("who", who)
}

// open opens a room.
func (p *soul) open(v room.Visibility) {
	p.w.t.Helper()
	p.r = room.NewSecret()
	g, err := ledger.NewGenesis(p.key, p.r, room.Policy{Visibility: v, Name: "Room of " + p.name}, nil, time.Now())
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.room = room.IDOf(p.key.Public(), p.r.Nonce())
	p.disk["genesis"], _ = proto.Marshal(g)
	p.run(Config{Genesis: g, New: true})
	p.w.after(0)
}

// join comes by an invite; it does not wait.
func (p *soul) join(v *invite.Invite) {
	p.room, p.r = v.Room(), v.Secret
	if issuer, err := identity.PeerOf(v.Issuer()); err == nil {
		p.hints = append(p.hints, issuer)
	}
	p.run(Config{Invite: v})
}

// visit comes without an invite.
func (p *soul) visit(host *soul) {
	p.room, p.r, p.hints = host.room, host.r, []peer.ID{host.id}
	p.run(Config{})
}

// enter joins and waits until that is decided or knocked.
func (p *soul) enter(v *invite.Invite) Phase {
	p.w.t.Helper()
	p.join(v)
	p.w.until(p.name+" to be answered", func() bool { return p.s.View().State != Joining })
	return p.s.View().State
}

// come is enter for who must get in.
func (p *soul) come(v *invite.Invite) {
	p.w.t.Helper()
	if p.enter(v) != Live {
		p.w.t.Fatalf("%s is not in: %s", p.name, p.w)
	}
}

// restart is a new process over the same disk.
func (p *soul) restart() {
	p.w.t.Helper()
	p.halt()
	cfg := Config{Issued: p.disk["invites"], Heard: p.disk["host"]}
	for name, b := range p.disk {
		m := &wire.Signed{}
		if strings.HasPrefix(name, "op/") && proto.Unmarshal(b, m) == nil {
			cfg.Ops = append(cfg.Ops, m)
		}
	}
	if b := p.disk["genesis"]; b != nil {
		cfg.Genesis = &wire.Signed{}
		if err := proto.Unmarshal(b, cfg.Genesis); err != nil {
			p.w.t.Fatal(err)
		}
	}
	p.run(cfg)
}

func (p *soul) run(cfg Config) {
	cfg.Key, cfg.Room, cfg.Secret, cfg.Ports, cfg.Log = p.key, p.room, p.r, (*ports)(p), testLog(p.name)
	cfg.Profile = profileOf(p.name)
	time.Sleep(time.Duration(p.w.rng.Int64N(int64(time.Millisecond)))) // no two clocks tick at one moment
	ctx, cancel := context.WithCancel(context.Background())
	s := New(cfg)
	if p.w.limit > 0 {
		s.limit = p.w.limit
	}
	ended := make(chan struct{})
	p.mu.Lock()
	p.s, p.stop, p.ended, p.gate, p.seen = s, cancel, ended, nil, map[[32]byte]bool{}
	p.place, p.lanes, p.calling = nil, map[peer.ID]*lane{}, map[peer.ID]bool{}
	p.mu.Unlock()
	s.Watch(func(e Event) {
		p.mu.Lock()
		p.events = append(p.events, e)
		p.mu.Unlock()
	})
	beats, rest := context.WithCancel(context.Background())
	p.w.wg.Go(func() { s.Run(ctx); rest(); close(ended) })
	p.w.wg.Go(func() { p.beat(beats, s) })
}

func profileOf(name string) func() identity.Profile {
	return func() identity.Profile { return identity.Profile{Name: name} }
}

// halt ends the process politely.
func (p *soul) halt() {
	if p.s != nil {
		p.stop()
		<-p.ended
	}
}

// session is the one that runs, nil when none does.
func (p *soul) session() *Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.s == nil {
		return nil
	}
	select {
	case <-p.ended:
		return nil
	default:
		return p.s
	}
}

func (p *soul) view() View { return p.s.View() }

// in runs f in the session's goroutine.
func (p *soul) in(f func(s *Session)) {
	p.w.t.Helper()
	if err := p.s.call(context.Background(), func() error { f(p.s); return nil }); err != nil {
		p.w.t.Fatalf("%s: %v", p.name, err)
	}
}

// invites makes an invite with the terms given.
func (p *soul) invites(t InviteTerms) *invite.Invite {
	p.w.t.Helper()
	v, err := p.s.Invite(context.Background(), t)
	if err != nil {
		p.w.t.Fatalf("%s invites: %v", p.name, err)
	}
	inv, err := invite.ParseLink(v.Link)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return inv
}

func (p *soul) act(kind room.Kind, target *soul) {
	p.w.t.Helper()
	if err := p.try(kind, target); err != nil {
		p.w.t.Fatalf("%s: %v of %v: %v", p.name, kind, target, err)
	}
}

func (p *soul) try(kind room.Kind, target *soul) error {
	var id peer.ID
	if target != nil {
		id = target.id
	}
	return p.s.Act(context.Background(), kind, id, "")
}

func (p *soul) hash() (h [32]byte) {
	p.in(func(s *Session) { h = s.ledger.Hash() })
	return h
}

func (p *soul) sealing() (e sframe.Epoch, ok bool) {
	p.in(func(s *Session) { e, ok = s.keys.sealing() })
	return e, ok
}

// inForce is the epoch that p's ledger names.
func (p *soul) inForce() (n uint64) {
	p.in(func(s *Session) { n = s.state.Epoch.N })
	return n
}

func (p *soul) String() string {
	if p == nil {
		return "the room"
	}
	return p.name
}

// agreed tells whether these hold one state and seal with the key that it names, at one step.
func agreed(souls ...*soul) bool {
	for _, p := range souls {
		if p.view().State != Live {
			return false
		}
		a, okA := p.sealing()
		b, okB := souls[0].sealing()
		if !okA || !okB || a != b || a.N != p.inForce() || p.hash() != souls[0].hash() || p.view().Members != souls[0].view().Members {
			return false
		}
	}
	return true
}

// settle waits until these agree.
func (w *world) settle(souls ...*soul) {
	w.t.Helper()
	w.until("one state", func() bool { return agreed(souls...) })
}

// mutual fails unless each can open what each other seals now.
func (w *world) mutual(souls ...*soul) {
	w.t.Helper()
	for _, a := range souls {
		e, ok := a.sealing()
		if !ok {
			w.t.Errorf("%s has no key; %s", a.name, w)
			continue
		}
		data := e.SealGossip(a.room, "t", []byte("x"))
		for _, b := range souls {
			if !b.opens("t", data) {
				w.t.Errorf("%s cannot open what %s seals (epoch %d step %d); %s", b.name, a.name, e.N, e.Step, w)
			}
		}
	}
}

// opens tells whether any key that p holds opens a message.
func (p *soul) opens(topic string, data []byte) bool {
	return slices.ContainsFunc(p.keys(), func(e sframe.Epoch) bool {
		_, err := e.OpenGossip(p.room, topic, data)
		return err == nil
	})
}

func (p *soul) keys() (out []sframe.Epoch) {
	p.in(func(s *Session) { out = slices.Concat(s.keys.epochs, s.keys.before) })
	return out
}
