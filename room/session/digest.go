package session

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/ledger"
	"balai/room/overlay"
	"balai/room/wire"
)

const (
	digestPeriod   = 2 * time.Second
	digestSoonest  = 200 * time.Millisecond // on a change
	digestTTL      = 10 * time.Second
	digestSources  = 10 * time.Second // sources go along at least so often
	maxDigest      = 2 << 10          // bytes taken; written are about 600
	digestRemoved  = 24               // the newest; Digest.Banned has a bit for each
	digestRevoked  = 16               // branches
	digestLeaders  = 32               // authorities here
	digestStage    = 32
	fetchSpread    = 2 * time.Second // guests do not all ask at once: for each thousand people
	fetchPeople    = 10_000          // more are the word of a speaker who leads: nobody waits longer for it
	maxIssuers     = 64
	maxQuoted      = 32 // ops that go along with a digest
	maxQuotedBytes = 8 << 10
	orphanAsks     = 2 * time.Second // a guest without a parent asks whether it is still in
)

// digestState is the newest digest that this daemon made or heard.
type digestState struct {
	signed  *wire.Signed
	issued  map[peer.ID]int64 // of the newest of each signer: their clocks differ
	fresh   []*wire.Signed    // ops that came since one was passed on, and those that went along with the last
	quoted  []*wire.Signed
	made    time.Time
	key     [32]byte // of what listeners act upon: a change is told soon
	sources string   // those that went along last
	told    time.Time
	people  uint32
	hands   uint32
	fetch   time.Time // when what differs is asked for; zero: nothing does
}

// tellDigest tells the listeners in no gossip, and the relays that hold no ledger, how the room is. Only the chair.
func (s *Session) tellDigest(now time.Time) {
	lease := s.carry.force.Lease()
	if !s.beat.mine || (lease == nil || len(lease.Ads) == 0) && len(s.carry.helpers) == 0 && s.guestsHere() == 0 || now.Sub(s.carry.digest.made) < digestSoonest {
		return
	}
	d := s.makeDigest(now)
	key := digestKey(d)
	if key == s.carry.digest.key && now.Sub(s.carry.digest.made) < digestPeriod {
		return
	}
	s.carry.digest.made, s.carry.digest.key = now, key
	signed := wire.Sign(s.cfg.Key, wire.DomainDigest, d)
	s.carry.digest.signed = signed
	s.publishStage(&wire.StageMessage{Message: &wire.StageMessage_Digest{Digest: signed}})
	s.passDigestOn(now)
	s.tellCommunities(now)
}

func (s *Session) makeDigest(now time.Time) *wire.Digest {
	heads, ms := s.headsHash(), max(now.UnixMilli(), s.carry.digest.issued[s.me]+1)
	s.carry.digest.issued[s.me] = ms
	d := &wire.Digest{
		Room: s.cfg.Room[:], Term: s.beat.term, Seq: uint64(ms), IssuedMs: ms, TtlS: uint32(digestTTL / time.Second), Heads: heads[:],
		People: uint32(s.people()), Hands: uint32(len(s.hands())), Beat: s.beat.seq,
	}
	e, _ := s.keys.sealing()
	d.EpochN, d.EpochId, d.Step = e.N, e.ID[:], e.Step
	for _, p := range append([]peer.ID{s.state.Host}, s.state.Moderators...) {
		if (p == s.me || s.live[p] != nil) && len(d.Authorities) < digestLeaders {
			id := shortOf(p)
			d.Authorities = append(d.Authorities, id[:])
		}
	}
	for i, p := range s.removedLast() {
		id := shortOf(p)
		d.Removed = append(d.Removed, id[:])
		if s.state.Banned[p] {
			d.Banned |= 1 << i
		}
	}
	d.Revoked = s.revokedBranches()
	for _, p := range s.state.Stage {
		if len(d.Stage) == digestStage {
			break
		}
		if p == s.me {
			id := shortOf(p)
			d.Stage = append(d.Stage, &wire.DigestStage{Peer: id[:], Source: s.own.id, Muted: s.state.Members[p].Muted})
		} else if l := s.live[p]; l != nil && l.source != nil {
			id := shortOf(p)
			d.Stage = append(d.Stage, &wire.DigestStage{Peer: id[:], Source: l.source.ID, Muted: s.state.Members[p].Muted})
		}
	}
	return d
}

