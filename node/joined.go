package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/node/p2p"
	"balai/node/rtc"
	"balai/node/store"
	"balai/room"
	"balai/room/invite"
	"balai/room/session"
	"balai/room/wire"
)

const (
	publishQueue   = 64
	publishTimeout = 5 * time.Second
	closeTimeout   = 3 * time.Second
)

// joined is one room of this daemon: its session, and the session's world.
type joined struct {
	d      *daemon
	id     room.ID
	secret room.Secret
	local  bool
	inv    *invite.Invite

	s      *session.Session
	flow   *flow
	links  *linkKeeper
	cancel context.CancelFunc
	done   chan struct{}  // closed when the session and all of it have ended
	wg     sync.WaitGroup // of the watchers of legs
	out    chan outgoing
	topics map[string]*p2p.Topic

	mu       sync.Mutex // guards what follows
	records  map[peer.ID][]byte
	private  map[peer.ID]bool // allowed private addresses on account of this room
	browser  *browser
	report   session.Report
	register bool
	hints    [][]byte // records of the room's ad
}

type outgoing struct {
	topic string
	data  []byte
}

// roomMeta is what is stored of a room besides its ledger.
type roomMeta struct {
	Secret []byte `json:"secret"`
	Local  bool   `json:"local"`
	Link   string `json:"link,omitempty"`
	Left   bool   `json:"left,omitempty"`
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

// start begins a room's session.
func (d *daemon) start(e entry) (*joined, error) {
	if old := d.joinedRoom(e.id); old != nil {
		if !old.s.View().State.Over() {
			return old, nil
		}
		old.close()
	}
	j := &joined{
		d: d, id: e.id, secret: e.secret, local: e.local, inv: e.invite, hints: e.hints, done: make(chan struct{}), out: make(chan outgoing, publishQueue),
		records: map[peer.ID][]byte{}, private: map[peer.ID]bool{}, topics: map[string]*p2p.Topic{},
	}
	cfg := session.Config{
		Key: d.key, Room: e.id, Secret: e.secret, Profile: d.profileNow, Local: e.local, Invite: e.invite, Genesis: e.genesis, New: e.fresh, Ports: j, Log: d.log,
	}
	if err := j.load(&cfg); err != nil {
		return nil, err
	}
	if err := j.saveMeta(false); err != nil {
		return nil, err
	}
	if e.fresh {
		if err := j.saveRecord("genesis", e.genesis); err != nil {
			return nil, err
		}
	}
	return j, j.run(cfg)
}

// run starts the goroutines of a room; close ends them.
func (j *joined) run(cfg session.Config) error {
	ctx, cancel := context.WithCancel(j.d.ctx)
	j.cancel = cancel
	j.s = session.New(cfg)
	j.links = newLinkKeeper(j)
	j.flow = newFlow(flowConfig{Sign: j.d.key.Sign, Report: j.takeReport, Log: j.d.log})
	if err := j.openTopics(); err != nil {
		cancel()
		j.flow.Close()
		close(j.done)
		return err
	}
	if err := j.d.put(j); err != nil {
		cancel()
		j.closeTopics()
		j.flow.Close()
		close(j.done)
		return err
	}
	go j.live(ctx)
	j.d.changed("rooms")
	return nil
}

// live runs the session and, after it, takes its world down.
func (j *joined) live(ctx context.Context) {
	defer close(j.done)
	var wg sync.WaitGroup
	pump, stop := context.WithCancel(j.d.ctx)
	wg.Go(func() { j.publishAll(pump) })
	wg.Go(func() { j.links.run(pump) })
	wg.Go(func() { j.keepRegistered(pump) })
	j.s.Run(ctx)
	j.drain()
	j.Members(nil)
	stop()
	wg.Wait()
	j.dropLeg()
	j.flow.Close()
	j.closeTopics()
	j.forbidPrivate()
	if v := j.s.View(); v.State.Over() {
		if err := j.saveMeta(true); err != nil {
			j.d.log.Warn("room not stored as left", "err", err)
		}
	}
	j.d.hall.withdraw(j.id)
	j.d.changed("hallway")
}

// close ends the session politely and waits for all of it.
func (j *joined) close() {
	j.cancel()
	<-j.done
}

// drain waits a moment for the goodbye to be on its way.
func (j *joined) drain() {
	t := time.NewTimer(200 * time.Millisecond)
	defer t.Stop()
	<-t.C
}

// load reads what an earlier run stored.
func (j *joined) load(cfg *session.Config) error {
	entries, err := j.d.store.List(j.d.ctx, store.Rooms.ChildString(j.id.String()))
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return err
	}
	for _, e := range entries {
		name := ds.RawKey(e.Key).BaseNamespace()
		switch {
		case strings.Contains(e.Key, "/ledger/"):
			op := &wire.Signed{}
			if proto.Unmarshal(e.Value, op) == nil {
				cfg.Ops = append(cfg.Ops, op)
			}
		case name == "genesis" && cfg.Genesis == nil:
			g := &wire.Signed{}
			if proto.Unmarshal(e.Value, g) == nil {
				cfg.Genesis = g
			}
		case name == "invites":
			cfg.Issued = e.Value
		case strings.Contains(e.Key, "/record/"):
			j.Learn(e.Value, "")
		}
	}
	return nil
}

