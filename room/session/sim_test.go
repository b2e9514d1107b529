package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/invite"
	"balai/test/seeded"
)

// Each story is told once for each seed, each time with other delays: seeds times, what trust rests on many times. BALAI_SEEDS
// sets another number for all.
var (
	seeds = told(3, 100)
	many  = told(25, 1000)
)

func told(quick, soak int) int {
	if n, err := strconv.Atoi(os.Getenv("BALAI_SEEDS")); err == nil && n > 0 {
		return n
	}
	return seeded.Count(quick, soak)
}

func TestTwoMeet(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		ana, budi := w.person("Ana"), w.person("Budi")
		ana.open(room.Unlisted)
		budi.come(ana.invites(InviteTerms{Role: room.Listener}))
		w.settle(ana, budi)
		w.until("the name", func() bool { return budi.view().HostName == "Ana" })
		v := budi.view()
		if v.Name != "Room of Ana" || v.Encryption != "on" || v.Me.Role != "listener" || !v.Me.Muted || v.Me.OnStage {
			t.Fatalf("Budi sees %+v", v)
		}
		if _, err := budi.s.Say(context.Background(), "halo"); err != nil {
			t.Fatal(err)
		}
		w.until("the line", func() bool { l, _ := ana.s.Lines(context.Background()); return len(l) == 1 && l[0].Text == "halo" })
		for range 60 {
			w.after(time.Second)
			w.mutual(ana, budi)
		}
		if e, _ := budi.sealing(); e.Step < 5 {
			t.Errorf("after a minute the step is %d", e.Step)
		}
	})
}

// reason is why a session was refused.
func (p *soul) reason() string {
	if v := p.view(); v.State == Refused {
		return v.Reason
	}
	return string(p.view().State)
}

// Trust 12, 14, 16 as the admitter applies them: the invite's own checks are room/invite's.
func TestWhoIsLetIn(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		ana, mod := w.person("Ana"), w.person("Mod")
		ana.open(room.Unlisted)
		refused := func(name string, v *invite.Invite, want string) {
			t.Helper()
			p := w.person(name)
			p.enter(v)
			w.until(name+" to be answered", func() bool { return p.view().State.Over() || p.view().State == Live })
			if got := p.reason(); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		once := ana.invites(InviteTerms{Role: room.Speaker, Uses: 1})
		w.person("first").come(once)
		refused("second on one use", once, "used_up")

		short := ana.invites(InviteTerms{Role: room.Listener, ExpiresIn: time.Second})
		later := ana.invites(InviteTerms{Role: room.Listener, NotBefore: time.Now().Add(time.Hour)})
		w.after(2 * time.Minute) // beyond the skew
		refused("late", short, "expired")
		refused("early", later, "not_yet")

		hers := w.person("hers")
		bound := ana.invites(InviteTerms{Role: room.Listener, Audience: hers.id})
		refused("somebody else", bound, "wrong_audience")
		hers.come(bound)

		shut := ana.invites(InviteTerms{Role: room.Listener})
		if err := ana.s.Revoke(context.Background(), shut.ID(), false); err != nil {
			t.Fatal(err)
		}
		refused("revoked", shut, "revoked")

		open := ana.invites(InviteTerms{Role: room.Listener})
		ana.act(room.Lock, nil)
		refused("at a locked door", open, "locked")
		ana.act(room.Unlock, nil)
		mod.come(open)
		mod.halt()

		stranger := w.person("no invite")
		stranger.visit(ana)
		w.until("an answer", func() bool { return stranger.view().State != Joining })
		if stranger.view().State != Refused {
			t.Errorf("without an invite: %s", stranger.reason())
		}
	})
}

// A strict invite admits at its issuer alone; others say so and she is looked for further.
func TestStrict(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		ana, mod := w.person("Ana"), w.person("Mod")
		ana.open(room.Unlisted)
		mod.come(ana.invites(InviteTerms{Role: room.Speaker}))
		ana.act(room.Appoint, mod)
		w.settle(ana, mod)
		strict, free := ana.invites(InviteTerms{Role: room.Listener, Strict: true}), ana.invites(InviteTerms{Role: room.Listener})
		w.part(ana)
		ben, cas := w.person("Ben"), w.person("Cas")
		ben.hints, cas.hints = append(ben.hints, mod.id), append(cas.hints, mod.id)
		cas.come(free)
		ben.join(strict)
		w.after(20 * time.Second)
		if ben.view().State == Live {
			t.Fatal("a strict invite let in at another")
		}
		w.heal()
		w.until("Ben", func() bool { return ben.view().State == Live })
	})
}

