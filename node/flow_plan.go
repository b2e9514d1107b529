package node

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/sframe"
)

// remote is one source of another person.
type remote struct {
	src    session.Source
	opener *sframe.Opener
	verify *sframe.BlockVerifier
	voice  voice
	report session.SourceReport

	any      bool
	newest   uint32 // counter of the newest frame, and where it ended
	end      uint32
	dense    bool   // it followed on the one before without a gap
	via      uint32 // the link that it came by, and the bundles missing there when it did
	missing  uint64
	heard    uint32 // counter of the newest frame on its speaker's own link, and when it came
	heardAt  time.Time
	signed   uint32 // the last counter of a block, and when that came
	signedAt time.Time
	asked    time.Time // for a block
	asks     int
	told     uint32 // a frame that some peer holds and I do not, and since when I know
	toldAt   time.Time

	askedFor   uint32 // what was asked for last, and whether it was more than once
	askedTwice bool

	// Of its way to the feeds.
	passed  media.Window
	top     uint32      // the highest counter in passed
	ring    *media.Ring // what went on
	blocks  sentBlocks
	carried time.Time // when a frame last went on
	direct  time.Time // when one last came by its speaker's own link
	batch   uint64    // that its last one is in
	closed  time.Time // its speaker lied: nothing is passed on until then
	doubts  []doubt
	hops    uint8
}

// voice smooths a level into "is speaking".
type voice struct {
	level    float64 // dBov
	last     time.Time
	speaking bool
}

func (v *voice) hear(l media.Level, now time.Time) {
	x := -float64(l)
	if now.Sub(v.last) > speakHold {
		v.level = x
	} else {
		v.level += (x - v.level) / 2
	}
	v.last = now
}

// within tells whether it was heard lately.
func (v *voice) within(now time.Time) bool { return !v.last.IsZero() && now.Sub(v.last) < speakHold }

// now updates speaking and reports whether it changed.
func (v *voice) now(now time.Time) bool {
	was := v.speaking
	v.speaking = v.within(now) && v.level > -float64(speakOver)
	return was != v.speaking
}

// apply puts the latest plan in force.
func (f *flow) apply(now time.Time) {
	f.gate.Lock()
	defer f.gate.Unlock()
	m := f.next
	if m.Seal >= len(m.Epochs) {
		m.Seal = -1
	}
	if m.Plan == nil {
		m.Plan = &overlay.Plan{}
	}
	was := f.plan
	f.open = f.open && m.Send
	f.forgetVoice()
	f.plan, f.open = m, m.Send
	if was.Plan == nil || was.Plan.Core != m.Plan.Core {
		f.relay.chosen = media.Loudest{}
	}
	f.path, f.above = pathOf(m.Plan)
	f.applyOwn(&was, now)
	f.applyRemotes(now)
	f.roles()
	f.steadily(now)
}

// forgetVoice sees to it that what was said before a mute is not sent after it. The gate is held.
func (f *flow) forgetVoice() {
	if !f.open && f.voiced {
		f.relay.dropOwn()
		f.own, f.voiced = media.NewRing(ringSize), false
		f.steady.hush()
	}
}

// applyOwn keeps the sealer and the signer of the own source in step with the plan.
func (f *flow) applyOwn(was *session.Media, now time.Time) {
	m := &f.plan
	if f.sealer == nil || m.Me.ID != was.Me.ID || m.Me.Salt != was.Me.Salt || m.Room != was.Room {
		f.flush(now)
		f.owner = sframe.Owner{Room: m.Room, Peer: string(m.Me.Peer), Salt: m.Me.Salt}
		f.sealer = sframe.NewSealer(f.owner, m.Me.Ctr)
		f.signer = sframe.NewBlockSigner(f.owner, f.cfg.Sign)
		f.own, f.repeat, f.blocks = media.NewRing(ringSize), nil, nil
		f.start, f.base = now, m.Me.Ctr
		was = &session.Media{Seal: -1}
	}
	if m.Seal < 0 {
		return
	}
	e := m.Epochs[m.Seal]
	if was.Seal >= 0 && was.Epochs[was.Seal].ID == e.ID && was.Epochs[was.Seal].Step == e.Step {
		return
	}
	if was.Seal >= 0 && was.Epochs[was.Seal].ID != e.ID {
		f.flush(now)
	}
	f.sealer.Rekey(e)
}

