package node

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"

	"balai/identity"
	"balai/room"
	"balai/room/invite"
	"balai/room/session"
)

func newPeerKey(t *testing.T) (crypto.PrivKey, peer.ID) {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return k, p
}

// signedRecord is a peer record of k's.
func signedRecord(t *testing.T, k crypto.PrivKey, seq uint64) []byte {
	t.Helper()
	p, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	env, err := record.Seal(&peer.PeerRecord{PeerID: p, Seq: seq, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/9")}}, k)
	if err != nil {
		t.Fatal(err)
	}
	b, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (p *soul) joinedOf(r interface{ View() session.View }) *joined {
	p.t.Helper()
	id, err := room.ParseID(r.View().ID)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.joinedRoom(id)
}

func TestTheNewestRecordCounts(t *testing.T) {
	ana := newPerson(t, "Ana")
	j := ana.joinedOf(ana.open("unlisted"))
	k, p := newPeerKey(t)
	old, mid, late := signedRecord(t, k, 3), signedRecord(t, k, 5), signedRecord(t, k, 9)
	_, stranger := newPeerKey(t)
	for _, r := range [][]byte{mid, old} {
		if j.Learn(r, stranger) != p || !slices.Equal(j.RecordOf(p), mid) {
			t.Fatal("an older record took the place of a newer one")
		}
	}
	key := roomKey(j.id, recordName(p))
	stored := func() bool { _, err := ana.store.Get(t.Context(), key); return err == nil }
	if stored() {
		t.Error("the record of a stranger was stored")
	}
	j.Members([]peer.ID{ana.id(), p}, nil)
	eventually(t, "the member's record on disk", stored)
	if err := ana.store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	j.Learn(mid, stranger)
	j.storeRecords()
	if stored() {
		t.Error("a record that is stored was written again")
	}
	j.Learn(late, stranger)
	eventually(t, "the newer record on disk", stored)
	j.Members([]peer.ID{ana.id()}, nil)
	eventually(t, "the record to go with the member", func() bool { return !stored() && j.RecordOf(p) == nil })
}

func TestStrangersDoNotCrowdMembersOut(t *testing.T) {
	ana := newPerson(t, "Ana")
	j := ana.joinedOf(ana.open("unlisted"))
	friend, f := newPeerKey(t)
	j.Members([]peer.ID{ana.id(), f}, nil)
	j.Learn(signedRecord(t, friend, 1), f)
	var last peer.ID
	for range maxRecords + 20 {
		k, p := newPeerKey(t)
		j.Learn(signedRecord(t, k, 1), p)
		last = p
	}
	if j.RecordOf(f) == nil || j.RecordOf(last) == nil || len(j.remembered()) > maxRecords {
		t.Errorf("friend held: %t, newest held: %t, %d records", j.RecordOf(f) != nil, j.RecordOf(last) != nil, len(j.remembered()))
	}
}

func TestRecordsOfAnEarlierRun(t *testing.T) {
	dir := t.TempDir()
	ana := startPerson(t, dir, "Ana")
	r := ana.open("unlisted")
	j := ana.joinedOf(r)
	k, p := newPeerKey(t)
	j.Members([]peer.ID{ana.id(), p}, nil)
	want := signedRecord(t, k, 7)
	j.Learn(want, p)
	eventually(t, "the record on disk", func() bool {
		_, err := ana.store.Get(t.Context(), roomKey(j.id, recordName(p)))
		return err == nil
	})
	ana.halt()
	e, ok := entry{}, false
	again := startPerson(t, dir, "Ana")
	if e, ok = again.storedRoom(t.Context(), j.id); !ok {
		t.Fatal("no room stored")
	}
	fresh := newJoined(again.daemon, e)
	if err := fresh.load(&session.Config{}); err != nil {
		t.Fatal(err)
	}
	defer fresh.forbidPrivate()
	if !slices.Equal(fresh.RecordOf(p), want) {
		t.Error("the record is not taken up")
	}
}

// silence accepts connections and never says a word.
func silence(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// A link may name dead and slow addresses before good ones: the good one is found in the same search.
func TestSlowHintsDelayNobody(t *testing.T) {
	at := newCommunity(t)
	ana, budi := newPerson(t, "Ana", at...), newPerson(t, "Budi")
	host := ana.open("unlisted")
	inv, err := invite.ParseLink(inviteTo(t, host, session.InviteTerms{Role: room.Listener}))
	if err != nil {
		t.Fatal(err)
	}
	var hints []invite.Hint
	for range 3 {
		_, p := newPeerKey(t)
		key, err := identity.PublicOf(p)
		if err != nil {
			t.Fatal(err)
		}
		at := silence(t)
		hints = append(hints, invite.Hint{Kind: invite.HintMember, Peer: key, Addr: at.Addr(), TCP: true, Port: at.Port()})
	}
	point, err := invite.ParseHint(at[0], invite.HintRendezvous)
	if err != nil {
		t.Fatal(err)
	}
	inv.Hints = append(hints, point)
	eventually(t, "the room at the community node", func() bool {
		j := newJoined(budi.daemon, entry{id: inv.Room(), secret: inv.Secret, local: true, invite: inv})
		defer j.forbidPrivate()
		return slices.Contains(j.Candidates(t.Context()), ana.id())
	})
	guest := budi.enter(inv.Link())
	until(t, guest, "the room", func(v session.View) bool { return v.State == session.Live })
}

// Whoever is connected is found at once, and not one of many others is dialled for each look.
func TestWhoIsConnectedIsFoundFirst(t *testing.T) {
	ana, budi := newPerson(t, "Ana"), newPerson(t, "Budi")
	host := ana.open("unlisted")
	guest := budi.enter(inviteTo(t, host, session.InviteTerms{Role: room.Listener}))
	until(t, guest, "the room", func(v session.View) bool { return v.State == session.Live })
	j := budi.joinedOf(guest)
	j.inv = nil
	var calls atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	for range 40 {
		k, p := newPeerKey(t)
		env, err := record.Seal(&peer.PeerRecord{PeerID: p, Seq: 1, Addrs: []ma.Multiaddr{ma.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port))}}, k)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := env.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if j.Learn(raw, ana.id()) != p {
			t.Fatal("a record that is not held")
		}
	}
	j.searches.Add(1) // the first look of all is over
	if found := j.Candidates(t.Context()); !slices.Contains(found, ana.id()) {
		t.Errorf("found %v", found)
	}
	if n := calls.Load(); n > 6 {
		t.Errorf("%d dials beside", n)
	}
}

func TestRoutesOfHints(t *testing.T) {
	_, issuer := newPeerKey(t)
	_, relay := newPeerKey(t)
	issuerKey, _ := identity.PublicOf(issuer)
	hint := func(kind invite.HintKind, of peer.ID) invite.Hint {
		h, err := invite.ParseHint("/ip4/192.0.2.1/udp/4330/quic-v1/p2p/"+of.String(), kind)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	circuit := "/ip4/192.0.2.1/udp/4330/quic-v1/p2p/" + relay.String() + "/p2p-circuit"
	direct := "/ip4/192.0.2.1/udp/4330/quic-v1"
	for _, c := range []struct {
		hint invite.Hint
		want []string
	}{
		{hint(invite.HintMember, issuer), []string{fmt.Sprint("member ", issuer, " ", direct)}},
		{hint(invite.HintRendezvous, relay), []string{fmt.Sprint("point ", relay, " ", direct)}},
		{hint(invite.HintCircuit, relay), []string{fmt.Sprint("member ", issuer, " ", circuit)}},
		{hint(invite.HintBoth, relay), []string{fmt.Sprint("point ", relay, " ", direct), fmt.Sprint("member ", issuer, " ", circuit)}},
	} {
		var got []string
		for _, r := range routesOf(c.hint, issuerKey) {
			word := "point "
			if r.member {
				word = "member "
			}
			got = append(got, fmt.Sprint(word, r.info.ID, " ", r.info.Addrs[0]))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v leads to %q, want %q", c.hint, got, c.want)
		}
	}
}

func TestHintsOfADaemonBehindARelay(t *testing.T) {
	_, me := newPeerKey(t)
	_, relay := newPeerKey(t)
	private := ma.StringCast("/ip4/10.0.0.2/udp/1/quic-v1/p2p/" + me.String())
	public := ma.StringCast("/ip4/203.0.114.9/udp/1/quic-v1/p2p/" + me.String())
	circuit := ma.StringCast("/ip4/203.0.114.7/udp/4330/quic-v1/p2p/" + relay.String() + "/p2p-circuit/p2p/" + me.String())
	kinds := func(nodes []peer.ID, addrs ...ma.Multiaddr) (out []invite.HintKind) {
		for _, h := range hintsOf(addrs, nil, nodes, false) {
			out = append(out, h.Kind)
		}
		return out
	}
	for _, c := range []struct {
		name string
		got  []invite.HintKind
		want []invite.HintKind
	}{
		{"only a circuit", kinds(nil, private, circuit), []invite.HintKind{invite.HintCircuit}},
		{"its relay is a rendezvous point", kinds([]peer.ID{relay}, private, circuit), []invite.HintKind{invite.HintBoth}},
		{"a public address", kinds([]peer.ID{relay}, public, circuit), []invite.HintKind{invite.HintMember}},
		{"nothing", kinds(nil, private), nil},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestNamesAroundMidnight(t *testing.T) {
	j := &joined{secret: room.NewSecret()}
	noon := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	midnight := noon.Add(12 * time.Hour)
	if n := len(j.pointNames(noon)); n != 1 {
		t.Errorf("%d names at noon", n)
	}
	before, after := j.pointNames(midnight.Add(-time.Minute)), j.pointNames(midnight.Add(time.Minute))
	if len(before) != 2 || len(after) != 2 || before[0] != after[1] || before[1] != after[0] {
		t.Errorf("names before midnight %q, after %q", before, after)
	}
}

func TestARoomThatIsLeftIsNotRegistered(t *testing.T) {
	at := newCommunity(t)
	ana, budi := newPerson(t, "Ana", at...), newPerson(t, "Budi", at...)
	host := ana.open("unlisted")
	j := ana.joinedOf(host)
	registered := func() int {
		n := 0
		for _, point := range budi.host.CommunityNodes() {
			got, err := budi.host.Rendezvous().Discover(t.Context(), point, j.pointNames(time.Now())[0])
			if err == nil {
				n += len(got)
			}
		}
		return n
	}
	eventually(t, "the registration", func() bool { return registered() == 1 })
	if err := host.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the registration to go", func() bool { return len(budi.host.CommunityNodes()) == 1 && registered() == 0 })
}
