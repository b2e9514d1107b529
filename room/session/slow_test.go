package session

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/wire"
)

// Who lets in may be too slow for a while to end a handshake in time: a newcomer gets in late then, rather than not at all.
func TestASlowAdmitter(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, _, _ := w.stage(1, 0)
		link := host.invites(InviteTerms{Role: room.Listener})
		began := time.Now()
		host.serve = func(proto string, st *pipe) bool {
			if proto != JoinProtocol || time.Since(began) > 70*time.Second {
				return host.session() == nil // at the end
			}
			_ = st.Read(&wire.JoinMessage{})
			w.after(20 * time.Second)
			return true
		}
		p := w.person("P")
		p.hints = []peer.ID{host.id}
		p.join(link)
		w.after(time.Minute)
		if v := p.view(); v.State != Joining {
			t.Fatalf("after a minute %s, %s", v.State, v.Reason)
		}
		w.within(30*time.Second, "her to be let in", func() bool { return p.view().State == Live })
	})
}
