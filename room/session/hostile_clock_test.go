package session

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

// shows makes an authority tell another time than it is to newcomers. The answer counts the claims that it gets.
func (p *soul) shows(ahead time.Duration) (claims *atomic.Int32) {
	claims = new(atomic.Int32)
	p.serve = func(kind string, st *pipe) bool {
		if kind != JoinProtocol {
			return false
		}
		var ch *wire.Challenge
		_ = st.Read(&wire.JoinMessage{})
		p.in(func(s *Session) { ch, _ = s.challenge(&newcomer{nonce: make([]byte, nonceLen)}) })
		ch.NowMs = time.Now().Add(ahead).UnixMilli()
		_ = st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Challenge{Challenge: ch}})
		if st.Read(&wire.JoinMessage{}) == nil {
			claims.Add(1)
		}
		return true
	}
	return claims
}

// An authority whose clock is far off, or that says so, is passed by; the newcomer comes in by one whose clock agrees. If
// there is none she is told by how much, and by how many; nothing of hers has changed, and nobody has her claim.
func TestAClockThatIsOff(t *testing.T) {
	for _, lie := range []time.Duration{-time.Hour, maxSkew + 5*time.Second, 1 << 62, -1 << 62} {
		simulate(t, 1, func(t *testing.T, w *world) {
			host, mod, _ := w.stage(0, 0)
			link := host.invites(InviteTerms{Role: room.Listener})
			claims := mod.shows(lie)
			ana := w.person("Ana")
			ana.hints = []peer.ID{mod.id, host.id}
			ana.come(link)
			if claims.Load() != 0 {
				t.Error("she claimed at whose clock is off")
			}
			hers := host.shows(lie)
			ben := w.person("Ben")
			ben.hints = []peer.ID{mod.id, host.id}
			ben.enter(link)
			v := ben.view()
			if v.State != Refused || v.Reason != "clock_off" || v.Clocks != 2 || (v.ClockAheadMS > 0) != (lie > 0) || time.Duration(v.ClockAheadMS).Abs() < 90_000 {
				t.Errorf("of two that lie alike: %s %s by %d, %d ms", v.State, v.Reason, v.Clocks, v.ClockAheadMS)
			}
			if len(ben.disk) != 0 || hers.Load() != 0 {
				t.Error("something was stored, or claimed")
			}
		})
	}
}

// Who shows a clock that differs by more than the skew is refused, whatever that makes of the invite, and nothing is written.
func TestANewcomersClock(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, _, _ := w.stage(0, 0)
		link := host.invites(InviteTerms{Role: room.Listener})
		for off, want := range map[time.Duration]room.Reason{
			0: 0, maxSkew - time.Second: 0, time.Second - maxSkew: 0, maxSkew + time.Second: room.ClockOff, -maxSkew - time.Second: room.ClockOff, 1 << 62: room.ClockOff,
		} {
			before := host.hash()
			eve := w.person("Eve")
			eve.room, eve.r = link.Room(), link.Secret
			s := New(Config{Key: eve.key, Room: eve.room, Secret: eve.r, Ports: (*ports)(eve), Log: testLog("Eve"), Profile: profileOf("Eve"), Invite: link})
			a := s.hello(t.Context(), host.id)
			if a.err != nil {
				t.Fatal(a.err)
			}
			claim := s.makeClaim(host.id, a.nonce)
			claim.TimeMs = time.Now().Add(off).UnixMilli()
			if err := a.st.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Claim{Claim: claim}}); err != nil {
				t.Fatal(err)
			}
			_, err := s.answer(a.st)
			if got, _ := refusalIn(err); got != want {
				t.Errorf("%v off: %v, want %v", off, err, want)
			}
			if changed := host.hash() != before; changed != (want == 0) {
				t.Errorf("%v off: the ledger changed: %v", off, changed)
			}
			a.close()
			w.after(2 * time.Second)
		}
	})
}
