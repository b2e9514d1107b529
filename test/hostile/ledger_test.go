package hostile_test

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
	"balai/room"
	"balai/room/wire"
	"balai/test/hostile"
)

// twoDaemons are a host and an honest listener in one room, who hear each other.
func twoDaemons(t *testing.T) (host, guest *daemon, id, link string) {
	t.Helper()
	host, guest = startDaemon(t, "Host"), startDaemon(t, "Guest")
	id = host.open(t, "A", "unlisted").ID
	link = host.link(t, id, api.InviteRequest{})
	guest.enter(t, link)
	talk(t, host, guest, id)
	talk(t, guest, host, id)
	return host, guest, id, link
}

// becomeMember lets a hostile peer in by the link and into the gossip at both daemons; its chat arriving
// at both shows that what it says is heard.
func becomeMember(t *testing.T, ctx context.Context, link, id string, at ...*daemon) (*hostile.Peer, *hostile.Member) {
	t.Helper()
	p := visit(t, at...)
	m, err := p.Join(ctx, at[0].key.ID(), mustParse(t, link).Entry(p.ID()))
	if err != nil {
		t.Fatal(err)
	}
	text, seq := "hello from a member "+p.ID().String(), uint64(0)
	eventually(t, "the hostile member's chat everywhere", func() bool {
		heard := true
		for _, d := range at {
			seq++
			_ = m.Greet(ctx, d.key.ID())                                                        // tried again
			_ = m.Gossip(ctx, d.key.ID(), hostile.StageTopic, m.Chat(p.Key, p.ID(), seq, text)) // tried again
			heard = heard && d.heard(t, id, text)
		}
		time.Sleep(200 * time.Millisecond)
		return heard
	})
	return p, m
}

// TestListenerDecidesNothing is trust test 27: a listener signs what only authorities may, in every way
// that she could think of; it is applied nowhere, and the host's own word is.
func TestListenerDecidesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	host, guest, id, link := twoDaemons(t)
	p, m := becomeMember(t, ctx, link, id, host, guest)
	targets := []peer.ID{guest.key.ID(), host.key.ID(), p.ID()}
	seq, prev := m.HostChain()
	ways := map[string]func(*wire.Op){
		"as her own first op": nil,
		"after the host's":    func(op *wire.Op) { op.Seq, op.Prev = seq+1, prev },
		"with no grant":       func(op *wire.Op) { op.Grant, op.Seen = nil, nil },
		"lying about seen": func(op *wire.Op) {
			for _, s := range op.Seen {
				s.Seq = 1 << 31
			}
		},
	}
	kinds := []room.Kind{
		room.Ban, room.Kick, room.Mute, room.ToAudience, room.ToStage, room.Lower, room.Decline, room.Appoint, room.Dismiss,
		room.Transfer, room.SetPolicy, room.Lock, room.NewEpoch, room.End, room.Revoke, room.Succeed,
	}
	for _, kind := range kinds {
		var ops []*wire.Signed
		for _, change := range ways {
			for _, target := range targets {
				ops = append(ops, m.Op(kind, target, change))
			}
		}
		stolen := m.Op(kind, guest.key.ID(), ways["after the host's"])
		stolen.Key = host.key.Public() // the host's name under her signature
		for _, d := range []*daemon{host, guest} {
			for _, op := range append(ops, stolen) {
				_ = m.GossipOps(ctx, d.key.ID(), op) // being cut off is as good
			}
			_ = m.Greet(ctx, d.key.ID()) // again, if that happened
		}
	}
	if err := host.Act(ctx, id, guest.key.ID().String(), "stage", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the host's own decision at the guest's daemon", func() bool { return guest.room(t, id).Me.OnStage })
	talk(t, host, guest, id)
	for name, d := range map[string]*daemon{"host": host, "guest": guest} {
		nothingDecided(t, name, d, id, host, guest, p)
	}
}

