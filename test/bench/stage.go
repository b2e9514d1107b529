package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/node/p2p"
	"balai/room"
	"balai/room/election"
	"balai/room/ledger"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/sframe"
	"balai/room/wire"
)

const (
	digestPeriod = 2 * time.Second
	stageTTL     = 10 // s
	repeatAfter  = 3  // ticks until a block is sent a second time
)

// stage is a room as far as a relay sees it: a host who tells a community node about it, and the speakers.
type stage struct {
	key      *identity.Key
	host     *p2p.Host
	id       room.ID
	genesis  *wire.Signed
	epoch    sframe.Epoch
	seq      uint64
	ad       *election.Ad // of the relay
	relay    *p2p.Stream
	speakers [speakers]*speaker
	stop     chan struct{}
	wg       sync.WaitGroup
}

// speaker has a source and a link to the relay.
type speaker struct {
	key    *identity.Key
	host   *p2p.Host
	owner  sframe.Owner
	source *wire.Signed
	signer *sframe.BlockSigner
	epoch  sframe.Epoch
	link   *p2p.Link
	direct []*p2p.Link // to children, past the relay
	body   []byte      // of each frame; the last bytes tell when it was sent
	entry  []byte
	block  []byte // sent once
	again  int    // ticks until it is sent again
	stop   chan struct{}
	wg     sync.WaitGroup
}

func newStage(ctx context.Context) (_ *stage, err error) {
	s := &stage{epoch: sframe.NewEpoch(1), stop: make(chan struct{})}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.key, s.host, err = keyAndHost(ctx); err != nil {
		return nil, err
	}
	policy := room.Policy{Visibility: room.Unlisted, Name: "Bench"}
	if s.genesis, err = ledger.NewGenesis(s.key, room.NewSecret(), policy, nil, time.Now()); err != nil {
		return nil, err
	}
	g, err := ledger.ParseGenesis(s.genesis)
	if err != nil {
		return nil, err
	}
	s.id = g.Room()
	for i := range s.speakers {
		if s.speakers[i], err = s.newSpeaker(ctx, byte(i)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *stage) newSpeaker(ctx context.Context, salt byte) (_ *speaker, err error) {
	p := &speaker{epoch: s.epoch, stop: make(chan struct{}), body: make([]byte, frameLength+sealTag)}
	if p.key, p.host, err = keyAndHost(ctx); err != nil {
		return nil, err
	}
	p.owner = sframe.Owner{Room: s.id, Peer: string(p.key.ID()), Salt: [8]byte{salt}}
	p.signer = sframe.NewBlockSigner(p.owner, p.key.Sign)
	p.source = wire.Sign(p.key, wire.DomainSource, &wire.Source{
		Room: s.id[:], Peer: []byte(p.key.ID()), Salt: p.owner.Salt[:], EpochId: s.epoch.ID[:], TimeMs: time.Now().UnixMilli(),
	})
	return p, nil
}

func (s *stage) close() {
	close(s.stop)
	for _, p := range s.speakers {
		if p != nil {
			close(p.stop)
			_ = p.host.Close()
			p.wg.Wait()
		}
	}
	if s.host != nil {
		_ = s.host.Close()
	}
	s.wg.Wait()
}

// engage asks the community node to carry the room, names it the core, and keeps it told until close.
func (s *stage) engage(ctx context.Context, relay peer.AddrInfo) (err error) {
	s.host.AllowPrivate(relay.ID)
	if err := s.host.Connect(ctx, relay, true); err != nil {
		return err
	}
	if s.relay, err = s.host.Open(ctx, relay.ID, session.RelayProtocol); err != nil {
		return err
	}
	if err := s.inform(); err != nil { // it answers with its ad
		return err
	}
	if err := s.inform(); err != nil { // which the lease names
		return err
	}
	s.wg.Go(func() {
		clock := time.NewTicker(digestPeriod)
		defer clock.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-clock.C:
			}
			if s.inform() != nil {
				return
			}
		}
	})
	return nil
}

// inform tells the relay all that it needs.
func (s *stage) inform() error {
	r := &wire.RelayRequest{Genesis: s.genesis, Digest: s.digest()}
	for _, p := range s.speakers {
		r.Sources = append(r.Sources, p.source)
	}
	if s.ad != nil {
		l := election.Lease{Room: s.id, Term: 1, Version: s.seq, Ads: []*election.Ad{s.ad}, Issued: time.Now(), TTL: election.LeaseTTL}
		l.Grant = ledger.IDOf(s.genesis)
		r.Lease, r.Records = l.Sign(s.key).Signed, [][]byte{s.ad.Record}
	}
	if err := s.relay.Write(r); err != nil {
		return err
	}
	var a wire.RelayReply
	if err := s.relay.Read(&a); err != nil {
		return fmt.Errorf("the relay answers: %w", err)
	}
	if a.Refused != 0 || a.Ad == nil {
		return fmt.Errorf("the relay refuses: %w", room.Reason(a.Refused))
	}
	ad, err := election.ParseAd(a.Ad, s.id)
	s.ad = ad
	return err
}

