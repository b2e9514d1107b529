// Package session owns one joined room: a single goroutine holds its state, its ledger and its keys, and
// touches the world only through Ports. It does not carry audio: it tells the media path what to do.
package session

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/invite"
	"balai/room/ledger"
	"balai/room/overlay"
	"balai/room/sframe"
	"balai/room/wire"
)

// Config is what a session starts from. Genesis is nil for a newcomer; Ops, Issued and Steps are what an
// earlier run saved.
type Config struct {
	Key     *identity.Key
	Room    room.ID
	Secret  room.Secret
	Profile func() identity.Profile
	Local   bool           // private addresses may be used in this room
	Invite  *invite.Invite // the link that I came with, nil for none
	Genesis *wire.Signed
	Ops     []*wire.Signed
	Issued  []byte          // what Save was given under "invites"
	Heard   []byte          // and under "host"
	New     bool            // I open the room now
	Pulses  *overlay.Newest // what the media path sees of peers, read with each turn; nil: nothing
	Ports   Ports
	Log     *slog.Logger
}

// tickPeriod is how often the session looks at its timers.
const tickPeriod = 250 * time.Millisecond

// inbox bounds what waits for the session; gossip beyond it is dropped, commands wait.
const inbox = 256

// Session is one joined room. Make it with New, then Run it; its methods are safe from any goroutine.
type Session struct {
	cfg  Config
	me   peer.ID
	in   chan func()
	done chan struct{} // closed when Run returns
	view atomic.Pointer[View]
	wg   sync.WaitGroup

	doorway doorway

	shared atomic.Pointer[shared] // what validators read
	flood  flood                  // what they let by

	watchMu  sync.Mutex
	watchers map[int]func(Event)
	watchSeq int

	// Owned by Run.
	ctx        context.Context
	dice       *rand.Rand // whom to ask, how long to wait
	phase      Phase
	reason     room.Reason
	clocks     int           // of ClockOff: how many authorities said so
	clockAhead time.Duration // their median before my clock
	ledger     *ledger.Ledger
	state      *room.State // nil without a ledger
	keys       keyring
	live       map[peer.ID]*presence
	chair      election.Chair
	beat       beatState
	admits     admitQueue
	knocks     map[peer.ID]*knock
	grace      map[peer.ID]time.Time // removed, still told why
	doubts     map[peer.ID]time.Time // whose admission became void, until when they may be confirmed
	keyless    time.Time             // since when I lack the epoch in force; zero: I do not
	owed       time.Time             // a new epoch is due then; zero: none
	cause      uint8
	hand       *wire.Hand
	muted      bool
	wasStage   bool
	seq        uint64
	instance   []byte
	own        ownSource
	issued     []issued
	chat       []Line
	heard      map[uint32]map[peer.ID]time.Time
	report     Report
	keyOf      room.EpochID // whose secret I, a guest, have begun to ask for
	due        deadlines
	fetching   map[peer.ID]bool
	asking     bool
	ad         adState
	alone      bool // acts without having asked others, for want of any
	carry      carry
	heir       succession
	guest      bool         // I am here by a pass: not in the ledger, not in the members' gossip
	pass       *wire.Signed // mine, shown to relays
	passAt     time.Time    // from when on it is good
	passTry    time.Time    // when I last asked for a new one
	leaving    bool         // said goodbye, and still carries others
	checkEvery int          // ops from one checkpoint to the next
	limit      int          // people in the ledger and in gossip, from which on listeners come by a pass
	guests     map[peer.ID]held
	passed     map[room.InviteID]int // uses of invites by passes that I gave
	tallied    map[room.InviteID]int // of these, written down
	plan       Media
	dirty      bool      // what follows from the state is to be drawn
	unseen     bool      // the view is older than the state
	urgent     bool      // and somebody waits for it
	shown      time.Time // when the view was last made
	ids        map[peer.ID]string
	signedKey,
	signedSource made
	signedFor sourceOf
	seen      map[[32]byte]time.Time // claims already used
	since     time.Time              // live since
	past      map[peer.ID]int64      // who was here: its last word, in its own milliseconds
	asked     map[peer.ID]time.Time  // whom I asked for what I miss, when
	pending   map[room.OpID]*wire.Signed
}

// shared is what gossip validators may read from any goroutine.
type shared struct {
	state  *room.State
	keys   []sframe.Epoch
	proven map[room.EpochID]bool
	live   bool

	changes uint64 // of the keys, up to here
}

