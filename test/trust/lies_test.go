package trust

import (
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/node/api"
	"balai/room"
	"balai/room/invite"
	"balai/room/session"
	"balai/room/wire"
	"balai/test/hostile"
)

// lied are the ways in which a record of the addresses of somebody who was never seen comes with an answer to a JOIN.
var lied = []struct {
	name    string
	foreign bool // signed by another than the one it speaks of
	answer  func(ads []*wire.Signed, self []byte) []*wire.LinkRecord
}{
	{"REDIRECT", false, func(ads []*wire.Signed, _ []byte) []*wire.LinkRecord {
		return []*wire.LinkRecord{{Record: &wire.LinkRecord_Redirect{Redirect: &wire.Redirect{Ads: ads}}}}
	}},
	{"BUSY", false, func(ads []*wire.Signed, _ []byte) []*wire.LinkRecord {
		return []*wire.LinkRecord{{Record: &wire.LinkRecord_Busy{Busy: &wire.Busy{Ads: ads, RetryMs: 100}}}}
	}},
	{"LEAVE", false, func(ads []*wire.Signed, self []byte) []*wire.LinkRecord {
		return []*wire.LinkRecord{admit(1, 0, self), {Record: &wire.LinkRecord_Leave{Leave: &wire.LinkLeave{As: 1, AfterMs: 100, Ads: ads}}}}
	}},
	{"REDIRECT with a record signed by another", true, func(ads []*wire.Signed, _ []byte) []*wire.LinkRecord {
		return []*wire.LinkRecord{{Record: &wire.LinkRecord_Redirect{Redirect: &wire.Redirect{Ads: ads}}}}
	}},
}

// Trust test 65 for relays: two rogues are the core. One lies in the lease about where it is; the other sends whoever asks
// to private addresses. In a room that is not a local one nobody dials those; in a local one, which shows that the bait
// works, those that their owner has signed.
func TestRelaysWithPrivateAddresses(t *testing.T) {
	t.Parallel()
	for _, local := range []bool{true, false} {
		t.Run(map[bool]string{true: "Local", false: "NotLocal"}[local], func(t *testing.T) {
			t.Parallel()
			privateAddresses(t, local)
		})
	}
}

func (x *bait) addresses() (out []string) {
	return []string{
		"/ip4/127.0.0.1/tcp/" + portOf(x.tcp.Addr()), "/ip4/127.0.0.1/udp/" + portOf(x.udp.LocalAddr()) + "/quic-v1",
	}
}

func portOf(a net.Addr) string {
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return port
}

func privateAddresses(t *testing.T, local bool) {
	ana := start(t, "Ana", never...)
	budi := start(t, "Budi", append([]string{"--bootstrap", ana.place().addr}, never...)...)
	v, err := ana.Create(t.Context(), api.NewRoom{Name: "Room of Ana", Visibility: "unlisted", Local: &local})
	if err != nil {
		t.Fatal(err)
	}
	ana.until(v.ID, "the room is live", func(v session.View) bool { return v.State == session.Live })
	id, link := v.ID, ana.link(v.ID, "listener")

	inLease := newBait(t)
	baits := make([]*bait, len(lied))
	for i := range lied {
		baits[i] = newBait(t)
	}
	liesInLease := newRogue(t, func(r *rogue) {
		var err error
		if r.record, err = r.Record(r.Key, r.ID(), inLease.addresses()...); err != nil {
			t.Fatal(err)
		}
	}, link, ana)
	var asked atomic.Int32
	who := budi.place().id
	redirects := newRogue(t, func(r *rogue) {
		r.answer = func(from peer.ID, _ int) []*wire.LinkRecord {
			if from != who {
				return nil
			}
			k := int(asked.Add(1)-1) % len(lied)
			return lied[k].answer([]*wire.Signed{baits[k].ad(t, r, lied[k].foreign)}, shortOfID(r.ID()))
		}
	}, link, ana)
	for range 4 {
		newLiarWith(t, light, link, ana)
	}
	core := []string{liesInLease.ID().String(), redirects.ID().String()}
	slices.Sort(core)
	v2, err := budi.Join(t.Context(), linkAt(t, ana, link), "", local)
	if err != nil {
		t.Fatal(err)
	}
	budi.until(v2.ID, "let in", func(v session.View) bool { return v.State == session.Live })
	redirects.connect(budi)
	redirects.call(budi)
	eventuallyWithin(t, 2*patience, "the rogues are the core", func() bool {
		v, err := budi.Room(t.Context(), id)
		return err == nil && slices.Equal(slices.Sorted(slices.Values(v.Core)), core)
	})
	eventuallyWithin(t, 3*patience, "the listener has been lied to in all ways", func() bool { return int(asked.Load()) >= 2*len(lied) })
	if local {
		eventuallyWithin(t, 3*patience, "each bait that is to be taken is", func() bool {
			for i, x := range baits {
				if x.hits.Load() == 0 && !lied[i].foreign {
					return false
				}
			}
			return inLease.hits.Load() > 0
		})
	}
	pause(t, 3*time.Second)
	t.Logf("local %v: asked %d times; the address in the lease was dialled %d times", local, asked.Load(), inLease.hits.Load())
	if (inLease.hits.Load() > 0) != local {
		t.Errorf("the address in a lease was dialled %d times", inLease.hits.Load())
	}
	for i, x := range baits {
		if n := x.hits.Load(); (n > 0) != (local && !lied[i].foreign) {
			t.Errorf("%s: the address was dialled %d times", lied[i].name, n)
		}
	}
}

