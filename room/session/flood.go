package session

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// traffic is a kind of what others send; each has its own allowance per peer.
type traffic uint8

const (
	forwards  traffic = iota // whatever it is, by who sent it on to me
	presences                // by signer, as all that follow
	beats
	leaves
	heards
	chats
	reactions
	decisions
	admissions // admits and tallies: apart from other decisions
	backlogs   // decisions that were fetched, by author
	offers     // to relay
	leasesOf   // by signer
	objections
	digests
	linkRecords // by the peer at the other end
	requests    // for decisions and keys, by who asks
	strangers   // who say that they are members, all together
)

// rate is how much of a traffic one peer may send: so many at once, and so many each second.
type rate struct{ burst, second float64 }

var rates = [...]rate{
	forwards: {600, 200}, presences: {20, 4}, beats: {10, 2}, leaves: {4, 1}, heards: {6, 1}, chats: {60, 5}, reactions: {20, 4},
	decisions: {30, .5}, admissions: {30, 1}, backlogs: {300, 1.5},
	offers: {10, .5}, leasesOf: {20, 2}, objections: {20, 2}, digests: {20, 5}, linkRecords: {60, 10}, requests: {240, 2}, strangers: {20, 5},
}

// maxBuckets bounds the memory of a flood.
const maxBuckets = 4096

// flood bounds what each peer may send. It is safe from any goroutine.
type flood struct {
	mu      sync.Mutex
	buckets map[bucketKey]bucket
}

type bucketKey struct {
	peer peer.ID
	kind traffic
}

type bucket struct {
	left float64
	at   time.Time
}

// allow takes one from p's allowance; false when it is used up.
func (f *flood) allow(p peer.ID, kind traffic, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, key := rates[kind], bucketKey{p, kind}
	b, known := f.buckets[key]
	if !known {
		f.makeRoom(now)
		b = bucket{r.burst, now}
	}
	b.left, b.at = min(r.burst, b.left+now.Sub(b.at).Seconds()*r.second), now
	ok := b.left >= 1
	if ok {
		b.left--
	}
	f.buckets[key] = b
	return ok
}

// makeRoom forgets who has been quiet, and if that is nobody, everybody.
func (f *flood) makeRoom(now time.Time) {
	if f.buckets == nil {
		f.buckets = map[bucketKey]bucket{}
	}
	if len(f.buckets) < maxBuckets {
		return
	}
	for k, b := range f.buckets {
		if b.left+now.Sub(b.at).Seconds()*rates[k.kind].second >= rates[k.kind].burst {
			delete(f.buckets, k)
		}
	}
	if len(f.buckets) >= maxBuckets {
		clear(f.buckets)
	}
}
