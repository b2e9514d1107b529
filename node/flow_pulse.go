package node

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/wire"
)

const (
	pulseIn     = time.Second // at the least
	childBeatIn = 400 * time.Millisecond
	feedPingIn  = 5 * time.Second
	freshFor    = 2 * time.Second        // a source that went on so lately is in heartbeats
	speechGap   = 500 * time.Millisecond // who was heard without a gap and that lately is speaking on
	maxNewest   = 8                      // sources in a heartbeat
)

// newestLists is what the heartbeats of one moment tell: to feeds, and to the others.
type newestLists [2][]uint64

// beat queues the heartbeats and pings that are due, and tells the session how the links are.
func (f *flow) beat(now time.Time) {
	var lists newestLists
	for _, l := range f.out {
		if l.measure(now); now.Sub(l.beat) >= l.beatIn() {
			f.beatTo(l, &lists, now)
		}
	}
	for _, l := range f.latest {
		if now.Sub(l.pulsed) >= pulseIn {
			f.pulse(l, now)
		}
	}
}

// beatBack queues a child's heartbeat to a parent of which a bundle has just come: those of all children come together then,
// and a relay that is woken once for many is woken less.
func (f *flow) beatBack(l *linkState, now time.Time) {
	if l.hears() && now.Sub(l.beat) >= childBeatIn-media.Tick && !f.steady.running {
		f.beatTo(l, &newestLists{}, now)
	}
}

func (f *flow) beatTo(l *linkState, lists *newestLists, now time.Time) {
	l.beat = now
	which := 0
	if l.feed == nil {
		which = 1
	}
	if lists[which] == nil {
		lists[which] = f.newest(which == 1, now)
	}
	company := len(l.waiting) == 0 && now.Sub(f.relay.sentAt) < talkHold && l.feed != nil && l.feed.Mode != overlay.Warm
	l.tell(&wire.LinkRecord{Record: &wire.LinkRecord_Heartbeat{Heartbeat: &wire.LinkHeartbeat{
		Tick: f.clock(l, now), Path: f.path, Loss: l.loss, Level: f.plan.Plan.Level, Newest: lists[which],
	}}})
	if now.Sub(l.pinged) >= l.pingIn() {
		l.ping(now)
	}
	if company {
		l.since = now
	}
}

// hears: nothing but heartbeats goes to a parent that only hears from a child that it lives.
func (l *linkState) hears() bool { return l.parent && !l.up && l.feed == nil }

// beatIn: with many children heartbeats are what a relay mostly receives, so a child's are fewer. The clock has only those
// to send that no bundle called for.
func (l *linkState) beatIn() time.Duration {
	if l.hears() {
		return childBeatIn + heartbeatIn
	}
	return heartbeatIn
}

// pingIn: the round trip to a child only says whether its delay rises.
func (l *linkState) pingIn() time.Duration {
	if l.feed != nil && !l.up && !l.parent {
		return feedPingIn
	}
	return pingIn
}

// clock is the tick that a heartbeat to l tells: my own in the core and in a mesh, else the one that came down to me. It
// stands still when nothing comes down.
func (f *flow) clock(l *linkState, now time.Time) uint64 {
	mesh := l.up && !l.parent && l.feed == nil || len(f.plan.Plan.Parents) == 0 && f.coreTick == 0
	if f.plan.Plan.Clock || mesh {
		return uint64(now.UnixMilli() / media.Tick.Milliseconds())
	}
	return f.coreTick
}

// newest lists the newest frame held of each source that goes on to feeds, or, for others, has a slot.
func (f *flow) newest(slots bool, now time.Time) []uint64 {
	out := make([]uint64, 0, maxNewest)
	if f.me.within(now) {
		out = append(out, uint64(f.plan.Me.ID)<<24|uint64(f.spoken))
	}
	for id, r := range f.remotes {
		if len(out) < maxNewest && r.any && (now.Sub(r.carried) < freshFor || slots && r.report.Slot >= 0) {
			out = append(out, uint64(id)<<24|uint64(r.newest))
		}
	}
	return out
}

// heartbeat takes a peer's.
func (f *flow) heartbeat(l *linkState, h *wire.LinkHeartbeat, now time.Time) {
	l.theirLoss = min(h.GetLoss(), 1000)
	s := f.latest[l.peer]
	if s == nil {
		return
	}
	s.core, s.level, s.path, s.ahead = h.GetTick(), h.GetLevel(), h.GetPath(), f.behind(h.GetNewest(), now)
	if l.parent && (f.above == "" || f.above == l.peer) {
		f.coreTick = s.core
	}
	f.pulse(s, now)
}

