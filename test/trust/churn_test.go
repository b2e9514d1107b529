package trust

import (
	bin "encoding/binary"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/media"
	"balai/room/wire"
	"balai/test/hostile"
)

// reading is how to read the figures of one who carries the room.
func (p *play) readings() []func() figures { return []func() figures{p.citra.figures, p.node.figures} }

// churn: a thousand come to each relay by passes, are admitted, and leave again; some without a word.
func (p *play) churn(t *testing.T) {
	since := p.watch()
	id, err := room.ParseID(p.id)
	if err != nil {
		t.Fatal(err)
	}
	const strangers = 8
	host := keyOf(t, p.ana)
	var people []*hostile.Peer
	for range strangers {
		people = append(people, newPeer(t))
	}
	for i, at := range p.relays() {
		var admitted atomic.Int32
		visits := func(n int) {
			until := admitted.Load() + int32(n)
			var wg sync.WaitGroup
			for k, x := range people {
				wg.Go(func() {
					join := &wire.Join{Room: id[:], Mode: uint32(1 + 4*(k%2)), Pass: p.passOf(host, x.ID(), nil)}
					for v, end := 0, time.Now().Add(5*patience); admitted.Load() < until && time.Now().Before(end); v++ {
						c, err := dial(t.Context(), x, at, id)
						if err != nil {
							continue // its last link is not forgotten yet
						}
						if a, err := c.join(join); err == nil && a.GetAdmit() != nil {
							admitted.Add(1)
						}
						if v%4 == 3 {
							_ = c.s.Reset() // without a word
						} else {
							c.leave()
						}
					}
				})
			}
			wg.Wait()
		}
		read := p.readings()[i]
		began := time.Now()
		visits(100)
		early := calm(t, read)
		visits(900)
		late := calm(t, read)
		t.Logf("%s: %d visits were admitted, in %v", at.name, admitted.Load(), time.Since(began).Round(100*time.Millisecond))
		if admitted.Load() < 1000 {
			t.Errorf("%s admitted only %d of 1,000", at.name, admitted.Load())
		}
		flat(t, at.name, early, late, read)
	}
	p.heardAllTheTime(since)
}

// floods: a child of each relay sends all that a link takes, wrong and much too much. The relays stay as they were, and the
// others hear on.
func (p *play) floods(t *testing.T) {
	id, err := room.ParseID(p.id)
	if err != nil {
		t.Fatal(err)
	}
	host := keyOf(t, p.ana)
	for i, at := range p.relays() {
		read := p.readings()[i]
		before, since := calm(t, read), p.watch()
		x := newPeer(t)
		pass := p.passOf(host, x.ID(), nil)
		names := make([]string, 0, len(floods))
		var sent [16]int
		for k, f := range floods {
			names = append(names, f.name)
			sent[k] = p.flood(t, x, at, &wire.Join{Room: id[:], Mode: 1, Pass: pass}, f.record)
		}
		n := p.bundles(t, x, at, &wire.Join{Room: id[:], Mode: 1, Pass: pass})
		t.Logf("%s: records of %v sent: %v, and %d datagrams", at.name, names, sent[:len(names)], n)
		p.heardAllTheTime(since)
		flat(t, at.name, before, calm(t, read), read)
		if err := p.tries(t, newPeer(t), at, nil); err == nil {
			t.Errorf("%s takes anybody after the floods", at.name)
		}
		y := newPeer(t)
		p.takes(t, "after the floods", y, at, p.passOf(host, y.ID(), nil))
	}
}

// floodFor is how long each flood lasts.
const floodFor = 1200 * time.Millisecond

// flooded is how many records it has at least: a new link takes a while on a busy machine, and where the last one is not forgotten.
const flooded = 100

