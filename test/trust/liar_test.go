package trust

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room/invite"
	"balai/room/media"
	"balai/room/sframe"
	"balai/room/wire"
	"balai/test/hostile"
)

// liar is a hostile peer that was let in: it holds links with daemons, keeps every datagram they send, and can seal and
// sign as its own member does, or badly.
type liar struct {
	*hostile.Peer
	t     *testing.T
	m     *hostile.Member
	at    time.Time // of its admission
	owner sframe.Owner
	src   uint32

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	epoch  sframe.Epoch
	sealer *sframe.Sealer
	signer *sframe.BlockSigner
	links  map[peer.ID]*link
	seq    uint16
	start  time.Time
	talks  int // honest ones

	deaf bool                                   // hears no gossip: who does, and passes nothing on, would be a hole in it
	told func(from peer.ID, r *wire.LinkRecord) // each record of a link's stream; nil: none is looked at
	says func(*wire.Presence)                   // the last word on its presence; nil: none
	asks func(*wire.Claim)                      // the last word on its claim; nil: none
}

// link is one media link as the liar holds it.
type link struct {
	s      *hostile.Stream
	handle uint32
	over   chan time.Time // when the other side ended it

	mu sync.Mutex // one writer
}

func (k *link) write(r *wire.LinkRecord) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.s.Write(r)
}

// newLiar joins by a link, taps, and opens a media link with each daemon.
func newLiar(t *testing.T, by string, at ...*daemon) *liar {
	t.Helper()
	return newLiarWith(t, nil, by, at...)
}

// newLiarWith is newLiar with a change to the liar before it does anything.
func newLiarWith(t *testing.T, with func(*liar), by string, at ...*daemon) *liar {
	t.Helper()
	return newLiarAs(t, nil, with, by, at...)
}

// newLiarAs is one with that key; nil: a new one.
func newLiarAs(t *testing.T, key *identity.Key, with func(*liar), by string, at ...*daemon) *liar {
	t.Helper()
	p, err := hostile.New(key)
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{Peer: p, t: t, links: map[peer.ID]*link{}, start: time.Now()}
	if with != nil {
		with(l)
	} else {
		p.Tap()
	}
	l.ctx, l.stop = context.WithCancel(background(t))
	t.Cleanup(func() {
		l.stop()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		l.wg.Wait()
	})
	v, err := invite.ParseLink(by)
	if err != nil {
		t.Fatal(err)
	}
	l.at = time.Now()
	e := hostile.Honest(p, v)
	e.Change = l.asks
	if l.m, err = p.Join(l.ctx, l.connect(at[0]), e); err != nil {
		t.Fatal(err)
	}
	l.owner = sframe.Owner{Room: l.m.Room, Peer: string(p.ID())}
	_, _ = rand.Read(l.owner.Salt[:]) // never fails
	l.src, l.epoch = l.owner.Source(), l.m.Epoch
	l.sealer, l.signer = sframe.NewSealer(l.owner, 0), sframe.NewBlockSigner(l.owner, p.Key.Sign)
	l.sealer.Rekey(l.epoch)
	for _, d := range at {
		l.connect(d)
		l.call(d)
	}
	if !l.deaf {
		if err := l.m.Greet(l.ctx, idOf(at[0])); err != nil {
			t.Fatal(err)
		}
	}
	l.wg.Go(func() { l.live(at[0]) })
	return l
}

// live tells the others every two seconds that the liar is there, as long as its key is good.
func (l *liar) live(at *daemon) {
	to := idOf(at)
	for seq := uint64(1); ; seq++ {
		_ = l.keepUp(at) // a daemon that has ended tells no step
		l.ping()
		p := &wire.Presence{
			Room: l.m.Room[:], Peer: []byte(l.ID()), Seq: seq, TimeMs: time.Now().UnixMilli(), Name: "Mallory", Source: l.source(),
			Instance: []byte("hostile!"),
		}
		if l.says != nil {
			l.says(p)
		}
		_ = l.say(to, &wire.StageMessage{Message: &wire.StageMessage_Presence{Presence: wire.Sign(l.Key, wire.DomainPresence, p)}}) // who was thrown out is not heard
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(2 * time.Second):
		}
	}
}

