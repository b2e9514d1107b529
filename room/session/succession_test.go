package session

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

// openFor opens a room with an heir.
func (p *soul) openFor(heir *soul) {
	p.w.t.Helper()
	p.r = room.NewSecret()
	g, err := ledger.NewGenesis(p.key, p.r, room.Policy{Visibility: room.Unlisted, Name: "Inherited"}, heir.key.Public(), time.Now())
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.room = room.IDOf(p.key.Public(), p.r.Nonce())
	p.disk["genesis"], _ = proto.Marshal(g)
	p.run(Config{Genesis: g, New: true})
	p.w.after(0)
}

// inherited is a room with an heir and so many moderators, all settled.
func (w *world) inherited(mods int) (host, heir *soul, m []*soul) {
	host, heir = w.person("Host"), w.person("Heir")
	host.openFor(heir)
	link := host.invites(InviteTerms{Role: room.Listener})
	heir.come(link)
	for range mods {
		p := w.person("Moderator")
		p.come(link)
		host.act(room.Appoint, p)
		m = append(m, p)
	}
	w.settle(append([]*soul{host, heir}, m...)...)
	w.after(2 * presencePeriod) // all know where to find each other
	return host, heir, m
}

// sleep stops all, lets time pass, and starts those given again.
func (w *world) sleep(d time.Duration, wake ...*soul) {
	for _, p := range w.all {
		p.halt()
	}
	w.after(d)
	for _, p := range wake {
		p.restart()
	}
	w.settle(wake...)
	w.after(presenceTTL)
}

func (p *soul) wantsRoom() error { return p.s.Act(context.Background(), room.Succeed, "", "") }

func (p *soul) agrees(heir *soul) error {
	return p.s.Act(context.Background(), room.Succeed, heir.id, "")
}

// A host is lost. Her heir asks, the moderators are asked in words, and with most of them the room is the heir's.
func TestTheHeirTakesALostRoom(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, heir, m := w.inherited(3)
		if err := heir.wantsRoom(); !errors.Is(err, ErrForbidden) || heir.view().Succession.HostHeardAt != nil {
			t.Errorf("while the host is here: %v", err)
		}
		w.sleep(hostSilence-time.Hour, heir, m[0], m[1], m[2])
		if err := heir.wantsRoom(); !errors.Is(err, ErrForbidden) {
			t.Errorf("after 23 hours: %v", err)
		}
		w.sleep(2*time.Hour, heir, m[0], m[1], m[2])
		if err := m[0].wantsRoom(); !errors.Is(err, ErrForbidden) {
			t.Errorf("a moderator wants the room: %v", err)
		}
		if err := m[0].agrees(heir); !errors.Is(err, ErrUnknown) {
			t.Errorf("agreed before she was asked: %v", err)
		}
		if v := heir.view().Succession; v.From == nil || v.From.After(time.Now()) || v.Needed != 2 || v.Heir != heir.id.String() {
			t.Errorf("the heir sees: %+v", v)
		}
		if err := heir.wantsRoom(); err != nil {
			t.Fatal(err)
		}
		w.within(2*wishPeriod, "all to be asked", func() bool {
			return m[0].view().Succession.Asked && m[1].view().Succession.Asked && m[2].view().Succession.Asked
		})
		w.after(time.Minute)
		if heir.view().Me.Role == "host" || !m[0].view().Succession.Asked {
			t.Fatalf("somebody agreed by herself, or is asked no more: %s", w)
		}
		if err := m[0].s.Act(context.Background(), room.Decline, heir.id, ""); err != nil {
			t.Error(err)
		}
		if err := m[1].agrees(heir); err != nil {
			t.Error(err)
		}
		w.within(2*wishPeriod, "both words to arrive", func() bool {
			v := heir.view().Succession
			return len(v.Agreed) == 1 && len(v.Against) == 1
		})
		if heir.view().Me.Role == "host" {
			t.Fatal("one of three was enough")
		}
		if err := m[2].agrees(heir); err != nil {
			t.Error(err)
		}
		w.within(3*wishPeriod, "the heir to be host", func() bool { return heir.view().Me.Role == "host" })
		w.settle(heir, m[0], m[1], m[2])
		for _, p := range m {
			if v := p.view(); v.Host != heir.id.String() || v.Succession.Asked || v.Succession.Heir != "" || v.Me.Role != "moderator" {
				t.Errorf("%s sees host %s, %+v", p.name, v.Host, v.Succession)
			}
		}
		heir.act(room.Dismiss, m[0])
		host.restart()
		w.settle(host, heir, m[0], m[1], m[2])
		if host.view().Me.Role != "speaker" || host.view().Host != heir.id.String() {
			t.Errorf("she who comes back: %+v", host.view().Me)
		}
	})
}