// floods are the records of the stream of a link.
var floods = []struct {
	name   string
	record func(good *wire.Join, n int) *wire.LinkRecord
}{
	{"JOIN", func(good *wire.Join, _ int) *wire.LinkRecord { return joinRecord(good) }},
	{"huge JOIN", func(good *wire.Join, n int) *wire.LinkRecord {
		j := proto.CloneOf(good)
		for range 1000 {
			j.Only, j.Coords = append(j.Only, []byte("12345678")), append(j.Coords, int32(n))
		}
		if n%2 == 1 {
			j.Mode = 6
		}
		return joinRecord(j)
	}},
	{"JOIN of another room", func(good *wire.Join, n int) *wire.LinkRecord {
		j := proto.CloneOf(good)
		j.Room = bin.BigEndian.AppendUint64(make([]byte, 24), uint64(n))
		return joinRecord(j)
	}},
	{"Feed", func(_ *wire.Join, n int) *wire.LinkRecord {
		return &wire.LinkRecord{Record: &wire.LinkRecord_Feed{Feed: &wire.Feed{Mode: []uint32{1, 2, 5, 6, 0, 1 << 31}[n%6], Redundancy: uint32(n)}}}
	}},
	{"LEAVE", func(_ *wire.Join, n int) *wire.LinkRecord {
		return &wire.LinkRecord{Record: &wire.LinkRecord_Leave{Leave: &wire.LinkLeave{As: uint32(n % 5), AfterMs: 1 << 31}}}
	}},
	{"ADMIT, BUSY and REDIRECT", func(_ *wire.Join, n int) *wire.LinkRecord {
		switch n % 3 {
		case 0:
			return &wire.LinkRecord{Record: &wire.LinkRecord_Admit{Admit: &wire.JoinAnswer{Mode: 1, Path: [][]byte{make([]byte, 8)}, RingMs: 1 << 31}}}
		case 1:
			return &wire.LinkRecord{Record: &wire.LinkRecord_Busy{Busy: &wire.Busy{RetryMs: 1 << 31}}}
		}
		return &wire.LinkRecord{Record: &wire.LinkRecord_Redirect{Redirect: &wire.Redirect{}}}
	}},
	{"lease and digest", func(_ *wire.Join, n int) *wire.LinkRecord {
		s := &wire.Signed{Body: make([]byte, 1000), Sig: make([]byte, 64), Key: make([]byte, 32)}
		if n%2 == 0 {
			return &wire.LinkRecord{Record: &wire.LinkRecord_Lease{Lease: s}}
		}
		return &wire.LinkRecord{Record: &wire.LinkRecord_Digest{Digest: &wire.DigestRecord{Digest: s, Sources: []*wire.Signed{s, s, s}, Ops: []*wire.Signed{s, s}}}}
	}},
}

func joinRecord(j *wire.Join) *wire.LinkRecord {
	return &wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: j}}
}

// flood sends one kind of record as fast as the relay takes it, 10,000 a second at most, on a new link whenever the relay
// ends one.
func (p *play) flood(t *testing.T, x *hostile.Peer, at place, good *wire.Join, record func(*wire.Join, int) *wire.LinkRecord) (sent int) {
	t.Helper()
	var c *caller
	end := time.Now().Add(floodFor)
	for last := time.Now().Add(patience); time.Now().Before(end) || sent < flooded; {
		if time.Now().After(last) {
			t.Errorf("only %d records were taken", sent)
			break
		}
		if c == nil {
			var err error
			if c, err = dial(t.Context(), x, at, [32]byte(good.Room)); err != nil {
				c = nil
				pause(t, 20*time.Millisecond)
				continue
			}
			if _, err := c.join(good); err != nil {
				c = nil
				continue
			}
			go func(c *caller) { _ = c.s.Drain() }(c)         // ends with the link
			_ = c.s.SetDeadline(time.Now().Add(2 * floodFor)) // a dead stream fails below
		}
		batch := time.Now()
		for range 100 {
			if c.s.Write(record(good, sent)) != nil {
				c = nil
				break
			}
			sent++
		}
		time.Sleep(10*time.Millisecond - time.Since(batch))
	}
	if c != nil {
		_ = c.s.Reset() // without a word
	}
	return sent
}

// bundles sends datagrams of all sorts as an admitted child, and returns how many.
func (p *play) bundles(t *testing.T, x *hostile.Peer, at place, good *wire.Join) (n int) {
	t.Helper()
	c := p.admit(t, x, at, good)
	go func() { _ = c.s.Drain() }() // ends with the link
	_ = c.s.SetDeadline(time.Time{})
	source := sourceIn(t, p)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		batch := time.Now()
		for range 100 {
			if x.Datagram(at.id, nonsense(c.handle, source, n)) == nil {
				n++
			}
		}
		time.Sleep(10*time.Millisecond - time.Since(batch))
	}
	c.leave()
	return n
}

// sourceIn is the speaker's media source as the listener's statistics would name it; any other number does as well.
func sourceIn(t *testing.T, p *play) uint32 {
	t.Helper()
	return p.crowd[0].sourceOf(p.ana).Source()
}

