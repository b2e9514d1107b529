package node

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room/media"
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

	any     bool
	newest  uint32 // counter of the newest frame, and where it ended
	end     uint32
	missing uint64 // bundles missing on the link when the newest came
	asked   time.Time
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

// now updates speaking and reports whether it changed.
func (v *voice) now(now time.Time) bool {
	was := v.speaking
	v.speaking = !v.last.IsZero() && now.Sub(v.last) < speakHold && v.level > -float64(speakOver)
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
	was := f.plan
	f.plan, f.open = m, m.Send
	f.applyOwn(&was, now)
	f.applyRemotes(now)
	f.mesh()
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
	if !m.Send {
		f.own = media.NewRing(ringSize) // what was said before is not sent again
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
			f.loudest.Remove(s.ID)
			f.remotes[s.ID], f.changed = r, true
		}
		delete(gone, s.ID)
		if r.src.Allowed && !s.Allowed {
			f.loudest.Remove(s.ID)
			r.report.Slot, r.voice = -1, voice{}
		}
		r.src = s
		for _, e := range f.plan.Epochs {
			r.opener.Hold(e, now)
			r.verify.Hold(e.N, e.ID)
		}
	}
	for id := range gone {
		f.loudest.Remove(id)
		delete(f.remotes, id)
		f.changed = true
	}
}

// newRemote is nil if the source does not belong to its peer: nobody can claim another's, nor mine.
func (f *flow) newRemote(s session.Source) *remote {
	key, err := identity.PublicOf(s.Peer)
	owner := sframe.Owner{Room: f.plan.Room, Peer: string(s.Peer), Salt: s.Salt}
	if err != nil || owner.Source() != s.ID || s.Peer == f.plan.Me.Peer {
		f.cfg.Log.Warn("source refused", "peer", s.Peer)
		return nil
	}
	r := &remote{src: s, opener: sframe.NewOpener(owner, s.Ctr), verify: sframe.NewBlockVerifier(owner, key)}
	r.report = session.SourceReport{Peer: s.Peer, ID: s.ID, Slot: -1}
	return r
}

// follow counts a frame that opened, and tells how many were lost just before it. What was not sent (silence) is not
// lost: no more frames can be missing than bundles are.
func (r *remote) follow(e *media.Entry, l *linkState, now time.Time) (lost uint16) {
	r.report.LastHeard = now
	if r.any && e.Ctr < r.newest { // late: it was counted as lost
		if r.report.Lost > 0 {
			r.report.Lost--
		}
		return 0
	}
	if r.any && e.Ctr > r.end && !e.Marker && l.missing > r.missing {
		gap := uint64(e.Ctr-r.end) / uint64(e.Ticks)
		lost = uint16(min(max(gap, 1), l.missing-r.missing, 0xffff))
		r.report.Lost += uint64(lost)
	}
	r.any, r.newest, r.end, r.missing = true, e.Ctr, e.Ctr+uint32(e.Ticks), l.missing
	return lost
}

// addLink takes l into use; the newest link to a peer carries what is sent.
func (f *flow) addLink(l mediaLink) {
	f.vias++
	f.links[l] = &linkState{link: l, peer: l.Remote(), via: f.vias}
	f.mesh()
}

func (f *flow) dropLink(l mediaLink) {
	delete(f.links, l)
	f.mesh()
}

// mesh chooses one link for each peer of the plan.
func (f *flow) mesh() {
	var up []peer.ID
	if f.plan.Plan != nil {
		up = f.plan.Plan.Up
	}
	newest := map[peer.ID]*linkState{}
	for _, l := range f.links {
		l.mesh = slices.Contains(up, l.peer)
		if old := newest[l.peer]; l.mesh && (old == nil || old.via < l.via) {
			newest[l.peer] = l
		}
	}
	f.out = f.out[:0]
	for _, p := range up {
		if l := newest[p]; l != nil && !slices.Contains(f.out, l) {
			f.out = append(f.out, l)
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
	f.changed, f.told = false, now
	rep := f.report
	rep.Leg, rep.Speaking = len(f.legs) > 0, f.me.speaking
	if f.sealer != nil {
		rep.Ctr = f.sealer.Next()
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
	for _, l := range f.out {
		rep.Links = append(rep.Links, l.report())
	}
	f.cfg.Report(rep)
}
