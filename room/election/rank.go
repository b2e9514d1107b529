package election

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// What a candidate must bring.
const (
	minPresent = 60 * time.Second
	firstFew   = 8    // who came first need not wait
	newcomer   = 1500 // kbit/s that a node without measured service can count for
	fullCap    = 6000 // kbit/s that count as all
	maxFlaps   = 4
	scoreSteps = 16
	minHolders = 2 // reservations at an unvouched community node
)

// Candidate is one that offers to relay, as the chair sees it.
type Candidate struct {
	Ad           *Ad
	Here         time.Duration // in the room, by the chair's own clock
	Order        int           // its place among the living by arrival, 0 first
	Live         bool          // heard lately
	Born, Said   time.Time     // the first and the last word of its process, if it is a member
	Direct       int           // people who reached it by a probe, of those asked
	Of           int           // who is asked: the others on stage, and if there are none all others
	Reservations int           // members with a circuit reservation there
	Branch       room.InviteID // root of the invite that it came by; zero: none
	Measured     float64       // its service by its children's reports, 0 to 1; negative: none yet
}

// Score is a candidate's worth from 0 to 1, in steps of 1/16 so that noise changes nothing.
func (c *Candidate) Score() float64 {
	a := c.Ad
	capacity := a.Cap
	s := c.Measured
	if s < 0 {
		capacity = min(capacity, newcomer)
		s = .5
	}
	s = .35*s + .3*share(float64(capacity), fullCap) + .15*(1-share(float64(a.Lateness), float64(20*time.Millisecond))) +
		.15*share(float64(c.Here), float64(10*time.Minute)) + .05*(1-share(float64(a.Used), float64(max(a.Cap, 1))))
	for range min(a.Flaps, maxFlaps) {
		s *= .7
	}
	return float64(int(s*scoreSteps)) / scoreSteps
}

func share(x, of float64) float64 { return max(0, min(x/of, 1)) }

// willing tells whether c can serve at all: by the ledger, by its own word, alive.
func (c *Candidate) willing(s *room.State) bool {
	return c.Live && c.Ad.Slots > 0 && c.Ad.Flags&(Metered|OnBattery) == 0 && mayServe(c.Ad, s) == nil
}

// eligible tells whether c may be chosen without resort to the ladder below.
func (c *Candidate) eligible(s *room.State) bool {
	if !c.willing(s) {
		return false
	}
	if s.Role(c.Ad.Peer) == room.NoRole {
		return s.Vouched[c.Ad.Peer]
	}
	reachable := c.Ad.Reach == ReachPublic || c.Of > 0 && 2*c.Direct >= c.Of
	return reachable && (c.Here >= minPresent || c.Order < firstFew)
}

// field is who may be in the core now: the eligible, or, only if that is nobody, community nodes that at least two
// members use already, even though nobody vouched for them.
func field(in *Input) (out []*Candidate, unvouched bool) {
	for i := range in.Candidates {
		if c := &in.Candidates[i]; c.eligible(in.State) {
			out = append(out, c)
		}
	}
	if len(out) > 0 {
		return out, false
	}
	for i := range in.Candidates {
		c := &in.Candidates[i]
		if c.willing(in.State) && in.State.Role(c.Ad.Peer) == room.NoRole && c.Reservations >= minHolders {
			out = append(out, c)
		}
	}
	return out, len(out) > 0
}

// sortByWorth orders by score, then by the rendezvous hash of (room, version, peer): the same for everybody, and nobody
// is first twice without a reason.
func sortByWorth(cs []*Candidate, id room.ID, version uint64) {
	slices.SortFunc(cs, func(a, b *Candidate) int {
		if c := cmp.Compare(b.Score(), a.Score()); c != 0 {
			return c
		}
		x, y := rendezvous(id, version, a.Ad.Peer), rendezvous(id, version, b.Ad.Peer)
		return bytes.Compare(y[:], x[:])
	})
}

// rendezvous is SHA-256("balai-rendezvous-hash/1" || room || version u64 || peer).
func rendezvous(id room.ID, version uint64, p peer.ID) [32]byte {
	b := append([]byte("balai-rendezvous-hash/1"), id[:]...)
	b = binary.BigEndian.AppendUint64(b, version)
	return sha256.Sum256(append(b, p...))
}

// fill adds the best of cs to core up to size: first those of other branches and networks than any in it, then, if
// there is no choice, the rest.
func fill(core, cs []*Candidate, size int) []*Candidate {
	for _, strict := range [2]bool{true, false} {
		for _, c := range cs {
			if len(core) >= size {
				return core
			}
			if !slices.Contains(core, c) && !(strict && slices.ContainsFunc(core, c.near)) {
				core = append(core, c)
			}
		}
	}
	return core
}

// near tells whether two candidates probably belong together: one invite branch, or one network.
func (c *Candidate) near(o *Candidate) bool {
	var none room.InviteID
	return c.Branch != none && c.Branch == o.Branch || c.Ad.Prefix != "" && c.Ad.Prefix == o.Ad.Prefix
}
