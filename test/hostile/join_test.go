package hostile_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
	"balai/room"
	"balai/room/invite"
	"balai/test/hostile"
)

const joinTime = patience

// tryJoin is one attempt at d by p; the error is what the admitter says.
func tryJoin(t *testing.T, p *hostile.Peer, d *daemon, e hostile.Entry) (*hostile.Member, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), joinTime)
	defer cancel()
	return p.Join(ctx, d.key.ID(), e)
}

// TestFalseInvites is trust tests 12, 13, 14 and 16 at a real admitter: each lie is refused with its own
// reason, its honest twin is let in, and those refused are nowhere in the room.
func TestFalseInvites(t *testing.T) {
	t.Parallel()
	host := startDaemon(t, "Host")
	r := host.open(t, "A", "unlisted")
	other := host.open(t, "B", "unlisted")
	v, err := invite.ParseLink(host.link(t, r.ID, api.InviteRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	guest := visit(t)
	now := time.Now().Truncate(time.Second)
	good := hostile.Block{Role: 1, NotBefore: now.Add(-time.Hour), Expiry: now.Add(time.Hour)}
	one := func(change func(*hostile.Block)) *hostile.Forger {
		b := good
		change(&b)
		return hostile.NewForger(host.key, v.Secret, b)
	}
	two := func(parent, child func(*hostile.Block)) *hostile.Forger {
		b := good
		b.Depth, b.Uses = 1, 9
		parent(&b)
		f := hostile.NewForger(host.key, v.Secret, b)
		b.Depth = 0
		child(&b)
		f.Delegate(b)
		return f
	}
	same := func(*hostile.Block) {}
	all := func(b *hostile.Block) { b.Flags = 3 }
	bound := func(b *hostile.Block) { b.Audience = guest.Key.Public() }
	for _, c := range []struct {
		name string
		f    *hostile.Forger
		want error
	}{
		{"honest", one(same), nil},
		{"expired", one(func(b *hostile.Block) { b.Expiry = now.Add(-invite.Skew - 10*time.Second) }), room.Expired},
		{"early", one(func(b *hostile.Block) { b.NotBefore = now.Add(invite.Skew + time.Minute) }), room.NotYet},
		{"as moderator", one(func(b *hostile.Block) { b.Role = 3 }), room.Malformed},
		{"as host", one(func(b *hostile.Block) { b.Role = 4 }), room.Malformed},
		{"as nobody", one(func(b *hostile.Block) { b.Role = 0 }), room.Malformed},
		{"depth 3", one(func(b *hostile.Block) { b.Depth = 3 }), room.Depth},
		{"unknown flag", one(func(b *hostile.Block) { b.Flags = 8 }), room.Malformed},
		{"delegated honestly", two(same, same), nil},
		{"delegated from depth 0", two(func(b *hostile.Block) { b.Depth = 0 }, same), room.Depth},
		{"depth kept", two(same, func(b *hostile.Block) { b.Depth = 1 }), room.Widened},
		{"role widened", two(same, func(b *hostile.Block) { b.Role = 2 }), room.Widened},
		{"uses widened", two(same, func(b *hostile.Block) { b.Uses = 10 }), room.Widened},
		{"uses unlimited", two(same, func(b *hostile.Block) { b.Uses = 0 }), room.Widened},
		{"longer", two(same, func(b *hostile.Block) { b.Expiry = b.Expiry.Add(time.Second) }), room.Widened},
		{"sooner", two(same, func(b *hostile.Block) { b.NotBefore = b.NotBefore.Add(-time.Second) }), room.Widened},
		{"strict cleared", two(all, func(b *hostile.Block) { b.Flags = 2 }), room.Widened},
		{"knock cleared", two(all, func(b *hostile.Block) { b.Flags = 1 }), room.Widened},
		{"audience cleared", two(bound, func(b *hostile.Block) { b.Audience = nil }), room.Widened},
		{"audience exchanged", two(bound, func(b *hostile.Block) { b.Audience = host.key.Public() }), room.Widened},
		{"for another person", one(bound), room.WrongAudience},
		{"given on by another person", two(bound, same), room.WrongAudience},
	} {
		p := visit(t, host)
		e := c.f.Entry(p.ID())
		m, err := tryJoin(t, p, host, e)
		if !errors.Is(err, c.want) || (m == nil) != (c.want != nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if _, in := host.people(t, r.ID)[p.ID().String()]; in != (c.want == nil) {
			t.Errorf("%s: a member: %v", c.name, in)
		}
	}
	strange(t, host, hostile.NewForger(guest.Key, v.Secret, good), r.ID)
	wrongRoom(t, host, v, other.ID)
	usedUp(t, host, r.ID)
}

// strange shows a block that a stranger signed, under the host's name.
func strange(t *testing.T, host *daemon, f *hostile.Forger, id string) {
	t.Helper()
	p := visit(t, host)
	e := f.Entry(p.ID())
	if _, err := tryJoin(t, p, host, e); !errors.Is(err, room.NoAdmitter) {
		t.Errorf("into a room that is not there: %v", err)
	}
	e.Room = mustID(t, id)
	if _, err := tryJoin(t, p, host, e); !errors.Is(err, room.WrongRoom) {
		t.Errorf("signed by a stranger: %v", err)
	}
	copy(e.Public[2:], host.key.Public())
	if _, err := tryJoin(t, p, host, e); !errors.Is(err, room.BadSignature) {
		t.Errorf("signed by a stranger under the host's name: %v", err)
	}
}

// wrongRoom shows room A's invite at room B.
func wrongRoom(t *testing.T, host *daemon, a *invite.Invite, b string) {
	t.Helper()
	p := visit(t, host)
	e := hostile.Honest(p, a)
	e.Room = mustID(t, b)
	if _, err := tryJoin(t, p, host, e); !errors.Is(err, room.WrongRoom) {
		t.Errorf("A's invite in B: %v", err)
	}
	v, err := invite.ParseLink(host.link(t, b, api.InviteRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	nonce := v.Secret.Nonce()
	copy(e.Public[2+32:], nonce[:])
	if _, err := tryJoin(t, p, host, e); !errors.Is(err, room.BadSignature) {
		t.Errorf("A's invite with B's nonce in B: %v", err)
	}
	if _, in := host.people(t, b)[p.ID().String()]; in {
		t.Error("the bearer of A's invite is a member of B")
	}
}

func usedUp(t *testing.T, host *daemon, id string) {
	t.Helper()
	link := host.link(t, id, api.InviteRequest{Uses: 1})
	for i, want := range []error{nil, room.UsedUp, room.UsedUp} {
		p := visit(t, host)
		if _, err := tryJoin(t, p, host, mustParse(t, link).Entry(p.ID())); !errors.Is(err, want) {
			t.Errorf("use %d: %v, want %v", i+1, err, want)
		}
	}
}

// TestReplayedJoin is trust test 15: the frames of a join that was good, sent again by their author, by
// another peer, and with their claim moved to another connection.
func TestReplayedJoin(t *testing.T) {
	t.Parallel()
	host := startDaemon(t, "Host")
	r := host.open(t, "A", "unlisted")
	f := mustParse(t, host.link(t, r.ID, api.InviteRequest{}))
	p := visit(t, host)
	m, err := tryJoin(t, p, host, f.Entry(p.ID()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*joinTime)
	defer cancel()
	if err := p.Replay(ctx, host.key.ID(), m.Sent); !errors.Is(err, room.Replayed) {
		t.Errorf("by its author: %v", err)
	}
	thief := visit(t, host)
	if err := thief.Replay(ctx, host.key.ID(), m.Sent); !errors.Is(err, room.Replayed) {
		t.Errorf("by another: %v", err)
	}
	var fresh []byte
	e := f.Entry(p.ID())
	e.Handout = m.Handout
	make1 := e.Claim
	e.Claim = func(nonce []byte, to peer.ID) []byte { fresh = make1(nonce, to); return fresh }
	if _, err := tryJoin(t, p, host, e); err != nil {
		t.Errorf("a member that comes again: %v", err)
	}
	for name, sig := range map[string][]byte{"another's claim": fresh, "no claim": nil} {
		e := f.Entry(thief.ID())
		e.Claim = func([]byte, peer.ID) []byte { return sig }
		if _, err := tryJoin(t, thief, host, e); !errors.Is(err, room.Replayed) && !errors.Is(err, room.BadSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	e = f.Entry(p.ID()) // a claim for p, asked for by the thief on her own connection
	if _, err := tryJoin(t, thief, host, e); !errors.Is(err, room.BadSignature) {
		t.Errorf("in another's name: %v", err)
	}
	if _, in := host.people(t, r.ID)[thief.ID().String()]; in {
		t.Error("the thief is a member")
	}
}

// TestMalformedJoin sends what is no join at all; the daemon goes on admitting.
func TestMalformedJoin(t *testing.T) {
	t.Parallel()
	host := startDaemon(t, "Host")
	r := host.open(t, "A", "unlisted")
	f := mustParse(t, host.link(t, r.ID, api.InviteRequest{}))
	for name, b := range map[string][]byte{
		"a lying length":   {0xff, 0xff, 0xff, 0xff, 0x0f},
		"a huge length":    {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"no record":        {3, 0xff, 0xff, 0xff},
		"an empty record":  {0},
		"an endless field": append([]byte{100}, make([]byte, 100)...),
	} {
		p := visit(t, host)
		ctx, cancel := context.WithTimeout(t.Context(), joinTime)
		s, err := p.Open(ctx, host.key.ID(), hostile.Join)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.WriteRaw(b); err != nil {
			t.Error(name, err)
		}
		_ = s.Drain() // refused, reset or closed: all are well, a hang is not
		if ctx.Err() != nil {
			t.Errorf("%s: the stream was held open", name)
		}
		cancel()
	}
	p := visit(t, host)
	if _, err := tryJoin(t, p, host, f.Entry(p.ID())); err != nil {
		t.Errorf("an honest join after all that: %v", err)
	}
}

// TestPageRefuses is the page's half of trust tests 12 and 13: the daemon refuses such a link by itself, with
// the same reason as an admitter, and inspect tells it; a room is not even tried.
func TestPageRefuses(t *testing.T) {
	t.Parallel()
	d, host := startDaemon(t, "Guest"), newHostile(t)
	now := time.Now().Truncate(time.Second)
	good := hostile.Block{Role: 1, Depth: 1, Flags: 3, Uses: 2, NotBefore: now.Add(-time.Hour), Expiry: now.Add(time.Hour), Audience: host.Key.Public()}
	one := func(change func(*hostile.Block)) *hostile.Forger {
		b := good
		change(&b)
		return hostile.NewForger(host.Key, room.NewSecret(), b)
	}
	two := func(change func(*hostile.Block)) *hostile.Forger {
		f := hostile.NewForger(host.Key, room.NewSecret(), good)
		b := good
		b.Depth = 0
		change(&b)
		f.Delegate(b)
		return f
	}
	for _, c := range []struct {
		name      string
		f         *hostile.Forger
		want      room.Reason
		inspected bool // inspect describes it, with the reason
	}{
		{"expired", one(func(b *hostile.Block) { b.Expiry = now.Add(-invite.Skew - time.Minute) }), room.Expired, true},
		{"early", one(func(b *hostile.Block) { b.NotBefore = now.Add(invite.Skew + time.Minute) }), room.NotYet, true},
		{"as moderator", one(func(b *hostile.Block) { b.Role = 3 }), room.Malformed, false},
		{"depth 3", one(func(b *hostile.Block) { b.Depth = 3 }), room.Depth, true},
		{"role widened", two(func(b *hostile.Block) { b.Role = 2 }), room.Widened, true},
		{"knock cleared", two(func(b *hostile.Block) { b.Flags = 1 }), room.Widened, true},
		{"audience cleared", two(func(b *hostile.Block) { b.Audience = nil }), room.Widened, true},
		{"unlimited", two(func(b *hostile.Block) { b.Uses = 0 }), room.Widened, true},
		{"another host's", func() *hostile.Forger { f := two(func(*hostile.Block) {}); f.Host = d.key.Public(); return f }(), room.BadSignature, false},
	} {
		link := c.f.Link()
		var p *api.Problem
		if _, err := d.Join(t.Context(), link, "", true); !errors.As(err, &p) || p.Status != 400 || p.Reason != c.want.String() {
			t.Errorf("%s: joining: %v", c.name, err)
		}
		in, err := d.Inspect(t.Context(), link)
		switch {
		case c.inspected && (err != nil || in.Reason != c.want.String()):
			t.Errorf("%s: inspected as %+v, %v", c.name, in, err)
		case !c.inspected && (!errors.As(err, &p) || p.Status != 400 || p.Reason != c.want.String()):
			t.Errorf("%s: inspecting: %v", c.name, err)
		}
		if _, err := d.Room(t.Context(), c.f.Room().String()); err == nil {
			t.Errorf("%s: the room is joined", c.name)
		}
	}
	if _, err := d.Join(t.Context(), two(func(*hostile.Block) {}).Link(), "", true); err != nil {
		t.Errorf("the honest twin: %v", err)
	}
}
