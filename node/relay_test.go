package node

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/ledger"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/sframe"
	"balai/room/wire"
)

// Who shows no line of grants to the founder, another room's, or none at all, is refused; so is a second room's genesis
// on the stream of a first.
func TestRelayRefusesStrangers(t *testing.T) {
	node := newBootstrapped(t)
	r, other := newCarried(t, room.Unlisted), newCarried(t, room.Unlisted)
	mod, stranger := newKey(t), newKey(t)
	line := r.appoint(mod)
	broken := &wire.Signed{Body: bytes.Clone(r.genesis.Body), Sig: bytes.Clone(r.genesis.Sig), Key: r.genesis.Key}
	broken.Body[len(broken.Body)-1] ^= 1
	for name, c := range map[string]struct {
		who  *identity.Key
		req  *wire.RelayRequest
		want room.Reason
	}{
		"no line":              {mod, &wire.RelayRequest{Genesis: r.genesis}, room.BadSignature},
		"another's line":       {stranger, &wire.RelayRequest{Genesis: r.genesis, Grants: line}, room.BadSignature},
		"another room's line":  {mod, &wire.RelayRequest{Genesis: other.genesis, Grants: line}, room.BadSignature},
		"no genesis":           {r.host, &wire.RelayRequest{}, room.Malformed},
		"a genesis changed":    {r.host, &wire.RelayRequest{Genesis: broken}, room.BadSignature},
		"not of this founder":  {other.host, &wire.RelayRequest{Genesis: r.genesis}, room.BadSignature},
		"the moderator":        {mod, &wire.RelayRequest{Genesis: r.genesis, Grants: line}, 0},
		"the founder":          {r.host, &wire.RelayRequest{Genesis: r.genesis}, 0},
		"a drop out of thin":   {r.host, &wire.RelayRequest{Drop: true}, room.Malformed},
		"a line far too long":  {mod, &wire.RelayRequest{Genesis: r.genesis, Grants: slices.Repeat(line, ledger.MaxGrants+1)}, room.BadSignature},
		"another room's heads": {other.host, &wire.RelayRequest{Genesis: other.genesis}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := newParty(t, node, c.who).refused(c.req); got != c.want {
				t.Errorf("answer %v, want %v", got, c.want)
			}
		})
	}
	a := newParty(t, node, r.host).ask()
	if rep := a.say(&wire.RelayRequest{Genesis: r.genesis}); rep.Refused != 0 || rep.Ad == nil {
		t.Fatalf("%+v", rep)
	}
	if rep := a.say(&wire.RelayRequest{Genesis: other.genesis}); room.Reason(rep.Refused) != room.WrongRoom {
		t.Errorf("the genesis of another room on this stream: %v", rep)
	}
	if n := node.metric("balai_relay_rooms"); n != 2 {
		t.Errorf("%v rooms are carried", n)
	}
}

// The ad says what a chair needs, is signed by the node, and stays the same until it is due.
func TestRelayOffer(t *testing.T) {
	node := newBootstrapped(t)
	r := newCarried(t, room.Unlisted)
	a := newParty(t, node, r.host).ask()
	rep := a.say(&wire.RelayRequest{Genesis: r.genesis})
	ad, err := election.ParseAd(rep.Ad, r.id)
	if err != nil {
		t.Fatal(err)
	}
	if ad.Peer != node.host.ID() || ad.Flags != election.Community || ad.Slots != 2500/relayChildKbps || ad.Cap != 2500 || len(ad.Record) == 0 || time.Since(ad.Issued) > time.Minute {
		t.Errorf("%+v", ad)
	}
	if again := a.say(&wire.RelayRequest{Genesis: r.genesis}); !bytes.Equal(again.Ad.Sig, rep.Ad.Sig) {
		t.Error("a new ad for nothing")
	}
}

