package session

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

// A moderator who says of the host, or of another moderator, that she is out ends nobody's stay, with an op that she signed or
// without, by herself or by a member who shows it; of somebody whom she may put out she is believed.
func TestAModeratorPutsOutNoAuthority(t *testing.T) {
	simulate(t, seeds, func(t *testing.T, w *world) {
		host, mod, l := w.stage(3, 0)
		eve, ana, ben := l[0], l[1], l[2]
		host.act(room.Appoint, ana)
		w.settle(host, mod, eve, ana, ben)
		spared := ben.id
		lie := func(kind string, st *pipe) bool {
			if kind != LedgerProtocol || st.Remote() == spared {
				return false
			}
			_ = st.Read(&wire.LedgerRequest{})
			op := wire.Sign(mod.key, wire.DomainOp, &wire.Op{
				Room: mod.room[:], Seq: 99, Prev: make([]byte, 32), Grant: make([]byte, 32), Kind: uint32(room.Ban), Targets: [][]byte{[]byte(st.Remote())},
			})
			_ = st.Write(&wire.LedgerReply{Refused: uint32(room.Banned), Ops: []*wire.Signed{op}})
			return true
		}
		mod.serve, eve.serve = lie, lie
		for _, p := range []*soul{host, ana} {
			for _, liar := range []*soul{mod, eve} {
				p.in(func(s *Session) { s.fetchNow(liar.id, time.Now()) })
			}
			w.after(5 * time.Second)
			if v := p.view(); v.State != Live {
				t.Errorf("%s, who is %s, is %s: %s", p.name, v.Me.Role, v.State, p.reason())
			}
		}
		mod.halt() // whoever says so when she comes back
		for _, known := range [][]*soul{{eve}, {ana, eve}} {
			host.hints, host.known = nil, map[peer.ID]bool{}
			for _, p := range known {
				host.known[p.id] = true
			}
			host.restart()
			w.within(15*time.Second, "the host to be in", func() bool { return host.view().State == Live })
		}
		w.settle(host, ana, ben)
		spared = ""
		ben.in(func(s *Session) { s.fetchNow(eve.id, time.Now()) })
		w.until("a moderator to be believed", func() bool { return ben.view().State.Over() })
		if ben.reason() != "banned" {
			t.Error(ben.reason())
		}
	})
}
