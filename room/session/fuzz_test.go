package session

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/ledger"
	"balai/room/overlay"
	"balai/room/sframe"
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
	named := sframe.NewEpoch(2) // which nobody has given me
	if _, err := s.appendOp(room.Op{Kind: room.NewEpoch, Epoch: room.EpochCommit{N: 2, ID: room.EpochID(named.ID), Cause: causeKick}}, time.Now(), false); err != nil {
		f.Fatal(err)
	}
	newcomer := New(Config{Key: mustKey(f), Room: s.cfg.Room, Secret: s.cfg.Secret, Ports: s.cfg.Ports, Profile: profileOf("y"), Log: testLog("y")})
	newcomer.ctx = context.Background()
	ops, _ := s.ledger.Since(nil, maxOps)
	keys := []*wire.KeyStep{keyStep(s.keys.epochs[0]), {Id: make([]byte, 16), Secret: make([]byte, 32)}}
	for _, step := range []uint32{lastStep, 1<<32 - 4, 1<<32 - 2} {
		keys = append(keys, &wire.KeyStep{N: 2, Id: named.ID[:], Step: step, Secret: make([]byte, 32)})
	}
	fat := proto.CloneOf(ops[0])
	fat.ProtoReflect().SetUnknown(more(200))
	pass := s.makePass(newcomer.me, room.Listener, "y", trail{[]room.InviteID{{1}}, s.me}, time.Now())
	b, _ := proto.Marshal(&wire.LedgerReply{Genesis: s.ledger.Genesis(), Ops: append(ops, fat), Keys: keys, Pass: pass, Records: [][]byte{[]byte(recordPrefix)}, Sources: []*wire.Signed{s.signSource(time.Now())}})
	f.Add(b)
	b, _ = proto.Marshal(&wire.Welcome{Genesis: s.ledger.Genesis(), Ops: ops, Key: keys[0], Sources: []*wire.Signed{s.signSource(time.Now())}})
	f.Add(b)
	b, _ = proto.Marshal(&wire.Challenge{Genesis: s.ledger.Genesis(), Grant: ops, Nonce: make([]byte, nonceLen)})
	f.Add(b)
	c := ledger.Agree(newcomer.cfg.Key, room.Succeed, s.cfg.Room, s.cfg.Key.Public(), room.OpID{1})
	b, _ = proto.Marshal(&wire.LedgerReply{Accept: &wire.Signed{Body: c.Body, Sig: c.Sig, Key: newcomer.cfg.Key.Public()}})
	f.Add(b)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing may be asked of the network
	f.Fuzz(func(t *testing.T, b []byte) {
		var rep wire.LedgerReply
		if proto.Unmarshal(b, &rep) == nil {
			s.takeReply(&rep, newcomer.me, time.Now())
			_ = s.provenOut(newcomer.me, &rep)
			if _, err := ledger.Agreed(rep.Accept, room.Succeed, s.cfg.Room, s.cfg.Key.Public(), room.OpID{2}); err == nil {
				t.Fatal("a vote that nobody signed")
			}
			s.drain()
		}
		var w wire.Welcome
		if proto.Unmarshal(b, &w) == nil {
			if _, err := newcomer.checkWelcome(ctx, &w, s.me); err == nil {
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

// relaying is a still session that is the whole core of its room.
func relaying(t testing.TB) *Session {
	t.Helper()
	s, now := still(t), time.Now()
	ad := generous
	ad.Room, ad.Seq, ad.Issued = s.cfg.Room, 1, now
	own, err := election.ParseAd(ad.Sign(s.cfg.Key), s.cfg.Room)
	if err != nil {
		t.Fatal(err)
	}
	s.carry.own = own
	s.step(s.situation(), now)
	l := election.Lease{Room: s.cfg.Room, By: s.me, Term: 1, Version: 1, Grant: s.ownGrant(), Ads: []*election.Ad{own}, Issued: now, TTL: election.LeaseTTL}
	if err := s.takeLease(l.Sign(s.cfg.Key).Signed, s.me, now); err != nil || !s.carry.overlay.Plan().Core {
		t.Fatalf("not the core: %v", err)
	}
	return s
}

// says lets p say a record on its link.
func (s *Session) says(p peer.ID, r *wire.LinkRecord) {
	s.flood.buckets = nil // no limit hides a record from the test
	s.Link(overlay.Linked{Peer: p})
	s.Link(overlay.Got{Peer: p, Record: r})
	s.drain()
}

// FuzzLinkRecord feeds what a stranger may say on a media link to a relay that is the whole core. Whatever it is, the
// stranger hears nothing without a pass, is nobody's parent, and changes neither the core nor who is here.
func FuzzLinkRecord(f *testing.F) {
	s, stranger, other := relaying(f), mustKey(f), mustKey(f)
	now, id := time.Now(), s.cfg.Room[:]
	feeds := func(p peer.ID) bool {
		return slices.ContainsFunc(s.carry.overlay.Plan().Feeds, func(d overlay.Feed) bool { return d.Peer == p })
	}
	pass := s.makePass(other.ID(), room.Listener, "y", trail{}, now)
	good := &wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: &wire.Join{Room: id, Pass: pass, Mode: uint32(overlay.Single)}}}
	if s.says(other.ID(), good); !feeds(other.ID()) {
		f.Fatal("who has a pass is fed nothing: this shows nothing")
	}
	s.Link(overlay.Unlinked{Peer: other.ID()})
	s.drain()

	own := s.carry.force.Lease().Ads[0]
	ad := *own
	ad.Seq = 2
	foreign, err := election.ParseAd(ad.Sign(stranger), s.cfg.Room)
	if err != nil {
		f.Fatal(err)
	}
	short, m := shortOf(stranger.ID()), wire.Pass{}
	if _, err := wire.Open(pass, wire.DomainPass, &m); err != nil {
		f.Fatal(err)
	}
	m.Peer = []byte(stranger.ID())
	lease := election.Lease{Room: s.cfg.Room, By: stranger.ID(), Term: 9, Version: 9, Grant: s.ownGrant(), Ads: []*election.Ad{foreign}, Issued: now, TTL: election.LeaseTTL}.Sign(stranger).Signed
	digest := wire.Sign(stranger, wire.DomainDigest, s.makeDigest(now))
	ops, _ := s.ledger.Since(nil, maxOps)
	sources := []*wire.Signed{s.signSource(now)}
	for _, r := range []*wire.LinkRecord{
		good,
		{Record: &wire.LinkRecord_Join{Join: &wire.Join{Room: id, Pass: wire.Sign(stranger, wire.DomainPass, &m), Mode: uint32(overlay.Mirror), Ad: foreign.Signed, HaveParent: true, Redirects: 3}}},
		{Record: &wire.LinkRecord_Join{Join: &wire.Join{Room: id, Mode: uint32(overlay.Assist), Only: [][]byte{short[:]}, Coords: []int32{1, 2}}}},
		{Record: &wire.LinkRecord_Admit{Admit: &wire.JoinAnswer{Mode: 1, Level: 1, Path: [][]byte{short[:]}, Lease: lease, Sources: sources}}},
		{Record: &wire.LinkRecord_Redirect{Redirect: &wire.Redirect{Ads: []*wire.Signed{foreign.Signed, own.Signed}, Lease: lease}}},
		{Record: &wire.LinkRecord_Busy{Busy: &wire.Busy{Ads: []*wire.Signed{foreign.Signed}, RetryMs: 1}}},
		{Record: &wire.LinkRecord_Leave{Leave: &wire.LinkLeave{As: 2, AfterMs: 1}}},
		{Record: &wire.LinkRecord_Feed{Feed: &wire.Feed{Mode: uint32(overlay.Single)}}},
		{Record: &wire.LinkRecord_Lease{Lease: lease}},
		{Record: &wire.LinkRecord_Digest{Digest: &wire.DigestRecord{Digest: digest, Ops: ops, Sources: sources}}},
		{Record: &wire.LinkRecord_Close{Close: &wire.LinkClose{Reason: 1}}},
		{Record: &wire.LinkRecord_Bad{Bad: &wire.Bad{Source: s.own.id, Ctrs: []uint32{1}}}},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r wire.LinkRecord
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		s.says(stranger.ID(), &r)
		s.step(nil, time.Now())
		pl := s.carry.overlay.Plan()
		switch l := s.carry.force.Lease(); {
		case s.phase != Live || len(s.state.Members) != 1 || len(s.live) > 1:
			t.Fatalf("%s with %d members, %d live", s.phase, len(s.state.Members), len(s.live))
		case feeds(stranger.ID()):
			t.Fatal("a stranger is fed")
		case len(pl.Parents) > 0 || !pl.Core:
			t.Fatalf("parents %v, core %v", pl.Parents, pl.Core)
		case l.By != s.me || len(l.Ads) != 1 || l.Ads[0].Peer != s.me:
			t.Fatalf("the lease of %s", l.By)
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
