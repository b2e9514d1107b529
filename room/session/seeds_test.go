package session

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/sframe"
	"balai/room/wire"
	"balai/test/seeded"
)

// each runs f for each of many seeds with a session that nobody runs, in a bubble of its own.
func each(t *testing.T, f func(t *testing.T, r *rand.Rand, s *Session)) (all bool) {
	t.Helper()
	return seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		cryptotest.SetGlobalRandom(t, r.Uint64())
		synctest.Test(t, func(t *testing.T) { f(t, r, still(t)) })
	})
}

func anyOf[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// write decides something as the session's own person does.
func (s *Session) write(t *testing.T, op room.Op) {
	t.Helper()
	if _, err := s.appendOp(op, time.Now(), false); err != nil {
		t.Fatalf("%v: %v", op.Kind, err)
	}
	s.settle(time.Now())
}

func (s *Session) letIn(t *testing.T, p peer.ID, role room.Role) {
	t.Helper()
	s.write(t, room.Op{Kind: room.Admit, Admissions: []room.Admission{{Peer: p, Role: role, Name: "x"}}})
}

// Trust 26: a member says that she is here, goes or falls silent, and comes again; somebody says again what she ever said,
// today or yesterday. She is here from her own new word on, until she goes or was not heard for 10 s, and never for another's.
func TestRandomOldPresence(t *testing.T) {
	replayed := 0
	all := each(t, func(t *testing.T, r *rand.Rand, s *Session) {
		ana := mustKey(t)
		s.letIn(t, ana.ID(), room.Speaker)
		time.Sleep(time.Second)
		var said []*wire.Signed
		say := func(p *wire.Signed) {
			plain, _ := proto.Marshal(&wire.StageMessage{Message: &wire.StageMessage_Presence{Presence: p}})
			if err := s.takeStage(s.shared.Load(), plain); err != nil && !errors.Is(err, ErrIgnore) {
				t.Fatal(err)
			}
			s.drain()
		}
		presence := func(at time.Time) *wire.Signed {
			m := &wire.Presence{Room: s.cfg.Room[:], Peer: []byte(ana.ID()), Seq: uint64(len(said)), TimeMs: at.UnixMilli(), Name: "Ana", Instance: []byte("instance")}
			return wire.Sign(ana, wire.DomainPresence, m)
		}
		said = append(said, presence(time.Now().Add(-24*time.Hour)), presence(time.Now().Add(-maxSkew/2)))
		var until time.Time // when she is gone if she says nothing more
		for range 40 {
			time.Sleep(time.Duration(50+r.IntN(3000)) * time.Millisecond)
			now := time.Now()
			switch x := r.IntN(10); {
			case x < 3:
				said = append(said, presence(now))
				say(said[len(said)-1])
				until = now.Add(presenceTTL + 1) // to the last nanosecond
			case x == 3 && now.Before(until):
				m := &wire.Leave{Room: s.cfg.Room[:], Peer: []byte(ana.ID()), TimeMs: now.UnixMilli(), Instance: []byte("instance")}
				s.gotLeave(ana.ID(), m, now)
				until = now
			default:
				if until.IsZero() { // she is not gone, she was never here: her word of a minute ago may count
					continue
				}
				say(anyOf(r, said))
				replayed++
			}
			s.expire(now)
			if here := s.live[ana.ID()] != nil; here != now.Before(until) {
				t.Fatalf("here %v, %v after her time", here, now.Sub(until))
			}
		}
	})
	if t.Logf("%d replays", replayed); all && replayed == 0 {
		t.Error("nothing was replayed")
	}
}

// Trust 34: some of those who are here are put out, and the next epoch is handed out: each who stays gets it, each who is out
// can open nothing of it.
func TestRandomHandouts(t *testing.T) {
	each(t, func(t *testing.T, r *rand.Rand, s *Session) {
		keys, out := map[peer.ID]*sframe.HandoutKey{}, map[peer.ID]bool{}
		for range 2 + r.IntN(6) {
			p := mustKey(t).ID()
			s.letIn(t, p, anyOf(r, []room.Role{room.Listener, room.Speaker}))
			k := sframe.NewHandoutKey()
			public := k.Public()
			s.touch(p, time.Now()).handoutKey = public[:]
			keys[p] = k
		}
		everybody := slices.Sorted(maps.Keys(keys))
		for _, p := range everybody {
			if r.IntN(3) == 0 {
				s.write(t, room.Op{Kind: anyOf(r, []room.Kind{room.Kick, room.Ban}), Targets: []peer.ID{p}})
				out[p] = true
			}
		}
		s.rekey(time.Now(), causeKick)
		e := s.keys.epochs[len(s.keys.epochs)-1]
		for _, p := range everybody {
			if out[p] && r.IntN(2) == 0 { // whatever makes it look like one who is here
				public := keys[p].Public()
				s.touch(p, time.Now()).handoutKey = public[:]
			}
		}
		h := s.handout(e)
		for p, k := range keys {
			opened := 0
			for _, x := range h.Sealed {
				if _, err := k.Open(s.cfg.Room, e.ID, x.Enc, x.Ct); err == nil {
					opened++
				}
			}
			if want := 1; opened > want || (opened == want) == out[p] {
				t.Fatalf("out %v, and opens %d", out[p], opened)
			}
		}
		if e.N != s.state.Epoch.N || e.ID != sframe.EpochID(s.state.Epoch.ID) {
			t.Fatal("what is handed out is not in force")
		}
	})
}

// Trust 57: a listener with a pass, good or bad in any of the ways there are, also of one who was kicked, banned or whose
// branch was revoked since: taken when nothing is wrong with it, else refused for one of the reasons.
func TestRandomPasses(t *testing.T) {
	counts := map[room.Reason]int{}
	all := each(t, func(t *testing.T, r *rand.Rand, s *Session) {
		now := time.Now()
		mod, ana, eve := mustKey(t), mustKey(t).ID(), mustKey(t)
		s.letIn(t, mod.ID(), room.Speaker)
		s.letIn(t, eve.ID(), room.Listener)
		s.write(t, room.Op{Kind: room.Appoint, Targets: []peer.ID{mod.ID()}})
		signer := anyOf(r, []*identity.Key{s.cfg.Key, mod})
		nbf := now.Add(-time.Duration(r.IntN(50)) * time.Minute)
		m := &wire.Pass{Room: s.cfg.Room[:], Peer: []byte(ana), Role: uint32(room.Listener), NbfS: nbf.Unix(), ExpS: nbf.Add(passLife).Unix()}
		chain := []room.InviteID{{1}, {2}, {3}}[:r.IntN(4)]
		for _, c := range chain {
			m.Chain = append(m.Chain, slices.Clone(c[:]))
		}
		wrong := map[room.Reason]bool{}
		spoil := map[room.Reason]func(){
			room.Banned:       func() { s.write(t, room.Op{Kind: room.Ban, Targets: []peer.ID{ana}}); wrong[room.Removed] = true },
			room.Removed:      func() { s.write(t, room.Op{Kind: room.Kick, Targets: []peer.ID{ana}}) },
			room.BadSignature: func() { signer = eve },
			room.WrongRoom:    func() { m.Peer = []byte(eve.ID()) },
			room.NotYet:       func() { m.NbfS, m.ExpS = now.Add(3*time.Minute).Unix(), now.Add(time.Hour).Unix() },
			room.Malformed:    func() { m.ExpS = m.NbfS + int64(passLife/time.Second) + 1 + r.Int64N(9999) },
			room.Expired: func() {
				m.NbfS, m.ExpS = now.Add(-2*time.Hour).Unix(), now.Add(-2*time.Minute).Unix()-r.Int64N(999)
				m.NbfS = m.ExpS - 60
			},
			room.Revoked: func() {
				m.Chain = append(m.Chain[:min(len(m.Chain), 2)], append([]byte{9}, make([]byte, 31)...))
				s.write(t, room.Op{Kind: room.Revoke, Invite: room.InviteID{9}, Branch: true})
			},
		}
		faults := []room.Reason{room.Banned, room.Removed, room.BadSignature, room.WrongRoom, room.NotYet, room.Malformed, room.Expired, room.Revoked}
		for range r.IntN(3) {
			if why := anyOf(r, faults); !wrong[why] {
				spoil[why]()
				wrong[why] = true
			}
		}
		if r.IntN(8) == 0 && signer == mod { // she was one when she signed
			s.write(t, room.Op{Kind: room.Dismiss, Targets: []peer.ID{mod.ID()}})
			wrong[room.BadSignature] = true
		}
		_, got := s.checkPass(ana, wire.Sign(signer, wire.DomainPass, m), now)
		if counts[got]++; len(wrong) == 0 && got != 0 || len(wrong) > 0 && !wrong[got] && !(wrong[room.NotYet] && wrong[room.Malformed] || wrong[room.Expired]) {
			t.Fatalf("%v, wrong are %v", got, wrong)
		}
		if len(wrong) > 0 && got == 0 && !onlyTime(wrong) {
			t.Fatalf("taken, wrong are %v", wrong)
		}
	})
	if t.Log(counts); all && len(counts) < 8 {
		t.Error("not every answer was given")
	}
}

// onlyTime tells whether two faults of time may have undone each other.
func onlyTime(wrong map[room.Reason]bool) bool {
	for why := range wrong {
		if why != room.NotYet && why != room.Expired && why != room.Malformed {
			return false
		}
	}
	return len(wrong) > 1
}

// Trust 25, as the allowances go: whoever sends more than may be gets by with the allowance, at any pace, and whoever keeps to
// it is never refused for another's sake.
func TestRandomFloods(t *testing.T) {
	seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		var f flood
		kind := traffic(r.IntN(len(rates)))
		allowed := rates[kind]
		now := time.Unix(1_800_000_000, 0)
		start, sent := now, 0
		quiet := time.Duration(float64(time.Second)/allowed.second) + time.Millisecond
		next := now
		for range 2000 {
			now = now.Add(time.Duration(r.Int64N(int64(2 * time.Second / time.Duration(1+allowed.second*4)))))
			if f.allow("eve", kind, now) {
				sent++
			}
			if most := allowed.burst + now.Sub(start).Seconds()*allowed.second; float64(sent) > most+1e-6 {
				t.Fatalf("kind %d: %d in %v", kind, sent, now.Sub(start))
			}
			if !now.Before(next) {
				if next = now.Add(quiet); !f.allow("ana", kind, now) {
					t.Fatalf("kind %d: an honest one is refused after %v", kind, now.Sub(start))
				}
			}
		}
	})
}