// nonsense is one of many bundles that no honest child would send.
func nonsense(handle, source uint32, n int) []byte {
	u := media.Bundle{Handle: handle, Seq: uint16(n), SendMs: uint16(n), Hops: uint8(n % 16)}
	var b media.Builder
	b.Begin(u, media.MaxBundle)
	rec := func(r *wire.LinkRecord) {
		body, err := proto.Marshal(r)
		if err != nil {
			panic("impossible: " + err.Error())
		}
		var h [media.HeaderLen]byte
		(&media.Header{Kind: media.Record}).Put(&h)
		b.Add(media.AppendEntry(nil, &h, body))
	}
	switch n % 8 {
	case 0: // many frames again
		k := &wire.Nack{Source: source}
		for i := range uint32(100) {
			k.Ctrs, k.Unsigned = append(k.Ctrs, uint32(n)+i), append(k.Unsigned, i)
		}
		rec(&wire.LinkRecord{Record: &wire.LinkRecord_Nack{Nack: k}})
	case 1: // the far future, and a path without end
		h := &wire.LinkHeartbeat{Tick: 1<<63 + uint64(n), Loss: 1 << 31, Level: uint32(n)}
		for i := range 60 {
			h.Path, h.Newest = append(h.Path, bin.BigEndian.AppendUint64(nil, uint64(i*n))), append(h.Newest, rand.Uint64())
		}
		rec(&wire.LinkRecord{Record: &wire.LinkRecord_Heartbeat{Heartbeat: h}})
	case 2:
		s := &wire.Scores{}
		for range 200 {
			s.Levels = append(s.Levels, rand.Uint32())
		}
		rec(&wire.LinkRecord{Record: &wire.LinkRecord_Scores{Scores: s}})
	case 3:
		k := &wire.Bad{Source: source}
		for i := range uint32(100) {
			k.Ctrs = append(k.Ctrs, i)
		}
		rec(&wire.LinkRecord{Record: &wire.LinkRecord_Bad{Bad: k}})
	case 4:
		for range 15 {
			rec(&wire.LinkRecord{Record: &wire.LinkRecord_Ping{Ping: &wire.LinkPing{Id: rand.Uint64()}}})
		}
	case 5: // frames of the speaker, and of nobody, that it has never sent
		for i := range uint32(5) {
			var h [media.HeaderLen]byte
			(&media.Header{Kind: media.Frame, Ticks: 1, Source: source + i%2, Voice: true, Level: 1, Ctr: rand.Uint32() & media.MaxCounter}).Put(&h)
			b.Add(media.AppendEntry(nil, &h, make([]byte, 60)))
		}
	case 6: // blocks
		var h [media.HeaderLen]byte
		(&media.Header{Kind: media.Block, Source: source, Ctr: rand.Uint32() & media.MaxCounter}).Put(&h)
		b.Add(media.AppendEntry(nil, &h, make([]byte, 200)))
	default: // no bundle at all
		return append([]byte{0x0A, byte(n)}, make([]byte, n%1200)...)
	}
	return b.Bytes()
}

// TestEntries: people come in by the door, and leave again: 200, or 1,000 in a soak. The host's daemon stays as it was, but
// for the ledger, which holds each of them.
func TestEntries(t *testing.T) {
	t.Parallel()
	d := start(t, "Ana")
	id := d.open("unlisted")
	link := d.link(id, "listener")
	const people = 12 // at once: no more than a room without a relay holds
	entries := 200
	if os.Getenv("BALAI_SOAK") != "" {
		entries = 1000
	}
	rounds := (entries + people - 1) / people
	e := mustEntry(t, link)
	var early figures
	failed := 0
	for round := range rounds {
		var wg sync.WaitGroup
		errs := make([]error, people)
		peers := make([]*hostile.Peer, people)
		for i := range people {
			var err error
			if peers[i], err = hostile.New(nil); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { errs[i] = comeAndGo(t, d, peers[i], e(peers[i])) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				failed++
				t.Logf("round %d: %v", round, err)
			}
		}
		for _, x := range peers {
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
		if round == 1 {
			early = calmFor(t, lonely, d.figures)
		}
	}
	late := calmFor(t, lonely, d.figures)
	flat(t, "the host", early, late, d.figures)
	if failed > entries/10 {
		t.Errorf("%d of %d were not let in", failed, entries)
	}
	eventuallyWithin(t, 3*patience, "all have left", func() bool { // who was cut off in the middle is missed after a while
		v, err := d.Room(t.Context(), id)
		return err == nil && v.Audience == 0
	})
}

// lonely is longer than one search of a host that is alone in the room for those whom it remembers.
const lonely = 10 * time.Second

// mustEntry reads a link.
func mustEntry(t *testing.T, link string) func(*hostile.Peer) hostile.Entry {
	t.Helper()
	f, err := hostile.FromLink(link)
	if err != nil {
		t.Fatal(err)
	}
	return func(p *hostile.Peer) hostile.Entry { return f.Entry(p.ID()) }
}

// comeAndGo enters and says goodbye.
func comeAndGo(t *testing.T, d *daemon, p *hostile.Peer, e hostile.Entry) error {
	at := d.place()
	if _, err := p.Connect(t.Context(), at.addr); err != nil {
		return err
	}
	m, err := p.Join(t.Context(), at.id, e)
	if err != nil {
		return err
	}
	bye := wire.Sign(p.Key, wire.DomainLeave, &wire.Leave{Room: m.Room[:], Peer: []byte(p.ID()), TimeMs: time.Now().UnixMilli(), Instance: []byte("hostile!")})
	_, err = p.Fetch(t.Context(), at.id, &wire.LedgerRequest{Room: m.Room[:], Leave: bye})
	return err
}