// One authority gets four rooms, a node carries no more than its number, and one that is told so only those that vouch for it.
func TestRelayQuotas(t *testing.T) {
	node := newBootstrapped(t)
	host := newCarried(t, room.Unlisted).host
	mine := func() *carried {
		r := newCarried(t, room.Unlisted)
		var err error
		r.host = host
		if r.genesis, err = ledger.NewGenesis(host, r.secret, room.Policy{Visibility: room.Unlisted, Name: "x"}, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
		return r
	}
	p := newParty(t, node, host)
	for i := range relayRoomsOfOne + 1 {
		want := room.Reason(0)
		if i == relayRoomsOfOne {
			want = room.Busy
		}
		if got := p.refused(&wire.RelayRequest{Genesis: mine().genesis}); got != want {
			t.Errorf("room %d: %v", i, got)
		}
	}
	for i := node.metric("balai_relay_rooms"); i < relayRooms; i++ {
		r := newCarried(t, room.Unlisted)
		if _, reason := node.relays.find(r.host.ID(), r.book(node.host.ID()), &wire.RelayRequest{}, time.Now()); reason != 0 {
			t.Fatal(reason)
		}
	}
	r := newCarried(t, room.Unlisted)
	if got := newParty(t, node, r.host).refused(&wire.RelayRequest{Genesis: r.genesis}); got != room.Busy {
		t.Errorf("one room too many: %v", got)
	}

	choosy := newBootstrapped(t, func(c *BootstrapConfig) { c.RelayVouchedOnly = true })
	p = newParty(t, choosy, r.host)
	vouch := r.decide(r.host, room.Op{Kind: room.Vouch, Targets: []peer.ID{choosy.host.ID()}})
	for name, c := range map[string]struct {
		op   *wire.Signed
		want room.Reason
	}{
		"none": {nil, room.NoRelay}, "for another": {r.decide(r.host, room.Op{Kind: room.Vouch, Targets: []peer.ID{node.host.ID()}}), room.NoRelay},
		"another decision": {r.decide(r.host, room.Op{Kind: room.Unvouch, Targets: []peer.ID{choosy.host.ID()}}), room.NoRelay}, "for me": {vouch, 0},
	} {
		if got := p.refused(&wire.RelayRequest{Genesis: r.genesis, Vouch: c.op}); got != c.want {
			t.Errorf("vouched only, %s: %v", name, got)
		}
	}
}

// A node without upload for rooms does not speak the protocol and takes no link.
func TestRelayOff(t *testing.T) {
	node := newBootstrapped(t, func(c *BootstrapConfig) { c.RelayKbps = 0 })
	r := newCarried(t, room.Unlisted)
	p := newParty(t, node, r.host)
	if _, err := p.host.Open(t.Context(), node.host.ID(), "/balai/relay/1"); err == nil {
		t.Error("it speaks the relay protocol")
	}
}

// inCore is a room that the node carries alone, with its host on stage and linked.
func inCore(t *testing.T, node *bootstrapped, r *carried) (host *party, a *asking) {
	t.Helper()
	host = newParty(t, node, r.host)
	a = host.ask()
	rep := a.say(&wire.RelayRequest{Genesis: r.genesis})
	if rep.Ad == nil {
		t.Fatalf("refused: %v", room.Reason(rep.Refused))
	}
	lease := r.lease(r.host, 1, 1, rep.Ad)
	if rep := a.say(&wire.RelayRequest{Lease: lease.Signed, Digest: r.digest(r.host, []*identity.Key{r.host}), Sources: []*wire.Signed{r.source(r.host)}}); rep.Refused != 0 {
		t.Fatalf("refused: %v", room.Reason(rep.Refused))
	}
	host.open(r, r.source(r.host))
	host.join(r, overlay.Mirror, r.goodPass(r.host.ID()))
	soon(t, "the speaker is admitted", host.admitted)
	return host, a
}

// Frames go through unchanged; the node can open none of them, and whoever has the epoch's secret opens all.
func TestRelayCarriesSealedAudio(t *testing.T) {
	node := newBootstrapped(t)
	r := newCarried(t, room.Unlisted)
	host, a := inCore(t, node, r)
	ear := newParty(t, node, newKey(t))
	ear.open(r)
	ear.join(r, overlay.Single, r.goodPass(ear.key.ID()))
	soon(t, "the listener is admitted", ear.admitted)
	soon(t, "the node counts both", func() bool { return node.metric("balai_relay_children") == 2 })
	if !ear.got(func(m *wire.LinkRecord) bool {
		return len(m.GetAdmit().GetSources()) == 1 && m.GetAdmit().GetLease() != nil
	}) {
		t.Error("ADMIT brings neither source nor lease")
	}
	soon(t, "the digest comes down", func() bool {
		return ear.got(func(m *wire.LinkRecord) bool { return m.GetDigest().GetDigest() != nil })
	})
	v := r.voice(r.host)
	var said, blocks [][]byte
	lost := 0
	for i := range 100 {
		frame, block := v.say(fmt.Sprintf("the words are %d", i))
		said = append(said, frame)
		host.send(frame)
		if block != nil {
			blocks = append(blocks, block)
			host.send(block)
		}
		time.Sleep(media.Tick)
		// No more than one is on its way when the next is said: a link's queue is short, and what a busy machine drops is not meant here.
		for end := time.Now().Add(time.Second); len(distinct(ear.entries(media.Frame))) < i-lost; time.Sleep(media.Tick) {
			if time.Now().After(end) {
				lost++
			}
		}
	}
	soon(t, "nearly all frames arrive", func() bool { return len(distinct(ear.entries(media.Frame))) >= 90 })
	soon(t, "blocks arrive", func() bool { return len(distinct(ear.entries(media.Block))) >= 15 })
	all := distinct(slices.Concat(said, blocks))
	for _, e := range slices.Concat(ear.entries(media.Frame), ear.entries(media.Block)) {
		if !all[string(e)] {
			t.Fatalf("an entry that nobody sent: %x", e)
		}
	}
	if node.metric("balai_relay_forwarded_total") < 90 {
		soon(t, "the forwarded are counted", func() bool { return node.metric("balai_relay_forwarded_total") >= 90 })
	}
	a.say(&wire.RelayRequest{Digest: r.digest(r.host, []*identity.Key{r.host})})
	seesNothing(t, r, node, host, ear)
	opens(t, r, said)
}

func distinct(entries [][]byte) map[string]bool {
	out := map[string]bool{}
	for _, e := range entries {
		out[string(e)] = true
	}
	return out
}

// seesNothing checks all that parties sent to the node, and what it made of it.
func seesNothing(t *testing.T, r *carried, node *bootstrapped, parties ...*party) {
	t.Helper()
	frames := 0
	for _, p := range parties {
		p.mu.Lock()
		for _, b := range p.sent {
			for what, secret := range map[string][]byte{"the epoch's secret": r.epoch.Secret[:], "R": r.secret[:], "words": []byte("the words are")} {
				if bytes.Contains(b, secret) {
					t.Errorf("the node was told %s", what)
				}
			}
			if u, err := media.Parse(b); err == nil {
				for e := (media.Entry{}); u.Next(&e); {
					if e.Kind == media.Frame {
						frames++
					}
				}
			}
		}
		p.mu.Unlock()
	}
	if frames < 90 {
		t.Errorf("only %d frames were looked at", frames)
	}
	node.relays.mu.Lock()
	carriedRoom := node.relays.rooms[r.id]
	node.relays.mu.Unlock()
	carriedRoom.call(func(time.Time) {
		m := carriedRoom.book.media(carriedRoom.plan)
		if len(m.Epochs) != 0 || m.Seal != -1 || m.Send || len(m.Commits) != 1 {
			t.Errorf("the media path got %+v", m)
		}
	})
}

// opens checks that the frames open with the epoch's secret, and with nothing that the node knows of it.
func opens(t *testing.T, r *carried, frames [][]byte) {
	t.Helper()
	open := func(e sframe.Epoch) (n int) {
		o := sframe.NewOpener(r.owner(r.host), 0)
		o.Hold(e, time.Now())
		for _, f := range frames {
			entry, _, err := media.ParseEntry(f)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := o.Open(nil, entry.Head, entry.Body, time.Now()); err == nil && strings.HasPrefix(string(b), "the words are") {
				n++
			}
		}
		return n
	}
	if n := open(r.epoch); n != len(frames) {
		t.Errorf("with the secret %d of %d frames open", n, len(frames))
	}
	guess := r.epoch
	guess.Secret = sframe.Secret{}
	copy(guess.Secret[:], r.epoch.ID[:])
	if n := open(guess); n != 0 {
		t.Errorf("without the secret %d frames open", n)
	}
}

// JOIN needs a pass: for this room and this peer, by an authority, in its time, and not of somebody removed.
func TestRelayJoinNeedsAPass(t *testing.T) {
	node := newBootstrapped(t)
	r := newCarried(t, room.Unlisted)
	_, a := inCore(t, node, r)
	other, friend, out := newCarried(t, room.Unlisted), newKey(t), newKey(t)
	now := time.Now()
	a.say(&wire.RelayRequest{Digest: r.digest(r.host, []*identity.Key{r.host}, removing(out.ID()))})
	for name, c := range map[string]struct {
		who  *identity.Key
		pass func(p *identity.Key) *wire.Signed
		want room.Reason
	}{
		"none":             {newKey(t), func(*identity.Key) *wire.Signed { return nil }, room.NoAdmitter},
		"another room's":   {newKey(t), func(p *identity.Key) *wire.Signed { return other.goodPass(p.ID()) }, room.WrongRoom},
		"another person's": {newKey(t), func(*identity.Key) *wire.Signed { return r.goodPass(friend.ID()) }, room.WrongRoom},
		"by nobody":        {newKey(t), func(p *identity.Key) *wire.Signed { return r.pass(friend, p.ID(), now, now.Add(time.Hour)) }, room.BadSignature},
		"expired": {newKey(t), func(p *identity.Key) *wire.Signed {
			return r.pass(r.host, p.ID(), now.Add(-time.Hour), now.Add(-2*time.Minute))
		}, room.Expired},
		"not yet": {newKey(t), func(p *identity.Key) *wire.Signed {
			return r.pass(r.host, p.ID(), now.Add(2*time.Minute), now.Add(time.Hour))
		}, room.NotYet},
		"for a day":         {newKey(t), func(p *identity.Key) *wire.Signed { return r.pass(r.host, p.ID(), now, now.Add(24*time.Hour)) }, room.Malformed},
		"of the removed":    {out, func(p *identity.Key) *wire.Signed { return r.goodPass(p.ID()) }, room.Removed},
		"a signature short": {newKey(t), func(p *identity.Key) *wire.Signed { s := r.goodPass(p.ID()); s.Sig = s.Sig[:63]; return s }, room.BadSignature},
		"good":              {friend, func(p *identity.Key) *wire.Signed { return r.goodPass(p.ID()) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParty(t, node, c.who)
			p.open(r)
			p.join(r, overlay.Single, c.pass(c.who))
			if c.want == 0 {
				soon(t, "admission", p.admitted)
				return
			}
			soon(t, "the end of the link", p.over)
			if c.want != room.Removed && p.link.Reason() != c.want {
				t.Errorf("refused for %v, want %v", p.link.Reason(), c.want)
			}
			if p.admitted() {
				t.Error("admitted")
			}
		})
	}
}

// In an open room nobody needs a pass; but the removed stay out.
func TestRelayOpenRoom(t *testing.T) {
	node := newBootstrapped(t)
	r := newCarried(t, room.Open)
	_, a := inCore(t, node, r)
	out := newKey(t)
	a.say(&wire.RelayRequest{Digest: r.digest(r.host, []*identity.Key{r.host}, removing(out.ID()))})
	for _, k := range []*identity.Key{newKey(t), out} {
		p := newParty(t, node, k)
		p.open(r)
		p.join(r, overlay.Single, nil)
		if k == out {
			soon(t, "the end of the link", p.over)
		} else {
			soon(t, "admission", p.admitted)
			p.link.Tell(&wire.LinkRecord{Record: &wire.LinkRecord_Feed{Feed: &wire.Feed{Mode: uint32(overlay.Single), Counted: true}}})
		}
	}
	soon(t, "one listener whom the ledger does not name", func() bool { return a.say(&wire.RelayRequest{}).Listeners == 1 })
}

// A digest that names a revoked branch ends the links of those who came by it, and no pass of it is good any more.
func TestRelayCutsARevokedBranch(t *testing.T) {
	node := newBootstrapped(t)
	r := newCarried(t, room.Unlisted)
	_, a := inCore(t, node, r)
	branch, other := room.InviteID{1}, room.InviteID{2}
	chains := map[string][]room.InviteID{"the root": {branch}, "below it": {other, branch}, "another": {other}, "a member": nil}
	parties := map[string]*party{}
	for name, chain := range chains {
		p := newParty(t, node, newKey(t))
		p.open(r)
		p.join(r, overlay.Single, r.guestPass(p.key.ID(), chain...))
		soon(t, "admission", p.admitted)
		parties[name] = p
	}
	a.say(&wire.RelayRequest{Digest: r.digest(newKey(t), nil, revoking(other))}) // by a stranger
	a.say(&wire.RelayRequest{Digest: r.digest(r.host, []*identity.Key{r.host}, revoking(branch))})
	soon(t, "both are cut", func() bool { return parties["the root"].over() && parties["below it"].over() })
	late := newParty(t, node, newKey(t))
	late.open(r)
	late.join(r, overlay.Single, r.guestPass(late.key.ID(), branch))
	soon(t, "the end of the link", late.over)
	if late.link.Reason() != room.Revoked {
		t.Errorf("refused for %v", late.link.Reason())
	}
	if parties["another"].over() || parties["a member"].over() {
		t.Error("who came by another branch is cut")
	}
}

// A digest that removes a child ends its link.
func TestRelayCutsTheRemoved(t *testing.T) {
	node := newBootstrapped(t)
	r := newCarried(t, room.Unlisted)
	_, a := inCore(t, node, r)
	stays, goes := newParty(t, node, newKey(t)), newParty(t, node, newKey(t))
	for _, p := range []*party{stays, goes} {
		p.open(r)
		p.join(r, overlay.Single, r.goodPass(p.key.ID()))
		soon(t, "admission", p.admitted)
	}
	stranger := newKey(t)
	a.say(&wire.RelayRequest{Digest: r.digest(stranger, nil, removing(stays.key.ID()))})
	a.say(&wire.RelayRequest{Digest: r.digest(r.host, []*identity.Key{r.host}, removing(goes.key.ID()))})
	soon(t, "the removed is cut", goes.over)
	soon(t, "one child less", func() bool { return node.metric("balai_relay_children") == 2 })
	if stays.over() {
		t.Error("a stranger's digest removes")
	}
	soon(t, "the digest comes down", func() bool {
		return stays.got(func(m *wire.LinkRecord) bool {
			var d wire.Digest
			_, err := wire.Open(m.GetDigest().GetDigest(), wire.DomainDigest, &d)
			return err == nil && len(d.Removed) == 1
		})
	})
}

// The room stays when the asker's stream ends, and when the asker dies; another authority takes it over; a drop ends it.
func TestRelayOutlivesItsAsker(t *testing.T) {
	node := newBootstrapped(t)
	r := newCarried(t, room.Unlisted)
	mod := newKey(t)
	line := r.appoint(mod)
	host, a := inCore(t, node, r)
	ear := newParty(t, node, newKey(t))
	ear.open(r)
	ear.join(r, overlay.Single, r.goodPass(ear.key.ID()))
	soon(t, "admission", ear.admitted)
	a.say(&wire.RelayRequest{Digest: r.digest(r.host, []*identity.Key{r.host}, func(d *wire.Digest) { d.Authorities = append(d.Authorities, short(mod.ID())) })})
	if err := a.st.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := host.host.Close(); err != nil {
		t.Fatal(err)
	}
	node.relays.mu.Lock()
	carriedRoom := node.relays.rooms[r.id]
	node.relays.mu.Unlock()
	soon(t, "the stream is over there", func() bool { n := 1; carriedRoom.call(func(time.Time) { n = carriedRoom.streams }); return n == 0 })
	soon(t, "the asker is gone as a child too", func() bool { return node.metric("balai_relay_children") == 1 })
	if node.metric("balai_relay_rooms") != 1 || ear.over() {
		t.Error("the room went with its asker")
	}
	late := newParty(t, node, newKey(t)) // the relay takes people on meanwhile
	late.open(r)
	late.join(r, overlay.Single, r.goodPass(late.key.ID()))
	soon(t, "admission", late.admitted)
	b := newParty(t, node, mod).ask()
	if rep := b.say(&wire.RelayRequest{Genesis: r.genesis, Grants: line}); rep.Refused != 0 || rep.Ad == nil {
		t.Fatalf("another authority: %v", room.Reason(rep.Refused))
	}
	b.say(&wire.RelayRequest{Drop: true})
	soon(t, "the children hear that it goes", func() bool {
		return ear.got(func(m *wire.LinkRecord) bool { return m.GetLeave().GetAs() == 1 })
	})
	soon(t, "the room is over", func() bool { return node.metric("balai_relay_rooms") == 0 })
	soon(t, "the links are closed", ear.over)
}

// A relay that no lease names takes no children and sends them to the core; links for rooms not carried are refused.
func TestRelayIdle(t *testing.T) {
	node, other := newBootstrapped(t), newBootstrapped(t)
	r := newCarried(t, room.Unlisted)
	rep := newParty(t, other, r.host).ask().say(&wire.RelayRequest{Genesis: r.genesis})
	host := newParty(t, node, r.host)
	a := host.ask()
	a.say(&wire.RelayRequest{Genesis: r.genesis})
	lease := r.lease(r.host, 1, 1, rep.Ad)
	a.say(&wire.RelayRequest{Lease: lease.Signed, Digest: r.digest(r.host, []*identity.Key{r.host}), Sources: []*wire.Signed{r.source(r.host)}})
	p := newParty(t, node, newKey(t))
	p.open(r)
	p.join(r, overlay.Single, r.goodPass(p.key.ID()))
	soon(t, "a redirect to the core", func() bool {
		return p.got(func(m *wire.LinkRecord) bool {
			return len(m.GetRedirect().GetAds()) == 1 && m.GetRedirect().GetLease() != nil
		})
	})
	if p.admitted() || node.metric("balai_relay_children") != 0 {
		t.Error("it takes children")
	}
}

// Nothing is left running when the node stops with rooms, streams and children.
func TestRelayStops(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("with all in use", func(t *testing.T) {
		node := newBootstrapped(t)
		r := newCarried(t, room.Unlisted)
		_, _ = inCore(t, node, r)
		ear := newParty(t, node, newKey(t))
		ear.open(r)
		ear.join(r, overlay.Single, r.goodPass(ear.key.ID()))
		soon(t, "admission", ear.admitted)
		node.relays.stop()
		soon(t, "the children hear that it goes", func() bool {
			return ear.got(func(m *wire.LinkRecord) bool { return m.GetLeave().GetAs() == 1 })
		})
		soon(t, "the links are closed", ear.over)
	})
	if err := leaks(before, lifelong); err != nil {
		t.Error(err)
	}
}
