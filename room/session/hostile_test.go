package session

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

// A single refusal by somebody who is no authority ends nothing, and a candidate that hangs holds up nobody.
func TestHostileCandidates(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, _, l := w.stage(1, 0)
		link := host.invites(InviteTerms{Role: room.Speaker})
		for _, r := range []room.Reason{room.Banned, room.Expired, room.Removed, room.Ended} {
			liar := w.person("Liar")
			liar.serve = func(_ string, st *pipe) bool {
				_ = st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Refuse{Refuse: &wire.Refuse{Reason: uint32(r)}}})
				w.after(time.Second)
				return true
			}
			// A member, too, who challenges as if it were an authority.
			member := l[0]
			member.serve = func(proto string, st *pipe) bool {
				if proto != JoinProtocol {
					return false
				}
				var g *wire.Signed
				member.in(func(s *Session) { g = s.ledger.Genesis() })
				_ = st.Read(&wire.JoinMessage{})
				_ = st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Challenge{Challenge: &wire.Challenge{Nonce: make([]byte, nonceLen), Admitter: []byte(member.id), Genesis: g}}})
				_ = st.Read(&wire.JoinMessage{})
				_ = st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Refuse{Refuse: &wire.Refuse{Reason: uint32(r)}}})
				w.after(time.Second)
				return true
			}
			mute := w.people("Mute", "Mute2", "Mute3")
			p := w.person("P")
			p.hints = []peer.ID{liar.id, member.id}
			for _, m := range mute {
				m.serve = func(_ string, st *pipe) bool { w.after(time.Minute); return true }
				p.hints = append(p.hints, m.id)
			}
			p.join(link)
			w.within(20*time.Second, "the host to be found", func() bool { return p.view().State != Joining })
			if p.view().State != Live {
				t.Fatalf("liars said %v, and she is %s", r, p.reason())
			}
			p.halt()
			w.until("the goodbye", func() bool { return host.view().Members == 3 })
		}
	})
}

// A welcome by a member, with the room's true ledger, lets nobody in.
func TestFalseWelcome(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, _, l := w.stage(1, 0)
		link := host.invites(InviteTerms{Role: room.Speaker})
		eve, ana := l[0], w.person("Ana")
		eve.serve = func(kind string, st *pipe) bool {
			if kind != JoinProtocol {
				return false
			}
			var welcome *wire.Welcome
			var grant []*wire.Signed
			eve.in(func(s *Session) {
				ops, _ := s.ledger.Since(nil, maxOps)
				welcome = &wire.Welcome{Genesis: s.ledger.Genesis(), Ops: ops, Key: keyStep(s.keys.epochs[0])}
				grant = s.grantsOf(w.all[1].id) // another's appointment
			})
			_ = st.Read(&wire.JoinMessage{})
			_ = st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Challenge{Challenge: &wire.Challenge{
				Nonce: make([]byte, nonceLen), Admitter: []byte(eve.id), Genesis: welcome.Genesis, Grant: grant,
			}}})
			_ = st.Read(&wire.JoinMessage{})
			_ = st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Welcome{Welcome: welcome}})
			w.after(time.Second)
			return true
		}
		host.halt()
		w.all[1].halt()
		ana.hints = []peer.ID{eve.id}
		ana.join(link)
		w.after(time.Minute)
		if ana.view().State != Refused || ana.disk["genesis"] != nil {
			t.Errorf("welcomed by a member: %s", ana.reason())
		}
	})
}

// A secret that somebody made up is dropped when it does not open what the others seal.
func TestGarbageKey(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(2, 0)
		eve, ana := l[0], l[1]
		w.after(30 * time.Second)
		garbage := func(k *wire.KeyStep) *wire.KeyStep {
			return &wire.KeyStep{N: k.N, Id: k.Id, Step: k.Step + 1, Secret: bytes.Repeat([]byte{1}, 32)}
		}
		eve.serve = func(kind string, st *pipe) bool {
			if kind != LedgerProtocol {
				return false
			}
			var req wire.LedgerRequest
			if st.Read(&req) != nil {
				return true
			}
			var rep *wire.LedgerReply
			eve.in(func(s *Session) { rep = s.ledgerReply(st.Remote(), &req, time.Now()) })
			for i, k := range rep.Keys {
				rep.Keys[i] = garbage(k)
			}
			_ = st.Write(rep)
			w.after(time.Second)
			return true
		}
		e, _ := ana.sealing()
		ana.in(func(s *Session) { s.takeKey(garbage(keyStep(e)), time.Now()) })
		w.mutual(host, mod, ana)
		ana.hints, ana.known = []peer.ID{eve.id}, map[peer.ID]bool{}
		ana.restart()
		w.settle(host, mod, ana)
		w.after(5 * time.Second)
		w.mutual(host, mod, ana)
	})
}

// A speaker in the chair who names steps out of time moves nobody out of reach.
func TestALyingChair(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(2, 1)
		host.halt()
		mod.halt()
		eve := l[0]
		w.until("her in the chair", func() bool { return l[2].view().Chair == eve.id.String() })
		before, _ := l[2].sealing()
		for i := range 30 {
			eve.in(func(s *Session) {
				e, _ := s.keys.sealing()
				b := &wire.Beat{Room: s.cfg.Room[:], Term: 1 << 31, Seq: uint64(i) << 50, EpochId: e.ID[:], Step: e.Step + 360, TimeMs: time.Now().UnixMilli()}
				s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Beat{Beat: wire.Sign(s.cfg.Key, wire.DomainBeat, b)}})
			})
			w.after(time.Second)
		}
		after, _ := l[2].sealing()
		if after.Step > before.Step+8 {
			t.Errorf("30 s of lies: from step %d to %d", before.Step, after.Step)
		}
		w.mutual(l...)
		host.restart()
		mod.restart()
		w.settle(append([]*soul{host, mod}, l...)...)
		var seq uint64
		l[2].in(func(s *Session) { seq = s.beat.seq })
		if seq > 1<<30 {
			t.Errorf("the beat stands at %d", seq)
		}
	})
}

