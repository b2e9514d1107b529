package node

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/node/api"
	"balai/node/p2p"
	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

// lister opens rooms on paper and lists them.
type lister struct {
	t   *testing.T
	key *identity.Key
}

func newLister(t *testing.T) lister {
	t.Helper()
	k, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return lister{t, k}
}

// ad is a sound ad of a new room.
func (l lister) ad(now time.Time) *wire.Ad {
	l.t.Helper()
	secret := room.NewSecret()
	g, err := ledger.NewGenesis(l.key, secret, room.Policy{Visibility: room.Open, Name: "Tea"}, nil, now)
	if err != nil {
		l.t.Fatal(err)
	}
	return &wire.Ad{Genesis: g, Rendezvous: secret[:], Name: "Tea", IssuedMs: now.UnixMilli(), TtlS: 90, Seq: 1, HostName: "Ana", StageNames: []string{"Ana"}}
}

func (l lister) sign(ad *wire.Ad) []byte {
	l.t.Helper()
	b, err := proto.Marshal(wire.Sign(l.key, wire.DomainAd, ad))
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

func TestReadAd(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l, other := newLister(t), newLister(t)
	for _, c := range []struct {
		name string
		bend func(*wire.Ad)
		want p2p.Verdict
	}{
		{"sound", func(*wire.Ad) {}, p2p.Accept},
		{"a name with a control character", func(a *wire.Ad) { a.Name = "Tea\x07" }, p2p.Reject},
		{"a name of two lines", func(a *wire.Ad) { a.Name = "Tea\nCoffee" }, p2p.Reject},
		{"a topic that turns the writing direction", func(a *wire.Ad) { a.Topic = "\u202eaet" }, p2p.Reject},
		{"a tag that does", func(a *wire.Ad) { a.Tags = []string{"\u2066tea"} }, p2p.Reject},
		{"a host's name that does", func(a *wire.Ad) { a.HostName = "a\u200fb" }, p2p.Reject},
		{"a face's name that does", func(a *wire.Ad) { a.StageNames = []string{"ok", "a\u200fb"} }, p2p.Reject},
		{"a very long language", func(a *wire.Ad) { a.Language = string(make([]byte, 100)) }, p2p.Reject},
		{"another room's secret", func(a *wire.Ad) { s := room.NewSecret(); a.Rendezvous = s[:] }, p2p.Reject},
		{"another host's room", func(a *wire.Ad) { a.Genesis = other.ad(now).Genesis }, p2p.Reject},
		{"old", func(a *wire.Ad) { a.IssuedMs -= 91_000 }, p2p.Ignore},
		{"of the future", func(a *wire.Ad) { a.IssuedMs += 91_000 }, p2p.Ignore},
		{"meant to last for ever", func(a *wire.Ad) { a.IssuedMs -= 91_000; a.TtlS = 1 << 31 }, p2p.Ignore},
	} {
		ad := l.ad(now)
		c.bend(ad)
		if _, got := readAd(l.sign(ad), now); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.name, got, c.want)
		}
	}
}

// hear lets the hallway take an ad that from passed on.
func (p *soul) hear(l lister, ad *wire.Ad, from peer.ID) p2p.Verdict {
	p.t.Helper()
	now := time.Now()
	a, v := readAd(l.sign(ad), now)
	if v != p2p.Accept {
		p.t.Fatalf("verdict %d", v)
	}
	a.from = from
	return p.hall.take(a, now)
}

func TestOneKeyListsAFewRooms(t *testing.T) {
	ana := newPerson(t, "Ana")
	l := newLister(t)
	_, from := newPeerKey(t)
	for i := range 3 * maxPerSigner {
		want := p2p.Accept
		if i >= maxPerSigner {
			want = p2p.Ignore
		}
		if got := ana.hear(l, l.ad(time.Now()), from); got != want {
			t.Fatalf("room %d of one key: verdict %d", i+1, got)
		}
	}
}

func TestAFloodPushesNobodyOut(t *testing.T) {
	ana := newPerson(t, "Ana")
	_, flooder := newPeerKey(t)
	_, friend := newPeerKey(t)
	honest := newLister(t)
	first := honest.ad(time.Now())
	ana.hear(honest, first, friend)
	for l := newLister(t); len(ana.Hallway()) < maxListings; l = newLister(t) {
		for range maxPerSigner {
			ana.hear(l, l.ad(time.Now()), flooder)
		}
	}
	late := newLister(t)
	if got := ana.hear(late, late.ad(time.Now()), flooder); got != p2p.Ignore {
		t.Errorf("the flood goes on: %d", got)
	}
	if got := ana.hear(late, late.ad(time.Now()), friend); got != p2p.Accept {
		t.Errorf("an honest room found the table full: %d", got)
	}
	g, err := ledger.ParseGenesis(first.Genesis)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := ana.hall.find(g.Room()); !ok || len(ana.Hallway()) > maxListings {
		t.Errorf("the first room is there: %t; %d rooms", ok, len(ana.Hallway()))
	}
}

