package node

import (
	"bytes"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/election"
	"balai/room/ledger"
	"balai/room/overlay"
	"balai/room/session"
	"balai/room/sframe"
	"balai/room/wire"
)

// What a relay keeps of a room, and of the clocks of others.
const (
	relaySkew        = 90 * time.Second
	relayPassLife    = time.Hour        // a longer pass is none
	relayDigestLife  = 30 * time.Second // no digest counts longer as a sign of a living authority
	maxRelaySources  = 64
	maxRelayNamed    = 64 // authorities that digests have named
	maxRelayAskers   = 16
	maxRelayStage    = 64
	maxRelayRemoved  = 256
	maxRelayRevoked  = 64
	maxRelayChain    = 3
	maxRelayDigest   = 2 << 10 // bytes
	maxRelayPass     = 1 << 10 // bytes
	maxRelaySource   = 256     // bytes
	maxRelayOps      = 8       // quoted in a digest record
	maxRelayOpBytes  = 6 << 10 // of all of them
	maxRelayTold     = 12 << 10
	keptRelayCommits = 4
)

// relayBook is all that a node without a key and without the ledger knows of a room that it carries: what an authority
// told, as far as its signatures hold. It has no clock and no goroutine.
type relayBook struct {
	id      room.ID
	me      peer.ID
	founder peer.ID
	genesis *room.Genesis
	askers  map[peer.ID]bool // authorities by their line of grants

	digest  *relayDigest // in force: an old one stays until a newer one comes
	seqs    map[peer.ID]uint64
	named   map[overlay.Short]bool // authorities by a digest, now or earlier
	removed map[overlay.Short]bool
	revoked map[room.InviteID]bool // with their branches
	sources map[peer.ID]*relaySource
	commits []room.EpochCommit // oldest first
	force   election.Force
	ops     []*wire.Signed
	live    time.Time // when an authority was last known to be here
	news    relayNews
}

// relayDigest is a digest as it was taken.
type relayDigest struct {
	signed      *wire.Signed
	by          peer.ID
	issued      int64
	fresh       time.Time // until then
	authorities []overlay.Short
	stage       []relayStage
	people      uint32
	removed     map[overlay.Short]bool
	revoked     map[room.InviteID]bool
}

type relayStage struct {
	peer   overlay.Short
	source uint32
	muted  bool
}

type relaySource struct {
	session.Source
	timeMs int64
	signed *wire.Signed
}

// relayNews is what the children have not been told yet.
type relayNews struct {
	digest       bool
	sources, ops []*wire.Signed
}

func newRelayBook(g *room.Genesis, founder, me peer.ID) *relayBook {
	return &relayBook{
		id: g.Room(), me: me, founder: founder, genesis: g, askers: map[peer.ID]bool{}, seqs: map[peer.ID]uint64{}, named: map[overlay.Short]bool{},
		removed: map[overlay.Short]bool{}, sources: map[peer.ID]*relaySource{},
	}
}

// admit takes p, whose line of grants holds, for one who may tell about the room. The line shows no dismissal: while
// another authority leads, she has to name p.
func (b *relayBook) admit(p peer.ID, now time.Time) room.Reason {
	switch {
	case p != b.founder && b.led(now) && b.digest.by != p && !slices.Contains(b.digest.authorities, identity.ShortID(p)):
		return room.NoAdmitter
	case b.askers[p]:
	case len(b.askers) >= maxRelayAskers:
		return room.Busy
	}
	b.askers[p] = true
	b.live = now
	return 0
}

// led tells whether a digest is fresh: an authority is here.
func (b *relayBook) led(now time.Time) bool { return b.digest != nil && now.Before(b.digest.fresh) }

// authority tells whether p counts as one for what it signs, now or since before.
func (b *relayBook) authority(p peer.ID) bool {
	return p == b.founder || b.askers[p] || b.named[identity.ShortID(p)]
}

// leads tells whether p's digest may count now.
func (b *relayBook) leads(p peer.ID, now time.Time) bool {
	if p == b.founder || b.digest != nil && b.digest.by == p {
		return true
	}
	if b.led(now) {
		return slices.Contains(b.digest.authorities, identity.ShortID(p))
	}
	return b.authority(p)
}

