package p2p

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	ma "github.com/multiformats/go-multiaddr"

	"balai/room"
)

// ownRecord caches the signed record of this host for as long as its addresses stay.
type ownRecord struct {
	mu    sync.Mutex
	addrs string
	bytes []byte
}

// Record is this host's own signed peer record: a libp2p envelope of at most 4 KiB with the addresses of
// Addrs, those confirmed from outside first. Loopback addresses are in it only if there are no others. Nil if it could not be signed.
func (h *Host) Record() []byte {
	reachable, _ := h.confirmed()
	addrs := recordAddrs(h.host.Addrs(), reachable)
	key := ""
	for _, a := range addrs {
		key += string(a.Bytes()) + "\x00"
	}
	h.record.mu.Lock()
	defer h.record.mu.Unlock()
	if h.record.bytes != nil && h.record.addrs == key {
		return h.record.bytes
	}
	env, err := record.Seal(peer.PeerRecordFromAddrInfo(peer.AddrInfo{ID: h.ID(), Addrs: addrs}), h.cfg.Key)
	if err != nil {
		h.cfg.Log.Error("own peer record", "err", err)
		return nil
	}
	b, err := env.Marshal()
	if err != nil || len(b) > maxRecord {
		h.cfg.Log.Error("own peer record", "err", err, "size", len(b))
		return nil
	}
	h.record.addrs, h.record.bytes = key, b
	return b
}

// recordAddrs puts addresses confirmed from outside first, then public ones, leaves loopback out where there is anything else, and keeps
// no more than a reader would take.
func recordAddrs(addrs, confirmed []ma.Multiaddr) []ma.Multiaddr {
	out := slices.Clone(addrs)
	rank := func(a ma.Multiaddr) int {
		switch {
		case slices.ContainsFunc(confirmed, a.Equal):
			return 0
		case isLoopback(a):
			return 3
		case isPrivate(a):
			return 2
		}
		return 1
	}
	slices.SortStableFunc(out, func(a, b ma.Multiaddr) int { return rank(a) - rank(b) })
	if i := slices.IndexFunc(out, isLoopback); i > 0 {
		out = out[:i]
	}
	return out[:min(len(out), maxRecordAddrs)]
}

// openRecord verifies a signed peer record. The reasons are Malformed and BadSignature.
func openRecord(b []byte) (*peer.PeerRecord, error) {
	if len(b) == 0 || len(b) > maxRecord {
		return nil, fmt.Errorf("peer record of %d bytes: %w", len(b), room.Malformed)
	}
	if _, err := record.UnmarshalEnvelope(b); err != nil {
		return nil, fmt.Errorf("peer record: %w", room.Malformed)
	}
	env, rec, err := record.ConsumeEnvelope(b, peer.PeerRecordEnvelopeDomain)
	if err != nil {
		return nil, fmt.Errorf("peer record: %w", room.BadSignature)
	}
	pr, ok := rec.(*peer.PeerRecord)
	if !ok {
		return nil, fmt.Errorf("not a peer record: %w", room.Malformed)
	}
	if !pr.PeerID.MatchesPublicKey(env.PublicKey) {
		return nil, fmt.Errorf("peer record signed by another: %w", room.BadSignature)
	}
	if len(pr.Addrs) > maxRecordAddrs {
		pr.Addrs = pr.Addrs[:maxRecordAddrs]
	}
	return pr, nil
}

// Learn takes a signed peer record that peer from told about any peer, and keeps its addresses for
// dialling. Private addresses that the gater would refuse are dropped, unless private is set: then they wait
// for an AllowPrivate to come. It returns whose record it is. The error is Malformed, BadSignature, or RateLimited for a
// referrer whose addresses keep failing.
func (h *Host) Learn(rec []byte, from peer.ID, private bool) (peer.ID, error) {
	now := h.cfg.Now()
	if h.dials.silenced(from, now) {
		return "", fmt.Errorf("referrer of peers that cannot be dialled: %w", room.RateLimited)
	}
	pr, err := openRecord(rec)
	if err != nil {
		return "", err
	}
	if pr.PeerID == h.ID() || !h.dials.newer(pr, from, now) {
		return pr.PeerID, nil
	}
	addrs := pr.Addrs
	if !private {
		addrs = slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool { return !h.gate.InterceptAddrDial(pr.PeerID, a) })
	}
	h.host.Peerstore().AddAddrs(pr.PeerID, addrs, learnedFor)
	return pr.PeerID, nil
}

