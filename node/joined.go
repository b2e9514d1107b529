package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
	"balai/node/p2p"
	"balai/room"
	"balai/room/invite"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/wire"
)

// goodbyeTime is how long a goodbye has to get on its way before the links close.
const goodbyeTime = 200 * time.Millisecond

// joined is one room of this daemon: its session, and the session's world.
type joined struct {
	d      *daemon
	id     room.ID
	secret room.Secret
	local  bool
	inv    *invite.Invite
	hints  [][]byte // records of the room's ad

	s          *session.Session
	flow       *flow
	links      *linkKeeper
	cancel     context.CancelFunc
	done       chan struct{} // closed when the session and all of it have ended
	out        chan outgoing
	topics     map[string]*p2p.Topic
	searches   atomic.Int32  // for people of the room, so far
	recordsNew chan struct{} // a member's record changed
	lost       bool          // what was stored of the room was damaged: it is kept for another try
	answering  sync.Mutex    // one offer at a time
	settled    chan struct{} // closed when the session is over and that is stored
	leftErr    error         // why that is not stored; valid once settled
	kept       bool          // over, but to be tried again at the next start; valid once settled

	mu            sync.Mutex     // guards what follows
	over          bool           // no more legs
	legs          sync.WaitGroup // of the watchers of legs
	records       map[peer.ID]heldRecord
	storedRecords map[string]uint64 // number of the record stored under a name
	private       map[peer.ID]bool  // allowed private addresses on account of this room
	browser       *browser
	report        session.Report
	register      bool
}

// entry is how a room is entered: opened now, by a link, from the hallway or from the store.
type entry struct {
	id      room.ID
	secret  room.Secret
	local   bool
	invite  *invite.Invite
	hints   [][]byte
	genesis *wire.Signed
	fresh   bool // opened now
}