// New makes a session; nothing happens before Run.
func New(cfg Config) *Session {
	if cfg.Pulses == nil {
		cfg.Pulses = new(overlay.Newest)
	}
	s := &Session{
		cfg: cfg, me: cfg.Key.ID(), in: make(chan func(), inbox), done: make(chan struct{}),
		watchers: map[int]func(Event){}, phase: Joining, muted: true, alone: cfg.New,
		live: map[peer.ID]*presence{}, knocks: map[peer.ID]*knock{}, grace: map[peer.ID]time.Time{}, doubts: map[peer.ID]time.Time{},
		heard: map[uint32]map[peer.ID]time.Time{}, fetching: map[peer.ID]bool{}, seen: map[[32]byte]time.Time{},
		past: map[peer.ID]int64{}, asked: map[peer.ID]time.Time{}, pending: map[room.OpID]*wire.Signed{},
		limit: gossipLimit, checkEvery: checkpointEvery, ids: map[peer.ID]string{}, guests: map[peer.ID]held{}, passed: map[room.InviteID]int{}, tallied: map[room.InviteID]int{},
	}
	s.carry = newCarry(&s.cfg, s.me)
	s.instance = randomBytes(8)
	s.dice = rand.New(rand.NewChaCha8([32]byte(randomBytes(32))))
	s.own = newOwnSource(cfg.Room, s.me)
	s.keys.handout, s.keys.notes = sframe.NewHandoutKey(), map[room.EpochID]keyNote{}
	s.loadInvites(cfg.Issued)
	s.loadHeard(cfg.Heard)
	s.publishView()
	return s
}

// Run owns the session until ctx ends or the room is over for this daemon. It waits for all that it started.
func (s *Session) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer close(s.done)
	defer cancel()
	s.ctx = ctx
	s.begin(time.Now())
	s.settle(time.Now())
	tick := time.NewTicker(tickPeriod)
	defer tick.Stop()
	look := time.NewTimer(tickPeriod)
	defer look.Stop()
	for !s.phase.Over() {
		select {
		case <-ctx.Done():
			s.goodbye()
			return
		case f := <-s.in:
			f()
			for n := len(s.in); n > 0 && !s.phase.Over(); n-- { // what follows from all of them is drawn once
				(<-s.in)()
			}
		case <-tick.C:
			s.tick(time.Now())
		case <-look.C:
		}
		now := time.Now()
		s.settle(now)
		next := s.carry.wake
		if due := s.shown.Add(viewPeriod); s.unseen && due.Before(next) {
			next = due
		}
		look.Reset(max(next.Sub(now), shortestLook))
	}
	s.goodbye()
	s.publishView()
}

// shortestLook keeps a state machine that always wants to be called from taking all of the time.
const shortestLook = 10 * time.Millisecond

// begin takes up what was stored, or starts to ask for entry.
func (s *Session) begin(now time.Time) {
	if s.cfg.Genesis != nil {
		if err := s.openLedger(s.cfg.Genesis, s.cfg.Ops); err != nil {
			s.refuse(room.Malformed)
			return
		}
	}
	if s.state != nil && s.state.Ended {
		s.phase, s.dirty = Ended, true
		return
	}
	if s.cfg.New {
		s.goLive(now)
		return
	}
	s.wg.Go(s.enter)
}

// goLive is the moment of being in.
func (s *Session) goLive(now time.Time) {
	if s.phase == Live {
		return
	}
	s.phase, s.muted, s.dirty, s.since = Live, true, true, now
	s.due = deadlines{}
	s.touch(s.me, now)
	s.takeUpTallies()
	s.afterLedger(now)
}

// tick runs what is due.
func (s *Session) tick(now time.Time) {
	if s.phase != Live {
		return
	}
	s.expire(now)
	s.endDoubts(now)
	s.flushAdmits(now)
	s.rekeyIfOwed(now)
	s.lostKey(now)
	s.switchEpoch(now)
	s.takeChair(now)
	if s.due.passed(&s.due.presence, now, s.presenceEvery()) {
		s.sendPresence(now)
	}
	if s.due.passed(&s.due.heard, now, s.heardEvery()) {
		s.sendHeard(now)
	}
	s.advertise(now)
	s.askAround(now)
	s.askTheSilent(now)
	s.tendOffer(now)
	s.choose(now)
	s.tellDigest(now)
	s.tallyGuests(now)
	s.renewPass(now)
	s.tendHost(now)
	s.checkpoint(now)
	s.fetchAsGuest(now)
}

