package election

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
)

// people are keys with a place in a room.
type people struct {
	t     *testing.T
	keys  map[string]*identity.Key
	names map[peer.ID]string
	state *room.State
}

// newPeople makes a room of host h, moderator m, speakers s and t, listeners a to f, and community nodes v (vouched for)
// and u (not), banned b and removed r.
func newPeople(t *testing.T) *people {
	p := &people{t: t, keys: map[string]*identity.Key{}, names: map[peer.ID]string{}}
	p.state = &room.State{
		Members: map[peer.ID]room.Member{}, Banned: map[peer.ID]bool{}, Removed: map[peer.ID]room.OpID{}, Vouched: map[peer.ID]bool{},
	}
	for _, n := range []string{"h", "m", "s", "t", "a", "b", "c", "d", "e", "f", "g", "i", "j", "k", "l", "n", "v", "u", "x", "r"} {
		k, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		p.keys[n], p.names[k.ID()] = k, n
		switch n {
		case "h":
			p.state.Host = k.ID()
		case "m":
			p.state.Moderators = []peer.ID{k.ID()}
		case "s", "t":
			p.state.Members[k.ID()] = room.Member{Peer: k.ID(), Role: room.Speaker, OnStage: true}
			p.state.Stage = append(p.state.Stage, k.ID())
		case "v":
			p.state.Vouched[k.ID()] = true
		case "u":
		case "x":
			p.state.Banned[k.ID()] = true
		case "r":
			p.state.Removed[k.ID()] = room.OpID{1}
		default:
			p.state.Members[k.ID()] = room.Member{Peer: k.ID(), Role: room.Listener}
		}
	}
	return p
}

func (p *people) id(n string) peer.ID { return p.keys[n].ID() }

func (p *people) ranked() []peer.ID {
	return []peer.ID{p.id("h"), p.id("m"), p.id("s"), p.id("t")}
}

func (p *people) ad(n string) *Ad {
	a := Ad{Room: p.state.Room, Reach: ReachPublic, Cap: 5000, Slots: 40, Issued: start}
	if n == "u" || n == "v" {
		a.Flags = Community
	}
	out, err := ParseAd(a.Sign(p.keys[n]), p.state.Room)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// lease is one by the first letter of by, with a core of the letters in core. A grant is there if the role has one.
func (p *people) lease(by, core string, term, version uint64) *Lease {
	l := Lease{Room: p.state.Room, Term: term, Version: version, Issued: start, TTL: LeaseTTL}
	if p.state.Role(p.id(by)).Authority() {
		l.Grant = room.OpID{9}
	}
	for _, c := range core {
		l.Ads = append(l.Ads, p.ad(string(c)))
	}
	return l.Sign(p.keys[by])
}

// input is what h, as chair and first in rank, knows when the candidates are the letters of who.
func (p *people) input(who string, listeners int) *Input {
	in := &Input{Me: p.id("h"), Grant: room.OpID{9}, First: true, State: p.state, People: listeners + 3, Listeners: listeners, Dead: map[peer.ID][]peer.ID{}}
	for i, c := range who {
		in.Candidates = append(in.Candidates, Candidate{Ad: p.ad(string(c)), Here: 5 * time.Minute, Order: i, Live: true, Measured: -1})
	}
	in.Voters = []peer.ID{p.id("h"), p.id("s"), p.id("t")}
	return in
}

// show is a core as letters.
func (p *people) show(ads []*Ad) (s string) {
	for _, a := range ads {
		s += p.names[a.Peer]
	}
	return s
}