// flush signs what is pending: a block never spans an epoch.
func (f *flow) flush(now time.Time) {
	if f.signer == nil || f.signer.Pending() == 0 {
		return
	}
	f.sign(now)
	f.sendWaiting(now)
}

// applyRemotes makes, updates and forgets the sources of the others.
func (f *flow) applyRemotes(now time.Time) {
	gone := map[uint32]bool{}
	for id := range f.remotes {
		gone[id] = true
	}
	for _, s := range f.plan.Sources {
		r := f.remotes[s.ID]
		if r == nil || r.src.Peer != s.Peer || r.src.Salt != s.Salt {
			if r = f.newRemote(s); r == nil {
				continue
			}
			f.hush(s.ID)
			f.remotes[s.ID], f.changed = r, true
		}
		delete(gone, s.ID)
		if r.src.Allowed && !s.Allowed {
			f.hush(s.ID)
			r.report.Slot, r.voice = -1, voice{}
		}
		if s.Now != r.src.Now {
			r.opener.Expect(s.Now, now)
		}
		r.src = s
		commits := f.plan.Commits
		for _, c := range commits[max(0, len(commits)-sframe.KeptEpochs):] {
			r.verify.Hold(c.N, sframe.EpochID(c.ID))
		}
		for _, e := range f.plan.Epochs {
			r.opener.Hold(e, now)
			r.verify.Hold(e.N, e.ID)
		}
	}
	for id := range gone {
		f.hush(id)
		delete(f.remotes, id)
		f.changed = true
	}
}

// hush takes a source out of both tables of the loudest, and what of it waits to go on.
func (f *flow) hush(id uint32) {
	f.loudest.Remove(id)
	f.relay.chosen.Remove(id)
	f.relay.fresh = slices.DeleteFunc(f.relay.fresh, func(p passing) bool { return p.source == id })
}

// newRemote is nil if the source does not belong to its peer: nobody can claim another's, nor mine.
func (f *flow) newRemote(s session.Source) *remote {
	key, err := identity.PublicOf(s.Peer)
	owner := sframe.Owner{Room: f.plan.Room, Peer: string(s.Peer), Salt: s.Salt}
	if err != nil || owner.Source() != s.ID || s.Peer == f.plan.Me.Peer {
		f.cfg.Log.Warn("source refused", "peer", s.Peer)
		return nil
	}
	opener := sframe.NewOpener(owner, s.Ctr)
	opener.Expect(s.Now, f.cfg.Now())
	r := &remote{src: s, opener: opener, verify: sframe.NewBlockVerifier(owner, key)}
	r.report = session.SourceReport{Peer: s.Peer, ID: s.ID, Slot: -1}
	return r
}

// follow counts a frame, and tells how many were lost just before it. What was not sent (silence) is not lost: on its
// speaker's own link no more frames can be missing than bundles are; behind a relay a short gap counts as loss, for
// bundles are not missing here that were lost further up.
func (r *remote) follow(e *media.Entry, l *linkState, now time.Time) (lost uint16) {
	r.report.LastHeard = now
	if r.any && e.Ctr < r.newest { // late: it was counted as lost
		if r.report.Lost > 0 {
			r.report.Lost--
		}
		return 0
	}
	if r.any && e.Ctr > r.end && !e.Marker {
		gap := max(uint64(e.Ctr-r.end)/uint64(e.Ticks), 1)
		switch {
		case l.peer != r.src.Peer || l.via != r.via:
			if gap > maxGap {
				gap = 0
			}
		case l.missing > r.missing:
			gap = min(gap, l.missing-r.missing, 0xffff)
		default:
			gap = 0
		}
		lost = uint16(gap)
		r.report.Lost += gap
	}
	r.dense = r.any && e.Ctr == r.end
	r.any, r.newest, r.end, r.via, r.missing = true, e.Ctr, e.Ctr+uint32(e.Ticks), l.via, l.missing
	return lost
}

// addLink takes l into use; the newest link to a peer carries what is sent.
func (f *flow) addLink(l mediaLink) {
	f.vias++
	if len(f.behindVia) > len(f.links)+maxGone {
		delete(f.behindVia, f.oldestGone())
	}
	f.behindVia[f.vias] = l.Remote()
	f.links[l] = &linkState{link: l, peer: l.Remote(), via: f.vias, alive: f.cfg.Now(), useless: map[uint32]int{}}
	f.roles()
}