func TestKnock(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		ana := w.person("Ana")
		ana.open(room.Unlisted)
		link := ana.invites(InviteTerms{Role: room.Speaker, Knock: true})
		ben, cas, dee := w.person("Ben"), w.person("Cas"), w.person("Dee")
		for _, p := range []*soul{ben, cas, dee} {
			if p.enter(link) != Knocking {
				t.Fatalf("%s: %s", p.name, p.reason())
			}
		}
		if n := len(ana.view().Knocks); n != 3 || ana.view().Members != 1 {
			t.Fatalf("%d knocks, %d members", n, ana.view().Members)
		}
		ana.act(room.Admit, ben)
		ana.act(room.Decline, cas)
		w.until("both answers", func() bool { return ben.view().State == Live && cas.view().State == Refused })
		if cas.reason() != "declined" || ben.view().Me.Role != "speaker" || !ben.view().Me.OnStage {
			t.Errorf("Cas %s, Ben %+v", cas.reason(), ben.view().Me)
		}
		if err := dee.s.Leave(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.until("the knock to be withdrawn", func() bool { return len(ana.view().Knocks) == 0 })
	})
}

func TestClosedRoom(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		ana, mod, ben := w.person("Ana"), w.person("Mod"), w.person("Ben")
		ana.open(room.Closed)
		link := ana.invites(InviteTerms{Role: room.Listener})
		if mod.enter(link) != Knocking {
			t.Fatal(mod.reason())
		}
		ana.act(room.Admit, mod)
		w.until("Mod", func() bool { return mod.view().State == Live })
		ana.act(room.Appoint, mod)
		w.settle(ana, mod)
		ben.hints = append(ben.hints, mod.id)
		w.part(ana)
		if ben.enter(link) != Knocking {
			t.Fatal(ben.reason())
		}
		mod.act(room.Admit, ben)
		w.until("Ben", func() bool { return ben.view().State == Live })
		w.heal()
		w.settle(ana, mod, ben)
	})
}

func TestOpenRoomNeedsNoInvite(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		ana, ben := w.person("Ana"), w.person("Ben")
		ana.open(room.Open)
		w.after(time.Second)
		if !ana.listed() {
			t.Error("an open room is not advertised")
		}
		ben.visit(ana)
		w.settle(ana, ben)
		if me := ben.view().Me; me.Role != "listener" || me.OnStage {
			t.Errorf("%+v", me)
		}
	})
}

// A link may be given on twice; a third time not, and each step only narrows.
func TestDelegation(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		ana, ben, cas, dee, eve := w.person("Ana"), w.person("Ben"), w.person("Cas"), w.person("Dee"), w.person("Eve")
		ana.open(room.Unlisted)
		ben.come(ana.invites(InviteTerms{Role: room.Listener, Depth: 2, Uses: 3, ExpiresIn: time.Hour}))
		w.after(2 * time.Second)
		if _, err := ben.s.Invite(context.Background(), InviteTerms{Role: room.Speaker}); !errors.Is(err, ErrForbidden) {
			t.Errorf("a listener's link gives %v for a speaker's", err)
		}
		second := ben.invites(InviteTerms{Role: room.Listener, Depth: 1})
		if g := second.Grant(); g.Expiry.After(ben.s.cfg.Invite.Grant().Expiry) || g.NotBefore.Before(ben.s.cfg.Invite.Grant().NotBefore) {
			t.Errorf("delegated: %v to %v", g.NotBefore, g.Expiry)
		}
		cas.come(second)
		third := cas.invites(InviteTerms{Role: room.Listener})
		dee.come(third)
		if _, err := dee.s.Invite(context.Background(), InviteTerms{Role: room.Listener}); !errors.Is(err, ErrForbidden) {
			t.Errorf("a fourth block: %v", err)
		}
		eve.enter(third)
		w.until("the end of uses", func() bool { return eve.view().State == Refused })
		if eve.reason() != "used_up" {
			t.Errorf("the fourth person on three uses: %s", eve.reason())
		}
		w.settle(ana, ben, cas, dee)
	})
}

