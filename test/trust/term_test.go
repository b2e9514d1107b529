package trust

import (
	"slices"
	"testing"
	"time"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/session"
	"balai/room/wire"
)

// hugeTerm is far beyond every term that a chair could have.
const hugeTerm = 1 << 31

// TestCoreUnderAttack has one room with a core, a member and a community node, and many who try to break it.
func TestCoreUnderAttack(t *testing.T) {
	t.Parallel()
	p := newPlay(t, true, never, nil)
	p.citra.enter(p.ana.link(p.id, "listener"))
	p.budi.enter(p.ana.link(p.id, "listener"))
	p.talk()
	p.enter(t, 5)
	speaker := newLiarWith(t, light, p.ana.link(p.id, "speaker"), p.ana, p.budi, p.citra)
	p.ana.until(p.id, "the liar is on stage", func(v session.View) bool { return len(v.Stage) == 2 })
	p.vouch(t)
	p.carried(t, p.citra.id, p.node.id)

	t.Run("HugeTerm", func(t *testing.T) { p.hugeTerm(t, speaker) })
	t.Run("Churn", p.churn)
	t.Run("Floods", p.floods)
	t.Run("Passes", p.passes)
}

// hugeTerm is trust test 52: a member on stage signs beats, leases and digests with a term from nowhere and with a core of
// its own. Nobody follows while the host beats.
func (p *play) hugeTerm(t *testing.T, l *liar) {
	since := p.watch()
	was := map[*daemon]session.View{}
	for _, d := range []*daemon{p.ana, p.budi, p.citra} {
		was[d] = p.view(d)
		l.connect(d)
	}
	c := p.admit(t, l.Peer, p.node.place(), &wire.Join{Room: l.m.Room[:], Mode: 1, Pass: l.m.Welcome.Pass}, l.source())
	defer c.leave()
	taken := 0
	for round := range 6 {
		for _, s := range p.usurp(l, uint64(round)) {
			for _, d := range []*daemon{p.ana, p.budi, p.citra} {
				_ = l.m.Greet(l.ctx, idOf(d)) // being cut off is as good
				_ = l.say(idOf(d), s)         // the same
			}
			for _, r := range asRecords(s) {
				for _, d := range []*daemon{p.ana, p.budi, p.citra} {
					_ = l.linkWith(d).write(r) // the same
				}
				if c.s.Write(r) == nil {
					taken++
				}
			}
		}
		p.askNode(t, l, uint64(round))
		pause(t, time.Second)
		for d := range was {
			if v := p.view(d); v.Chair == l.ID().String() || slices.Contains(v.Core, l.ID().String()) || slices.Contains(by(v, "parent"), l.ID().String()) {
				t.Errorf("%s follows: chair %s, core %v, parents %v", d.name, v.Chair, v.Core, by(v, "parent"))
			}
		}
	}
	if taken == 0 {
		t.Error("the community node was told nothing")
	}
	for d, before := range was { // on a busy machine a parent is left for lateness, and a chair is missed for a moment
		eventually(t, d.name+" has the chair and the core that it had", func() bool {
			v := p.view(d)
			foreign := slices.ContainsFunc(by(v, "parent"), func(id string) bool { return !slices.Contains(before.Core, id) })
			lost := d != p.citra && len(by(v, "parent")) == 0 // who has just come into the core lets its parent go
			return v.Chair == p.ana.id && slices.Equal(v.Core, before.Core) && !foreign && !lost && v.Host == before.Host && !v.NoRelay && v.State == session.Live
		})
	}
	p.heardAllTheTime(since)
}

// usurp is all that the liar signs as if it led.
func (p *play) usurp(l *liar, n uint64) (out []*wire.StageMessage) {
	now := time.Now()
	id, short := l.m.Room, identity.ShortID(l.ID())
	rec, err := l.Record(l.Key, l.ID(), l.Addrs()[0].String())
	if err != nil {
		panic("impossible: " + err.Error())
	}
	own, err := election.ParseAd(election.Ad{Room: id, Seq: n + 1, Record: rec, Reach: election.ReachPublic, Cap: 100_000, Slots: 200, Issued: now, Flags: election.HoldsKey}.Sign(l.Key), id)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	grants := []room.OpID{{}, identity.RecordID(wire.DomainGenesis, l.m.Welcome.Genesis.Body)}
	for _, grant := range grants {
		for _, ads := range [][]*election.Ad{{own}, nil} {
			lease := election.Lease{Room: id, Term: hugeTerm, Version: n + 1, Grant: grant, Ads: ads, Issued: now, TTL: election.LeaseTTL}
			out = append(out, &wire.StageMessage{Message: &wire.StageMessage_Lease{Lease: lease.Sign(l.Key).Signed}})
		}
	}
	l.mu.Lock()
	epoch := l.epoch
	l.mu.Unlock()
	d := &wire.Digest{
		Room: id[:], Term: hugeTerm, Seq: hugeTerm + n, IssuedMs: now.UnixMilli(), TtlS: 30, Heads: make([]byte, 32), Authorities: [][]byte{short[:]},
		Stage: []*wire.DigestStage{{Peer: short[:], Source: l.src}}, People: 1, EpochN: epoch.N, EpochId: epoch.ID[:], Step: epoch.Step, Beat: hugeTerm,
	}
	for _, other := range []string{p.ana.id, p.budi.id, p.citra.id} {
		d.Removed = append(d.Removed, []byte(shortOf(other)))
	}
	return append(out,
		&wire.StageMessage{Message: &wire.StageMessage_Digest{Digest: wire.Sign(l.Key, wire.DomainDigest, d)}},
		&wire.StageMessage{Message: &wire.StageMessage_Beat{Beat: wire.Sign(l.Key, wire.DomainBeat, &wire.Beat{
			Room: id[:], Term: hugeTerm, Seq: hugeTerm + n, EpochId: epoch.ID[:], Step: epoch.Step, TimeMs: now.UnixMilli(),
		})}},
	)
}

// asRecords are those of a gossip message that links carry too.
func asRecords(m *wire.StageMessage) (out []*wire.LinkRecord) {
	if s := m.GetLease(); s != nil {
		out = append(out, &wire.LinkRecord{Record: &wire.LinkRecord_Lease{Lease: s}}, &wire.LinkRecord{Record: &wire.LinkRecord_Redirect{Redirect: &wire.Redirect{Lease: s}}})
	}
	if s := m.GetDigest(); s != nil {
		out = append(out, &wire.LinkRecord{Record: &wire.LinkRecord_Digest{Digest: &wire.DigestRecord{Digest: s}}})
	}
	return out
}

// askNode tells the community node the same on the stream that authorities use.
func (p *play) askNode(t *testing.T, l *liar, n uint64) {
	t.Helper()
	for _, m := range p.usurp(l, 100+n) {
		req := &wire.RelayRequest{Genesis: l.m.Welcome.Genesis, Lease: m.GetLease(), Digest: m.GetDigest()}
		s, err := l.Open(t.Context(), p.node.place().id, session.RelayProtocol)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetDeadline(time.Now().Add(10 * time.Second)) // a dead stream fails in the next line
		var rep wire.RelayReply
		if err := s.Write(req); err != nil {
			t.Fatal(err)
		}
		if err := s.Read(&rep); err != nil || rep.Refused == 0 {
			t.Errorf("the community node answers a speaker %v, %v", &rep, err)
		}
		_ = s.Reset() // the conversation is over
	}
}
