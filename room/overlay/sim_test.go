package overlay

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/wire"
)

// The simulation: nodes with an overlay, a small session and a media path each; links with a delay; a wheel of
// milliseconds. Nothing in it depends on the machine: the seed alone makes a run.

var simStart = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

const (
	wheel   = 1 << 14 // ms
	simTick = 20 * time.Millisecond
)

type simEvent struct {
	fn       func()
	to, from int32 // of a frame, fn nil
	src, ctr int32
}

type sim struct {
	t        *testing.T
	seed     uint64
	rng      *rand.Rand
	ms       int64
	slots    [wheel][]simEvent
	nodes    []*simNode
	byID     map[peer.ID]*simNode
	state    *room.State
	block    map[[2]int32]bool // pairs that cannot connect
	talks    bool
	still    bool // no heartbeat comes from anybody, no answer to a ping
	leases   map[string]*election.Lease
	digest   uint64
	frames   int64     // delivered, first copies
	measured time.Time // who came later is not measured
}

type simNode struct {
	w     *sim
	i     int32
	key   *identity.Key
	id    peer.ID
	cap   int // slots, 0: does not relay
	alive bool
	since time.Time
	life  int

	o       *Overlay
	links   map[peer.ID]bool
	dialing map[peer.ID]time.Time
	seen    *Plan
	from    map[peer.ID]bool
	moves   int // how often its parents changed
	given   int // how many it gave up

	force   election.Force
	chair   election.Chair
	elector election.Elector
	dead    map[peer.ID]map[peer.ID]time.Time
	digest  uint64
	beatAt  time.Time
	refused int // JOINs that it refused for want of right

	speaks  bool
	ctr     int32
	newest  map[int32]int32
	got     map[int32]map[int32]bool // window of recent counters
	lastAt  map[int32]time.Time
	gap     map[int32]time.Duration // longest since the last reset
	count   map[int32]int64
	ticks   map[peer.ID]uint64 // of parents
	first   time.Duration      // from the start to the first frame
	heard   map[peer.ID]time.Time
	pulseOf map[peer.ID]time.Time
}

func (w *sim) now() time.Time { return simStart.Add(time.Duration(w.ms) * time.Millisecond) }

func (w *sim) after(d time.Duration, fn func()) {
	w.put(d, simEvent{fn: fn})
}

func (w *sim) put(d time.Duration, e simEvent) {
	ms := max(1, d.Milliseconds())
	if ms >= wheel {
		w.t.Fatal("beyond the wheel")
	}
	at := (w.ms + ms) % wheel
	w.slots[at] = append(w.slots[at], e)
}

// run lets time pass.
func (w *sim) run(d time.Duration) {
	for end := w.ms + d.Milliseconds(); w.ms < end; {
		w.ms++
		i := w.ms % wheel
		for k := 0; k < len(w.slots[i]); k++ {
			if e := w.slots[i][k]; e.fn != nil {
				e.fn()
			} else {
				w.nodes[e.to].frame(e.from, e.src, e.ctr)
			}
		}
		clear(w.slots[i])
		w.slots[i] = w.slots[i][:0]
	}
}

// newSim is a room with a host, moderators and nothing else.
func newSim(t *testing.T, seed uint64) *sim {
	t.Logf("seed %d", seed)
	return simOf(t, seed, rand.New(rand.NewPCG(seed, 1)))
}

// simOf is newSim by a seed for the keys and chance for the rest.
func simOf(t *testing.T, seed uint64, r *rand.Rand) *sim {
	w := &sim{t: t, seed: seed, rng: r, byID: map[peer.ID]*simNode{}, block: map[[2]int32]bool{}, leases: map[string]*election.Lease{}}
	w.state = &room.State{Members: map[peer.ID]room.Member{}, Removed: map[peer.ID]room.OpID{}, Banned: map[peer.ID]bool{}, Vouched: map[peer.ID]bool{}}
	w.state.Room[0] = 7
	return w
}