// A hand that names a beat from before it was raised does not jump the queue.
func TestAnInventedHand(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(0, 3)
		w.after(time.Minute)
		if err := l[0].s.RaiseHand(context.Background(), true); err != nil {
			t.Fatal(err)
		}
		w.until("the first hand", func() bool { return len(host.view().Hands) == 1 })
		l[1].in(func(s *Session) {
			s.hand = &wire.Hand{Beat: 3, BeatSig: make([]byte, 64), Chair: host.key.Public()}
			s.due.presence = time.Time{}
		})
		w.after(5 * time.Second)
		for _, p := range []*soul{host, mod, l[2]} {
			if h := p.view().Hands; len(h) != 1 || h[0] != l[0].id.String() {
				t.Fatalf("%s sees %v", p.name, h)
			}
		}
	})
}

// That somebody is out is believed of authorities, or for an op that they signed; not of a member.
func TestFalseRemoval(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(3, 0)
		eve, ana, ben := l[0], l[1], l[2]
		var old *wire.Signed
		host.in(func(s *Session) { ops, _ := s.ledger.Since(nil, 1); old = ops[0] })
		eve.serve = func(kind string, st *pipe) bool {
			if kind != LedgerProtocol {
				return false
			}
			_ = st.Read(&wire.LedgerRequest{})
			forged := wire.Sign(eve.key, wire.DomainOp, &wire.Op{
				Room: eve.room[:], Seq: 1, Prev: make([]byte, 32), Grant: make([]byte, 32), Kind: uint32(room.Kick), Targets: [][]byte{[]byte(st.Remote())},
			})
			_ = st.Write(&wire.LedgerReply{Refused: uint32(room.Removed), Ops: []*wire.Signed{forged, old}})
			w.after(time.Second)
			return true
		}
		ana.in(func(s *Session) { s.fetchFrom(eve.id) })
		w.after(5 * time.Second)
		ben.hints, ben.known = []peer.ID{eve.id}, map[peer.ID]bool{eve.id: true, mod.id: true}
		ben.restart()
		w.settle(host, mod, ana, ben)

		// A member who tells the truth shows the op.
		eve.serve = nil
		ben.hints, ben.known = []peer.ID{ana.id}, map[peer.ID]bool{ana.id: true}
		ben.halt()
		host.act(room.Kick, ben)
		w.settle(host, mod, ana, eve)
		host.halt()
		mod.halt()
		ben.restart()
		w.until("the truth", func() bool { return ben.view().State.Over() })
		if ben.reason() != "removed" {
			t.Error(ben.reason())
		}
	})
}

// Who died in silence is not kept alive by what the others tell each other.
func TestNoGhosts(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(3, 0)
		w.part(l[0])
		l[0].halt()
		w.heal()
		for i := range 8 {
			w.after(4 * time.Second)
			l[1+i%2].restart()
		}
		w.after(5 * time.Second)
		for _, p := range []*soul{host, mod, l[1], l[2]} {
			if n := p.view().Members; n != 4 {
				t.Errorf("%s counts %d", p.name, n)
			}
		}
	})
}

// What was said once is heard once, and a dead chair's beats keep nobody from the chair.
func TestReplayedRecords(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(2, 0)
		ctx := context.Background()
		if _, err := host.s.Say(ctx, "once"); err != nil {
			t.Fatal(err)
		}
		if err := host.s.React(ctx, 3); err != nil {
			t.Fatal(err)
		}
		w.after(2 * time.Second)
		host.halt()
		var again [][]byte
		keys := l[0].keys()
		for _, m := range w.recorded() {
			for _, e := range keys {
				if plain, err := e.OpenGossip(host.room, host.r.Name(m.topic), m.data); err == nil && m.by == host && m.topic == StageTopic {
					again = append(again, plain)
					break
				}
			}
		}
		if len(again) < 4 {
			t.Fatalf("recorded %d messages", len(again))
		}
		w.until("the next chair", func() bool { return l[1].view().Chair == mod.id.String() })
		for range 20 {
			for _, plain := range again[len(again)-4:] {
				l[0].in(func(s *Session) {
					e, _ := s.keys.sealing()
					s.cfg.Ports.Publish(StageTopic, e.SealGossip(s.cfg.Room, s.cfg.Secret.Name(StageTopic), plain))
				})
			}
			w.after(time.Second)
			if c := l[1].view().Chair; c != mod.id.String() {
				t.Fatalf("the chair is %s", c)
			}
		}
		if lines, _ := l[1].s.Lines(ctx); len(lines) != 1 || l[1].view().Members != 3 {
			t.Errorf("%d lines, %d members", len(lines), l[1].view().Members)
		}
		l[1].mu.Lock()
		defer l[1].mu.Unlock()
		n := 0
		for _, e := range l[1].events {
			if e.Kind == EventReaction {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d reactions", n)
		}
	})
}