// takeDigest puts a newer digest in force.
func (b *relayBook) takeDigest(s *wire.Signed, now time.Time) error {
	if s == nil || b.digest != nil && bytes.Equal(b.digest.signed.Sig, s.Sig) {
		return nil
	}
	if len(s.Body) > maxRelayDigest {
		return room.Malformed
	}
	var w wire.Digest
	by, err := wire.Open(s, wire.DomainDigest, &w)
	switch {
	case err != nil:
		return room.BadSignature
	case len(w.Room) != len(b.id) || room.ID(w.Room) != b.id:
		return room.WrongRoom
	case !b.leads(by, now):
		return room.NoAdmitter
	}
	d, ok := readDigest(&w)
	at := time.UnixMilli(w.IssuedMs)
	if !ok || at.Sub(now).Abs() > relaySkew {
		return room.Malformed
	}
	// A signer's numbers only grow, also over its restarts; its terms do not.
	if w.Seq <= b.seqs[by] || b.led(now) && b.digest.by != by && w.IssuedMs <= b.digest.issued {
		return nil // older than what I have
	}
	if len(b.seqs) >= maxRelayNamed {
		clear(b.seqs)
	}
	b.seqs[by] = w.Seq
	d.signed, d.by = s, by
	d.fresh = now.Add(min(time.Duration(w.TtlS)*time.Second, relayDigestLife))
	b.digest, b.removed, b.revoked, b.live, b.news.digest = d, d.removed, d.revoked, now, true
	b.name(d.authorities)
	b.commit(room.EpochCommit{N: w.EpochN, ID: room.EpochID(w.EpochId)})
	return nil
}

// readDigest checks the shape.
func readDigest(w *wire.Digest) (d *relayDigest, ok bool) {
	if len(w.EpochId) != len(room.EpochID{}) || len(w.Stage) > maxRelayStage || len(w.Authorities) > maxRelayNamed || len(w.Removed) > maxRelayRemoved || len(w.Revoked) > maxRelayRevoked {
		return nil, false
	}
	d = &relayDigest{issued: w.IssuedMs, people: w.People, removed: make(map[overlay.Short]bool, len(w.Removed)), revoked: map[room.InviteID]bool{}}
	ok = true
	short := func(b []byte) (s overlay.Short) {
		if len(b) != len(s) {
			ok = false
			return s
		}
		return overlay.Short(b)
	}
	for _, a := range w.Authorities {
		d.authorities = append(d.authorities, short(a))
	}
	for _, r := range w.Removed {
		d.removed[short(r)] = true
	}
	for _, id := range w.Revoked {
		if len(id) != len(room.InviteID{}) {
			return nil, false
		}
		d.revoked[room.InviteID(id)] = true
	}
	for _, m := range w.Stage {
		if m == nil || m.Source > sframe.MaxCounter {
			return nil, false
		}
		d.stage = append(d.stage, relayStage{short(m.Peer), m.Source, m.Muted})
	}
	return d, ok
}

func (b *relayBook) name(authorities []overlay.Short) {
	if len(b.named)+len(authorities) > maxRelayNamed {
		clear(b.named)
	}
	for _, a := range authorities {
		b.named[a] = true
	}
}

// commit remembers the id of an epoch: what a speaker signs can be checked with it, and nothing can be opened.
func (b *relayBook) commit(c room.EpochCommit) {
	if slices.Contains(b.commits, c) {
		return
	}
	b.commits = append(slices.Clone(b.commits[max(0, len(b.commits)-keptRelayCommits+1):]), c)
}

// place is p's place on stage.
func (b *relayBook) place(p peer.ID) (s relayStage, ok bool) {
	if b.digest == nil {
		return s, false
	}
	short := identity.ShortID(p)
	i := slices.IndexFunc(b.digest.stage, func(s relayStage) bool { return s.peer == short })
	if i < 0 {
		return s, false
	}
	return b.digest.stage[i], true
}

// takeSource keeps a source that its peer signed. A source in force from another peer is refused, unless a digest names
// the new one.
func (b *relayBook) takeSource(s *wire.Signed) error {
	if s == nil || len(s.Body) > maxRelaySource {
		return room.Malformed
	}
	for _, old := range b.sources {
		if bytes.Equal(old.signed.Sig, s.Sig) && bytes.Equal(old.signed.Key, s.Key) && bytes.Equal(old.signed.Body, s.Body) {
			return nil // told each time
		}
	}
	var w wire.Source
	p, err := wire.Open(s, wire.DomainSource, &w)
	if err != nil {
		return room.BadSignature
	}
	if string(w.Peer) != string(p) || len(w.Salt) != 8 || len(w.EpochId) != len(room.EpochID{}) || w.Ctr > sframe.MaxCounter {
		return room.Malformed
	}
	if string(w.Room) != string(b.id[:]) {
		return room.WrongRoom
	}
	src := &relaySource{session.Source{Peer: p, Salt: [8]byte(w.Salt), Epoch: room.EpochID(w.EpochId), Ctr: w.Ctr}, w.TimeMs, s}
	src.ID = sframe.Owner{Room: b.id, Peer: string(p), Salt: src.Salt}.Source()
	old := b.sources[p]
	if old != nil && old.timeMs >= src.timeMs {
		return nil
	}
	at, onStage := b.place(p)
	for q, other := range b.sources {
		if q == p || other.ID != src.ID {
			continue
		}
		if held, ok := b.place(q); !onStage || at.source != src.ID || ok && held.source == src.ID {
			return room.Replayed
		}
		delete(b.sources, q)
	}
	if old == nil && len(b.sources) >= maxRelaySources && !b.evictSource() {
		return room.Busy
	}
	b.sources[p] = src
	if old == nil || old.Salt != src.Salt {
		b.news.sources = append(b.news.sources, s)
	} else {
		src.Ctr, src.Epoch = old.Ctr, old.Epoch // it began there
	}
	return nil
}