// simKey is the key of a seed, by way of a key file, so that a run can be had again.
func simKey(t *testing.T, seed, i uint64) *identity.Key {
	if k := simKeys[[2]uint64{seed, i}]; k != nil {
		return k
	}
	raw := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(raw, seed)
	binary.BigEndian.PutUint64(raw[8:], i)
	p, err := identity.PeerOf(ed25519.NewKeyFromSeed(raw).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	block := &pem.Block{Type: "BALAI PRIVATE KEY", Headers: map[string]string{"Version": "1", "Peer": p.String()}, Bytes: raw}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := identity.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	simKeys[[2]uint64{seed, i}] = k
	return k
}

// simKeys keeps them; tests here do not run in parallel.
var simKeys = map[[2]uint64]*identity.Key{}

// add makes a node that takes slots children, and lets it join now.
func (w *sim) add(slots int, speaks bool) *simNode {
	n := &simNode{w: w, i: int32(len(w.nodes)), cap: slots, speaks: speaks}
	n.key = simKey(w.t, w.seed, uint64(n.i))
	n.id = n.key.ID()
	w.nodes = append(w.nodes, n)
	w.byID[n.id] = n
	if w.state.Host == "" {
		w.state.Host = n.id
	}
	w.state.Members[n.id] = room.Member{Peer: n.id, Role: room.Listener, OnStage: speaks}
	if speaks {
		w.state.Stage = append(w.state.Stage, n.id)
	}
	n.start()
	return n
}

// start begins a process of n's: nothing of an earlier one is left.
func (n *simNode) start() {
	w := n.w
	n.alive, n.since, n.life = true, w.now(), n.life+1
	n.o = New(Config{Me: n.id, Room: w.state.Room})
	n.links, n.dialing, n.from, n.seen = map[peer.ID]bool{}, map[peer.ID]time.Time{}, map[peer.ID]bool{}, nil
	n.force, n.chair, n.elector = election.Force{}, election.Chair{}, election.Elector{}
	n.dead, n.digest = map[peer.ID]map[peer.ID]time.Time{}, 0
	n.newest, n.got, n.lastAt, n.gap = map[int32]int32{}, map[int32]map[int32]bool{}, map[int32]time.Time{}, map[int32]time.Duration{}
	n.count, n.ticks, n.heard, n.pulseOf = map[int32]int64{}, map[peer.ID]uint64{}, map[peer.ID]time.Time{}, map[peer.ID]time.Time{}
	for _, m := range w.nodes { // whom the newcomer learns the room from
		if m.alive && m != n && m.force.Lease() != nil && m.insider() {
			n.take(m.force.Lease())
			break
		}
	}
	life := n.life
	n.step(n.situation())
	phase := time.Duration(w.rng.IntN(200)) * time.Millisecond
	var wake, beat, second func()
	wake = n.while(life, func() {
		n.step(nil)
		w.after(max(5*time.Millisecond, n.o.Next().Sub(w.now())), wake)
	})
	beat = n.while(life, func() { n.heartbeat(); w.after(heartbeat, beat) })
	second = n.while(life, func() { n.second(); w.after(250*time.Millisecond, second) })
	w.after(time.Millisecond, wake)
	w.after(phase, beat)
	w.after(phase, second)
	if n.speaks {
		var talk func()
		talk = n.while(life, func() { n.talk(); w.after(simTick, talk) })
		w.after(phase/10, talk)
	}
}

func (n *simNode) while(life int, fn func()) func() {
	return func() {
		if n.alive && n.life == life {
			fn()
		}
	}
}

func (n *simNode) kill() { n.alive = false }

// insider tells whether n is in the members' gossip: stage, those who relay, everybody in a small room.
func (n *simNode) insider() bool {
	return n.speaks || n.cap > 0 || len(n.w.nodes) <= 64
}

func (w *sim) delay(a, b int32) time.Duration {
	x := uint64(min(a, b))<<32 | uint64(max(a, b))
	x = (x + 1) * 0x9E3779B97F4A7C15
	return time.Duration(5+x>>40%36) * time.Millisecond
}

// here are the people as others know them: the dead for ten seconds more.
func (w *sim) here(not *simNode) (out []*simNode) {
	for _, m := range w.nodes {
		if m != not && m.alive && w.state.Removed[m.id] == (room.OpID{}) {
			out = append(out, m)
		}
	}
	return out
}

func (n *simNode) situation() Situation {
	s := Situation{OnStage: n.speaks, Slots: n.cap, Removed: map[Short]bool{}, Links: map[peer.ID][]Short{}}
	for p := range n.w.state.Removed {
		s.Removed[identity.ShortID(p)] = true
	}
	if n.cap > 0 {
		s.Ad = n.ad().Signed
	}
	all := n.w.here(n)
	for _, m := range all {
		if m.speaks {
			s.Stage = append(s.Stage, m.id)
		}
		if len(all) > election.AssistMax {
			continue
		}
		s.People = append(s.People, m.id)
		if m.id < n.id {
			s.Dial = append(s.Dial, m.id)
		}
		for p := range m.links {
			s.Links[m.id] = append(s.Links[m.id], identity.ShortID(p))
		}
	}
	return s
}

var adCache = map[string]*election.Ad{}

func (n *simNode) ad() *election.Ad {
	key := fmt.Sprint(n.w.seed, n.i, n.cap)
	if a := adCache[key]; a != nil {
		return a
	}
	a := election.Ad{Room: n.w.state.Room, Seq: 1, Reach: election.ReachPublic, Cap: uint32(n.cap) * 150, Slots: uint32(n.cap), Issued: simStart} // as a daemon offers
	parsed, err := election.ParseAd(a.Sign(n.key), n.w.state.Room)
	if err != nil {
		n.w.t.Fatal(err)
	}
	adCache[key] = parsed
	return parsed
}

// step feeds the overlay and does what it says.
var dbgHook = func(*simNode, string, any) {}

func (n *simNode) step(e Event, seen ...Pulse) {
	if e != nil {
		dbgHook(n, "ev", e)
	}
	for _, a := range n.o.Step(e, n.w.now(), seen...) {
		dbgHook(n, "  do", a)
		switch a := a.(type) {
		case Tell:
			n.tell(a.Peer, a.Record)
		case Ping:
			n.ping(a.Peer)
		case Find:
			n.w.after(200*time.Millisecond, n.while(n.life, func() {
				var f Found
				for _, m := range n.w.here(n) {
					if m.insider() {
						f.Peers = append(f.Peers, m.id)
					}
				}
				n.step(f)
			}))
		case Learn:
			if a.Lease != nil {
				if l := n.w.parse(a.Lease); l != nil {
					n.take(l)
				}
			}
		case Dead:
			n.given++
			n.object(a.Peer)
		}
	}
	n.reconcile()
}

// parse reads a lease once for all nodes: their answers would be the same.
func (w *sim) parse(s *wire.Signed) *election.Lease {
	key := string(s.Sig)
	if l, ok := w.leases[key]; ok {
		return l
	}
	l, err := election.ParseLease(s, w.state.Room)
	if err != nil {
		w.t.Fatal(err)
	}
	w.leases[key] = l
	return l
}

func (n *simNode) tell(p peer.ID, r *wire.LinkRecord) {
	m := n.w.byID[p]
	if m == nil || !n.links[p] {
		return
	}
	life := m.life
	n.w.after(n.w.delay(n.i, m.i), m.while(life, func() {
		if !m.links[n.id] {
			return
		}
		g := Got{Peer: n.id, Record: r}
		if r.GetJoin() != nil {
			if _, gone := n.w.state.Removed[n.id]; gone {
				g.Refused, m.refused = room.Removed, m.refused+1
			}
		}
		if r.GetClose() != nil {
			m.unlink(n)
			return
		}
		m.step(g)
	}))
}

func (n *simNode) ping(p peer.ID) {
	m := n.w.byID[p]
	n.w.after(2*n.w.delay(n.i, m.i), n.while(n.life, func() {
		if m.alive && m.links[n.id] && n.links[p] && !n.w.still {
			n.step(nil, Pulse{Peer: p, Last: n.w.now(), Tick: n.ticks[p]})
		}
	}))
}

// reconcile is the link keeper.
func (n *simNode) reconcile() {
	pl := n.o.Plan()
	if pl == n.seen {
		return
	}
	was := n.seen
	n.seen = pl
	clear(n.from)
	for _, p := range pl.Parents {
		n.from[p] = true
	}
	if was != nil && len(was.Parents) > 0 && !slices.Equal(was.Parents, pl.Parents) {
		n.moves++
	}
	for p := range n.links {
		if !slices.Contains(pl.Links, p) {
			m := n.w.byID[p]
			delete(n.links, p)
			n.w.after(n.w.delay(n.i, m.i), m.while(m.life, func() { m.unlink(n) }))
		}
	}
	for _, p := range pl.Links {
		if n.links[p] || !slices.Contains(pl.Dial, p) {
			continue
		}
		n.dial(p)
	}
}

func (n *simNode) unlink(m *simNode) {
	if n.links[m.id] {
		delete(n.links, m.id)
		n.step(Unlinked{m.id})
	}
}

// dial opens a link: one and a half round trips.
func (n *simNode) dial(p peer.ID) {
	w, m := n.w, n.w.byID[p]
	if at, busy := n.dialing[p]; busy && w.now().Before(at) {
		return
	}
	d := w.delay(n.i, m.i)
	if !m.alive || w.block[[2]int32{min(n.i, m.i), max(n.i, m.i)}] {
		n.dialing[p] = w.now().Add(5 * time.Second)
		w.after(5*time.Second, n.while(n.life, func() { delete(n.dialing, p); n.step(Unlinked{p}); n.seen = nil; n.reconcile() }))
		return
	}
	n.dialing[p] = w.now().Add(4 * d)
	life := m.life
	w.after(3*d, m.while(life, func() {
		pl := m.o.Plan()
		_, gone := w.state.Removed[n.id]
		ok := (pl.Accept || slices.Contains(pl.Links, n.id)) && !gone
		if gone {
			m.refused++
		}
		w.after(d, n.while(n.life, func() {
			delete(n.dialing, p)
			if ok && m.links[n.id] {
				n.links[p] = true
				n.step(Linked{p})
			} else {
				n.step(Unlinked{p})
			}
		}))
		if ok { // last, so that what m says at once comes after the link is open at n
			m.links[n.id] = true
			m.step(Linked{n.id})
		}
	}))
}

// heartbeat goes to all who are linked; it carries path, level, tick and the newest counters.
func (n *simNode) heartbeat() {
	if n.w.still {
		return
	}
	w, pl := n.w, n.o.Plan()
	tick := uint64(w.ms / simTick.Milliseconds())
	if !pl.Clock {
		tick = 0
		for _, p := range n.o.Parents() {
			if p.Mode.active() {
				tick = max(tick, n.ticks[p.Peer])
			}
		}
	}
	path := make([][]byte, len(pl.Path))
	for i := range pl.Path {
		path[i] = slices.Clone(pl.Path[i][:])
	}
	newest := make(map[int32]int32, len(n.newest))
	for s, c := range n.newest {
		newest[s] = c
	}
	for p := range n.links {
		m := w.byID[p]
		life := m.life
		w.after(w.delay(n.i, m.i), m.while(life, func() { m.beat(n, tick, pl.Level, path, newest) }))
	}
}

func (n *simNode) beat(m *simNode, tick uint64, level uint32, path [][]byte, newest map[int32]int32) {
	if !n.links[m.id] {
		return
	}
	now := n.w.now()
	n.heard[m.id] = now
	if !n.from[m.id] {
		if now.Sub(n.pulseOf[m.id]) >= time.Second {
			n.pulseOf[m.id] = now
			n.step(nil, Pulse{Peer: m.id, Last: now})
		}
		return
	}
	n.ticks[m.id] = tick
	ahead := time.Duration(0)
	for s, c := range newest {
		if mine, ok := n.newest[s]; ok {
			ahead = max(ahead, time.Duration(c-mine)*simTick)
		}
	}
	n.step(nil, Pulse{Peer: m.id, Last: now, Tick: tick, Level: level, Path: path, Ahead: ahead})
}

// talk sends one frame of mine.
func (n *simNode) talk() {
	if !n.w.talks {
		return
	}
	n.ctr++
	pl := n.o.Plan()
	for _, p := range pl.Up {
		n.send(p, n.i, n.ctr)
	}
	for i := range pl.Feeds {
		f := &pl.Feeds[i]
		if f.Mode.active() && !slices.Contains(pl.Up, f.Peer) {
			n.send(f.Peer, n.i, n.ctr)
		}
	}
}

func (n *simNode) send(p peer.ID, src, ctr int32) {
	if n.links[p] {
		m := n.w.byID[p]
		n.w.put(n.w.delay(n.i, m.i), simEvent{to: m.i, from: n.i, src: src, ctr: ctr})
	}
}

// frame is the media path: first copies count and are forwarded.
func (n *simNode) frame(from, src, ctr int32) {
	if !n.alive || src == n.i {
		return
	}
	m := n.w.nodes[from]
	if !n.links[m.id] || from != src && !n.from[m.id] {
		return
	}
	g := n.got[src]
	if g == nil {
		g = map[int32]bool{}
		n.got[src] = g
	}
	if g[ctr] || ctr+50 < n.newest[src] {
		return
	}
	g[ctr] = true
	delete(g, ctr-100)
	now := n.w.now()
	if last, ok := n.lastAt[src]; ok {
		n.gap[src] = max(n.gap[src], now.Sub(last))
	}
	if len(n.lastAt) == 0 {
		n.first = now.Sub(n.since)
	}
	n.lastAt[src] = now
	n.newest[src] = max(n.newest[src], ctr)
	n.count[src]++
	n.w.frames++
	pl := n.o.Plan()
	for i := range pl.Feeds {
		f := &pl.Feeds[i]
		if f.Peer == m.id || !f.Mode.active() && f.Mode != Assist || f.Direct && from != src {
			continue
		}
		to := n.w.byID[f.Peer]
		if to.i == src || f.Only != nil && !slices.Contains(f.Only, n.w.nodes[src].id) {
			continue
		}
		n.send(f.Peer, src, ctr)
	}
}
