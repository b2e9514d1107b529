package session

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/invite"
	"balai/room/wire"
)

// A moderator closes invites that she issued, whoever came by them and wherever; the host's stay open and nobody is put out by
// her, whom she bans, what guests she makes up and whose admissions she forges.
func TestAModeratorCannotCloseTheHostsLink(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		w.limit = 9
		host, stage, rest := w.crowd(8)
		mod := stage[1]
		host.act(room.Appoint, mod)
		w.within(5*time.Second, "a moderator", func() bool { return mod.view().Me.Role == "moderator" })
		public, own := host.invites(InviteTerms{Role: room.Listener}), mod.invites(InviteTerms{Role: room.Listener})
		come := func(link *invite.Invite) *soul {
			p := w.person("Guest")
			p.gives = election.Ad{}
			p.enter(link)
			w.until("an answer", func() bool { return p.view().State.Over() || p.view().State == Live })
			return p
		}
		friend, honest, hers := come(public), come(public), []*soul{come(own), come(own)}
		members := slices.Concat(stage, rest)
		w.within(20*time.Second, "all to hear", func() bool {
			return carried(members) && carried(slices.Concat(stage[:1], hers, []*soul{friend, honest}))
		})
		mod.in(func(s *Session) {
			for _, op := range []room.Op{
				{Kind: room.Ban, Targets: []peer.ID{friend.id}, Invite: public.ID()},
				{Kind: room.Admit, Admissions: []room.Admission{{Peer: w.person("Nobody").id, Role: room.Listener, Chain: public.ChainIDs(), Uses: []uint16{1}, Issuer: mod.id}}},
				{Kind: room.Revoke, Invite: public.ID(), Branch: true},
			} {
				if _, err := s.appendOp(op, time.Now(), true); err != nil {
					t.Error(err)
				}
			}
		})
		w.within(10*time.Second, "the banned one to be out", func() bool { return friend.view().State == Refused })
		w.after(12 * time.Second) // digests, passes and keys went round
		if honest.view().State != Live {
			t.Errorf("who came by the host's link is %s (%s)", honest.view().State, honest.reason())
		}
		if next := come(public); next.view().State != Live {
			t.Errorf("by the host's link another is %s", next.reason())
		}
		if err := mod.s.Revoke(context.Background(), own.ID(), true); err != nil {
			t.Fatal(err)
		}
		w.within(5*time.Second, "who came by the moderator's link to be out", func() bool {
			return !slices.ContainsFunc(hers, func(p *soul) bool { return p.view().State != Refused || p.reason() != "revoked" })
		})
		if next := come(own); next.reason() != "revoked" {
			t.Errorf("by the moderator's link another is %s", next.reason())
		}
		for _, p := range append(members, honest) {
			if p.view().State != Live {
				t.Errorf("%s is %s", p.name, p.view().State)
			}
		}
	})
}

// passBy is a pass that a moderator signs as she likes.
func passBy(s *Session, by *identity.Key, p, issuer peer.ID, chain ...room.InviteID) *wire.Signed {
	now := time.Now()
	m := &wire.Pass{
		Room: s.cfg.Room[:], Peer: []byte(p), Role: uint32(room.Listener), EpochId: s.state.Epoch.ID[:],
		NbfS: now.Unix(), ExpS: now.Add(passLife).Unix(), Issuer: []byte(issuer),
	}
	for _, id := range chain {
		m.Chain = append(m.Chain, slices.Clone(id[:]))
	}
	return wire.Sign(by, wire.DomainPass, m)
}