// evictSource makes room by who is not on stage.
func (b *relayBook) evictSource() bool {
	for p := range b.sources {
		if _, onStage := b.place(p); !onStage {
			delete(b.sources, p)
			return true
		}
	}
	return false
}

// takeOps keeps the decisions that a digest quotes. They are passed on, not judged: whoever holds the ledger does that.
func (b *relayBook) takeOps(ops []*wire.Signed) {
	for _, op := range ops[:min(len(ops), maxRelayOps)] {
		if len(op.GetBody()) > ledger.MaxRecord || slices.ContainsFunc(b.ops, func(o *wire.Signed) bool { return bytes.Equal(o.Sig, op.Sig) }) {
			continue
		}
		if _, of, err := ledger.ParseOp(op); err != nil || of != b.id {
			continue
		}
		b.ops, b.news.ops = append(b.ops, op), append(b.news.ops, op)
	}
	size := 0
	for i := len(b.ops) - 1; i >= 0; i-- {
		if size += proto.Size(b.ops[i]); size > maxRelayOpBytes || len(b.ops)-i > maxRelayOps {
			b.ops = slices.Clone(b.ops[i+1:])
			break
		}
	}
}

// vouched tells whether op is the word for me of the founder, of p, or of an authority on p's line of grants.
func (b *relayBook) vouched(op *wire.Signed, line []*wire.Signed, p peer.ID) bool {
	if op == nil {
		return false
	}
	o, of, err := ledger.ParseOp(op)
	if err != nil || of != b.id || o.Kind != room.Vouch || !slices.Equal(o.Targets, []peer.ID{b.me}) {
		return false
	}
	return o.Author == b.founder || o.Author == p || slices.ContainsFunc(line, func(g *wire.Signed) bool { return bytes.Equal(g.GetKey(), op.Key) })
}

// mayJoin tells whether p may hear by me, by its pass or because the digest or the lease names it. stranger: it may
// only because the room is open.
func (b *relayBook) mayJoin(p peer.ID, pass *wire.Signed, now time.Time) (reason room.Reason, stranger bool) {
	if b.removed[identity.ShortID(p)] {
		return room.Removed, false
	}
	if _, onStage := b.place(p); onStage || p == b.founder || b.askers[p] {
		return 0, false
	}
	if l := b.force.Lease(); l != nil && l.Holds(p) {
		return 0, false
	}
	reason = b.checkPass(p, pass, now)
	if reason != 0 && b.genesis.Policy.Visibility == room.Open {
		return 0, true
	}
	return reason, false
}

// checkPass: by whom, for whom, when. One that ran out while no authority was here stays good.
func (b *relayBook) checkPass(p peer.ID, s *wire.Signed, now time.Time) room.Reason {
	if s == nil {
		return room.NoAdmitter
	}
	if len(s.Body) > maxRelayPass {
		return room.Malformed
	}
	var w wire.Pass
	by, err := wire.Open(s, wire.DomainPass, &w)
	switch {
	case err != nil:
		return room.BadSignature
	case string(w.Room) != string(b.id[:]), string(w.Peer) != string(p):
		return room.WrongRoom
	case !b.authority(by), b.removed[identity.ShortID(by)]:
		return room.BadSignature
	}
	nbf, exp := time.Unix(w.NbfS, 0), time.Unix(w.ExpS, 0)
	seen := now
	if !b.led(now) && b.live.Before(now) {
		seen = b.live
	}
	switch {
	case exp.Sub(nbf) > relayPassLife, exp.Before(nbf):
		return room.Malformed
	case now.Before(nbf.Add(-relaySkew)):
		return room.NotYet
	case seen.After(exp.Add(relaySkew)):
		return room.Expired
	case len(w.Chain) > maxRelayChain, slices.ContainsFunc(w.Chain, func(id []byte) bool { return len(id) != len(room.InviteID{}) }):
		return room.Malformed
	case b.cutOff(chainOf(s)):
		return room.Revoked
	}
	return 0
}

// cutOff tells whether one of the invites was revoked with its branch.
func (b *relayBook) cutOff(chain []room.InviteID) bool {
	return slices.ContainsFunc(chain, func(id room.InviteID) bool { return b.revoked[id] })
}

// chainOf are the invites that a pass, already found good, names.
func chainOf(s *wire.Signed) (chain []room.InviteID) {
	var w wire.Pass
	if s == nil || proto.Unmarshal(s.Body, &w) != nil {
		return nil
	}
	for _, id := range w.Chain {
		chain = append(chain, room.InviteID(id))
	}
	return chain
}

// guestPass tells whether a pass, already found good, is of a listener who is not in the ledger: it carries what the
// ledger would.
func guestPass(s *wire.Signed) bool {
	var w wire.Pass
	return s != nil && proto.Unmarshal(s.Body, &w) == nil && (w.Name != "" || len(w.Chain) > 0)
}