// stage opens a room with a host, a moderator, and speakers and listeners.
func (w *world) stage(speakers, listeners int) (host, mod *soul, rest []*soul) {
	w.t.Helper()
	host, mod = w.person("Host"), w.person("Mod")
	host.open(room.Unlisted)
	link := host.invites(InviteTerms{Role: room.Speaker})
	ear := host.invites(InviteTerms{Role: room.Listener})
	mod.come(link)
	host.act(room.Appoint, mod)
	for i := range speakers {
		p := w.person(fmt.Sprintf("S%d", i+1))
		p.come(link)
		rest = append(rest, p)
	}
	for i := range listeners {
		p := w.person(fmt.Sprintf("L%d", i+1))
		p.come(ear)
		rest = append(rest, p)
	}
	w.settle(append([]*soul{host, mod}, rest...)...)
	return host, mod, rest
}

// Hands stand in one order for all, whoever raised when, and with messages lost.
func TestHands(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(0, 4)
		w.weather(.2, .2)
		for i, p := range l {
			if err := p.s.RaiseHand(context.Background(), true); err != nil {
				t.Fatal(err)
			}
			w.after(time.Duration(i) * 700 * time.Millisecond)
		}
		all := append([]*soul{host, mod}, l...)
		w.until("one queue", func() bool {
			return !slices.ContainsFunc(all, func(p *soul) bool {
				v := p.view()
				return len(v.Hands) != 4 || !slices.Equal(v.Hands, host.view().Hands)
			})
		})
		w.weather(0, 0)
		mod.act(room.Lower, l[1])
		w.until("a lowered hand", func() bool { return len(host.view().Hands) == 3 && !l[1].view().Me.Hand })
		host.act(room.ToStage, l[2])
		w.until("the stage", func() bool { return l[2].view().Me.OnStage && len(host.view().Hands) == 2 })
		w.after(2 * time.Second) // hands of one beat have an order of their own
		if err := l[1].s.RaiseHand(context.Background(), true); err != nil {
			t.Fatal(err)
		}
		w.until("the hand again", func() bool { return len(mod.view().Hands) == 3 && l[1].view().Me.Hand })
		if h := mod.view().Hands; h[2] != l[1].id.String() {
			t.Error("who was lowered and raises again is not last")
		}
	})
}

// The queue outlives the chair: hands raised before and after a restart of the host stand in their order.
func TestHandsOverARestart(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(0, 3)
		w.after(2 * time.Minute)
		ctx := context.Background()
		raise := func(p *soul, n int) {
			t.Helper()
			if err := p.s.RaiseHand(ctx, true); err != nil {
				t.Fatal(err)
			}
			w.until("the hand", func() bool { return len(mod.view().Hands) == n && len(host.view().Hands) == n })
		}
		raise(l[0], 1)
		host.restart()
		w.settle(append([]*soul{host, mod}, l...)...)
		w.after(3 * time.Second)
		raise(l[1], 2)
		for _, p := range []*soul{host, mod, l[2]} {
			if h := p.view().Hands; len(h) != 2 || h[0] != l[0].id.String() {
				t.Errorf("%s sees %v", p.name, h)
			}
		}
		mod.act(room.Lower, l[0])
		w.until("it to be lowered", func() bool { return len(host.view().Hands) == 1 && !l[0].view().Me.Hand })
		raise(l[0], 2)
	})
}

