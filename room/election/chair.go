// Package election owns whose turn it is in a room: the succession of the chair, the choice of those who relay, and the
// lease that names them. It sends nothing, and all it knows of people and nodes is what it is given.
package election

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// BeatPeriod is how often the chair beats.
const BeatPeriod = time.Second

// A signer counts for beatTTL + rankTTL × rank after its beat, and whoever is next waits that long.
const (
	beatTTL = 3 * BeatPeriod
	rankTTL = 3 * BeatPeriod / 2
)

// Chair follows the beats of one room. The zero value has heard nobody. It is not safe for concurrent use.
type Chair struct {
	since time.Time // when this member began to listen
	heard map[peer.ID]time.Time
}

// Patience is how long a signer of this rank counts after its last beat.
func Patience(rank int) time.Duration { return beatTTL + time.Duration(rank)*rankTTL }

// Heard notes a beat of p at now. What term the beat names does not matter: rank alone decides.
func (c *Chair) Heard(p peer.ID, now time.Time) {
	if c.heard == nil {
		c.heard = map[peer.ID]time.Time{}
	}
	c.heard[p] = now
}

// Current is who is chair at now, in the order of succession ranked (host, moderators in grant order,
// speakers by time on stage), as me sees it; empty while nobody is. mine tells whether me beats. wakeAt is
// when the answer may change if nothing is heard until then.
func (c *Chair) Current(ranked []peer.ID, me peer.ID, now time.Time) (chair peer.ID, mine bool, wakeAt time.Time) {
	if c.since.IsZero() {
		c.since = now
	}
	c.forget(ranked)
	last := c.since
	for rank, p := range ranked {
		if p == me {
			at := last.Add(Patience(rank))
			if rank == 0 || !now.Before(at) {
				return me, true, time.Time{}
			}
			wakeAt = at
			continue
		}
		at, ok := c.heard[p]
		if !ok {
			continue
		}
		if until := at.Add(Patience(rank)); now.Before(until) {
			return p, false, until
		}
		if at.After(last) && !slices.Contains(ranked[:rank], me) {
			last = at
		}
	}
	return "", false, wakeAt
}

// forget drops who is no candidate any more.
func (c *Chair) forget(ranked []peer.ID) {
	for p := range c.heard {
		if !slices.Contains(ranked, p) {
			delete(c.heard, p)
		}
	}
}