func nothingDecided(t *testing.T, name string, d *daemon, id string, host, guest *daemon, p *hostile.Peer) {
	t.Helper()
	v := d.room(t, id)
	if v.State != "live" || v.Locked || v.Host != host.key.ID().String() || v.Name != "A" {
		t.Errorf("%s: the room is %+v", name, v)
	}
	people := d.people(t, id)
	for who, role := range map[peer.ID]string{host.key.ID(): "host", guest.key.ID(): "listener", p.ID(): "listener"} {
		if x, in := people[who.String()]; !in || x.Role != role && !(who == guest.key.ID() && x.Role == "speaker") {
			t.Errorf("%s: %v is %+v, want %s", name, who, x, role)
		}
	}
	if x := people[p.ID().String()]; x.OnStage {
		t.Errorf("%s: the hostile listener is on stage", name)
	}
	for _, op := range d.decisions(t, id) {
		if op.Author == p.ID().String() && !op.Void {
			t.Errorf("%s: the ledger has %s by the listener", name, op.Kind)
		}
		if op.Reason == "because I say so" && !op.Void {
			t.Errorf("%s: the ledger has her %s under the name %s", name, op.Kind, op.Author)
		}
	}
}

// TestOutsiderAtDaemons is trust test 21 with everything real: an outsider who holds the link, and so
// knows the names of the topics, hears and delivers nothing before it is admitted.
func TestOutsiderAtDaemons(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	host, guest, id, link := twoDaemons(t)
	f := mustParse(t, link)
	p := visit(t, host, guest)
	topics := []string{f.Secret.Name(hostile.OpsTopic), f.Secret.Name(hostile.StageTopic)}
	for range 5 {
		for _, d := range []*daemon{host, guest} {
			_ = p.Subscribe(ctx, d.key.ID(), hostile.Members, topics...)                  // being cut off is as good
			_ = p.Publish(ctx, d.key.ID(), hostile.Members, topics[1], make([]byte, 200)) // the same
		}
		talk(t, host, guest, id)
		time.Sleep(time.Second)
	}
	for _, m := range p.Heard(hostile.Members) {
		if len(m.Subscriptions) > 0 || len(m.RPC.Publish) > 0 || m.Control != nil {
			t.Errorf("the outsider heard %v", m.RPC)
		}
	}
	if rep, err := p.Fetch(ctx, host.key.ID(), &wire.LedgerRequest{Room: idBytes(t, id)}); err == nil && (rep.Refused == 0 || len(rep.Ops) > 0 || len(rep.Keys) > 0) {
		t.Errorf("the outsider was given the ledger: %v", rep)
	}
	n := len(p.Heard(hostile.Members))
	becomeMember(t, ctx, link, id, host, guest)
	if m := p.Heard(hostile.Members)[n:]; len(m) > 0 {
		t.Errorf("after another was admitted, the outsider heard %v", m)
	}
}

// TestOversizeAtDaemons is trust test 22 with everything real.
func TestOversizeAtDaemons(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	host, guest, id, link := twoDaemons(t)
	p, m := becomeMember(t, ctx, link, id, host, guest)
	for _, d := range []*daemon{host, guest} {
		if err := p.Publish(ctx, d.key.ID(), hostile.Members, m.Topic(hostile.OpsTopic), make([]byte, 17<<10)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the stream of the big message is cut", func() bool {
			return p.SayRaw(ctx, d.key.ID(), hostile.Members, []byte{0}) != nil
		})
	}
	talk(t, host, guest, id)
	talk(t, guest, host, id)
}

// TestAnothersWords: a member signs chat and presence in the name of others; nobody shows the words, and
// nobody's name changes.
func TestAnothersWords(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	host, guest, id, link := twoDaemons(t)
	p, m := becomeMember(t, ctx, link, id, host, guest)
	for i, victim := range []*daemon{host, guest} {
		for _, d := range []*daemon{host, guest} {
			_ = m.Gossip(ctx, d.key.ID(), hostile.StageTopic, m.Chat(p.Key, victim.key.ID(), uint64(1000+i), "words of another")) // may be cut off
			_ = m.Gossip(ctx, d.key.ID(), hostile.StageTopic, m.Presence(p.Key, victim.key.ID(), 1<<40))                          // the same
			_ = m.Greet(ctx, d.key.ID())                                                                                          // again, if that happened
		}
	}
	talk(t, host, guest, id)
	talk(t, guest, host, id)
	for name, d := range map[string]*daemon{"Host": host, "Guest": guest} {
		if d.heard(t, id, "words of another") {
			t.Errorf("%s shows the forged words", name)
		}
		for _, v := range []*daemon{host, guest} {
			if x := d.people(t, id)[v.key.ID().String()]; x.Name == "Mallory" {
				t.Errorf("%s took the forged presence: %+v", name, x)
			}
		}
	}
}

func idBytes(t *testing.T, id string) []byte {
	b := mustID(t, id)
	return b[:]
}
