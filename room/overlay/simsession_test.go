package overlay

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/election"
)

// ranked is the order of succession.
func (w *sim) ranked() []peer.ID {
	out := append([]peer.ID{w.state.Host}, w.state.Moderators...)
	for _, p := range w.state.Stage {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// gossip reaches every insider.
func (n *simNode) gossip(fn func(*simNode)) {
	for _, m := range n.w.nodes {
		if m != n && m.alive && m.insider() {
			n.w.after(n.w.delay(n.i, m.i)+5*time.Millisecond, m.while(m.life, func() { fn(m) }))
		}
	}
}

// take puts a lease in force if it is the one to follow. A lease is a sign of life of its signer.
func (n *simNode) take(l *election.Lease) {
	if l.Fresh(n.w.now()) && n.w.now().Sub(l.Issued) < time.Second {
		n.chair.Heard(l.By, n.w.now())
	}
	if n.force.Take(l, n.w.state, n.w.ranked(), n.leader(), n.w.now()) == nil {
		n.step(Leased{l})
	}
}

func (n *simNode) leader() peer.ID {
	chair, _, _ := n.chair.Current(n.w.ranked(), n.id, n.w.now())
	return chair
}

// second runs each 250 ms: presence, the chair's work, links that have to be opened.
func (n *simNode) second() {
	w := n.w
	n.step(n.situation())
	for p := range n.links { // a dead QUIC connection
		if m := w.byID[p]; !m.alive && w.now().Sub(n.heard[p]) > 8*time.Second {
			n.unlink(m)
		}
	}
	n.seen = nil
	n.reconcile()
	if slices.Contains(w.ranked(), n.id) {
		n.lead()
		_, _, at := n.chair.Current(w.ranked(), n.id, w.now())
		if d := at.Sub(w.now()); !at.IsZero() && d > 0 && d < 250*time.Millisecond {
			w.after(d+time.Millisecond, n.while(n.life, n.lead))
		}
	}
}

// lead is the chair's work, if I am it.
func (n *simNode) lead() {
	w := n.w
	_, mine, _ := n.chair.Current(w.ranked(), n.id, w.now())
	if !mine {
		return
	}
	n.chair.Heard(n.id, w.now())
	n.choose()
	if w.now().Sub(n.beatAt) < time.Second {
		return
	}
	n.beatAt = w.now()
	w.digest++
	seq := w.digest
	n.takeDigest(seq, n.id)
	n.gossip(func(m *simNode) { m.takeDigest(seq, n.id) })
}

// takeDigest is a beat that goes down the tree.
func (n *simNode) takeDigest(seq uint64, chair peer.ID) {
	if seq <= n.digest {
		return
	}
	n.digest = seq
	n.chair.Heard(chair, n.w.now())
	for _, f := range n.o.Plan().Feeds {
		m := n.w.byID[f.Peer]
		if n.links[f.Peer] && !m.insider() {
			n.w.after(n.w.delay(n.i, m.i), m.while(m.life, func() { m.takeDigest(seq, chair) }))
		}
	}
}

// choose signs a lease when one is due.
func (n *simNode) choose() {
	w := n.w
	in := &election.Input{Me: n.id, First: n.id == w.state.Host, State: w.state, Dead: map[peer.ID][]peer.ID{}}
	if w.state.Role(n.id).Authority() {
		in.Grant = room.OpID{1}
	}
	for _, m := range w.nodes {
		_, gone := w.state.Removed[m.id]
		fresh := m.alive || w.now().Sub(n.heard[m.id]) < 10*time.Second // presence outlives its sender
		if !fresh || gone {
			continue
		}
		if m.alive {
			in.People++
			if !m.speaks {
				in.Listeners++
			}
		}
		if m.cap > 0 {
			in.Candidates = append(in.Candidates, election.Candidate{
				Ad: m.ad(), Here: w.now().Sub(m.since), Order: int(m.i), Live: fresh && !n.saysDead(m.id), Measured: -1,
			})
		}
	}
	in.Voters = append(in.Voters, n.id)
	for _, m := range w.nodes {
		l := n.force.Lease()
		if m != n && m.alive && (m.speaks || l != nil && l.Holds(m.id)) {
			in.Voters = append(in.Voters, m.id)
		}
	}
	for p, by := range n.dead {
		for v, at := range by {
			if w.now().Sub(at) < 5*time.Second {
				in.Dead[p] = append(in.Dead[p], v)
			}
		}
	}
	draft, _, due := n.elector.Next(in, &n.force, w.now())
	if !due {
		return
	}
	l := draft.Sign(n.key)
	n.take(l)
	n.gossip(func(m *simNode) { m.take(l) })
}

// saysDead: the first in rank trusts its own eyes.
func (n *simNode) saysDead(p peer.ID) bool {
	at, ok := n.dead[p][n.id]
	return ok && n.w.now().Sub(at) < 5*time.Second && n.w.now().Sub(n.heard[p]) > time.Second
}

// object tells that p does not serve me.
func (n *simNode) object(p peer.ID) {
	note := func(m *simNode) {
		if m.dead[p] == nil {
			m.dead[p] = map[peer.ID]time.Time{}
		}
		m.dead[p][n.id] = m.w.now()
		m.second()
	}
	note(n)
	if n.insider() {
		n.gossip(note)
	}
}

// leave closes all links, as a process that ends in order.
func (n *simNode) leave() {
	n.alive = false
	for p := range n.links {
		m := n.w.byID[p]
		n.w.after(n.w.delay(n.i, m.i), m.while(m.life, func() { m.unlink(n) }))
	}
}

// leaseOf is a lease whose core is the one node with key 1, signed by itself.
func (w *sim) leaseOf(t *testing.T, _ peer.ID) *election.Lease {
	k := simKey(t, 1, 1)
	a, err := election.ParseAd(election.Ad{Room: w.state.Room, Slots: 10, Issued: simStart}.Sign(k), w.state.Room)
	if err != nil {
		t.Fatal(err)
	}
	return election.Lease{Room: w.state.Room, Term: 1, Version: 1, Ads: []*election.Ad{a}, Issued: simStart, TTL: election.LeaseTTL}.Sign(k)
}

// roomless is the room with an id of zeros.
func (w *sim) roomless() *sim {
	w.state = &room.State{}
	return w
}
