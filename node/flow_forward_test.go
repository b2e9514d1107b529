package node

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/sframe"
)

// mill is a relay of the core that is driven without its goroutine: speakers with a link each, and children.
type mill struct {
	tb      testing.TB
	flow    *flow
	now     time.Time
	hops    uint8 // of the bundles that come
	sealers []*sframe.Sealer
	heads   []media.Header
	links   []*linkState
	bundles [][]byte
	build   media.Builder
	plain   []byte
	body    []byte
	entry   []byte
	head    [media.HeaderLen]byte
	kids    []*sinkLink
}

// sinkLink is a link whose far end only counts.
type sinkLink struct {
	remote  peer.ID
	handle  uint32
	seq     uint16
	bundles int
	last    []byte
}

func (l *sinkLink) Remote() peer.ID { return l.remote }
func (l *sinkLink) Handle() uint32  { return l.handle }
func (l *sinkLink) Seq() uint16     { l.seq++; return l.seq - 1 }
func (l *sinkLink) Send(b []byte) bool {
	l.bundles++
	l.last = append(l.last[:0], b...)
	return true
}

func newMill(tb testing.TB, speakers, children int, keyless bool) *mill {
	m := &mill{tb: tb, now: time.Now(), plain: make([]byte, 80), bundles: make([][]byte, speakers)}
	w := &world{t: tb, epochs: []sframe.Epoch{sframe.NewEpoch(1)}}
	who := func() *person {
		k, err := identity.Generate()
		if err != nil {
			tb.Fatal(err)
		}
		return &person{w: w, key: k, allowed: true}
	}
	me := who()
	m.flow = newFlow(flowConfig{Sign: me.key.Sign, Log: slog.New(slog.DiscardHandler)})
	m.flow.Close()
	plan := &overlay.Plan{Core: true, Clock: true}
	next := session.Media{Me: me.source(), Epochs: w.epochs, Seal: -1, Plan: plan}
	if keyless {
		next.Epochs, next.Me = nil, session.Source{}
	}
	for range speakers {
		p := who()
		s := sframe.NewSealer(p.owner(), 0)
		s.Rekey(w.epochs[0])
		m.sealers = append(m.sealers, s)
		m.heads = append(m.heads, media.Header{Ticks: 1, Source: p.id(), Epoch: 1, Level: 30})
		next.Sources = append(next.Sources, p.source())
		plan.Feeds = append(plan.Feeds, overlay.Feed{Peer: p.key.ID(), Mode: overlay.Warm})
		m.flow.addLink(&sinkLink{remote: p.key.ID(), handle: 300})
	}
	for i := range children {
		l := &sinkLink{remote: who().key.ID(), handle: uint32(i + 1)}
		plan.Feeds = append(plan.Feeds, overlay.Feed{Peer: l.remote, Mode: overlay.Single})
		m.flow.addLink(l)
		m.kids = append(m.kids, l)
	}
	m.flow.next = next
	m.flow.apply(m.now)
	for i := range speakers {
		m.links = append(m.links, m.flow.latest[next.Sources[i].Peer])
	}
	return m
}

// turn lets each speaker be heard with one frame more.
func (m *mill) turn() {
	m.now = m.now.Add(media.Tick)
	for i, s := range m.sealers {
		h := &m.heads[i]
		h.Ctr++

		h.Put(&m.head)
		var err error
		if m.body, err = s.Seal(m.body[:0], m.head[:], m.plain); err != nil {
			m.tb.Fatal(err)
		}
		m.entry = media.AppendEntry(m.entry[:0], &m.head, m.body)
		m.build.Begin(media.Bundle{Handle: 300, Seq: uint16(h.Ctr), SendMs: m.flow.millis(m.now), Hops: m.hops}, media.MaxBundle)
		m.build.Add(m.entry)
		m.bundles[i] = append(m.bundles[i][:0], m.build.Bytes()...)
		m.flow.down(m.links[i], m.bundles[i], m.now)
	}
}

// BenchmarkForward is one tick of a relay: three speakers' frames are opened (or not), and go to a hundred children in
// one bundle each. What a socket costs is not in it.
func BenchmarkForward(b *testing.B) {
	for _, keyless := range []bool{false, true} {
		b.Run(map[bool]string{false: "key", true: "keyless"}[keyless], func(b *testing.B) {
			m := newMill(b, 3, 100, keyless)
			for range 50 {
				m.turn()
			}
			before := m.kids[7].bundles
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				m.turn()
				n++
			}
			if got := m.kids[7].bundles - before; got < n || got > n+2 {
				b.Fatalf("%d bundles in %d ticks", got, n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(300*n), "ns/delivered")
		})
	}
}

func TestForwardDoesNotAllocate(t *testing.T) {
	for _, keyless := range []bool{false, true} {
		m := newMill(t, 3, 100, keyless)
		for range 50 {
			m.turn()
		}
		if n := testing.AllocsPerRun(200, m.turn); n != 0 {
			t.Errorf("keyless %v: %v allocations a tick", keyless, n)
		}
	}
}

// FuzzForward feeds a relay with what a parent or a speaker might make of honest bundles: whatever goes on is whole,
// and of frames only the honest ones do.
func FuzzForward(f *testing.F) {
	m := newMill(f, 3, 2, false)
	parent := &sinkLink{remote: "parent", handle: 9}
	m.flow.plan.Plan.Parents = append(m.flow.plan.Plan.Parents, "parent")
	m.flow.addLink(parent)
	m.turn()
	f.Add([]byte{}, uint16(0), byte(0), false)
	f.Add(bundleOf(1, badEntry(m.heads[0].Source, []uint32{1, 2, 3}), badEntry(0, nil)), uint16(0), byte(1), false)
	f.Add([]byte{0x0A, 0, 1, 0, 0, 0, 0, 0}, uint16(12), byte(1), true)
	f.Fuzz(func(t *testing.T, raw []byte, at uint16, bit byte, direct bool) {
		from := m.flow.latest["parent"]
		if direct {
			from = m.links[0]
		}
		m.flow.down(from, raw, m.now)
		honest := bytes.Clone(m.bundles[0])
		bad := bytes.Clone(honest)
		bad[int(at)%len(bad)] ^= bit
		m.flow.down(from, bad, m.now)
		m.turn()
		m.flow.forward(m.now)
		for _, k := range m.kids {
			u, err := media.Parse(k.last)
			if err != nil {
				t.Fatal(err)
			}
			for e := (media.Entry{}); u.Next(&e); {
				ok := bytes.Contains(honest, e.Raw)
				for _, b := range m.bundles {
					ok = ok || bytes.Contains(b, e.Raw)
				}
				if e.Kind == media.Frame && !ok {
					t.Fatalf("forwarded %x", e.Raw)
				}
			}
		}
	})
}
