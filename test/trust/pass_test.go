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
		if err := p.tries(t, stranger, at, p.passOf(host, stranger.ID(), nil)); err != nil {
			t.Errorf("%s does not take a good pass: %v", at.name, err)
		}
	}

	kicked := p.crowd[len(p.crowd)-1]
	mine := kicked.m.Welcome.Pass
	if mine == nil {
		t.Fatal("a welcome without a pass")
	}
	for _, at := range p.relays() {
		if err := p.tries(t, kicked.Peer, at, mine, kicked.source()); err != nil {
			t.Errorf("%s does not take the member before the kick: %v", at.name, err)
		}
	}
	listening := p.children(t, kicked.Peer, mine)
	p.ana.act(p.id, kicked.ID().String(), "kick")
	for _, c := range listening {
		p.isCut(t, c)
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
		var c *caller
		eventually(t, at.name+" takes the child again", func() bool { // its last link may not be forgotten yet
			var err error
			if c, err = dial(t.Context(), who, at, id); err != nil {
				return false
			}
			a, err := c.join(&wire.Join{Room: id[:], Mode: 1, Pass: pass})
			return err == nil && a.GetAdmit() != nil
		})
		out = append(out, c)
	}
	return out
}

// isCut waits until the relay ends a link by itself.
func (p *play) isCut(t *testing.T, c *caller) {
	t.Helper()
	_ = c.s.SetDeadline(time.Now().Add(5 * time.Second)) // its end fails the test below
	began := time.Now()
	for {
		if err := c.s.Read(&wire.LinkRecord{}); err != nil {
			if time.Since(began) > 4500*time.Millisecond {
				t.Errorf("%v keeps the link of a kicked child: %v", c.s.Remote(), err)
			}
			return
		}
	}
}