// A moderator's mute closes the microphone and holds; what she lifts leaves it closed.
func TestMute(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 0)
		s := l[0]
		ctx := context.Background()
		if s.media().Send {
			t.Fatal("the microphone is open on entry")
		}
		if err := s.s.Mute(ctx, false); err != nil || !s.media().Send {
			t.Fatalf("%v, send %v", err, s.media().Send)
		}
		mod.act(room.Mute, s)
		w.until("the mute", func() bool { return !s.media().Send && s.view().Me.Muted })
		if err := s.s.Mute(ctx, false); !errors.Is(err, ErrForbidden) || s.media().Send {
			t.Fatalf("she unmuted herself: %v", err)
		}
		w.until("the host to play none of hers", func() bool {
			i := slices.IndexFunc(host.media().Sources, func(x Source) bool { return x.Peer == s.id })
			return i >= 0 && !host.media().Sources[i].Allowed
		})
		mod.act(room.Unmute, s)
		w.after(3 * time.Second)
		if s.media().Send || !s.view().Me.Muted {
			t.Fatal("an unmute by another opened her microphone")
		}
		if err := s.s.Mute(ctx, false); err != nil || !s.media().Send {
			t.Fatalf("%v, send %v", err, s.media().Send)
		}
		host.act(room.ToAudience, s)
		w.until("the audience", func() bool { return !s.media().Send && !s.view().Me.OnStage })
		host.act(room.ToStage, s)
		w.until("the stage", func() bool { return s.view().Me.OnStage })
		if s.media().Send {
			t.Fatal("the microphone is open after coming on stage")
		}
	})
}

// Trust 34, as keys go: the kicked one gets no later epoch and no gossip, and is told.
func TestKick(t *testing.T) {
	simulate(t, many, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 2)
		out := l[1]
		before := host.view().Epoch.N
		keys := out.keys()
		mod.act(room.Kick, out)
		w.within(time.Second, "her to be told", func() bool { return out.view().State == Refused })
		if out.reason() != "removed" {
			t.Errorf("she hears %s", out.reason())
		}
		rest := []*soul{host, mod, l[0], l[2]}
		w.within(5*time.Second, "the new epoch", func() bool { return agreed(rest...) && host.view().Epoch.N > before })
		heard := out.hears()
		at := time.Now()
		w.after(time.Minute)
		w.mutual(rest...)
		if out.hears() != heard {
			t.Error("she still hears gossip")
		}
		for _, m := range w.recorded() {
			for _, e := range keys {
				if _, err := e.OpenGossip(host.room, host.r.Name(m.topic), m.data); err == nil && m.at.After(at) {
					t.Fatal("her old keys open what was said after the new epoch")
				}
			}
		}
		if n := host.view().Epoch.N; n != before+1 {
			t.Errorf("one kick, and the epoch goes from %d to %d", before, n)
		}
		if slices.Contains(host.wants(), out.id) {
			t.Error("a link to her is still wanted")
		}
		out.restart()
		w.until("the answer", func() bool { return out.view().State.Over() })
		if out.reason() != "removed" {
			t.Errorf("after a restart she hears %s", out.reason())
		}
	})
}

func TestBanAndUnban(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(0, 2)
		out := l[0]
		host.act(room.Ban, out)
		w.until("the ban", func() bool { return out.view().State == Refused })
		if out.reason() != "banned" {
			t.Errorf("banned, she hears %s", out.reason())
		}
		w.settle(host, mod, l[1])
		for _, p := range []*soul{host, mod, l[1]} {
			got := p.putOut()
			if len(got) != 1 || got[0].PeerID != out.id.String() || got[0].Name != out.name || !got[0].Banned || got[0].Kind != "ban" || got[0].By != host.id.String() {
				t.Errorf("%s is told of the ban: %+v", p.name, got)
			}
		}
		link := mod.invites(InviteTerms{Role: room.Listener})
		out.halt()
		delete(out.disk, "genesis")
		out.enter(link)
		if out.reason() != "banned" {
			t.Errorf("a banned one with a new link: %s", out.reason())
		}
		mod.act(room.Unban, out)
		w.settle(host, mod, l[1])
		out.halt()
		out.enter(link)
		if out.reason() != "removed" {
			t.Errorf("unbanned, not let in again: %s", out.reason())
		}
		if got := host.putOut(); len(got) != 1 || got[0].Banned {
			t.Errorf("unbanned, not let in again: %+v", got)
		}
		mod.act(room.Admit, out)
		if mod.view().Members != 3 {
			t.Errorf("let in again and not here yet, she is counted: %s", w)
		}
		out.halt()
		out.come(link)
		w.settle(host, mod, l[1], out)
		if got := host.putOut(); len(got) != 0 {
			t.Errorf("let in again: %+v", got)
		}
	})
}

// putOut is whom p's daemon lists as removed.
func (p *soul) putOut() []RemovedView {
	list, err := p.s.Removed(context.Background(), "")
	if err != nil {
		p.w.t.Error(err)
	}
	return list
}