func (s *stage) digest() *wire.Signed {
	s.seq++
	host := identity.ShortID(s.key.ID())
	d := &wire.Digest{
		Room: s.id[:], Term: 1, Seq: s.seq, IssuedMs: time.Now().UnixMilli(), TtlS: stageTTL, Heads: make([]byte, 32),
		Authorities: [][]byte{host[:]}, People: speakers + children + 1, EpochN: s.epoch.N, EpochId: s.epoch.ID[:], Beat: s.seq,
	}
	for _, p := range s.speakers {
		id := identity.ShortID(p.key.ID())
		d.Stage = append(d.Stage, &wire.DigestStage{Peer: id[:], Source: p.owner.Source()})
	}
	return wire.Sign(s.key, wire.DomainDigest, d)
}

// pass lets a listener in.
func (s *stage) pass(p []byte) ([]byte, error) {
	now := time.Now()
	return proto.Marshal(wire.Sign(s.key, wire.DomainPass, &wire.Pass{
		Room: s.id[:], Peer: p, Role: uint32(room.Listener), EpochId: s.epoch.ID[:], NbfS: now.Unix(), ExpS: now.Add(time.Hour).Unix(),
	}))
}

// uplink lets all speakers bring their frames to the relay.
func (s *stage) uplink(ctx context.Context, relay peer.AddrInfo) error {
	for _, p := range s.speakers {
		if err := p.uplink(ctx, relay, s.id); err != nil {
			return err
		}
	}
	return nil
}

func (p *speaker) uplink(ctx context.Context, relay peer.AddrInfo, id room.ID) (err error) {
	p.host.AllowPrivate(relay.ID)
	if err := p.host.Connect(ctx, relay, true); err != nil {
		return err
	}
	admitted, refused := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	p.link, err = p.host.OpenLink(ctx, relay.ID, id, p2p.LinkConfig{
		Sources: []*wire.Signed{p.source},
		Receive: func(l *p2p.Link, b []byte) { answerPings(l, b) },
		Record: func(_ *p2p.Link, r *wire.LinkRecord) {
			if r.GetAdmit() != nil {
				once.Do(func() { close(admitted) })
			}
			refusal(r, refused)
		},
	})
	if err != nil {
		return err
	}
	p.link.Tell(joinRecord(id, overlay.Mirror, nil))
	p.wg.Go(func() { keepAlive(p.link, p.stop) })
	select {
	case <-admitted:
		return nil
	case err := <-refused:
		return err
	case <-time.After(patience):
		return errors.New("a speaker is not admitted")
	}
}

// frame makes the frame of a tick.
func (p *speaker) frame(ctr uint32) []byte {
	for i := range p.body[:len(p.body)-stampLength] {
		p.body[i] = byte(rand.Uint32())
	}
	stamp(p.body)
	h := media.Header{
		Kind: media.Frame, Ticks: 1, Source: p.owner.Source(), Ctr: ctr, Epoch: uint8(p.epoch.N & 15), Step: uint8(p.epoch.Step & 15),
		Voice: true, Level: speechLevel,
	}
	var head [media.HeaderLen]byte
	h.Put(&head)
	p.entry = media.AppendEntry(p.entry[:0], &head, p.body)
	return p.entry
}

// say sends the frame of a tick to the relay, and a signature block when it is due, as a daemon does.
func (p *speaker) say(ctr uint32) {
	now := time.Now()
	entries := [][]byte{p.frame(ctr)}
	if p.again--; p.again == 0 {
		entries = append(entries, p.block)
	}
	if p.signer.Add(p.epoch.ID, p.entry, now) != nil { // the block before is too long ago
		p.sign(now)
		entries = append(entries, p.block)
		if err := p.signer.Add(p.epoch.ID, p.entry, now); err != nil {
			panic("impossible: " + err.Error())
		}
	}
	if due, ok := p.signer.Due(); ok && !due.After(now) {
		p.sign(now)
		entries = append(entries, p.block)
	}
	sendEntries(p.link, entries...)
}

// downlink lets a speaker reach all children without a relay.
func (p *speaker) downlink(ctx context.Context, children [][]string) error {
	for _, addrs := range children {
		l, err := linkTo(ctx, p.host, addrs)
		if err != nil {
			return err
		}
		p.direct = append(p.direct, l)
	}
	return nil
}

// sayDirect sends the frame of a tick to each child.
func (p *speaker) sayDirect(ctr uint32) {
	e := p.frame(ctr)
	for _, l := range p.direct {
		sendEntries(l, e)
	}
}

func (p *speaker) sign(now time.Time) {
	h, body, err := p.signer.Block(nil, now)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	p.block, p.again = media.AppendEntry(nil, &h, body), repeatAfter
}

// answerPings is all that a speaker does with what the relay sends.
func answerPings(l *p2p.Link, b []byte) {
	u, err := media.Parse(b)
	if err != nil {
		return
	}
	for e := (media.Entry{}); u.Next(&e); {
		if e.Kind == media.Record && l.Handle() != 0 {
			pong(l, e.Body)
		}
	}
}

func stamp(b []byte) {
	binary.BigEndian.PutUint64(b[len(b)-stampLength:], uint64(time.Now().UnixNano()))
}