// Trust 20, as the doorway goes: some people open handshakes without end; whoever comes with one gets in, proves her invite
// whenever she does, and is not ended for another.
func TestRandomDoorways(t *testing.T) {
	seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		var d doorway
		keys := 1 + r.IntN(40)
		crowd := func(n int) {
			for range n {
				d.enter(&guestStream{from: peer.ID(rune('A' + r.IntN(keys)))})
			}
		}
		crowd(maxHandshake * 2)
		var honest []*guestStream
		for i := range 1 + r.IntN(8) {
			g := &guestStream{from: peer.ID([]byte{'h', byte(i)})}
			if !d.enter(g) {
				t.Fatal("no room for an honest newcomer")
			}
			honest = append(honest, g)
			crowd(r.IntN(120))
			if r.IntN(2) == 0 {
				d.prove(anyOf(r, honest))
			}
		}
		crowd(r.IntN(300))
		for _, g := range honest {
			if g.ended {
				t.Fatalf("an honest handshake was ended for another's, of %d", keys)
			}
		}
		if len(d.visits) > maxHandshake {
			t.Fatalf("%d handshakes at once", len(d.visits))
		}
	})
}

// Trust 42, as sources go: whatever the media path tells of its counter, also of a source that was left, no salt comes again
// and no counter of one goes back or over the end.
func TestRandomSources(t *testing.T) {
	renewed := 0
	all := seeded.Each(t, func(t *testing.T, r *rand.Rand) {
		cryptotest.SetGlobalRandom(t, r.Uint64())
		salts := map[[8]byte]bool{}
		s := &Session{me: "ana"}
		for range 1 + r.IntN(3) { // processes
			s.own = newOwnSource(s.cfg.Room, s.me)
			for range 1 + r.IntN(4) { // sources
				if salts[s.own.salt] {
					t.Fatal("a salt comes again")
				}
				salts[s.own.salt] = true
				salt, id, ctr := s.own.salt, s.own.id, uint32(0)
				for s.own.salt == salt && ctr <= sframe.MaxCounter {
					before := s.own.ctr
					ctr += 1 + r.Uint32N(1_500_000)
					s.countSource(s.own.id, max(0, ctr-r.Uint32N(min(ctr, 4000)+1)))
					if s.own.salt == salt && s.own.ctr < before {
						t.Fatal("the counter goes back")
					}
					if s.own.salt == salt && ctr >= renewAt+4000 {
						t.Fatalf("at %d and no new source", ctr)
					}
				}
				renewed++
				for range r.IntN(3) { // of the one that was left
					left := s.own
					if s.countSource(id, r.Uint32N(renewAt+90_000)); s.own != left {
						t.Fatal("left for what was told of another")
					}
				}
			}
		}
	})
	if all && renewed == 0 {
		t.Error("none was renewed")
	}
}