// revokedBranches are the invites revoked last with their branches, newest first: by a host, or by the moderator of whom I
// have seen myself that she issued it. Who reads a digest cannot know whose an invite is.
func (s *Session) revokedBranches() (out [][]byte) {
	all, asked, looked := s.ledger.All(), map[room.InviteID]bool{}, 0
	var hosts, others [][]byte
	for i := len(all) - 1; i >= 0 && len(hosts) < digestRevoked; i-- {
		o := all[i].Op
		if o.Kind != room.Revoke || !o.Branch || asked[o.Invite] {
			continue
		}
		asked[o.Invite] = true
		if s.state.Revoked[o.Invite] {
			hosts = append(hosts, slices.Clone(o.Invite[:]))
		} else if looked++; len(others) < digestRevoked && looked < 4*digestRevoked { // moderators may write many of which I know nothing
			if branch, _ := s.state.IsRevoked(o.Invite, s.madeBy(o.Invite)); branch {
				others = append(others, slices.Clone(o.Invite[:]))
			}
		}
	}
	return places(hosts, others, digestRevoked)
}

// removedLast are those put out last, newest first, by the order of the ledger: times are their authors' word.
func (s *Session) removedLast() []peer.ID {
	all, by := s.ledger.All(), map[room.OpID][]peer.ID{}
	for p, op := range s.state.Removed {
		by[op] = append(by[op], p)
	}
	var hosts, others []peer.ID
	for i := len(all) - 1; i >= 0 && len(hosts) < digestRemoved; i-- {
		out := sortedPeers(by[all[i].Op.ID])
		if all[i].Host {
			hosts = append(hosts, out...)
		} else if len(others) < digestRemoved {
			others = append(others, out...)
		}
	}
	return places(hosts, others, digestRemoved)
}

// places gives n: half to what hosts decided, half to the others', and what one does not need to the other. A moderator can put
// out any number of people whom there never were, and revoke as many invites of hers: the host's word is told all the same.
func places[T any](hosts, others []T, n int) []T {
	h := min(len(hosts), max(n/2, n-len(others)))
	return slices.Concat(hosts[:h], others[:min(len(others), n-h)])
}

// digestKey covers what listeners and relays act upon.
func digestKey(d *wire.Digest) [32]byte {
	c := proto.CloneOf(d)
	c.Seq, c.IssuedMs, c.People, c.Hands, c.Beat = 0, 0, 0, 0, 0
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return sha256.Sum256(b)
}

// headsHash is SHA-256 over what is held of each authority's chain, in order.
func (s *Session) headsHash() [32]byte {
	heads := s.ledger.Heads()
	slices.SortFunc(heads, func(a, b room.Seen) int {
		return cmp.Or(cmp.Compare(a.Author, b.Author), cmp.Compare(a.Seq, b.Seq), bytes.Compare(a.Hash[:], b.Hash[:]))
	})
	h := sha256.New()
	for _, m := range ledger.EncodeSeen(heads) {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			panic("impossible: " + err.Error())
		}
		h.Write(b)
	}
	return [32]byte(h.Sum(nil))
}

// passDigestOn gives the newest digest to those that hear by me and are in no gossip; sources go along when they are new.
func (s *Session) passDigestOn(now time.Time) {
	s.carry.digest.quoted, s.carry.digest.fresh = s.carry.digest.fresh, nil
	r := &wire.DigestRecord{Digest: s.carry.digest.signed, Ops: s.carry.digest.quoted}
	records := fitting(proto.Size(r), s.sourceRecords(now))
	var key []byte
	for _, src := range records {
		key = append(key, src.GetKey()...)
		key = append(key, src.GetSig()...)
	}
	if string(key) != s.carry.digest.sources && now.Sub(s.carry.digest.told) >= digestPeriod || now.Sub(s.carry.digest.told) >= digestSources {
		s.carry.digest.sources, s.carry.digest.told, r.Sources = string(key), now, records
	}
	for _, f := range s.carry.overlay.Plan().Feeds {
		if s.state.Role(f.Peer) == room.NoRole {
			s.cfg.Ports.Tell(f.Peer, &wire.LinkRecord{Record: &wire.LinkRecord_Digest{Digest: r}})
		}
	}
}