// Who is banned is told so, whatever reaches her first: the op, or the answer of an authority or of a member to what she
// asks; also when she comes back. Who is out though the ban was lifted is not.
func TestToldOfABan(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(6, 0)
		told := func(p *soul, want string) {
			t.Helper()
			w.until(p.name+" to be out", func() bool { return p.view().State.Over() })
			if got := p.reason(); got != want {
				t.Errorf("%s reads %s", p.name, got)
			}
		}
		hearsOf, asks, asksOne, away, awayLong, stays := l[0], l[1], l[2], l[3], l[4], l[5]
		host.act(room.Ban, hearsOf)
		told(hearsOf, "banned")

		for _, x := range [][2]*soul{{asks, host}, {asksOne, stays}} {
			p, of := x[0], x[1]
			w.weather(1, 0) // no gossip comes
			host.act(room.Ban, p)
			w.until("it to be known", func() bool {
				of.in(func(s *Session) { s.fetchFrom(host.id) })
				return !of.holds(p)
			})
			_ = p.s.call(context.Background(), func() error { p.s.fetchNow(of.id, time.Now()); return nil }) // unless she has asked by herself
			w.weather(0, 0)
			told(p, "banned")
		}

		away.halt()
		awayLong.halt()
		host.act(room.Ban, away)
		host.act(room.Ban, awayLong)
		host.act(room.Unban, awayLong)
		w.settle(host, mod, stays)
		awayLong.restart()
		told(awayLong, "removed")
		host.halt()
		mod.halt()
		away.hints, away.known = []peer.ID{stays.id}, map[peer.ID]bool{}
		away.restart()
		told(away, "banned")
	})
}

func TestAppointDismissEnd(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 1)
		if err := l[0].try(room.Mute, l[1]); !errors.Is(err, ErrForbidden) {
			t.Errorf("a speaker mutes: %v", err)
		}
		if err := mod.try(room.End, nil); !errors.Is(err, ErrForbidden) {
			t.Errorf("a moderator ends: %v", err)
		}
		link := mod.invites(InviteTerms{Role: room.Listener})
		mod.act(room.Mute, l[0])
		w.settle(host, mod, l[0], l[1])
		host.act(room.Dismiss, mod)
		w.until("the dismissal", func() bool { return mod.view().Me.Role == "speaker" })
		if err := mod.try(room.Kick, l[1]); !errors.Is(err, ErrForbidden) {
			t.Errorf("a dismissed moderator kicks: %v", err)
		}
		late := w.person("Late")
		late.hints = append(late.hints, host.id)
		late.enter(link)
		w.until("an answer", func() bool { return late.view().State.Over() })
		if late.reason() == "live" {
			t.Error("the link of a dismissed moderator lets in")
		}
		host.act(room.End, nil)
		for _, p := range []*soul{host, mod, l[0], l[1]} {
			w.until("the end", func() bool { return p.view().State == Ended })
		}
	})
}

// Trust 32: the host goes, and the room goes on: beats, steps, admissions, moderation.
func TestHostGone(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(1, 1)
		link := host.invites(InviteTerms{Role: room.Listener})
		host.halt()
		w.until("the goodbye", func() bool { return mod.view().Members == 3 })
		w.until("the next chair", func() bool { return l[0].view().Chair == mod.id.String() && l[1].view().Chair == mod.id.String() })
		was, _ := l[1].sealing()
		w.after(90 * time.Second)
		now, _ := l[1].sealing()
		if now.N == was.N && now.Step < was.Step+5 {
			t.Errorf("the step goes from %d to %d", was.Step, now.Step)
		}
		late := w.person("Late")
		late.hints = append(late.hints, mod.id)
		late.come(link)
		mod.act(room.Kick, l[1])
		w.settle(mod, l[0], late)
		mod.halt()
		w.until("a speaker in the chair", func() bool { return late.view().Chair == l[0].id.String() })
		was, _ = late.sealing()
		w.after(time.Minute)
		now, _ = late.sealing()
		if now.Step < was.Step+3 {
			t.Errorf("without authorities the step goes from %d to %d", was.Step, now.Step)
		}
		w.mutual(l[0], late)
		host.restart()
		mod.restart()
		w.settle(host, mod, l[0], late)
	})
}