// ad is an offer of somebody who is said to be at the bait, always the same.
func (x *bait) ad(t *testing.T, r *rogue, foreign bool) *wire.Signed {
	x.once.Do(func() {
		var err error
		if x.key, err = identity.Generate(); err != nil {
			t.Error(err)
		}
	})
	signer := x.key
	if foreign {
		signer = r.Key
	}
	rec, err := r.Record(signer, x.key.ID(), x.addresses()...)
	if err != nil {
		t.Error(err)
	}
	return adOf(x.key, r.m.Room, uint64(time.Now().UnixMilli()), rec)
}

// linkAt is another link into the same room that names the host's own address, private as it is.
func linkAt(t *testing.T, host *daemon, link string) string {
	t.Helper()
	f, err := hostile.FromLink(link)
	if err != nil {
		t.Fatal(err)
	}
	h, err := invite.ParseHint(host.place().addr, invite.HintMember)
	if err != nil {
		t.Fatal(err)
	}
	k := keyOf(t, host)
	v, err := invite.Issue(k, k.Public(), f.Secret, invite.Terms{Role: room.Listener, Expiry: time.Now().Add(time.Hour), Hints: []invite.Hint{h}})
	if err != nil {
		t.Fatal(err)
	}
	return v.Link()
}

// Who cannot reach somebody asks a third for help, and is told no: it asks now and then, not as fast as the no comes back.
func TestHelpRefused(t *testing.T) {
	t.Parallel()
	ana, budi := start(t, "Ana", never...), start(t, "Budi", never...)
	id := ana.open("unlisted")
	link := ana.link(id, "listener")
	budi.enter(link)
	var far []*liar // whom the listener cannot reach
	for range 3 {
		far = append(far, newLiarWith(t, light, link, ana))
	}
	who := budi.place().id
	r := newRogue(t, func(r *rogue) {
		r.answer = func(from peer.ID, _ int) []*wire.LinkRecord {
			return []*wire.LinkRecord{{Record: &wire.LinkRecord_Redirect{Redirect: &wire.Redirect{}}}}
		}
		r.says = func(m *wire.Presence) {
			for _, l := range far {
				m.Links = append(m.Links, shortOfID(l.ID()))
			}
		}
	}, link, ana, budi)
	eventuallyWithin(t, 2*patience, "the listener asks for help", func() bool { return r.count(r.asked, who) > 0 })
	began := r.count(r.asked, who)
	pause(t, 5*time.Second)
	n := r.count(r.asked, who) - began
	t.Logf("asked %d times in 5 s", n)
	if n > 100 {
		t.Errorf("who refuses to help is asked %d times in 5 s", n)
	}
}