// quote lets a new op go along with the next digest, so that not everybody has to fetch it.
func (s *Session) quote(op *wire.Signed) {
	size := 0
	for _, o := range s.carry.digest.fresh {
		size += len(o.Body)
	}
	if len(s.carry.digest.fresh) < maxQuoted && size+len(op.Body) < maxQuotedBytes {
		s.carry.digest.fresh = append(s.carry.digest.fresh, op)
	}
}

// digestFor gives a child that was just admitted the newest digest, if it is in no gossip.
func (s *Session) digestFor(a overlay.Tell) {
	if a.Record.GetAdmit() == nil || s.carry.digest.signed == nil || s.state.Role(a.Peer) != room.NoRole {
		return
	}
	s.cfg.Ports.Tell(a.Peer, &wire.LinkRecord{Record: &wire.LinkRecord_Digest{Digest: &wire.DigestRecord{Digest: s.carry.digest.signed}}})
}

// checkDigest looks at a digest that came by gossip. Any goroutine.
func (s *Session) checkDigest(sh *shared, signed *wire.Signed) error {
	var d wire.Digest
	by, err := openDigest(signed, s.cfg.Room, &d)
	if err != nil {
		return ErrFalse
	}
	now := time.Now()
	if sh.state.Role(by) == room.NoRole || !near(d.IssuedMs, now) {
		return ErrIgnore
	}
	if !s.flood.allow(by, digests, now) {
		return errFlood
	}
	if !s.post(func() { s.takeDigest(by, signed, &d, time.Now()) }) {
		return ErrIgnore
	}
	return nil
}

func openDigest(signed *wire.Signed, id room.ID, d *wire.Digest) (peer.ID, error) {
	if len(signed.GetBody()) > maxDigest {
		return "", room.Malformed
	}
	by, err := wire.Open(signed, wire.DomainDigest, d)
	if err != nil {
		return "", err
	}
	if string(d.Room) != string(id[:]) || len(d.EpochId) != 16 || len(d.Stage) > digestStage {
		return "", room.Malformed
	}
	return by, nil
}

// gotDigestRecord takes a digest that came down the tree.
func (s *Session) gotDigestRecord(g *overlay.Got, now time.Time) bool {
	r := g.Record.GetDigest()
	if r == nil {
		return false
	}
	if !slices.Contains(s.carry.overlay.Plan().Parents, g.Peer) {
		return true // nobody else has to tell me
	}
	s.addOps(s.atPace(r.Ops[:min(len(r.Ops), maxQuoted)], now), now) // first: the digest speaks of them
	if s.phase != Live {
		return true
	}
	var d wire.Digest
	if by, err := openDigest(r.Digest, s.cfg.Room, &d); err == nil && near(d.IssuedMs, now) && s.phase == Live {
		s.takeDigest(by, r.Digest, &d, now)
	}
	for _, src := range r.Sources[:min(len(r.Sources), maxSources)] {
		s.takeSourceOf(src)
	}
	return true
}

// takeDigest keeps a newer digest and passes it on; a guest, who hears nothing else, acts upon it.
func (s *Session) takeDigest(by peer.ID, signed *wire.Signed, d *wire.Digest, now time.Time) {
	if s.phase != Live || by == s.me || d.IssuedMs <= s.carry.digest.issued[by] {
		return
	}
	ranked := s.ranked()
	if !slices.Contains(ranked, by) {
		return
	}
	if s.guest {
		s.chair.Heard(by, now)
	}
	if chair, _, _ := s.chair.Current(ranked, s.me, now); chair != by {
		return
	}
	if len(s.carry.digest.issued) > maxIssuers {
		clear(s.carry.digest.issued)
	}
	s.carry.digest.signed, s.carry.digest.issued[by] = signed, d.IssuedMs
	if s.guest {
		s.followDigest(by, d, now)
	}
	s.passDigestOn(now)
}