func TestOldNumbersAndEchoesAreNotPassedOn(t *testing.T) {
	ana := newPerson(t, "Ana")
	_, from := newPeerKey(t)
	l := newLister(t)
	ad := l.ad(time.Now())
	ad.Seq, ad.Audience = 5, 300
	if ana.hear(l, ad, from) != p2p.Accept {
		t.Fatal("not taken")
	}
	ad.Seq, ad.Audience = 4, 1
	if ana.hear(l, ad, from) != p2p.Ignore || ana.Hallway()[0].Audience != 300 {
		t.Error("an older ad replaced a newer one")
	}
	me := lister{t, ana.key}
	if ana.hear(me, me.ad(time.Now()), from) != p2p.Ignore {
		t.Error("an ad of a room that I am not in came back under my name")
	}
}

// Counts that differ by multiples of 256 are a change.
func TestACountThatGrowsIsNews(t *testing.T) {
	ana := newPerson(t, "Ana")
	_, from := newPeerKey(t)
	l := newLister(t)
	ad := l.ad(time.Now())
	ana.hear(l, ad, from)
	news := 0
	defer ana.Watch(func(what string) {
		if what == "hallway" {
			news++
		}
	})()
	for i, bend := range []func(){
		func() { ad.Stage += 256 },
		func() { ad.Audience += 1 << 16 },
		func() { ad.Tags = []string{"new"} },
		func() {},
	} {
		before := news
		bend()
		ad.Seq++
		ana.hear(l, ad, from)
		if told := news > before; told != (i < 3) {
			t.Errorf("change %d told: %t", i, told)
		}
	}
}

func TestAnAdSendsNobodyToAThirdPerson(t *testing.T) {
	l := newLister(t)
	now := time.Now()
	ad := l.ad(now)
	stranger, _ := newPeerKey(t)
	own := signedRecord(t, l.key.Private(), 1)
	ad.Hints = [][]byte{signedRecord(t, stranger, 1), own}
	a, v := readAd(l.sign(ad), now)
	if v != p2p.Accept {
		t.Fatal(v)
	}
	if got := a.hints(); len(got) != 1 || !slices.Equal(got[0], own) {
		t.Errorf("%d hints", len(got))
	}
}

// A room of mine shows who is on stage, in the lobby's list too.
func TestMyListedRoomKeepsItsFaces(t *testing.T) {
	ana := newPerson(t, "Ana")
	r := ana.open("open")
	eventually(t, "the listing", func() bool {
		ana.hall.mu.Lock()
		defer ana.hall.mu.Unlock()
		return len(ana.hall.ads) == 1
	})
	all := ana.Hallway()
	if len(all) != 1 || all[0].Source != "mine" || len(all[0].Stage) != 1 || all[0].Stage[0].PeerID != ana.id().String() || all[0].State != "live" {
		t.Errorf("hallway: %+v", all)
	}
	if err := r.Act(t.Context(), room.End, "", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listing to go", func() bool { return len(ana.Hallway()) == 0 })
}

// An ad told again for newcomers has bytes of its own, or gossip would drop it.
func TestAnAdIsToldAgain(t *testing.T) {
	ana := newPerson(t, "Ana")
	r := ana.open("open")
	id, err := room.ParseID(r.View().ID)
	if err != nil {
		t.Fatal(err)
	}
	mine := func() []byte {
		ana.hall.mu.Lock()
		defer ana.hall.mu.Unlock()
		return ana.hall.mine[id]
	}
	eventually(t, "the ad", func() bool { return mine() != nil })
	before := mine()
	ana.hall.repeat(time.Now().Add(time.Second))
	a, v := readAd(mine(), time.Now())
	if slices.Equal(before, mine()) || v != p2p.Accept || a.ad.Name != "Test of Ana" {
		t.Errorf("again: verdict %d", v)
	}
}

// What nobody would list cannot be opened.
func TestARoomsTextsAreLines(t *testing.T) {
	for _, n := range []api.NewRoom{
		{Name: "Tea\x07", Visibility: "open"},
		{Name: "Tea", Topic: "one\ntwo", Visibility: "unlisted"},
		{Name: "Tea", Tags: []string{"\u202eaet"}, Visibility: "open"},
	} {
		if _, err := policyOf(n); !errors.Is(err, room.Malformed) {
			t.Errorf("%+v: %v", n, err)
		}
	}
	if _, err := policyOf(api.NewRoom{Name: "Чай и شاي", Topic: "茶", Visibility: "open"}); err != nil {
		t.Error(err)
	}
}