// settle lets the consequences of a step be seen: shared state, media plan, view, events. While much happens, the view is
// made anew viewPeriod apart.
func (s *Session) settle(now time.Time) {
	s.share()
	if s.phase == Live {
		s.tendCarry(now)
	}
	s.replan(now)
	if s.dirty {
		s.dirty, s.unseen = false, true
	}
	if s.unseen && (s.urgent || s.phase != Live || now.Sub(s.shown) >= viewPeriod) {
		s.unseen, s.shown = false, now
		s.publishView()
	}
	s.urgent = false
}

const viewPeriod = 100 * time.Millisecond

// share gives validators the state and the keys as they are now.
func (s *Session) share() {
	old := s.shared.Load()
	if old != nil && old.state == s.state && old.live == (s.phase == Live) && old.changes == s.keys.changes {
		return
	}
	sh := &shared{state: s.state, keys: slices.Concat(s.keys.epochs, s.keys.before), proven: map[room.EpochID]bool{}, live: s.phase == Live, changes: s.keys.changes}
	for id, n := range s.keys.notes {
		sh.proven[id] = n.proven
	}
	s.shared.Store(sh)
}

// idOf is p's id in text, which costs more than it seems.
func (s *Session) idOf(p peer.ID) string {
	if len(s.ids) > maxIDs {
		clear(s.ids)
	}
	id, ok := s.ids[p]
	if !ok {
		id = p.String()
		s.ids[p] = id
	}
	return id
}

const maxIDs = 4096

// publishView makes a new view and tells the watchers when it differs.
func (s *Session) publishView() {
	v := s.makeView()
	if old := s.view.Load(); old != nil && reflect.DeepEqual(*old, v) {
		return
	}
	s.view.Store(&v)
	s.emit(Event{Kind: EventRoom, Room: &v})
}

// refuse ends the session with a reason.
func (s *Session) refuse(r room.Reason) {
	if s.phase.Over() {
		return
	}
	s.phase, s.reason, s.dirty = Refused, r, true
}

// goodbye withdraws from the world at the end of Run.
func (s *Session) goodbye() {
	if s.phase == Live || s.phase == Left && !s.since.IsZero() {
		s.sayGoodbye(time.Now())
		s.linger()
	}
	s.dismissCommunities(s.phase == Ended)
	s.cfg.Ports.Media(Media{Room: s.cfg.Room, Seal: -1})
	s.cfg.Ports.Links(&overlay.Plan{}, nil)
	s.cfg.Ports.Listed(nil, false)
	s.shared.Store(&shared{})
}

// View is the room as it is now. Any goroutine.
func (s *Session) View() View { return *s.view.Load() }

// Watch calls fn for each event, in order, from the session's goroutine: fn must not block nor call back
// into the session. The answer ends the watch.
func (s *Session) Watch(fn func(Event)) (cancel func()) {
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	s.watchSeq++
	id := s.watchSeq
	s.watchers[id] = fn
	return func() {
		s.watchMu.Lock()
		defer s.watchMu.Unlock()
		delete(s.watchers, id)
	}
}

func (s *Session) emit(e Event) {
	s.watchMu.Lock()
	fns := slices.Collect(maps.Values(s.watchers))
	s.watchMu.Unlock()
	for _, fn := range fns {
		fn(e)
	}
}

// call runs f in the session's goroutine and waits for it.
func (s *Session) call(ctx context.Context, f func() error) error {
	res := make(chan error, 1)
	select {
	case s.in <- func() { s.urgent = true; res <- f() }:
	case <-s.done:
		return ErrOver
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-res:
		return err
	case <-s.done:
	}
	select {
	case err := <-res:
		return err
	default:
		return ErrOver
	}
}

// post hands f over without waiting; it says false when the inbox is full.
func (s *Session) post(f func()) bool {
	select {
	case s.in <- f:
		return true
	default:
		return false
	}
}

// Report takes what the media path tells. Any goroutine; never blocks.
func (s *Session) Report(r Report) {
	s.post(func() {
		s.report, s.dirty = r, true
		s.countSource(r.Source, r.Ctr)
	})
}

// deadlines are the next times of periodic work.
type deadlines struct{ presence, heard, beat, ask, meet, tally, checkpoint time.Time }

// passed tells whether *at is due, and sets the next.
func (d *deadlines) passed(at *time.Time, now time.Time, period time.Duration) bool {
	if now.Before(*at) {
		return false
	}
	*at = now.Add(period)
	return true
}