// followDigest is how a guest learns who is on stage, which key is in force, and that it has to go.
func (s *Session) followDigest(by peer.ID, d *wire.Digest, now time.Time) {
	me := shortOf(s.me)
	_, authority := s.state.Rank(by)
	for i, id := range d.Removed {
		if !authority || string(id) != string(me[:]) {
			continue
		}
		why := s.whyOut(s.me)
		if d.Banned>>i&1 == 1 { // 0 beyond 32: told without
			why = room.Banned
		}
		s.refuse(why)
		return
	}
	if authority && s.amCutOff(d.Revoked) {
		s.refuse(room.Revoked)
		return
	}
	byShort := map[overlay.Short]peer.ID{}
	for p := range s.state.Members {
		byShort[shortOf(p)] = p
	}
	for _, id := range d.Authorities[:min(len(d.Authorities), digestStage)] {
		if p := byShort[asShort(id)]; p != "" && p != s.me {
			s.touch(p, now)
		}
	}
	for _, m := range d.Stage {
		if p := byShort[asShort(m.Peer)]; p != "" && p != s.me {
			s.touch(p, now).muted = m.Muted
		}
	}
	if chair := s.beat.chair; chair != by {
		s.beat.chair = by
	}
	s.beat.seq = max(s.beat.seq, min(d.Beat, s.age(now)+leapLimit))
	s.carry.digest.people, s.carry.digest.hands, s.dirty = d.People, d.Hands, true
	s.adoptStep(room.EpochID(d.EpochId), d.Step, now)
	heads := s.headsHash()
	if string(d.Heads) == string(heads[:]) && s.keys.at(room.EpochID(d.EpochId)) >= 0 {
		s.carry.digest.fetch = time.Time{}
	} else if s.carry.digest.fetch.IsZero() {
		s.carry.digest.fetch = now.Add(time.Duration(s.dice.Int64N(int64(fetchSpread) * (1 + int64(min(d.People, fetchPeople))/1000))))
	}
}

// ownTrail is by which invites I came with a pass.
func (s *Session) ownTrail() trail {
	var m wire.Pass
	if s.pass == nil || proto.Unmarshal(s.pass.Body, &m) != nil {
		return trail{}
	}
	by, _ := trailOf(&m) // checked
	return by
}

// amCutOff tells whether one of the branches is that by which I came.
func (s *Session) amCutOff(revoked [][]byte) bool {
	return slices.ContainsFunc(s.ownTrail().chain, func(id room.InviteID) bool {
		return slices.ContainsFunc(revoked, func(r []byte) bool { return bytes.Equal(r, id[:]) })
	})
}

func asShort(b []byte) (id overlay.Short) {
	if len(b) == len(id) {
		copy(id[:], b)
	}
	return id
}

// passRefused: a member does not take my pass, and nobody feeds me.
func (s *Session) passRefused(now time.Time) {
	if s.guest && !s.carry.orphan.IsZero() && now.Sub(s.carry.orphan) >= orphanAsks && now.Sub(s.passTry) >= renewPause {
		s.passTry = now
		s.wg.Go(s.passAgain)
	}
}

// fetchAsGuest asks a member for what the digest says I lack.
func (s *Session) fetchAsGuest(now time.Time) {
	if !s.guest {
		return
	}
	if len(s.carry.overlay.Plan().Parents) > 0 {
		s.carry.orphan = time.Time{}
	} else if s.carry.orphan.IsZero() {
		s.carry.orphan = now
	} else if now.Sub(s.carry.orphan) >= orphanAsks && s.carry.digest.fetch.IsZero() {
		s.carry.digest.fetch = now // nobody feeds me: perhaps I am out
	}
	if s.carry.digest.fetch.IsZero() || now.Before(s.carry.digest.fetch) {
		return
	}
	var from []peer.ID
	for p := range s.carry.linked { // a parent that is a member: no further connection
		if s.state.Role(p) != room.NoRole && !s.fetching[p] {
			from = append(from, p)
		}
	}
	if len(from) == 0 {
		from = s.idle(s.others())
	}
	if len(from) == 0 {
		return
	}
	s.carry.digest.fetch = now.Add(fetchSpread)
	s.fetchFrom(from[s.dice.IntN(len(from))])
}
