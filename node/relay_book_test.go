package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/overlay"
	"balai/room/wire"
)

// A digest counts by an authority, newer than the last, near to my clock. A moderator whom a fresh digest of another
// does not name counts for nothing, whatever line of grants it can show.
func TestRelayBookDigests(t *testing.T) {
	r := newCarried(t, room.Unlisted)
	mod, dismissed, stranger, speaker, me := newKey(t), newKey(t), newKey(t), newKey(t), newKey(t)
	b, now := r.book(me.ID()), time.Now()
	if reason := b.admit(r.host.ID(), now); reason != 0 {
		t.Fatal(reason)
	}
	naming := func(d *wire.Digest) { d.Authorities = append(d.Authorities, short(mod.ID())) }
	first := r.digest(r.host, []*identity.Key{speaker}, naming)
	late := r.digest(r.host, nil, func(d *wire.Digest) { d.IssuedMs = now.Add(-2 * time.Minute).UnixMilli() })
	ahead := r.digest(r.host, nil, func(d *wire.Digest) { d.IssuedMs = now.Add(2 * time.Minute).UnixMilli() })
	foreign := newCarried(t, room.Unlisted)
	short7 := r.digest(r.host, nil, func(d *wire.Digest) { d.Removed = [][]byte{make([]byte, 7)} })
	for _, c := range []struct {
		name  string
		d     *wire.Signed
		at    time.Time
		want  error
		stage int
	}{
		{"a stranger's", r.digest(stranger, nil), now, room.NoAdmitter, 0},
		{"an old one", late, now, room.Malformed, 0},
		{"one from the future", ahead, now, room.Malformed, 0},
		{"another room's", foreign.digest(r.host, nil), now, room.WrongRoom, 0},
		{"a short id of 7", short7, now, room.Malformed, 0},
		{"the host's", first, now, nil, 1},
		{"by who is not named", r.digest(dismissed, nil), now, room.NoAdmitter, 1},
		{"by who is named", r.digest(mod, []*identity.Key{speaker, mod}, func(d *wire.Digest) { d.IssuedMs = now.Add(time.Second).UnixMilli() }), now, nil, 2},
		{"the host's again", first, now, nil, 2},
		{"the host's next", r.digest(r.host, nil, func(d *wire.Digest) { d.IssuedMs = now.Add(2 * time.Second).UnixMilli() }), now, nil, 0},
	} {
		if err := b.takeDigest(c.d, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if stage := 0; b.digest != nil {
			if stage = len(b.digest.stage); stage != c.stage {
				t.Errorf("%s: a stage of %d", c.name, stage)
			}
		}
	}
	if reason := b.admit(dismissed.ID(), now); reason != room.NoAdmitter {
		t.Errorf("who is not named may ask: %v", reason)
	}
	if reason := b.admit(dismissed.ID(), now.Add(time.Minute)); reason != 0 { // nobody leads: its line alone counts
		t.Errorf("while nobody leads: %v", reason)
	}
	if len(b.commits) != 1 || b.commits[0].ID != room.EpochID(r.epoch.ID) {
		t.Errorf("epochs %v", b.commits)
	}
	for n := uint64(2); n < 9; n++ {
		b.commit(room.EpochCommit{N: n, ID: room.EpochID{byte(n)}})
	}
	if len(b.commits) != keptRelayCommits || b.commits[0].N != 5 {
		t.Errorf("epochs %v", b.commits)
	}
}

// A pass that ran out while no authority was here stays good for its holder; one that ran out before does not.
func TestRelayBookPasses(t *testing.T) {
	r := newCarried(t, room.Unlisted)
	holder, me, now := newKey(t).ID(), newKey(t), time.Now()
	b := r.book(me.ID())
	b.admit(r.host.ID(), now)
	if err := b.takeDigest(r.digest(r.host, nil), now); err != nil {
		t.Fatal(err)
	}
	soonOver := r.pass(r.host, holder, now.Add(-50*time.Minute), now.Add(10*time.Minute))
	over := r.pass(r.host, holder, now.Add(-time.Hour), now.Add(-10*time.Minute))
	later := now.Add(3 * time.Hour)
	for name, c := range map[string]struct {
		pass *wire.Signed
		at   time.Time
		want room.Reason
	}{
		"good": {soonOver, now, 0}, "ran out without an authority": {soonOver, later, 0},
		"out": {over, now, room.Expired}, "was out before": {over, later, room.Expired},
	} {
		if got, _ := b.mayJoin(holder, c.pass, c.at); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	b.admit(r.host.ID(), later)
	if got, _ := b.mayJoin(holder, soonOver, later); got != room.Expired {
		t.Errorf("an authority is back: %v", got)
	}
}

// Frames pass of those sources alone that a digest names, and not while they are muted.
func TestRelayBookSources(t *testing.T) {
	r := newCarried(t, room.Unlisted)
	a, c, me, now := newKey(t), newKey(t), newKey(t), time.Now()
	b := r.book(me.ID())
	b.admit(r.host.ID(), now)
	for _, s := range []*wire.Signed{r.source(a), r.source(c), r.source(a)} {
		if err := b.takeSource(s); err != nil {
			t.Fatal(err)
		}
	}
	forged := r.source(a)
	forged.Key = c.Public()
	if b.takeSource(forged) == nil {
		t.Error("a source in another's name")
	}
	allowed := func() (out []peer.ID) {
		for _, s := range b.media(&overlay.Plan{}).Sources {
			if s.Allowed {
				out = append(out, s.Peer)
			}
		}
		return out
	}
	if got := allowed(); len(got) != 0 {
		t.Errorf("before a digest %v may speak", got)
	}
	step := func(d *wire.Signed) {
		t.Helper()
		if err := b.takeDigest(d, now); err != nil {
			t.Fatal(err)
		}
	}
	step(r.digest(r.host, []*identity.Key{a}))
	if got := allowed(); !slices.Equal(got, []peer.ID{a.ID()}) {
		t.Errorf("on stage is a, and %v may speak", got)
	}
	if s := b.situation(3, nil, nil); !slices.Equal(s.Stage, []peer.ID{a.ID()}) || s.OnStage || !s.CoreOnly || s.Slots != 3 {
		t.Errorf("%+v", s)
	}
	step(r.digest(r.host, []*identity.Key{a, c}, func(d *wire.Digest) { d.Stage[0].Muted = true }))
	if got := allowed(); !slices.Equal(got, []peer.ID{c.ID()}) {
		t.Errorf("a is muted, and %v may speak", got)
	}
	step(r.digest(r.host, []*identity.Key{a}, func(d *wire.Digest) { d.Stage[0].Source++ }))
	if got := allowed(); len(got) != 0 {
		t.Errorf("a has another source, and %v may speak", got)
	}
	for range 2 * maxRelaySources {
		if err := b.takeSource(r.source(newKey(t))); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.sources) > maxRelaySources || b.sources[a.ID()] == nil {
		t.Errorf("%d sources are kept, of the stage %v", len(b.sources), b.sources[a.ID()])
	}
	size := 0
	for _, d := range b.takeNews() {
		if size = proto.Size(d); size > 16<<10 {
			t.Errorf("a record of %d bytes", size)
		}
	}
	if size == 0 || b.takeNews() != nil {
		t.Error("the children hear nothing, or twice")
	}
}

// Leases: by an authority, or, replacing only, by a speaker of the digest; never of a core with somebody removed. After
// a time out of touch the lease of whoever leads counts, whatever its term.
func TestRelayBookLeases(t *testing.T) {
	r := newCarried(t, room.Unlisted)
	me, other, speaker, stranger, now := newKey(t), newKey(t), newKey(t), newKey(t), time.Now()
	b := r.book(me.ID())
	b.admit(r.host.ID(), now)
	ad := func(k *identity.Key) *wire.Signed {
		return election.Ad{Room: r.id, Slots: 5, Issued: now, Flags: election.Community}.Sign(k)
	}
	take := func(l *election.Lease, at time.Time) bool { return b.takeLease(l.Signed, at) != nil }
	if take(r.lease(stranger, 1, 1, ad(me)), now) {
		t.Error("a stranger's lease")
	}
	if !take(r.lease(r.host, 1, 1, ad(me)), now) || !b.force.Lease().Holds(me.ID()) {
		t.Fatal("the host's lease is not taken")
	}
	if take(r.lease(r.host, 1, 1, ad(other)), now) {
		t.Error("an equal one")
	}
	if err := b.takeDigest(r.digest(r.host, nil, removing(other.ID())), now); err != nil {
		t.Fatal(err)
	}
	if take(r.lease(r.host, 1, 2, ad(other)), now) {
		t.Error("the removed in the core")
	}
	if take(r.lease(r.host, 9, 1, ad(me)), now) {
		t.Error("a term from nowhere")
	}
	if !take(r.lease(r.host, 9, 1, ad(me), ad(stranger)), now.Add(time.Minute)) {
		t.Error("out of touch for ever")
	}
	r.g.ID = room.OpID{} // a speaker signs without a grant
	if take(r.lease(speaker, 10, 1, ad(me), ad(speaker)), now.Add(time.Minute)) {
		t.Error("a speaker that no digest names")
	}
	if err := b.takeSource(r.source(speaker)); err != nil {
		t.Fatal(err)
	}
	if err := b.takeDigest(r.digest(r.host, []*identity.Key{speaker}), now); err != nil {
		t.Fatal(err)
	}
	if take(r.lease(speaker, 10, 1), now.Add(time.Minute)) {
		t.Error("a speaker sends home")
	}
	if !take(r.lease(speaker, 10, 2, ad(me), ad(speaker)), now.Add(time.Minute)) {
		t.Error("a speaker may not replace")
	}
}

// A room that nobody uses goes after two minutes, one in use ten minutes after the last stream.
func TestRelayRoomEnds(t *testing.T) {
	now := time.Now()
	r := &relayRoom{lonely: now, unused: now}
	for _, c := range []struct {
		children int32
		streams  int
		after    time.Duration
		ends     bool
	}{
		{0, 0, time.Minute, false},
		{0, 0, 2 * time.Minute, true},
		{0, 1, time.Hour, false},
		{5, 0, 9 * time.Minute, false},
		{5, 0, 10 * time.Minute, true},
		{5, 1, time.Hour, false},
	} {
		r.streams = c.streams
		r.children.Store(c.children)
		if got := r.ends(now.Add(c.after)); got != c.ends {
			t.Errorf("%+v: ends %v", c, got)
		}
	}
}

// Slots: a share of the upload, at most a number, no more than others leave.
func TestRelaySlots(t *testing.T) {
	c := &relays{total: 100_000, rooms: map[room.ID]*relayRoom{}}
	a, b := &relayRoom{}, &relayRoom{}
	c.rooms[room.ID{1}], c.rooms[room.ID{2}] = a, b
	if n := c.slotsFor(a); n != 25_000/relayChildKbps {
		t.Errorf("%d slots", n)
	}
	b.children.Store(800)
	if n := c.slotsFor(a); n != 100_000/relayChildKbps-800 {
		t.Errorf("%d slots beside 800 children", n)
	}
	c.total = 10_000_000
	if n := c.slotsFor(a); n != maxRelayChildren {
		t.Errorf("%d slots with all the upload of the world", n)
	}
}

// FuzzRelayRequest lets an authority of some room ask whatever it likes: the founder, whose line always holds. What comes
// out is a reply with a reason or an ad, and never more kept than the limits say.
func FuzzRelayRequest(f *testing.F) {
	r, me, speaker := newCarried(f, room.Unlisted), newKey(f), newKey(f)
	ad := election.Ad{Room: r.id, Slots: 5, Issued: time.Now(), Flags: election.Community}.Sign(me)
	line := r.appoint(speaker)
	for _, req := range []*wire.RelayRequest{
		{Genesis: r.genesis},
		{Genesis: r.genesis, Grants: line, Vouch: line[0], Ops: line},
		{Lease: r.lease(r.host, 1, 1, ad).Signed, Digest: r.digest(r.host, []*identity.Key{speaker}, removing(me.ID())), Sources: []*wire.Signed{r.source(speaker), {}}},
		{Digest: &wire.Signed{}, Lease: &wire.Signed{}, Sources: []*wire.Signed{nil, {}}, Records: [][]byte{{1}}, Ops: []*wire.Signed{{}, nil}},
		{Drop: true},
	} {
		b, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(0))
		f.Add(b, uint8(1))
	}
	f.Fuzz(func(t *testing.T, raw []byte, who uint8) {
		var req wire.RelayRequest
		if proto.Unmarshal(raw, &req) != nil {
			return
		}
		p, now := r.host.ID(), time.Now()
		if who%2 == 1 {
			p = speaker.ID()
		}
		if b, reason := checkRelayRequest(p, me.ID(), &req); (b == nil) == (reason == 0) {
			t.Fatalf("book %v, reason %v", b, reason)
		}
		c := &relays{key: me, log: slog.New(slog.DiscardHandler), total: 1000, ctx: context.Background(), rooms: map[room.ID]*relayRoom{}}
		room := &relayRoom{c: c, id: r.id, book: r.book(me.ID()), overlay: overlay.New(overlay.Config{Me: me.ID(), Room: r.id})}
		for range 2 {
			if reason := room.take(p, &req, now); reason == 0 && !room.book.askers[p] {
				t.Fatal("taken from nobody")
			}
			_ = room.book.vouched(req.Vouch, req.Grants, p)
			b := room.book
			if len(b.sources) > maxRelaySources || len(b.ops) > maxRelayOps || len(b.commits) > keptRelayCommits || len(b.named) > maxRelayNamed || len(b.askers) > 1 {
				t.Fatal("more is kept than the limits say")
			}
			for _, d := range b.takeNews() {
				if proto.Size(d) > 16<<10 {
					t.Fatalf("a record of %d bytes", proto.Size(d))
				}
			}
			m := b.media(room.overlay.Plan())
			if len(m.Epochs) > 0 || m.Seal >= 0 {
				t.Fatal("a key")
			}
			_ = b.situation(3, nil, nil)
		}
	})
}