// ping shows on each link that the liar lives: a link on which nothing comes is closed.
func (l *liar) ping() {
	body, err := proto.Marshal(&wire.LinkRecord{Record: &wire.LinkRecord_Ping{Ping: &wire.LinkPing{Id: 1}}})
	if err != nil {
		panic("impossible: " + err.Error())
	}
	var h [media.HeaderLen]byte
	(&media.Header{Kind: media.Record}).Put(&h)
	l.mu.Lock()
	to := maps.Clone(l.links)
	l.mu.Unlock()
	for p, k := range to {
		l.mu.Lock()
		l.seq++
		seq := l.seq
		l.mu.Unlock()
		var b media.Builder
		b.Begin(media.Bundle{Handle: k.handle, Seq: seq, SendMs: uint16(time.Now().UnixMilli())}, media.MaxBundle)
		b.Add(media.AppendEntry(nil, &h, body))
		_ = l.Datagram(p, b.Bytes()) // who has thrown the liar out hears nothing
	}
}

// say publishes on the stage topic, sealed by the key of now.
func (l *liar) say(to peer.ID, r *wire.StageMessage) error {
	m := *l.m
	l.mu.Lock()
	m.Epoch = l.epoch
	l.mu.Unlock()
	return m.Gossip(l.ctx, to, hostile.StageTopic, r)
}

// connect connects with a daemon, however often it takes: a handshake on a busy machine may be too slow.
func (l *liar) connect(d *daemon) peer.ID {
	l.t.Helper()
	eventually(l.t, "a connection with "+d.name, func() bool { return l.tryConnect(d) == nil })
	return idOf(d)
}

func (l *liar) tryConnect(d *daemon) error {
	i := slices.IndexFunc(d.addrs, func(a string) bool { return strings.Contains(a, "/quic-v1/") })
	_, err := l.Connect(l.ctx, d.addrs[i])
	return err
}

func idOf(d *daemon) peer.ID {
	p, err := peer.Decode(d.id)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return p
}

// call opens the media link with a daemon, however often it takes: the daemon hears of the admission first.
func (l *liar) call(d *daemon) {
	l.t.Helper()
	eventually(l.t, d.name+" takes the liar's link", func() bool { return l.tryCall(d) == nil })
}

func (l *liar) tryCall(d *daemon) error {
	s, err := l.OpenLink(l.ctx, idOf(d), l.m.Room, l.source())
	if err != nil {
		return err
	}
	var r wire.LinkRecord
	_ = s.SetDeadline(time.Now().Add(patience))
	if err := s.Read(&r); err != nil {
		return err
	}
	if r.GetOpen() == nil {
		return errRefused
	}
	_ = s.SetDeadline(time.Time{})
	k := &link{s: s, handle: r.GetOpen().Handle, over: make(chan time.Time, 1)}
	l.mu.Lock()
	l.links[idOf(d)] = k
	l.mu.Unlock()
	l.wg.Go(func() {
		l.listen(s)
		k.over <- time.Now()
	})
	return nil
}

// listen reads a link's records until its end; a goodbye is followed by that.
func (l *liar) listen(s *hostile.Stream) {
	for {
		var r wire.LinkRecord
		if s.Read(&r) != nil {
			return
		}
		if l.told != nil {
			l.told(s.Remote(), &r)
		}
	}
}

func (l *liar) linkWith(d *daemon) *link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.links[idOf(d)]
}

// source is what it says of its own source.
func (l *liar) source() *wire.Signed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return wire.Sign(l.Key, wire.DomainSource, &wire.Source{
		Room: l.m.Room[:], Peer: []byte(l.ID()), Salt: l.owner.Salt[:], EpochId: l.epoch.ID[:], TimeMs: time.Now().UnixMilli(),
	})
}

// follow takes the step of the key that the room is at.
func (l *liar) follow(d *daemon) {
	l.t.Helper()
	if err := l.keepUp(d); err != nil {
		l.t.Fatal(err)
	}
}

func (l *liar) keepUp(d *daemon) error {
	v, err := d.Room(l.ctx, l.m.Room.String())
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if v.Epoch.N != l.epoch.N || v.Epoch.Step <= l.epoch.Step {
		return nil
	}
	e, err := l.epoch.Advance(v.Epoch.Step)
	if err != nil {
		return err
	}
	l.epoch = e
	l.sealer.Rekey(e)
	return nil
}

// ctr is the counter of now.
func (l *liar) ctr() uint32 { return uint32(time.Since(l.start) / media.Tick) }

// frame seals a word honestly and remembers it for the next block.
func (l *liar) frame(n int) []byte {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	h := media.Header{
		Kind: media.Frame, Ticks: 1, Source: l.src, Epoch: uint8(l.epoch.N & 15), Step: uint8(l.epoch.Step & 15), Voice: true, Level: 10,
		Ctr: max(l.ctr(), l.sealer.Next()),
	}
	var head [media.HeaderLen]byte
	h.Put(&head)
	body, err := l.sealer.Seal(nil, head[:], payload("liar", n))
	if err != nil {
		l.t.Fatal(err)
	}
	return media.AppendEntry(nil, &head, body)
}

