package hostile_test

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"balai/identity"
	"balai/room"
	"balai/room/invite"
	"balai/room/session"
	"balai/room/wire"
	"balai/test/hostile"
)

// trap is a private address that nobody should dial: it counts who does, by TCP and by UDP.
type trap struct {
	tcp  net.Listener
	udp  net.PacketConn
	hits atomic.Int32
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	x := &trap{}
	var err error
	if x.tcp, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if x.udp, err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			c, err := x.tcp.Accept()
			if err != nil {
				return
			}
			x.hits.Add(1)
			_ = c.Close() // whoever dialled gets no more
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		b := make([]byte, 2000)
		for {
			if _, _, err := x.udp.ReadFrom(b); err != nil {
				return
			}
			x.hits.Add(1)
		}
	}()
	t.Cleanup(func() {
		_, _ = x.tcp.Close(), x.udp.Close()
		<-done
		<-done
	})
	return x
}

func (x *trap) addrs() []string {
	return []string{
		fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", x.tcp.Addr().(*net.TCPAddr).Port),
		fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", x.udp.LocalAddr().(*net.UDPAddr).Port),
	}
}

// lure is a room of the hostile peer whose admitters are said to be at the trap.
type lure struct {
	room   hostile.Room
	record []byte // of somebody at the trap
}

// lures are what a daemon may make of a private address, by whether its owner has signed it and whether the
// person joins with private addresses allowed. The last shows that the trap works.
var lures = []struct {
	name            string
	unsigned, local bool
	dialled         bool
}{
	{"signed, not local", false, false, false},
	{"unsigned, not local", true, false, false},
	{"unsigned, local", true, true, false},
	{"signed, local", false, true, true},
}

// newLure makes the room; unsigned gives a record that its owner has not signed.
func newLure(t *testing.T, p *hostile.Peer, x *trap, unsigned bool) lure {
	t.Helper()
	keys := [2]*identity.Key{}
	for i := range keys {
		var err error
		if keys[i], err = identity.Generate(); err != nil {
			t.Fatal(err)
		}
	}
	l := lure{room: hostile.NewRoom(keys[0])}
	owner := keys[0].ID()
	if unsigned {
		owner = keys[1].ID()
	}
	var err error
	if l.record, err = p.Record(keys[0], owner, x.addrs()...); err != nil {
		t.Fatal(err)
	}
	return l
}

// settle joins the room and waits until the daemon has dialled the trap; where it must not, until it has given up, or had long
// enough for either. It begins when told is so.
func settle(t *testing.T, d *daemon, x *trap, dialled bool, told func() bool, join func() (session.View, error)) {
	t.Helper()
	v, err := join()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon asked the hostile peer", told)
	if dialled {
		eventually(t, "the trap works: it is dialled", func() bool { return x.hits.Load() > 0 })
		return
	}
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end) && x.hits.Load() == 0; time.Sleep(100 * time.Millisecond) {
		if d.room(t, v.ID).State.Over() {
			return
		}
	}
}

// TestAdWithPrivateAddresses is trust test 65 for ads: a lobby ad names a private address, signed by its
// owner or not, and the person joins from the hallway.
func TestAdWithPrivateAddresses(t *testing.T) {
	t.Parallel()
	p := newHostile(t)
	d := startDaemon(t, "Guest", p.Addrs()[0].String())
	eventually(t, "the daemon at the hostile peer", func() bool { return p.Connected(d.key.ID()) })
	for _, c := range lures {
		x := newTrap(t)
		l := newLure(t, p, x, c.unsigned)
		id := l.room.ID().String()
		eventually(t, c.name+": the room in the hallway", func() bool {
			_ = p.Subscribe(t.Context(), d.key.ID(), hostile.Lobby, hostile.LobbyTopic) // tried again
			_ = hostile.Advertise(t.Context(), p, d.key.ID(), l.room.Ad(nil, l.record)) // tried again
			time.Sleep(300 * time.Millisecond)
			return listed(t, d, id)
		})
		settle(t, d, x, c.dialled, func() bool { return true }, func() (session.View, error) { return d.Join(t.Context(), "", id, c.local) })
		if n := x.hits.Load(); (n > 0) != c.dialled {
			t.Errorf("%s: the address of an ad was dialled %d times", c.name, n)
		}
	}
}

func listed(t *testing.T, d *daemon, id string) bool {
	t.Helper()
	list, err := d.Hallway(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if l.ID == id {
			return true
		}
	}
	return false
}

// TestRedirectToPrivateAddresses is trust test 65 for redirects: the peer that a link names refuses and
// says who may admit.
func TestRedirectToPrivateAddresses(t *testing.T) {
	t.Parallel()
	p := newHostile(t)
	d := startDaemon(t, "Guest", p.Addrs()[0].String())
	eventually(t, "the daemon at the hostile peer", func() bool { return p.Connected(d.key.ID()) })
	for _, c := range lures {
		x := newTrap(t)
		l := newLure(t, p, x, c.unsigned)
		var asked atomic.Int32
		p.Handle(hostile.Join, func(s *hostile.Stream) {
			_ = s.SetDeadline(time.Now().Add(patience)) // a dead stream fails in the next line
			var m wire.JoinMessage
			if s.Read(&m) != nil || m.GetHello() == nil {
				return
			}
			asked.Add(1)
			_ = s.Write(&wire.JoinMessage{Message: &wire.JoinMessage_Refuse{Refuse: &wire.Refuse{
				Reason: uint32(room.NoAdmitter), Records: [][]byte{l.record},
			}}}) // the other side may have gone
		})
		link := linkTo(t, l.room, p)
		settle(t, d, x, c.dialled, func() bool { return asked.Load() > 0 }, func() (session.View, error) { return d.Join(t.Context(), link, "", c.local) })
		if n := x.hits.Load(); (n > 0) != c.dialled {
			t.Errorf("%s: dialled %d times", c.name, n)
		}
	}
}

// linkTo is a good link into the hostile room with the hostile peer as its member.
func linkTo(t *testing.T, r hostile.Room, p *hostile.Peer) string {
	t.Helper()
	h, err := invite.ParseHint(p.Addrs()[0].String(), invite.HintMember)
	if err != nil {
		t.Fatal(err)
	}
	v, err := invite.Issue(r.Host, r.Host.Public(), r.Secret, invite.Terms{Role: room.Listener, Expiry: time.Now().Add(time.Hour), Hints: []invite.Hint{h}})
	if err != nil {
		t.Fatal(err)
	}
	return v.Link()
}
