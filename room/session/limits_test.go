package session

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/invite"
	"balai/room/ledger"
	"balai/room/wire"
)

// more is what a later version may add to a signed body: field 127 with n bytes.
func more(n int) []byte {
	return append([]byte{0xfa, 0x07, 0x80 | byte(n), byte(n >> 7)}, make([]byte, n)...)
}

func signRaw(s *Session, domain string, m proto.Message, extra int) *wire.Signed {
	signed := wire.Sign(s.cfg.Key, domain, m)
	if extra > 0 {
		signed.Body = append(signed.Body, more(extra)...)
		signed.Sig = s.cfg.Key.Sign(domain, signed.Body)
	}
	return signed
}

// A pass by an authority, whatever she signs, is kept and shown only with fields of bounded length and a name that can be shown;
// and an authority that is shown any number of them remembers a bounded number.
func TestLimitsOfAPass(t *testing.T) {
	s, now, ana := still(t), time.Now(), mustKey(t).ID()
	good := func() *wire.Pass {
		return &wire.Pass{
			Room: s.cfg.Room[:], Peer: []byte(ana), Role: uint32(room.Listener), EpochId: s.state.Epoch.ID[:], NbfS: now.Unix(), ExpS: now.Add(passLife).Unix(),
			Chain: [][]byte{make([]byte, 32)}, Issuer: []byte(s.me), Name: strings.Repeat("\U0001F600", 40),
		}
	}
	for name, c := range map[string]struct {
		change func(*wire.Pass)
		extra  int
		want   room.Reason
	}{
		"as it is":            {func(*wire.Pass) {}, 100, 0},
		"a long name":         {func(m *wire.Pass) { m.Name = strings.Repeat("a", 41) }, 0, room.Malformed},
		"a name of two lines": {func(m *wire.Pass) { m.Name = "a\nb" }, 0, room.Malformed},
		"a name that turns":   {func(m *wire.Pass) { m.Name = "a\u202eb" }, 0, room.Malformed},
		"a long issuer":       {func(m *wire.Pass) { m.Issuer = make([]byte, 65) }, 0, room.Malformed},
		"a short invite":      {func(m *wire.Pass) { m.Chain[0] = m.Chain[0][:31] }, 0, room.Malformed},
		"a long pass":         {func(*wire.Pass) {}, maxPass, room.Malformed},
	} {
		m := good()
		c.change(m)
		if _, got := s.checkPass(ana, signRaw(s, wire.DomainPass, m, c.extra), now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for i := range maxPasses + 10 {
		s.passFor(peer.ID(string(rune('a'+i))), good(), now)
	}
	if len(s.guests) > maxPasses {
		t.Errorf("%d guests remembered", len(s.guests))
	}
}

// A source and a handout key are kept and given on as they came, those of all on stage in one record: none of them is large.
func TestLimitsOfSmallRecords(t *testing.T) {
	s := still(t)
	source := &wire.Source{Room: s.cfg.Room[:], Peer: []byte(s.me), Salt: bytes.Repeat([]byte{1}, 8), EpochId: s.state.Epoch.ID[:], Ctr: 1<<24 - 1, TimeMs: time.Now().UnixMilli()}
	key := &wire.HandoutKey{Room: s.cfg.Room[:], Peer: []byte(s.me), X25519: make([]byte, 32), TimeMs: time.Now().UnixMilli()}
	for extra, want := range map[int]bool{0: true, 50: true, 256: false, 9000: false} {
		if _, ok := sourceOwner(signRaw(s, wire.DomainSource, source, extra), s.cfg.Room); ok != want {
			t.Errorf("a source with %d bytes more: %v", extra, ok)
		}
		if _, ok := s.openHandoutKey(s.me, signRaw(s, wire.DomainHandoutKey, key, extra)); ok != want {
			t.Errorf("a handout key with %d bytes more: %v", extra, ok)
		}
	}
}

// arrives is what this authority decides about somebody who holds an invite of hers, at the door.
func (s *Session) arrives(t *testing.T, p peer.ID, link string) (knocking bool, err error) {
	t.Helper()
	inv, err := invite.ParseLink(link)
	if err != nil {
		t.Fatal(err)
	}
	n := &newcomer{peer: p, claim: &wire.Claim{Name: "x", Sig: randomBytes(64)}}
	if err := n.readHello(&wire.Hello{Room: s.cfg.Room[:], Invite: inv.Public()}, s.cfg.Room); err != nil {
		t.Fatal(err)
	}
	_, knocking, err = s.decide(n, time.Now())
	return knocking, err
}

// Who is here by a pass and comes again by another link knocks where that link says so, and is charged: else she would stay by
// it, whom nobody let in by it, when the branch that she came by is revoked.
func TestAGuestByAnotherLink(t *testing.T) {
	s := still(t)
	s.limit = 0
	link := func(terms InviteTerms) InviteView {
		terms.Role = room.Listener
		v, err := s.issue(terms)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	first, knock, once := link(InviteTerms{}), link(InviteTerms{Knock: true}), link(InviteTerms{Uses: 1})
	ana, ben := mustKey(t).ID(), mustKey(t).ID()
	for range 2 {
		if knocking, err := s.arrives(t, ana, first.Link); knocking || err != nil {
			t.Fatal(knocking, err)
		}
	}
	came := s.guests[ana].by
	if knocking, err := s.arrives(t, ana, knock.Link); !knocking || err != nil {
		t.Errorf("by the link that knocks: %v, %v", knocking, err)
	}
	if now := s.guests[ana].by; !slices.Equal(now.chain, came.chain) {
		t.Error("she is taken for one who came by it")
	}
	for range 2 { // once, and then the same again
		if _, err := s.arrives(t, ben, once.Link); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.arrives(t, ana, once.Link); !errors.Is(err, room.UsedUp) {
		t.Errorf("by a link that is used up: %v", err)
	}
}

// Of how many people a speaker who leads tells does not depend whether a guest asks for what she lacks before the evening ends.
func TestManyPeopleDelayNobody(t *testing.T) {
	s, now := still(t), time.Now()
	s.guest = true
	d := s.makeDigest(now)
	d.People, d.Heads = 1<<32-1, make([]byte, 32)
	for range 50 {
		s.carry.digest.fetch = time.Time{}
		if s.followDigest(mustKey(t).ID(), d, now); s.carry.digest.fetch.IsZero() || s.carry.digest.fetch.Sub(now) > time.Minute {
			t.Fatalf("she asks after %v", s.carry.digest.fetch.Sub(now))
		}
	}
}

// A hand that a moderator lowers at a beat that never comes is not down for ever.
func TestLoweredForEver(t *testing.T) {
	s, now := still(t), time.Now()
	ana := mustKey(t).ID()
	s.letIn(t, ana, room.Listener)
	raise := func(beat uint64) bool {
		l := s.touch(ana, now)
		s.takeHand(ana, l, nil, false)
		s.takeHand(ana, l, &wire.Hand{Beat: beat}, false)
		_, up := s.handOf(ana)
		return up
	}
	beat := s.beat.seq + 10
	if !raise(beat) {
		t.Fatal("no hand")
	}
	s.write(t, room.Op{Kind: room.Lower, Targets: []peer.ID{ana}, Beat: beat})
	if _, up := s.handOf(ana); up {
		t.Error("lowered, and up")
	}
	s.write(t, room.Op{Kind: room.Lower, Targets: []peer.ID{ana}, Beat: 1<<64 - 1})
	if !raise(beat + 1) {
		t.Error("no hand of hers counts any more")
	}
}

// What a member answers of decisions is looked at as far as an honest answer goes: when no more of what nobody needs can be kept
// aside, some dozens of each answer, and not all that fit into it.
func TestAReplyOfJunk(t *testing.T) {
	s, now := still(t), time.Now()
	junk := make([]*wire.Signed, 2*maxOps)
	for i := range junk {
		junk[i] = wire.Sign(mustKey(t), wire.DomainOp, &wire.Op{Room: s.cfg.Room[:], Seq: 1, Grant: randomBytes(32), Kind: uint32(room.Lock)})
	}
	liar := mustKey(t).ID()
	looked := func(ops []*wire.Signed) int {
		s.flood.buckets = nil // whose decisions are looked at has an allowance
		s.takeReply(&wire.LedgerReply{Ops: ops}, liar, now)
		return len(s.flood.buckets)
	}
	if n := looked(junk[:maxOps+500]); n > maxOps {
		t.Errorf("%d of one answer", n)
	}
	kept := len(s.pending)
	if n := looked(junk[1000:]); n > maxStrays || len(s.pending) != kept {
		t.Errorf("%d of the next, %d kept aside after %d", n, len(s.pending), kept)
	}
}

// A member who asks for all decisions as fast as she can gets them as often as a long entry needs, and then twice a second.
func TestAskingForEver(t *testing.T) {
	s, now := still(t), time.Now()
	ana, ben := mustKey(t).ID(), mustKey(t).ID()
	s.letIn(t, ana, room.Listener)
	s.letIn(t, ben, room.Listener)
	served := 0
	ask := func(p peer.ID, at time.Time) bool {
		return s.ledgerReply(p, &wire.LedgerRequest{Room: s.cfg.Room[:]}, at).Refused == 0
	}
	for i := range 2000 {
		if ask(ana, now.Add(time.Duration(i)*time.Millisecond)) {
			served++
		}
	}
	if served < returnReplies || served > 250 {
		t.Errorf("served %d times in two seconds", served)
	}
	if !ask(ben, now.Add(2*time.Second)) || !ask(ana, now.Add(3*time.Second)) {
		t.Error("another, or she a second later, is not served")
	}
}

// An authority who takes a guest into the ledger, and shows her a shorter one than she knows, makes her forget nothing.
func TestPromotedWithAShortLedger(t *testing.T) {
	s, now := still(t), time.Now()
	s.letIn(t, mustKey(t).ID(), room.Listener)
	short, err := ledger.New(s.ledger.Genesis())
	if err != nil {
		t.Fatal(err)
	}
	ops, _ := s.ledger.Since(nil, maxOps)
	short.Add(ops...)
	out := mustKey(t).ID()
	s.write(t, room.Op{Kind: room.Ban, Targets: []peer.ID{out}})
	s.guest = true
	if err := s.promoted(&wire.Welcome{}, short, s.me, now); err != nil || s.guest {
		t.Fatal(err)
	}
	if !s.state.Banned[out] {
		t.Error("she has forgotten a ban")
	}
}

// However many are on stage, what is told of them on a link is no longer than a link takes, and the same people each time: those
// longest there.
func TestWhatIsToldOfAStageFits(t *testing.T) {
	s, now := still(t), time.Now()
	for range 150 {
		p := mustKey(t).ID()
		s.state.Stage = append(s.state.Stage, p)
		s.live[p] = &presence{signed: signRaw(s, wire.DomainSource, &wire.Source{Room: s.cfg.Room[:], Peer: []byte(p)}, 100)}
	}
	all := s.sourceRecords(now)
	if len(all) != 151 {
		t.Fatalf("%d sources", len(all))
	}
	for _, lease := range []int{0, 8 << 10, 14 << 10} {
		r := &wire.LinkRecord{Record: &wire.LinkRecord_Admit{Admit: &wire.JoinAnswer{Mode: 1, Lease: &wire.Signed{Body: make([]byte, lease)}}}}
		s.fillAdmit(r, now)
		told := r.GetAdmit().Sources
		if n := proto.Size(r); n > 15<<10 {
			t.Errorf("an ADMIT of %d bytes with %d sources", n, len(told))
		}
		if lease == 0 && len(told) < 32 {
			t.Errorf("%d sources told", len(told))
		}
		if !slices.EqualFunc(told, all[:len(told)], func(a, b *wire.Signed) bool { return a == b }) {
			t.Error("others than those longest on stage")
		}
	}
}
