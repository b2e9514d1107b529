package session

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

// still is a live session that nobody runs: its posts wait in its inbox.
func still(t testing.TB) *Session {
	t.Helper()
	k, r, now := mustKey(t), room.NewSecret(), time.Now()
	g, err := ledger.NewGenesis(k, r, room.Policy{Visibility: room.Unlisted, Name: "x"}, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	p := &soul{w: &world{}, key: k, id: k.ID(), room: room.IDOf(k.Public(), r.Nonce())}
	p.reset()
	s := New(Config{Key: k, Room: p.room, Secret: r, Genesis: g, New: true, Ports: (*ports)(p), Profile: profileOf("x"), Log: testLog("x")})
	s.ctx = context.Background()
	s.begin(now)
	s.settle(now)
	return s
}

// drain runs what was posted.
func (s *Session) drain() {
	for len(s.in) > 0 {
		(<-s.in)()
	}
	s.settle(time.Now())
}

// FuzzGossip feeds what a member could seal. Nothing of it may panic or make the session forget its room; the
// corpus holds one signed record of each kind, by the host itself and by a stranger.
func FuzzGossip(f *testing.F) {
	s := still(f)
	stranger := mustKey(f)
	ms := time.Now().UnixMilli()
	for _, k := range []*identity.Key{s.cfg.Key, stranger} {
		id, r := []byte(k.ID()), s.cfg.Room[:]
		hand := &wire.Hand{Beat: 1, BeatSig: make([]byte, 64), Chair: make([]byte, 32)}
		for _, m := range []*wire.StageMessage{
			{Message: &wire.StageMessage_Presence{Presence: wire.Sign(k, wire.DomainPresence, &wire.Presence{Room: r, Peer: id, TimeMs: ms, Hand: hand, Instance: s.instance, Epochs: [][]byte{make([]byte, 16)}})}},
			{Message: &wire.StageMessage_Beat{Beat: wire.Sign(k, wire.DomainBeat, &wire.Beat{Room: r, Seq: 3, EpochId: make([]byte, 16), Step: 1 << 31, TimeMs: ms})}},
			{Message: &wire.StageMessage_Chat{Chat: wire.Sign(k, wire.DomainChat, &wire.Chat{Room: r, Peer: id, TimeMs: ms, Text: "x"})}},
			{Message: &wire.StageMessage_Leave{Leave: wire.Sign(k, wire.DomainLeave, &wire.Leave{Room: r, Peer: id, TimeMs: ms})}},
			{Message: &wire.StageMessage_Heard{Heard: wire.Sign(k, wire.DomainHeard, &wire.Heard{Room: r, Peer: id, TimeMs: ms, Sources: [][]byte{{1, 2, 3}, {}}})}},
			{Message: &wire.StageMessage_Reaction{Reaction: wire.Sign(k, wire.DomainReaction, &wire.Reaction{Room: r, Peer: id, TimeMs: ms, Kind: 7})}},
		} {
			b, _ := proto.Marshal(m)
			f.Add(true, b)
		}
	}
	b, _ := proto.Marshal(&wire.OpsMessage{Ops: []*wire.Signed{s.ledger.Genesis()}, Handout: &wire.Handout{Id: make([]byte, 16), Sealed: []*wire.SealedKey{{Peer: make([]byte, 8)}}}})
	f.Add(false, b)
	f.Fuzz(func(t *testing.T, stage bool, plain []byte) {
		topic := OpsTopic
		if stage {
			topic = StageTopic
		}
		e, ok := s.keys.sealing()
		if !ok {
			t.Fatal("no key any more")
		}
		_ = s.Gossip(topic, s.me, e.SealGossip(s.cfg.Room, s.cfg.Secret.Name(topic), plain))
		s.drain()
		if s.phase != Live || len(s.state.Members) != 1 || len(s.live) > 1 {
			t.Fatalf("%s with %d members, %d live", s.phase, len(s.state.Members), len(s.live))
		}
	})
}

// FuzzReply feeds what any peer may answer on a control stream: a reply to who is in, a welcome and a challenge
// to who is not.
func FuzzReply(f *testing.F) {
	s := still(f)
	newcomer := New(Config{Key: mustKey(f), Room: s.cfg.Room, Secret: s.cfg.Secret, Ports: s.cfg.Ports, Profile: profileOf("y"), Log: testLog("y")})
	newcomer.ctx = context.Background()
	ops, _ := s.ledger.Since(nil, maxOps)
	keys := []*wire.KeyStep{keyStep(s.keys.epochs[0]), {Id: make([]byte, 16), Secret: make([]byte, 32)}}
	b, _ := proto.Marshal(&wire.LedgerReply{Genesis: s.ledger.Genesis(), Ops: ops, Keys: keys, Records: [][]byte{[]byte(recordPrefix)}, Sources: []*wire.Signed{s.signSource(time.Now())}})
	f.Add(b)
	b, _ = proto.Marshal(&wire.Welcome{Genesis: s.ledger.Genesis(), Ops: ops, Key: keys[0], Sources: []*wire.Signed{s.signSource(time.Now())}})
	f.Add(b)
	b, _ = proto.Marshal(&wire.Challenge{Genesis: s.ledger.Genesis(), Grant: ops, Nonce: make([]byte, nonceLen)})
	f.Add(b)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing may be asked of the network
	f.Fuzz(func(t *testing.T, b []byte) {
		var rep wire.LedgerReply
		if proto.Unmarshal(b, &rep) == nil {
			s.takeReply(&rep, newcomer.me, time.Now())
			_ = s.provesRemoval(newcomer.me, &rep)
			s.drain()
		}
		var w wire.Welcome
		if proto.Unmarshal(b, &w) == nil {
			if _, _, err := newcomer.checkWelcome(ctx, &w, s.me); err == nil {
				t.Fatal("a welcome of nobody who was admitted")
			}
		}
		var ch wire.Challenge
		if proto.Unmarshal(b, &ch) == nil && checkGrants(&ch, s.cfg.Room, newcomer.me) == nil {
			t.Fatal("an authority of nobody's making")
		}
		if s.phase != Live || len(s.state.Members) != 1 {
			t.Fatalf("%s with %d members", s.phase, len(s.state.Members))
		}
	})
}

func mustKey(t testing.TB) *identity.Key {
	t.Helper()
	k, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}