// referral is what is known of one peer's addresses.
type referral struct {
	from   peer.ID // who told the newest record, empty: nobody
	seq    uint64
	addrs  []ma.Multiaddr // of that record, the direct ones
	failed time.Time      // last failed dial
	pause  time.Duration  // for which it is left alone since
	tried  []ma.Multiaddr // what it tried
	used   time.Time
}

// dialBook remembers failed dials and who is to blame. All times are arguments.
type dialBook struct {
	mu    sync.Mutex
	peers map[peer.ID]*referral
	blame map[peer.ID][]time.Time // by referrer, the newest badReferrals failures
}

func newDialBook() *dialBook {
	return &dialBook{peers: map[peer.ID]*referral{}, blame: map[peer.ID][]time.Time{}}
}

// newer notes a record and tells whether it is at least as new as the one known.
func (d *dialBook) newer(rec *peer.PeerRecord, from peer.ID, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.get(rec.PeerID, now)
	if rec.Seq < r.seq {
		return false
	}
	r.seq, r.from, r.addrs = rec.Seq, from, directOnly(rec.Addrs)
	if untried := func(a ma.Multiaddr) bool { return !ma.Contains(r.tried, a) }; slices.ContainsFunc(rec.Addrs, untried) {
		r.failed = time.Time{} // there is something new to try
	}
	return true
}

// record is the number and the direct addresses of the newest record of p that was noted.
func (d *dialBook) record(p peer.ID) (uint64, []ma.Multiaddr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.peers[p]; r != nil {
		return r.seq, r.addrs
	}
	return 0, nil
}

// get finds or makes the entry of p; the one not used for longest makes room.
func (d *dialBook) get(p peer.ID, now time.Time) *referral {
	r := d.peers[p]
	if r == nil {
		if len(d.peers) >= maxReferrals {
			d.evict()
		}
		r = &referral{}
		d.peers[p] = r
	}
	r.used = now
	return r
}

// evict looks at a few entries, in the map's random order, and forgets the stalest.
func (d *dialBook) evict() {
	var oldest peer.ID
	var when time.Time
	n := 0
	for p, r := range d.peers {
		if n == 0 || r.used.Before(when) {
			oldest, when = p, r.used
		}
		if n++; n == 16 {
			break
		}
	}
	delete(d.peers, oldest)
}

// failedLately tells whether p is still to be left alone.
func (d *dialBook) failedLately(p peer.ID, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.peers[p]
	return r != nil && !r.failed.IsZero() && now.Sub(r.failed) < r.pause
}

// done notes the outcome of a dial.
func (d *dialBook) done(p peer.ID, ok bool, tried []ma.Multiaddr, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.get(p, now)
	if ok {
		r.failed, r.pause = time.Time{}, 0
		return
	}
	r.pause = retryAfter
	d.fail(r, tried, now)
}

// late notes a dial that ran out of time.
func (d *dialBook) late(p peer.ID, tried []ma.Multiaddr, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.get(p, now)
	r.pause = min(max(2*r.pause, lateAfter), retryAfter)
	d.fail(r, tried, now)
}

// fail charges whoever told the addresses. With mu held.
func (d *dialBook) fail(r *referral, tried []ma.Multiaddr, now time.Time) {
	r.failed, r.tried = now, tried
	if r.from == "" {
		return
	}
	if len(d.blame) >= maxReferrals && d.blame[r.from] == nil {
		clear(d.blame)
	}
	b := append(d.blame[r.from], now)
	d.blame[r.from] = b[max(0, len(b)-badReferrals):]
}

// silenced tells whether a referrer's newest failures are all recent.
func (d *dialBook) silenced(from peer.ID, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.blame[from]
	return len(b) == badReferrals && now.Sub(b[0]) < retryAfter
}
