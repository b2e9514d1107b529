package node

import (
	"context"
	"encoding/hex"
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"

	"balai/identity"
)

// maxRecords bounds the peer records of a room that are held; the members' own come first.
const maxRecords = 1024

// heldRecord is the newest signed peer record of one peer.
type heldRecord struct {
	raw []byte
	seq uint64
}

// peerRecord verifies a signed peer record and tells whose it is and which of hers.
func peerRecord(raw []byte) (peer.ID, uint64, bool) {
	env, rec, err := record.ConsumeEnvelope(raw, peer.PeerRecordEnvelopeDomain)
	if err != nil {
		return "", 0, false
	}
	r, ok := rec.(*peer.PeerRecord)
	if !ok || !r.PeerID.MatchesPublicKey(env.PublicKey) {
		return "", 0, false
	}
	return r.PeerID, r.Seq, true
}

// RecordOf is session.Ports.
func (j *joined) RecordOf(p peer.ID) []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.records[p].raw
}

// Learn is session.Ports.
func (j *joined) Learn(raw []byte, from peer.ID) peer.ID {
	p, err := j.d.host.Learn(raw, from, j.local || j.d.host.OnLAN(from))
	if err != nil {
		j.d.log.Debug("peer record refused", "from", from, "err", err)
		return ""
	}
	if p == j.d.key.ID() {
		return p
	}
	_, seq, ok := peerRecord(raw)
	if !ok {
		return ""
	}
	if j.hold(p, heldRecord{raw, seq}) && j.links.isMember(p) {
		j.pokeRecords()
	}
	return p
}

// hold keeps a record if it is newer than the one held; whoever is no member makes room for others.
func (j *joined) hold(p peer.ID, r heldRecord) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	old, known := j.records[p]
	if known && old.seq >= r.seq {
		return false
	}
	if !known && len(j.records) >= maxRecords && !j.evict() {
		return false
	}
	j.records[p] = r
	if j.local && !j.private[p] {
		j.private[p] = true
		j.d.host.AllowPrivate(p)
	}
	return true
}

// evict forgets a peer that is no member. It says whether there was one. With mu held.
func (j *joined) evict() bool {
	for p := range j.records {
		if !j.links.isMember(p) {
			j.forget(p)
			return true
		}
	}
	return false
}

// forget drops what is held of p. With mu held.
func (j *joined) forget(p peer.ID) {
	delete(j.records, p)
	if j.private[p] {
		delete(j.private, p)
		j.d.host.ForbidPrivate(p)
	}
}

// forgetStrangers drops the records of peers that are no members (any more).
func (j *joined) forgetStrangers() {
	j.mu.Lock()
	for p := range j.records {
		if !j.links.isMember(p) {
			j.forget(p)
		}
	}
	j.mu.Unlock()
	j.pokeRecords()
}

func (j *joined) pokeRecords() {
	select {
	case j.recordsNew <- struct{}{}:
	default:
	}
}

// keepRecords stores the members' records where they differ from what is stored, until ctx ends.
func (j *joined) keepRecords(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			if len(j.recordsNew) > 0 {
				j.storeRecords()
			}
			return
		case <-j.recordsNew:
			j.storeRecords()
		}
	}
}

// storeRecords writes what is new of the members and deletes what is of others. A failure is only told: a record can be
// heard again.
func (j *joined) storeRecords() {
	want := map[string]heldRecord{}
	j.mu.Lock()
	for p, r := range j.records {
		if j.links.isMember(p) {
			want[recordName(p)] = r
		}
	}
	have := maps.Clone(j.storedRecords)
	j.mu.Unlock()
	for name := range have {
		if _, ok := want[name]; !ok {
			j.storeRecord(name, heldRecord{})
		}
	}
	for name, r := range want {
		if seq, ok := have[name]; !ok || seq != r.seq {
			j.storeRecord(name, r)
		}
	}
}

func (j *joined) storeRecord(name string, r heldRecord) {
	if err := j.Save(name, r.raw); err != nil {
		j.d.log.Debug("peer record not stored", "err", err)
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if r.raw == nil {
		delete(j.storedRecords, name)
		return
	}
	j.storedRecords[name] = r.seq
}

// loadRecord takes up a record of an earlier run.
func (j *joined) loadRecord(name string, raw []byte) {
	j.storedRecords[name] = 0
	if p, seq, ok := peerRecord(raw); ok && j.Learn(raw, "") == p {
		j.storedRecords[name] = seq
	}
}

func recordName(p peer.ID) string {
	b := identity.ShortID(p)
	return "record/" + hex.EncodeToString(b[:])
}

// allowPrivate lets private addresses of p be dialled for as long as this room lasts.
func (j *joined) allowPrivate(p peer.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.private[p] {
		j.private[p] = true
		j.d.host.AllowPrivate(p)
	}
}

func (j *joined) forbidPrivate() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for p := range j.private {
		j.d.host.ForbidPrivate(p)
	}
	clear(j.private)
}

// remembered are the peers whose records are held, in no order.
func (j *joined) remembered() []peer.ID {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Collect(maps.Keys(j.records))
}
