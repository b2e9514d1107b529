package trust

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
	"balai/test/hostile"
	"balai/test/stalls"
)

// passOf is a pass as an authority would sign it for a listener who is not in the ledger; change may spoil it.
func (p *play) passOf(by *identity.Key, who peer.ID, change func(*wire.Pass)) *wire.Signed {
	id, err := room.ParseID(p.id)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	now := time.Now()
	m := &wire.Pass{
		Room: id[:], Peer: []byte(who), Role: uint32(room.Listener), EpochId: make([]byte, 16), NbfS: now.Unix(), ExpS: now.Add(time.Hour).Unix(), Name: "Mallory",
	}
	if change != nil {
		change(m)
	}
	return wire.Sign(by, wire.DomainPass, m)
}

// relays are the places that carry the room.
func (p *play) relays() []place { return []place{p.citra.place(), p.node.place()} }

// tries shows a pass at a relay: nil when it is taken.
func (p *play) tries(t *testing.T, who *hostile.Peer, at place, pass *wire.Signed, sources ...*wire.Signed) error {
	id, err := room.ParseID(p.id)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(t.Context(), who, at, id, sources...)
	if err != nil {
		return err
	}
	defer c.leave()
	a, err := c.join(&wire.Join{Room: id[:], Mode: 1, Pass: pass})
	switch {
	case err != nil:
		return err
	case a.GetAdmit() == nil:
		return fmt.Errorf("%w: %v", errRefused, a)
	}
	return nil
}

// takes waits until a relay takes a pass: the end of a link before may still be on its way.
func (p *play) takes(t *testing.T, when string, who *hostile.Peer, at place, pass *wire.Signed, sources ...*wire.Signed) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); pause(t, 100*time.Millisecond) {
		if err = p.tries(t, who, at, pass, sources...); err == nil {
			return
		}
	}
	t.Errorf("%s takes no good pass %s: %v", at.name, when, err)
}

// passes is trust test 57: who is kicked is taken by no relay, whatever pass is shown; neither is a pass that is not good.
func (p *play) passes(t *testing.T) {
	since := p.watch()
	host, listener := keyOf(t, p.ana), p.crowd[0]
	bad := map[string]func(stranger *hostile.Peer) *wire.Signed{
		"none":                 func(*hostile.Peer) *wire.Signed { return nil },
		"for another":          func(*hostile.Peer) *wire.Signed { return p.passOf(host, p.crowd[1].ID(), nil) },
		"signed by a listener": func(x *hostile.Peer) *wire.Signed { return p.passOf(listener.Key, x.ID(), nil) },
		"signed by herself":    func(x *hostile.Peer) *wire.Signed { return p.passOf(x.Key, x.ID(), nil) },
		"expired": func(x *hostile.Peer) *wire.Signed {
			return p.passOf(host, x.ID(), func(m *wire.Pass) { m.NbfS -= 2 * 3600; m.ExpS -= 2 * 3600 })
		},
		"not yet good": func(x *hostile.Peer) *wire.Signed {
			return p.passOf(host, x.ID(), func(m *wire.Pass) { m.NbfS += 1800; m.ExpS += 1800 })
		},
		"good for a day": func(x *hostile.Peer) *wire.Signed {
			return p.passOf(host, x.ID(), func(m *wire.Pass) { m.ExpS += 24 * 3600 })
		},
		"of another room": func(x *hostile.Peer) *wire.Signed {
			return p.passOf(host, x.ID(), func(m *wire.Pass) { m.Room = make([]byte, 32) })
		},
		"changed after it was signed": func(x *hostile.Peer) *wire.Signed {
			s := p.passOf(host, x.ID(), nil)
			s.Body = append(s.Body, 0x4a, 0)
			return s
		},
		"with the host's name on a listener's signature": func(x *hostile.Peer) *wire.Signed {
			s := p.passOf(listener.Key, x.ID(), nil)
			s.Key = host.Public()
			return s
		},
	}
	for _, at := range p.relays() {
		for name, pass := range bad { // each by a newcomer: what is told to one link of a peer may reach the next
			stranger := newPeer(t)
			if p.tries(t, stranger, at, pass(stranger)) == nil {
				t.Errorf("%s takes a stranger whose pass is: %s", at.name, name)
			}
		}
		stranger := newPeer(t)
		p.takes(t, "of a stranger", stranger, at, p.passOf(host, stranger.ID(), nil))
	}

	kicked := p.crowd[len(p.crowd)-1]
	mine := kicked.m.Welcome.Pass
	if mine == nil {
		t.Fatal("a welcome without a pass")
	}
	for _, at := range p.relays() {
		p.takes(t, "of the member before the kick", kicked.Peer, at, mine, kicked.source())
	}
	listening := p.children(t, kicked.Peer, mine)
	p.ana.act(p.id, kicked.ID().String(), "kick")
	done := time.Now()
	for _, c := range listening {
		p.isCut(t, c, done)
	}
	var wg sync.WaitGroup
	for _, at := range append(p.relays(), p.ana.place(), p.budi.place()) {
		wg.Go(func() {
			for name, pass := range map[string]*wire.Signed{"the one of her welcome": mine, "a new one": p.passOf(host, kicked.ID(), nil)} {
				if p.tries(t, kicked.Peer, at, pass, kicked.source()) == nil {
					t.Errorf("%s takes the kicked one with a pass, %s", at.name, name)
				}
			}
		})
	}
	wg.Wait()
	p.heardAllTheTime(since)
}

// children are links of one peer, admitted at each relay.
func (p *play) children(t *testing.T, who *hostile.Peer, pass *wire.Signed) (out []*caller) {
	t.Helper()
	id, err := room.ParseID(p.id)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range p.relays() {
		out = append(out, p.admit(t, who, at, &wire.Join{Room: id[:], Mode: 1, Pass: pass}))
	}
	return out
}

// admit is a link of a peer that a relay has admitted, however often it takes: its last link may not be forgotten yet, or the relay
// may not know yet that it is one.
func (p *play) admit(t *testing.T, who *hostile.Peer, at place, j *wire.Join, sources ...*wire.Signed) (c *caller) {
	t.Helper()
	eventually(t, at.name+" admits a child", func() bool {
		var err error
		if c, err = dial(t.Context(), who, at, [32]byte(j.Room), sources...); err != nil {
			return false
		}
		a, err := c.join(j)
		if err != nil || a.GetAdmit() == nil {
			_ = c.s.Reset() // it is over
			return false
		}
		return true
	})
	return c
}

// isCut waits until the relay ends a link by itself, after its child was kicked.
func (p *play) isCut(t *testing.T, c *caller, kicked time.Time) {
	t.Helper()
	_ = c.s.SetDeadline(kicked.Add(patience)) // its end fails the test below
	for {
		if err := c.s.Read(&wire.LinkRecord{}); err != nil {
			if stalls.Took(kicked) > kickLimit {
				t.Errorf("%v keeps the link of a kicked child for %v: %v", c.s.Remote(), time.Since(kicked), err)
			}
			return
		}
	}
}