// A host who comes back while the heir asks ends that, and a question that is not asked again goes away.
func TestAHostComesBackInTime(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, heir, m := w.inherited(1)
		w.sleep(hostSilence+time.Hour, heir, m[0])
		if err := heir.wantsRoom(); err != nil {
			t.Fatal(err)
		}
		w.within(2*wishPeriod, "the question", func() bool { return m[0].view().Succession.Asked })
		host.restart()
		w.settle(host, heir, m[0])
		w.within(questionTTL+wishPeriod, "the question to go", func() bool {
			return !m[0].view().Succession.Asked && !heir.view().Succession.Asking
		})
		if err := m[0].agrees(heir); !errors.Is(err, ErrUnknown) {
			t.Errorf("agreed to a wish that was over: %v", err)
		}
		if host.view().Me.Role != "host" {
			t.Error("she is host no more")
		}
	})
}

// A word given in one absence of the host does not answer for the next, though she wrote nothing in between.
func TestAHostWhoCameBackIsLostAnew(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, heir, m := w.inherited(3)
		w.sleep(hostSilence+time.Hour, heir, m[0], m[1], m[2])
		if err := heir.wantsRoom(); err != nil {
			t.Fatal(err)
		}
		w.within(2*wishPeriod, "the question", func() bool { return m[0].view().Succession.Asked })
		if err := m[0].agrees(heir); err != nil {
			t.Fatal(err)
		}
		w.within(2*wishPeriod, "one yes", func() bool { return len(heir.view().Succession.Agreed) == 1 })
		host.restart()
		w.settle(host, heir, m[0], m[1], m[2])
		w.after(presencePeriod)
		host.halt()
		w.after(presenceTTL + presencePeriod)
		for _, p := range []*soul{heir, m[0]} {
			p.in(func(s *Session) { s.heir.heard = s.heir.heard.Add(-hostSilence) })
		}
		if err := heir.wantsRoom(); err != nil {
			t.Fatal(err)
		}
		w.within(2*wishPeriod, "the question again", func() bool { return m[0].view().Succession.Asked })
		w.after(2 * wishPeriod)
		if v := m[0].view().Succession; v.Answer != "" || len(heir.view().Succession.Agreed) > 0 {
			t.Errorf("her daemon says yes again by itself: %+v", v)
		}
	})
}

// An heir whose program asks before the day is over gets nobody's word: each moderator's daemon measures for itself, a new one
// from when she came.
func TestAnHeirWhoAsksTooSoon(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, heir, m := w.inherited(1)
		host.halt()
		w.after(presenceTTL + presencePeriod)
		ask := func(silent time.Duration) {
			m[0].in(func(s *Session) { s.heir.heard = time.Now().Add(-silent) })
			heir.in(func(s *Session) { // wantRoom without what it makes sure of
				s.heir.wish = wish{
					until: time.Now().Add(wishStands), cut: s.ledger.LastOfHost().Hash,
					votes: map[peer.ID]room.Consent{}, against: map[peer.ID]bool{}, tried: map[peer.ID]time.Time{},
				}
			})
			w.after(2 * wishPeriod)
		}
		for _, silent := range []time.Duration{0, hostSilence - time.Minute} {
			ask(silent)
			if m[0].view().Succession.Asked {
				t.Errorf("asked after %v", silent)
			}
			if err := m[0].agrees(heir); !errors.Is(err, ErrUnknown) {
				t.Errorf("agreed after %v: %v", silent, err)
			}
		}
		ask(hostSilence)
		if !m[0].view().Succession.Asked {
			t.Error("not asked after a day")
		}
	})
}