// hold waits for other starts of the same room; one at a time makes or replaces its session.
func (d *daemon) hold(ctx context.Context, id room.ID) (release func(), err error) {
	for {
		d.mu.Lock()
		busy := d.starting[id]
		if busy == nil {
			mine := make(chan struct{})
			d.starting[id] = mine
			d.mu.Unlock()
			return func() {
				d.mu.Lock()
				delete(d.starting, id)
				d.mu.Unlock()
				close(mine)
			}, nil
		}
		d.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// newJoined is a room that nothing runs for yet.
func newJoined(d *daemon, e entry) *joined {
	j := &joined{
		d: d, id: e.id, secret: e.secret, local: e.local, inv: e.invite, hints: e.hints, done: make(chan struct{}), out: make(chan outgoing, publishQueue),
		records: map[peer.ID]heldRecord{}, storedRecords: map[string]uint64{}, recordsNew: make(chan struct{}, 1), settled: make(chan struct{}),
		private: map[peer.ID]bool{}, topics: map[string]*p2p.Topic{},
	}
	j.links = newLinkKeeper(j)
	return j
}

// start begins a room's session, or finds the one that lives.
func (d *daemon) start(ctx context.Context, e entry) (*joined, error) {
	release, err := d.hold(ctx, e.id)
	if err != nil {
		return nil, err
	}
	defer release()
	if old := d.joinedRoom(e.id); old != nil {
		if !old.s.View().State.Over() {
			return old, nil
		}
		old.close()
	}
	j := newJoined(d, e)
	cfg := session.Config{
		Key: d.key, Room: e.id, Secret: e.secret, Profile: d.profileNow, Local: e.local, Invite: e.invite, Genesis: e.genesis, New: e.fresh, Ports: j, Log: d.log,
	}
	if err := j.prepare(&cfg); err != nil {
		j.forbidPrivate()
		return nil, err
	}
	if err := j.run(cfg); err != nil {
		if e.fresh {
			j.unsave()
		}
		return nil, err
	}
	return j, nil
}

// run starts the goroutines of a room; close ends them. On an error nothing of it is left.
func (j *joined) run(cfg session.Config) error {
	ctx, cancel := context.WithCancel(j.d.ctx)
	j.cancel = cancel
	cfg.Pulses = new(overlay.Newest)
	j.s = session.New(cfg)
	j.flow = newFlow(flowConfig{
		Sign: j.d.key.Sign, Report: j.takeReport, Pulse: cfg.Pulses.Put, Dead: j.links.dead, Log: j.d.log,
		Lied: func(e overlay.Lied) { go j.s.Link(e) }, // it waits for its turn
	})
	err := j.openTopics()
	if err == nil {
		err = j.d.put(j)
	}
	if err != nil {
		cancel()
		j.closeTopics()
		j.flow.Close()
		j.forbidPrivate()
		close(j.done)
		return err
	}
	go j.live(ctx)
	j.d.changed(api.ChangedRooms)
	return nil
}

// live runs the session and, after it, takes its world down.
func (j *joined) live(ctx context.Context) {
	defer close(j.done)
	defer j.cancel()
	var wg sync.WaitGroup
	pump, stop := context.WithCancel(j.d.ctx)
	defer stop()
	wg.Go(func() { j.publishAll(pump) })
	wg.Go(func() { j.links.run(pump) })
	wg.Go(func() { j.keepRegistered(pump) })
	wg.Go(func() { j.keepRecords(pump) })
	wg.Go(func() { j.keepCompany(pump) })
	j.s.Run(ctx)
	j.keepOrLeave()
	j.dropLeg()
	j.d.hall.withdraw(j.id)
	rest(pump, goodbyeTime)
	stop()
	wg.Wait()
	j.Members(nil, nil)
	j.flow.Close()
	j.closeTopics()
	j.forbidPrivate()
	j.d.changed(api.ChangedHallway)
}

// keepOrLeave stores that the room was left, unless it only failed to be taken up again or the daemon stops.
func (j *joined) keepOrLeave() {
	defer close(j.settled)
	v := j.s.View()
	j.kept = v.State == session.Refused && (j.lost || v.Reason == room.Malformed.String())
	if v.State.Over() && !j.kept {
		j.leftErr = j.saveMeta(true)
	}
}

// rest waits for d, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// seated is a room as the API sees it: to leave is done when it is stored.
type seated struct {
	*session.Session
	j *joined
}

func (j *joined) api() api.Room { return seated{j.s, j} }

// Change is api.Room: what the room says of itself has to fit its ad.
func (r seated) Change(ctx context.Context, edit func(*room.Policy) error) error {
	return r.Session.Change(ctx, func(p *room.Policy) error {
		if err := edit(p); err != nil {
			return err
		}
		return tidy(p)
	})
}

// Leave is api.Room.
func (r seated) Leave(ctx context.Context) error {
	if err := r.Session.Leave(ctx); err != nil {
		return err
	}
	select {
	case <-r.j.settled:
		return r.j.leftErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the session politely and waits for all of it.
func (j *joined) close() {
	j.cancel()
	<-j.done
}

// openTopics joins the two topics of the room among the members.
func (j *joined) openTopics() error {
	for _, name := range []string{session.OpsTopic, session.StageTopic} {
		t, err := j.d.host.Members().Join(j.secret.Name(name), p2p.TopicConfig{
			Peers:    j.mayHear,
			Validate: func(from peer.ID, data []byte) p2p.Verdict { return j.d.counts.gossip(j.judge(name, from, data)) },
		})
		if err != nil {
			return fmt.Errorf("gossip of the room: %w", err)
		}
		j.topics[name] = t
	}
	return nil
}

// judge asks the session about a message.
func (j *joined) judge(topic string, from peer.ID, data []byte) p2p.Verdict {
	err := j.s.Gossip(topic, from, data)
	if err == nil {
		return p2p.Accept
	}
	j.d.log.Debug("gossip not taken", "topic", topic, "from", from, "err", err)
	if errors.Is(err, session.ErrIgnore) {
		return p2p.Ignore
	}
	return p2p.Reject
}

func (j *joined) closeTopics() {
	for _, t := range j.topics {
		_ = t.Close() // nothing is lost: the room is over
	}
}

// mayHear is the per-topic filter: members of this room, whatever other rooms they are in.
func (j *joined) mayHear(p peer.ID) bool { return p == j.d.key.ID() || j.links.isMember(p) }