func (j *joined) saveMeta(left bool) error {
	m := roomMeta{Secret: j.secret[:], Local: j.local, Left: left}
	if j.inv != nil {
		m.Link = j.inv.Link()
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return j.Save("meta", b)
}

func (j *joined) saveRecord(name string, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return j.Save(name, b)
}

// restore takes up the rooms that were not left.
func (d *daemon) restore() error {
	entries, err := d.store.List(d.ctx, store.Rooms)
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return err
	}
	for _, e := range entries {
		key := ds.RawKey(e.Key)
		if key.BaseNamespace() != "meta" {
			continue
		}
		var m roomMeta
		id, err := room.ParseID(key.Parent().BaseNamespace())
		if err != nil || json.Unmarshal(e.Value, &m) != nil || m.Left || len(m.Secret) != 16 {
			continue
		}
		if _, err := d.start(entryOf(id, m)); err != nil {
			d.log.Warn("room not taken up", "room", id, "err", err)
		}
	}
	return nil
}

func entryOf(id room.ID, m roomMeta) entry {
	e := entry{id: id, secret: room.Secret(m.Secret), local: m.Local}
	if m.Link != "" {
		if inv, err := invite.ParseLink(m.Link); err == nil {
			e.invite = inv
		}
	}
	return e
}

// storedRoom reads how a room of an earlier time was entered.
func (d *daemon) storedRoom(id room.ID) (entry, bool) {
	b, err := d.store.Get(d.ctx, store.Rooms.ChildString(id.String()).ChildString("meta"))
	var m roomMeta
	if err != nil || json.Unmarshal(b, &m) != nil || len(m.Secret) != 16 {
		return entry{}, false
	}
	return entryOf(id, m), true
}

// takeReport keeps the media path's last word and passes it on. The flow's goroutine.
func (j *joined) takeReport(r session.Report) {
	j.mu.Lock()
	r.Leg = j.browser != nil
	j.links.degrade(r.Links)
	j.report = r
	j.mu.Unlock()
	j.s.Report(r)
}

func (j *joined) lastReport() session.Report {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.report
}

// answer makes a browser leg for this room in place of an older one; the microphone begins muted.
func (j *joined) answer(ctx context.Context, offer string) (id, sdp string, err error) {
	if v := j.s.View(); v.State != session.Live {
		return "", "", session.ErrOver
	}
	if err := j.s.Mute(ctx, true); err != nil {
		return "", "", err
	}
	end := j.flow.Attach()
	leg, sdp, err := j.d.rtc.Answer(ctx, offer, rtc.LegConfig{Up: end.Up})
	if err != nil {
		end.Close()
		return "", "", err
	}
	end.SetPlayer(leg)
	j.seat(&browser{leg, end})
	j.wg.Go(func() {
		<-leg.Done()
		j.unseat(leg.ID())
		end.Close()
	})
	return leg.ID(), sdp, nil
}

// browser is a leg and the media path's end of it.
type browser struct {
	leg *rtc.Leg
	end *flowLeg
}

// seat makes b the browser of this room; an older one ends.
func (j *joined) seat(b *browser) {
	j.mu.Lock()
	old := j.browser
	j.browser = b
	j.mu.Unlock()
	if old != nil {
		old.leg.Close()
	}
	j.tellLeg()
}

// unseat forgets the leg of that id; it says whether there was one.
func (j *joined) unseat(id string) bool {
	j.mu.Lock()
	b := j.browser
	ours := b != nil && b.leg.ID() == id
	if ours {
		j.browser = nil
	}
	j.mu.Unlock()
	if ours {
		j.tellLeg()
	}
	return ours
}

// hangUp ends the leg of that id.
func (j *joined) hangUp(id string) bool {
	j.mu.Lock()
	b := j.browser
	j.mu.Unlock()
	if b == nil || !j.unseat(id) {
		return false
	}
	b.leg.Close()
	return true
}

// tellLeg reports whether a leg is up without waiting for the media path.
func (j *joined) tellLeg() {
	j.mu.Lock()
	j.report.Leg = j.browser != nil
	r := j.report
	j.mu.Unlock()
	j.s.Report(r)
}

func (j *joined) dropLeg() {
	j.mu.Lock()
	b := j.browser
	j.browser = nil
	j.mu.Unlock()
	if b != nil {
		b.leg.Close()
	}
	j.wg.Wait()
}

// openTopics joins the two topics of the room among the members.
func (j *joined) openTopics() error {
	for _, name := range []string{session.OpsTopic, session.StageTopic} {
		t, err := j.d.host.Members().Join(j.secret.Name(name), p2p.TopicConfig{
			Peers: j.mayHear,
			Validate: func(from peer.ID, data []byte) p2p.Verdict {
				err := j.s.Gossip(name, from, data)
				if err == nil {
					return p2p.Accept
				}
				j.d.log.Debug("gossip not taken", "topic", name, "from", from, "err", err)
				if errors.Is(err, session.ErrIgnore) {
					return p2p.Ignore
				}
				return p2p.Reject
			},
		})
		if err != nil {
			j.closeTopics()
			return fmt.Errorf("gossip of the room: %w", err)
		}
		j.topics[name] = t
	}
	return nil
}

func (j *joined) closeTopics() {
	for _, t := range j.topics {
		_ = t.Close()
	}
}

// mayHear is the per-topic filter: members of this room, whatever other rooms they are in.
func (j *joined) mayHear(p peer.ID) bool { return p == j.d.key.ID() || j.links.isMember(p) }

func shortKey(p peer.ID) string { b := identity.ShortID(p); return fmt.Sprintf("%x", b) }
