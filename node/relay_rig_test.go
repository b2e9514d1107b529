package node

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
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

// carried is a room that a community node is asked to carry, as its people sign it.
type carried struct {
	t       testing.TB
	host    *identity.Key
	secret  room.Secret
	genesis *wire.Signed
	g       *room.Genesis
	id      room.ID
	ledger  *ledger.Ledger
	epoch   sframe.Epoch
	seq     uint64
}

func newKey(t testing.TB) *identity.Key {
	t.Helper()
	k, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newCarried(t testing.TB, v room.Visibility) *carried {
	t.Helper()
	r := &carried{t: t, host: newKey(t), secret: room.NewSecret(), epoch: sframe.NewEpoch(1)}
	var err error
	if r.genesis, err = ledger.NewGenesis(r.host, r.secret, room.Policy{Visibility: v, Name: "carried"}, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	if r.g, err = ledger.ParseGenesis(r.genesis); err != nil {
		t.Fatal(err)
	}
	if r.ledger, err = ledger.New(r.genesis); err != nil {
		t.Fatal(err)
	}
	r.id = r.g.Room()
	return r
}

func (r *carried) book(me peer.ID) *relayBook { return newRelayBook(r.g, r.host.ID(), me) }

func (r *carried) decide(k *identity.Key, op room.Op) *wire.Signed {
	r.t.Helper()
	s, err := r.ledger.Draft(k, op, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	r.ledger.Add(s)
	return s
}

// appoint makes k a moderator, and answers its line of grants.
func (r *carried) appoint(k *identity.Key) []*wire.Signed {
	r.t.Helper()
	r.decide(r.host, room.Op{Kind: room.Admit, Admissions: []room.Admission{{Peer: k.ID(), Role: room.Speaker, Name: "m"}}})
	return []*wire.Signed{r.decide(r.host, room.Op{Kind: room.Appoint, Targets: []peer.ID{k.ID()}})}
}

func (r *carried) owner(k *identity.Key) sframe.Owner {
	return sframe.Owner{Room: r.id, Peer: string(k.ID()), Salt: [8]byte{1, 2, 3}}
}

func (r *carried) source(k *identity.Key) *wire.Signed {
	o := r.owner(k)
	return wire.Sign(k, wire.DomainSource, &wire.Source{Room: r.id[:], Peer: []byte(k.ID()), Salt: o.Salt[:], EpochId: r.epoch.ID[:], TimeMs: time.Now().UnixMilli()})
}

func (r *carried) pass(by *identity.Key, p peer.ID, nbf, exp time.Time) *wire.Signed {
	return wire.Sign(by, wire.DomainPass, &wire.Pass{Room: r.id[:], Peer: []byte(p), Role: 1, EpochId: r.epoch.ID[:], NbfS: nbf.Unix(), ExpS: exp.Unix()})
}

// goodPass is one of the host's for now.
func (r *carried) goodPass(p peer.ID) *wire.Signed {
	return r.pass(r.host, p, time.Now(), time.Now().Add(time.Hour))
}

// guestPass is one of somebody who came by those invites.
func (r *carried) guestPass(p peer.ID, chain ...room.InviteID) *wire.Signed {
	m := &wire.Pass{Room: r.id[:], Peer: []byte(p), Role: 1, EpochId: r.epoch.ID[:], NbfS: time.Now().Unix(), ExpS: time.Now().Add(time.Hour).Unix(), Name: "Guest"}
	for _, id := range chain {
		m.Chain = append(m.Chain, id[:])
	}
	return wire.Sign(r.host, wire.DomainPass, m)
}

func short(p peer.ID) []byte { s := identity.ShortID(p); return s[:] }

// digest is the next one by k, with those speakers on stage.
func (r *carried) digest(k *identity.Key, stage []*identity.Key, change ...func(*wire.Digest)) *wire.Signed {
	r.seq++
	now := time.Now()
	d := &wire.Digest{
		Room: r.id[:], Term: 1, Seq: r.seq, IssuedMs: now.UnixMilli(), TtlS: 10, Heads: make([]byte, 32), Authorities: [][]byte{short(k.ID())},
		EpochN: r.epoch.N, EpochId: r.epoch.ID[:], People: 3,
	}
	for _, s := range stage {
		d.Stage = append(d.Stage, &wire.DigestStage{Peer: short(s.ID()), Source: r.owner(s).Source()})
	}
	for _, f := range change {
		f(d)
	}
	return wire.Sign(k, wire.DomainDigest, d)
}

func removing(p ...peer.ID) func(*wire.Digest) {
	return func(d *wire.Digest) {
		for _, p := range p {
			d.Removed = append(d.Removed, short(p))
		}
	}
}

func revoking(ids ...room.InviteID) func(*wire.Digest) {
	return func(d *wire.Digest) {
		for _, id := range ids {
			d.Revoked = append(d.Revoked, id[:])
		}
	}
}

// lease is one by k over the ads.
func (r *carried) lease(k *identity.Key, term, version uint64, ads ...*wire.Signed) *election.Lease {
	r.t.Helper()
	l := election.Lease{Room: r.id, Term: term, Version: version, Grant: r.g.ID, Issued: time.Now(), TTL: election.LeaseTTL}
	for _, s := range ads {
		a, err := election.ParseAd(s, r.id)
		if err != nil {
			r.t.Fatal(err)
		}
		l.Ads = append(l.Ads, a)
	}
	return l.Sign(k)
}

// voice seals and signs what a speaker says.
type talker struct {
	r      *carried
	sealer *sframe.Sealer
	signer *sframe.BlockSigner
	source uint32
	ctr    uint32
}

func (r *carried) voice(k *identity.Key) *talker {
	o := r.owner(k)
	v := &talker{r: r, sealer: sframe.NewSealer(o, 0), signer: sframe.NewBlockSigner(o, k.Sign), source: o.Source()}
	v.sealer.Rekey(r.epoch)
	return v
}

// say is the next frame as an entry, and, after every fifth, the block over them.
func (v *talker) say(text string) (frame, block []byte) {
	v.r.t.Helper()
	v.ctr++
	h := media.Header{Kind: media.Frame, Ticks: 1, Source: v.source, Ctr: v.ctr, Epoch: uint8(v.r.epoch.N & 15), Level: 20}
	var head [media.HeaderLen]byte
	h.Put(&head)
	body, err := v.sealer.Seal(nil, head[:], []byte(text))
	if err != nil {
		v.r.t.Fatal(err)
	}
	frame = media.AppendEntry(nil, &head, body)
	if err := v.signer.Add(v.r.epoch.ID, frame, time.Now()); err != nil {
		v.r.t.Fatal(err)
	}
	if v.ctr%5 == 0 {
		h, body, err := v.signer.Block(nil, time.Now())
		if err != nil {
			v.r.t.Fatal(err)
		}
		block = media.AppendEntry(nil, &h, body)
	}
	return frame, block
}

// bootstrapped is a community node of a test.
type bootstrapped struct {
	*community
	t *testing.T
}

func newBootstrapped(t *testing.T, change ...func(*BootstrapConfig)) *bootstrapped {
	t.Helper()
	cfg := BootstrapConfig{
		Data: t.TempDir(), Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, RelayKbps: 10_000, Log: testLog().With("who", "community"),
	}
	for _, f := range change {
		f(&cfg)
	}
	b := &bootstrapped{&community{cfg: cfg, metrics: prometheus.NewRegistry(), served: make(chan error, 2)}, t}
	if err := b.start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.halt)
	return b
}

func (b *bootstrapped) halt() {
	if err := b.stop(); err != nil {
		b.t.Errorf("the community node stops: %v", err)
	}
}

// carriedRooms is how many rooms it carries, children how many hear by it.
func (b *bootstrapped) metric(name string) (v float64) {
	b.t.Helper()
	all, err := b.metrics.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	b.t.Fatalf("no metric %s", name)
	return 0
}

// party is a peer of a test that speaks to the node by hand.
type party struct {
	t    *testing.T
	key  *identity.Key
	host *p2p.Host
	node *bootstrapped

	mu      sync.Mutex
	bundles [][]byte
	records []*wire.LinkRecord
	sent    [][]byte // all that went to the node
	link    *p2p.Link
	ended   bool
}

func newParty(t *testing.T, b *bootstrapped, k *identity.Key) *party {
	t.Helper()
	h, err := p2p.New(context.Background(), p2p.Config{Key: k.Private(), Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	p := &party{t: t, key: k, host: h, node: b}
	h.AllowPrivate(b.host.ID())
	info, err := peer.AddrInfosFromP2pAddrs(b.host.Addrs()...)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Connect(t.Context(), info[0], true); err != nil {
		t.Fatal(err)
	}
	return p
}

// asking is an authority's open stream to the node.
type asking struct {
	p  *party
	st *p2p.Stream
}

func (p *party) ask() *asking {
	p.t.Helper()
	st, err := p.host.Open(p.t.Context(), p.node.host.ID(), session.RelayProtocol)
	if err != nil {
		p.t.Fatal(err)
	}
	return &asking{p, st}
}

func (a *asking) say(req *wire.RelayRequest) *wire.RelayReply {
	a.p.t.Helper()
	a.p.note(req)
	var rep wire.RelayReply
	if err := a.st.Write(req); err != nil {
		a.p.t.Fatal(err)
	}
	if err := a.st.Read(&rep); err != nil {
		a.p.t.Fatal(err)
	}
	return &rep
}

// refused asks once and tells the reason.
func (p *party) refused(req *wire.RelayRequest) room.Reason {
	p.t.Helper()
	a := p.ask()
	defer a.st.Close() //nolint:errcheck // a test's
	return room.Reason(a.say(req).Refused)
}

// open links with the node for the room.
func (p *party) open(r *carried, sources ...*wire.Signed) {
	p.t.Helper()
	l, err := p.host.OpenLink(p.t.Context(), p.node.host.ID(), r.id, p2p.LinkConfig{
		Sources: sources,
		Receive: func(_ *p2p.Link, b []byte) { p.mu.Lock(); p.bundles = append(p.bundles, b); p.mu.Unlock() },
		Record:  func(_ *p2p.Link, m *wire.LinkRecord) { p.mu.Lock(); p.records = append(p.records, m); p.mu.Unlock() },
		Closed:  func(*p2p.Link) { p.mu.Lock(); p.ended = true; p.mu.Unlock() },
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.link = l
}

func (p *party) tell(m *wire.LinkRecord) { p.note(m); p.link.Tell(m) }

// note remembers what the node is told.
func (p *party) note(m proto.Message) {
	b, err := proto.Marshal(m)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.sent = append(p.sent, b)
	p.mu.Unlock()
}

func (p *party) join(r *carried, mode overlay.Mode, pass *wire.Signed) {
	p.tell(&wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: &wire.Join{Room: r.id[:], Mode: uint32(mode), Pass: pass}}})
}

// send puts entries into a bundle of its link.
func (p *party) send(entries ...[]byte) {
	var w media.Builder
	w.Begin(media.Bundle{Handle: p.link.Handle(), Seq: p.link.Seq(), SendMs: uint16(time.Now().UnixMilli())}, media.MaxBundle)
	w.Fill(entries, nil, nil)
	b := bytes.Clone(w.Bytes())
	p.mu.Lock()
	p.sent = append(p.sent, b)
	p.mu.Unlock()
	p.link.Send(b)
}

// got is the first record that f likes.
func (p *party) got(f func(*wire.LinkRecord) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.records {
		if f(r) {
			return true
		}
	}
	return false
}

func (p *party) admitted() bool {
	return p.got(func(r *wire.LinkRecord) bool { return r.GetAdmit() != nil })
}

func (p *party) over() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.ended }

// entries are those of a kind that arrived.
func (p *party) entries(kind media.Kind) (out [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.bundles {
		u, err := media.Parse(b)
		if err != nil {
			continue
		}
		for e := (media.Entry{}); u.Next(&e); {
			if e.Kind == kind {
				out = append(out, e.Raw)
			}
		}
	}
	return out
}

// soon waits for something that must come; how long it takes is no condition.
func soon(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}