// A pass by which a moderator claims another's invite for herself, and that is renewed by who leads, does not make the one who
// leads tell in its digest that she revoked that invite: those who came by it would go.
func TestAFalseIssuerIsNotToldOn(t *testing.T) {
	s := still(t)
	mod, friend, guest := mustKey(t), mustKey(t).ID(), mustKey(t).ID()
	s.letIn(t, mod.ID(), room.Speaker)
	s.write(t, room.Op{Kind: room.Appoint, Targets: []peer.ID{mod.ID()}})
	public, own := room.InviteID{1}, room.InviteID{2}
	revoke := func(id room.InviteID) {
		t.Helper()
		op, err := s.ledger.Draft(mod, room.Op{Kind: room.Revoke, Invite: id, Branch: true}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s.addOps([]*wire.Signed{op}, time.Now())
	}
	told := func(id room.InviteID) bool {
		return slices.ContainsFunc(s.revokedBranches(), func(r []byte) bool { return bytes.Equal(r, id[:]) })
	}
	renew := func(p peer.ID, pass *wire.Signed) {
		t.Helper()
		if rep := s.ledgerReply(p, &wire.LedgerRequest{Room: s.cfg.Room[:], Pass: pass}, time.Now()); rep.Refused != 0 || rep.Pass == nil {
			t.Fatalf("%v", room.Reason(rep.Refused))
		}
	}
	renew(friend, passBy(s, mod, friend, mod.ID(), public))
	revoke(public)
	if told(public) {
		t.Error("a moderator's word about another's invite is told on")
	}
	s.guests[guest] = held{by: trail{[]room.InviteID{own}, mod.ID()}, seen: true, exp: time.Now().Add(passLife)}
	renew(guest, passBy(s, mod, guest, mod.ID(), own)) // says what was seen
	revoke(own)
	if !told(own) {
		t.Error("what was seen in the invite itself is not told")
	}
	s.write(t, room.Op{Kind: room.Revoke, Invite: public, Branch: true})
	for i := range 100 { // hers again and again, and what is nobody's
		revoke(own)
		revoke(room.InviteID{9, byte(i)})
	}
	if got := s.revokedBranches(); !told(public) || !told(own) || len(got) != 2 {
		t.Errorf("after many of hers it tells of %x", got)
	}
}

// A moderator who leads, and knows of all that she revokes that she issued it, fills with it no place of the host's, nor one who
// puts out people whom there never were, as of the year 9999: what the host decided before, and what another decides after,
// stands in the digest.
func TestNoNumberHidesTheHostsWord(t *testing.T) {
	s, now := still(t), time.Now()
	mod := mustKey(t)
	s.letIn(t, mod.ID(), room.Speaker)
	s.write(t, room.Op{Kind: room.Appoint, Targets: []peer.ID{mod.ID()}})
	eve, public := mustKey(t).ID(), room.InviteID{1}
	s.write(t, room.Op{Kind: room.Revoke, Invite: public, Branch: true})
	s.write(t, room.Op{Kind: room.Ban, Targets: []peer.ID{eve}})
	last := room.InviteID{}
	for i := range 100 {
		guest := mustKey(t).ID()
		last = room.InviteID{2, byte(i)}
		s.guests[guest] = held{by: trail{[]room.InviteID{last}, mod.ID()}, seen: true, exp: now.Add(passLife)}
		for _, op := range []room.Op{{Kind: room.Revoke, Invite: last, Branch: true}, {Kind: room.Kick, Targets: []peer.ID{mustKey(t).ID(), mustKey(t).ID()}}} {
			signed, err := s.ledger.Draft(mod, op, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))
			if err != nil {
				t.Fatal(err)
			}
			s.addOps([]*wire.Signed{signed}, now)
		}
	}
	d := s.makeDigest(now)
	if has := func(id room.InviteID) bool {
		return slices.ContainsFunc(d.Revoked, func(r []byte) bool { return bytes.Equal(r, id[:]) })
	}; !has(public) || !has(last) || len(d.Revoked) != digestRevoked {
		t.Errorf("%d invites, the host's %v, the last %v", len(d.Revoked), has(public), has(last))
	}
	short := shortOf(eve)
	i := slices.IndexFunc(d.Removed, func(r []byte) bool { return bytes.Equal(r, short[:]) })
	if i < 0 || d.Banned>>i&1 == 0 || len(d.Removed) != digestRemoved {
		t.Errorf("%d put out, who was banned is the %dth, bits %b", len(d.Removed), i, d.Banned)
	}
	next := mustKey(t).ID()
	s.write(t, room.Op{Kind: room.Kick, Targets: []peer.ID{next}})
	if got := s.removedLast(); got[0] != next || got[1] != eve {
		t.Error("the host's last word is not the first that is told")
	}
	if size := len(wire.Sign(s.cfg.Key, wire.DomainDigest, d).Body); size > maxDigest {
		t.Errorf("%d bytes", size)
	}
}

// Who puts out tens of thousands costs those who lead no second each time that they tell how the room is.
func BenchmarkDigestOfManyRemoved(b *testing.B) {
	s := still(b)
	for range 300 {
		var out []peer.ID
		for range 64 {
			out = append(out, mustKey(b).ID())
		}
		signed, err := s.ledger.Draft(s.cfg.Key, room.Op{Kind: room.Kick, Targets: out}, time.Now())
		if err != nil {
			b.Fatal(err)
		}
		s.ledger.Add(signed)
	}
	s.state = s.ledger.State()
	for b.Loop() {
		s.makeDigest(time.Now())
	}
}