// sign makes the block over frames; false when they are too few or too many for one.
func (l *liar) sign(frames ...[]byte) []byte {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range frames {
		if err := l.signer.Add(l.epoch.ID, f, time.Now()); err != nil {
			l.t.Fatal(err)
		}
	}
	h, body, err := l.signer.Block(nil, time.Now())
	if err != nil {
		l.t.Fatal(err)
	}
	return media.AppendEntry(nil, &h, body)
}

// send puts entries into one bundle to a daemon.
func (l *liar) send(d *daemon, entries ...[]byte) {
	l.t.Helper()
	k := l.linkWith(d)
	l.mu.Lock()
	l.seq++
	seq := l.seq
	l.mu.Unlock()
	var b media.Builder
	b.Begin(media.Bundle{Handle: k.handle, Seq: seq, SendMs: uint16(time.Now().UnixMilli())}, media.MaxBundle)
	for _, e := range entries {
		if !b.Add(e) {
			l.t.Fatal("too much for one bundle")
		}
	}
	if err := l.Datagram(idOf(d), b.Bytes()); err != nil {
		l.t.Fatal(err)
	}
}

// speak sends words n0 to n1 at their pace to daemons, with their blocks if signed; spoil may change each entry.
func (l *liar) speak(n0, n1 int, signed bool, spoil func([]byte) []byte, to ...*daemon) (sent [][]byte) {
	l.t.Helper()
	var due [][]byte
	for n := n0; n < n1; n++ {
		began := time.Now()
		if n%50 == n0%50 {
			l.follow(to[0])
		}
		e := l.frame(n)
		due = append(due, e)
		out := [][]byte{e}
		if spoil != nil {
			out[0] = spoil(append([]byte(nil), e...))
		}
		if len(due) == sframe.BlockFrames {
			if signed {
				out = append(out, l.sign(due...))
			}
			due = nil
		}
		for _, d := range to {
			l.send(d, out...)
		}
		sent = append(sent, out...)
		time.Sleep(media.Tick - min(media.Tick, time.Since(began)))
	}
	return sent
}

// entry is one entry of a tapped datagram.
type entry struct {
	media.Entry
	from peer.ID
	at   time.Time
}

// tapped are the entries of a kind that a daemon has sent since a moment.
func (l *liar) tapped(d *daemon, kind media.Kind, since time.Time) (out []entry) {
	l.t.Helper()
	for _, x := range l.Tapped() {
		if x.From != idOf(d) || !x.At.After(since) || len(x.Data) == 3 {
			continue // three bytes only ask whether the connection is alive
		}
		u, err := media.Parse(x.Data)
		if err != nil {
			l.t.Errorf("%s sent no bundle: %x", d.name, x.Data)
			continue
		}
		for e := (media.Entry{}); u.Next(&e); {
			if e.Kind == kind {
				out = append(out, entry{e, x.From, x.At})
			}
		}
	}
	return out
}

// sourceOf is the source record of a daemon that its link has told, or that a fetch tells.
func (l *liar) sourceOf(d *daemon) sframe.Owner {
	l.t.Helper()
	var o sframe.Owner
	eventually(l.t, "the source of "+d.name, func() bool {
		ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
		defer cancel()
		rep, err := l.Fetch(ctx, idOf(d), &wire.LedgerRequest{Room: l.m.Room[:]})
		if err != nil {
			return false
		}
		for _, s := range rep.Sources {
			var m wire.Source
			who, err := wire.Open(s, wire.DomainSource, &m)
			if err == nil && who == idOf(d) && len(m.Salt) == 8 {
				o = sframe.Owner{Room: l.m.Room, Peer: string(who), Salt: [8]byte(m.Salt)}
				return true
			}
		}
		return false
	})
	return o
}

func decode(id string) (peer.ID, error) { return peer.Decode(id) }

// ask wants frames of a source again.
func (l *liar) ask(d *daemon, source, ctr uint32) {
	l.t.Helper()
	n := &wire.Nack{Source: source}
	for i := range uint32(20) {
		n.Ctrs = append(n.Ctrs, ctr-i)
	}
	b, err := proto.Marshal(&wire.LinkRecord{Record: &wire.LinkRecord_Nack{Nack: n}})
	if err != nil {
		l.t.Fatal(err)
	}
	var head [media.HeaderLen]byte
	(&media.Header{Kind: media.Record}).Put(&head)
	for range 3 {
		l.send(d, media.AppendEntry(nil, &head, b))
	}
}

// key is the key of now.
func (l *liar) key() sframe.Epoch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}
