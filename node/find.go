package node

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"balai/identity"
	"balai/room/invite"
)

const (
	findTimeout = 6 * time.Second        // one search
	findMore    = 300 * time.Millisecond // after the first one found, for others to be found too
	headStart   = 100 * time.Millisecond // of whom the link names, before others are asked
	findDials   = 16                     // peers dialled at a time in one search
	dialApart   = 100 * time.Millisecond // between two dials of those remembered
)

// route is where one hint leads.
type route struct {
	info   peer.AddrInfo
	member bool    // a candidate; otherwise a rendezvous point
	relay  peer.ID // of a circuit, else empty
}

// routesOf is what a hint offers: a member's own addresses, a rendezvous point, a circuit to the issuer.
func routesOf(h invite.Hint, issuer []byte) (out []route) {
	key := h.Peer
	if key == nil {
		key = issuer
	}
	p, err := identity.PeerOf(key)
	if err != nil {
		return nil
	}
	if h.Kind != invite.HintCircuit {
		out = append(out, route{info: addrInfo(p, h.Addrs()), member: h.Kind == invite.HintMember})
	}
	if to, err := identity.PeerOf(issuer); err == nil && to != p {
		if circuits := h.Circuits(issuer); len(circuits) > 0 {
			out = append(out, route{info: addrInfo(to, circuits), member: true, relay: p})
		}
	}
	return out
}

// addrInfo takes the addresses of p without the /p2p/ part at their end.
func addrInfo(p peer.ID, addrs []string) peer.AddrInfo {
	info := peer.AddrInfo{ID: p}
	for _, s := range addrs {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			continue
		}
		if a, _ = peer.SplitAddr(a); len(a) > 0 {
			info.Addrs = append(info.Addrs, a)
		}
	}
	return info
}

// search is one look for people of a room. All that it dials, it dials at once: a dead address delays nobody.
type search struct {
	j     *joined
	ctx   context.Context
	first bool // nobody was found before: also dial what failed lately
	slots chan struct{}
	found chan peer.ID
	wg    sync.WaitGroup

	mu   sync.Mutex // guards seen
	seen map[peer.ID]bool
}

// Candidates is session.Ports: whoever answers first comes first. The first search of a room ends when somebody is
// found; later ones, which follow refusals, also wait a while for others.
func (j *joined) Candidates(ctx context.Context) []peer.ID {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	s := &search{
		j: j, ctx: ctx, first: j.searches.Add(1) == 1, slots: make(chan struct{}, findDials), found: make(chan peer.ID), seen: map[peer.ID]bool{j.d.key.ID(): true},
	}
	defer cancel()
	ended := make(chan struct{})
	s.begin()
	go func() { // ends with the search: cancel ends all that it waits for
		s.wg.Wait()
		close(ended)
	}()
	out := s.gather(ended)
	cancel()
	<-ended
	return out
}

// begin starts with the link's hints and the ad's records, and a moment later asks community nodes and old friends.
func (s *search) begin() {
	for _, r := range s.j.hints {
		if p := s.j.Learn(r, ""); p != "" {
			s.dial(peer.AddrInfo{ID: p}, s.first)
		}
	}
	if s.j.inv != nil {
		for _, h := range s.j.inv.Hints {
			for _, r := range routesOf(h, s.j.inv.Issuer()) {
				s.follow(r)
			}
		}
	}
	s.wg.Go(func() {
		if rest(s.ctx, headStart); s.ctx.Err() != nil {
			return
		}
		for _, point := range s.j.d.host.CommunityNodes() {
			s.ask(point)
		}
		s.old()
	})
}

// old looks for those of whom a record is held: who is connected is found; of the others, one after the other is dialled while
// the search lasts, in no order. All at once would be work that ends half done as soon as one of them answers, and where many
// look at the same time because everything is slow it would be most of what makes it slow.
func (s *search) old() {
	var others []peer.ID
	for _, p := range s.j.remembered() {
		if s.j.d.host.Connected(p) {
			s.dial(peer.AddrInfo{ID: p}, false)
		} else {
			others = append(others, p)
		}
	}
	rand.Shuffle(len(others), func(a, b int) { others[a], others[b] = others[b], others[a] })
	for _, p := range others {
		if rest(s.ctx, dialApart); s.ctx.Err() != nil {
			return
		}
		s.dial(peer.AddrInfo{ID: p}, false)
	}
}

// follow goes where a hint leads.
func (s *search) follow(r route) {
	if s.j.local {
		s.j.allowPrivate(r.info.ID)
		if r.relay != "" {
			s.j.allowPrivate(r.relay)
		}
	}
	if r.member {
		s.dial(r.info, s.first)
		return
	}
	s.wg.Go(func() {
		if s.connect(r.info, s.first) {
			s.ask(r.info.ID)
		}
	})
}

// ask asks a community node who is in the room, and dials them.
func (s *search) ask(point peer.ID) {
	if !s.once("point " + point) {
		return
	}
	for _, name := range s.j.pointNames(time.Now()) {
		s.wg.Go(func() {
			records, err := s.j.d.host.Rendezvous().Discover(s.ctx, point, name)
			if err != nil {
				s.j.d.log.Debug("rendezvous point did not answer", "point", point, "err", err)
			}
			for _, r := range records {
				if p := s.j.Learn(r, point); p != "" {
					s.dial(peer.AddrInfo{ID: p}, false)
				}
			}
		})
	}
}

// dial connects to a peer of the room in the background; who answers is found.
func (s *search) dial(info peer.AddrInfo, force bool) {
	if len(info.Addrs) == 0 && !s.once(info.ID) {
		return
	}
	s.wg.Go(func() {
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		ok := s.connect(info, force)
		<-s.slots
		if !ok {
			return
		}
		select {
		case s.found <- info.ID:
		case <-s.ctx.Done():
		}
	})
}

func (s *search) connect(info peer.AddrInfo, force bool) bool {
	err := s.j.d.host.Connect(s.ctx, info, force)
	if err != nil {
		s.j.d.log.Debug("not reached", "peer", info.ID, "err", err)
	}
	return err == nil
}

// once tells whether p comes up for the first time in this search.
func (s *search) once(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[p] {
		return false
	}
	s.seen[p] = true
	return true
}

// gather collects who is found until all have answered or it is enough.
func (s *search) gather(ended <-chan struct{}) (out []peer.ID) {
	var enough <-chan time.Time
	for {
		select {
		case p := <-s.found:
			if p == s.j.d.key.ID() || slices.Contains(out, p) {
				continue
			}
			out = append(out, p)
			if s.first {
				return out
			}
			if enough == nil {
				t := time.NewTimer(findMore)
				defer t.Stop()
				enough = t.C
			}
		case <-enough:
			return out
		case <-ended:
			return out
		case <-s.ctx.Done():
			return out
		}
	}
}

// pointNames are the names of the room at rendezvous points now: the day's, and for the hour around midnight UTC that of
// the other day too, since clocks differ.
func (j *joined) pointNames(now time.Time) []string {
	names := []string{j.secret.PublicName("rendezvous", now)}
	for _, other := range []time.Time{now.Add(-nameOverlap), now.Add(nameOverlap)} {
		if name := j.secret.PublicName("rendezvous", other); name != names[0] {
			names = append(names, name)
		}
	}
	return names
}

// nameOverlap is how long before and after midnight UTC both days' names are in use.
const nameOverlap = 30 * time.Minute