// maxGone is how many links are remembered that have ended.
const maxGone = 64

func (f *flow) oldestGone() (oldest uint32) {
	held := map[uint32]bool{}
	for _, l := range f.links {
		held[l.via] = true
	}
	for via := range f.behindVia {
		if !held[via] && (oldest == 0 || via < oldest) {
			oldest = via
		}
	}
	return oldest
}

func (f *flow) dropLink(l mediaLink) {
	delete(f.links, l)
	f.roles()
}

// roles gives the links what the plan says of their peers, and chooses one for each peer to send by.
func (f *flow) roles() {
	pl := f.plan.Plan
	if pl == nil {
		pl = &overlay.Plan{}
	}
	clear(f.latest)
	for _, l := range f.links {
		if old := f.latest[l.peer]; old == nil || old.via < l.via {
			f.latest[l.peer] = l
		}
		l.up, l.parent, l.feed = slices.Contains(pl.Up, l.peer), slices.Contains(pl.Parents, l.peer), nil
		for i := range pl.Feeds {
			if pl.Feeds[i].Peer == l.peer {
				l.feed = &pl.Feeds[i]
			}
		}
		if l.role = l.up || l.parent || l.feed != nil; !l.role {
			l.drain()
		}
	}
	f.out, f.ups, f.feeds = f.out[:0], f.ups[:0], f.feeds[:0]
	f.relay.serves = false
	f.relay.byPeer = map[peer.ID]*linkState{}
	for _, l := range f.latest {
		if l.role {
			f.out = append(f.out, l)
		}
	}
	slices.SortFunc(f.out, func(a, b *linkState) int { return int(a.via) - int(b.via) })
	for _, l := range f.out {
		if l.up {
			f.ups = append(f.ups, l)
		}
		if l.feed == nil {
			continue
		}
		f.relay.serves = true
		if l.feed.Mode != overlay.Warm {
			f.feeds = append(f.feeds, l)
			f.relay.byPeer[l.peer] = l
		}
	}
}

func (f *flow) seat(m *flowLeg, p player) {
	f.detach(m)
	if !m.gone {
		m.player = p
		f.legs = append(f.legs, m)
	}
}

func (f *flow) detach(m *flowLeg) {
	if i := slices.Index(f.legs, m); i >= 0 {
		f.legs = slices.Delete(f.legs, i, i+1)
	}
}

// tell reports to the session each second, and when somebody starts or stops to speak, to have a slot, to be silenced.
func (f *flow) tell(now time.Time) {
	f.changed = f.me.now(now) || f.changed
	for _, r := range f.remotes {
		f.changed = r.voice.now(now) || f.changed
		if silenced := r.verify.Muted(now); silenced != r.report.Silenced {
			r.report.Silenced, f.changed = silenced, true
		}
	}
	if !f.changed && now.Sub(f.told) < reportIn {
		return
	}
	if d := now.Sub(f.sentAt); d >= reportIn {
		f.upKbps = uint32((f.sent - f.sentWas) * 8 / uint64(d.Milliseconds()))
		f.sentAt, f.sentWas = now, f.sent
	}
	f.changed, f.told = false, now
	rep := f.report
	rep.Leg, rep.Speaking = len(f.legs) > 0, f.me.speaking
	if f.sealer != nil {
		rep.Source, rep.Ctr = f.plan.Me.ID, max(f.sealer.Next(), max(f.wall(now), maxDrift)-maxDrift)
	}
	for _, r := range f.remotes {
		s := r.report
		s.Slot = f.loudest.Slot(s.ID)
		s.Speaking = r.voice.speaking && !s.Silenced
		s.Level = uint8(media.Silence)
		if now.Sub(r.voice.last) < speakHold {
			s.Level = uint8(-r.voice.level)
		}
		rep.Sources = append(rep.Sources, s)
	}
	rep.Forwarded, rep.Children, rep.UpKbps = f.relay.count, len(f.feeds), f.upKbps
	for _, l := range f.out {
		rep.Links = append(rep.Links, l.report())
	}
	f.cfg.Report(rep)
}
