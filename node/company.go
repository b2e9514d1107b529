package node

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/session"
)

const (
	companyLook  = 3 * time.Second // between two looks
	companyWant  = 8               // members whose gossip one hears directly, if there are so many: a chair, a core, and some to spare
	companyTries = 2               // dialled in one look
)

// keepCompany holds connections to some members, whoever they are, until ctx ends. Media links lead to a few only, and with
// these the gossip would end, too: the chair and all of the core may go at once.
func (j *joined) keepCompany(ctx context.Context) {
	for {
		rest(ctx, companyLook)
		if ctx.Err() != nil {
			return
		}
		if len(j.topics[session.StageTopic].Peers()) < companyWant {
			j.meetMembers(ctx)
		}
	}
}

// meetMembers dials some members that are not connected.
func (j *joined) meetMembers(ctx context.Context) {
	hears := map[peer.ID]bool{j.d.key.ID(): true}
	for _, p := range j.topics[session.StageTopic].Peers() {
		hears[p] = true
	}
	var some []peer.ID
	for _, p := range j.links.allMembers() {
		if !hears[p] {
			some = append(some, p)
		}
	}
	rand.Shuffle(len(some), func(a, b int) { some[a], some[b] = some[b], some[a] })
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	for _, p := range some[:min(len(some), companyTries)] {
		if err := j.d.host.Connect(ctx, peer.AddrInfo{ID: p}, false); err != nil {
			j.d.log.Debug("no company", "peer", p, "err", err)
		}
	}
}