// A wish ends by itself.
func TestAWishEnds(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		_, heir, m := w.inherited(2)
		w.sleep(hostSilence+time.Hour, heir, m[0], m[1])
		if err := heir.wantsRoom(); err != nil {
			t.Fatal(err)
		}
		heir.in(func(s *Session) { s.heir.wish.until = s.heir.wish.until.Add(2*time.Minute - wishStands) })
		w.after(time.Minute)
		if !m[0].view().Succession.Asked {
			t.Fatal("not asked any more")
		}
		w.after(time.Minute + questionTTL + wishPeriod)
		if m[0].view().Succession.Asked || heir.view().Succession.Asking {
			t.Error("still asked")
		}
	})
}

// Without a moderator there is nobody to ask, and strangers who ask are told nothing.
func TestWhoIsNotAsked(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, heir, _ := w.inherited(0)
		ana, mod := w.person("Ana"), w.person("Mod")
		link := host.invites(InviteTerms{Role: room.Listener})
		ana.come(link)
		mod.come(link)
		host.act(room.Appoint, mod)
		w.settle(host, heir, ana, mod)
		host.halt()
		w.after(presenceTTL + presencePeriod)
		var cut room.OpID
		mod.in(func(s *Session) {
			cut, s.heir.heard = s.ledger.LastOfHost().Hash, s.heir.heard.Add(-hostSilence)
		})
		for _, c := range []struct {
			who  *soul
			cut  []byte
			want room.Reason
		}{{ana, cut[:], room.NoAdmitter}, {heir, cut[:5], room.Malformed}, {heir, make([]byte, 32), room.Busy}, {heir, cut[:], room.Busy}} {
			_, err := c.who.s.fetch(context.Background(), mod.id, &wire.LedgerRequest{Room: host.room[:], Succeed: c.cut})
			if !errors.Is(err, c.want) {
				t.Errorf("%s asks with %d bytes: %v", c.who.name, len(c.cut), err)
			}
		}
		if !mod.view().Succession.Asked {
			t.Error("the heir's question is not shown")
		}
		heir.in(func(s *Session) {
			state := *s.state
			state.Moderators = nil
			s.state, s.heir.heard = &state, time.Now().Add(-hostSilence)
			if err := s.wantRoom(time.Now()); !errors.Is(err, errNoModerator) {
				t.Errorf("with nobody to ask: %v", err)
			}
		})
	})
}

// A vote that is not what it seems does not count.
func TestFalseVotes(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		_, heir, m := w.inherited(1)
		w.sleep(hostSilence+time.Hour, heir, m[0])
		if err := heir.wantsRoom(); err != nil {
			t.Fatal(err)
		}
		heir.in(func(s *Session) {
			cut := s.heir.wish.cut
			vote := func(kind room.Kind, cut room.OpID, by *soul) *wire.LedgerReply {
				c := ledger.Agree(by.key, kind, s.cfg.Room, s.cfg.Key.Public(), cut)
				return &wire.LedgerReply{Accept: &wire.Signed{Body: c.Body, Sig: c.Sig, Key: by.key.Public()}}
			}
			for _, rep := range []*wire.LedgerReply{
				vote(room.Transfer, cut, m[0]), vote(room.Succeed, room.OpID{1}, m[0]), vote(room.Succeed, cut, heir), {},
			} {
				_ = s.takeVote(m[0].id, cut, rep, nil)
				if len(s.heir.wish.votes) > 0 || s.state.Host == s.me {
					t.Fatalf("taken: %v", rep)
				}
			}
			_ = s.takeVote(m[0].id, cut, vote(room.Succeed, cut, m[0]), nil)
			if s.state.Host != s.me {
				t.Error("a good vote does not count")
			}
		})
	})
}