func (f *flow) pulse(l *linkState, now time.Time) {
	l.pulsed = now
	f.cfg.Pulse(overlay.Pulse{Peer: l.peer, Last: l.last, Tick: l.core, Level: l.level, Path: l.path, Ahead: l.ahead})
}

// behind is by how much the newest frames that a peer holds are ahead of those that I hold.
func (f *flow) behind(newest []uint64, now time.Time) (most time.Duration) {
	for _, n := range newest[:min(len(newest), maxNewest)] {
		r := f.remotes[uint32(n>>24)]
		if r == nil || n>>24 > 1<<24-1 || !r.src.Allowed {
			continue
		}
		most = max(most, f.behindOf(r, uint32(n)&media.MaxCounter, now))
	}
	return most
}

// behindOf: counters run on in silence, so the first frame after it seems far ahead though it is only on its way. Only
// of somebody who was speaking until now the difference counts as it is; else the time for which a frame is known to be
// there and has not come. Who is not among the loudest here is not missed.
func (f *flow) behindOf(r *remote, theirs uint32, now time.Time) time.Duration {
	if r.any && theirs <= r.newest || f.crowded(r, now) {
		r.toldAt = time.Time{}
		return 0
	}
	if r.toldAt.IsZero() || r.any && r.told <= r.newest {
		r.told, r.toldAt = theirs, now
	}
	if r.dense && now.Sub(r.report.LastHeard) < speechGap {
		return time.Duration(theirs-r.newest) * media.Tick
	}
	return now.Sub(r.toldAt)
}

// crowded tells whether as many others as there are slots are heard now.
func (f *flow) crowded(not *remote, now time.Time) bool {
	n := 0
	for _, r := range f.remotes {
		if r != not && r.any && now.Sub(r.report.LastHeard) < heartbeatIn {
			n++
		}
	}
	return n >= media.Slots
}

// ping queues a ping.
func (l *linkState) ping(now time.Time) {
	l.pinged, l.pingID, l.pings = now, l.pingID+1, true
	l.tell(&wire.LinkRecord{Record: &wire.LinkRecord_Ping{Ping: &wire.LinkPing{Id: l.pingID, TimeMs: now.UnixMilli()}}})
}

// pingNow sends a ping at once.
func (f *flow) pingNow(p peer.ID, now time.Time) {
	if l := f.latest[p]; l != nil {
		l.ping(now)
		f.send(l, nil, nil, 0, now)
	}
}

// record takes a link record. What it does not know, it ignores. A peer without a role gets answers to pings only.
func (f *flow) record(l *linkState, body []byte, now time.Time) {
	var m wire.LinkRecord
	if proto.Unmarshal(body, &m) != nil {
		l.refused++
		return
	}
	switch r := m.GetRecord().(type) {
	case *wire.LinkRecord_Heartbeat:
		f.heartbeat(l, r.Heartbeat, now)
	case *wire.LinkRecord_Ping:
		if l.mayAnswer(now) {
			l.tell(&wire.LinkRecord{Record: &wire.LinkRecord_Pong{Pong: &wire.LinkPing{Id: r.Ping.GetId(), TimeMs: r.Ping.GetTimeMs()}}})
		}
	case *wire.LinkRecord_Pong:
		if r.Pong.GetId() == l.pingID && l.pingID > 0 {
			l.roundTrip(now.Sub(l.pinged))
			if s := f.latest[l.peer]; s != nil {
				f.pulse(s, now)
			}
		}
	case *wire.LinkRecord_Nack:
		if l.role {
			f.answer(l, r.Nack, now)
		}
	case *wire.LinkRecord_Bad:
		f.heardBad(l, r.Bad, now)
	}
}

// pathOf is the plan's path as heartbeats carry it, and who is above me on it.
func pathOf(pl *overlay.Plan) (path [][]byte, above peer.ID) {
	for i := range pl.Path {
		path = append(path, pl.Path[i][:])
	}
	if n := len(pl.Path); n > 1 {
		for _, p := range pl.Parents {
			if identity.ShortID(p) == pl.Path[n-2] {
				above = p
			}
		}
	}
	return path, above
}
