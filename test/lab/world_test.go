//go:build linux

package lab

import (
	"fmt"
	"testing"
)

// kind is what a router at home does with addresses (RFC 4787).
type kind string

const (
	// cone: one outside port for all destinations, and only who was written to may answer.
	cone kind = "cone"
	// full: as cone, but anybody may write to the host.
	full kind = "full cone"
	// symmetric: another random outside port for each destination: no hole can be punched from two of these.
	symmetric kind = "symmetric"
	// noUDP: as cone, and no UDP passes.
	noUDP kind = "without UDP"
	// public: no router at all.
	public kind = "public"
)

// world is an internet: 192.0.0.192/26, which nobody has (RFC 6890), but which libp2p holds for public; between private
// ranges it would punch no hole.
type world struct {
	t    testing.TB
	core *netns
	used int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	need(t)
	w := &world{t: t, core: newNetns(t, "internet")}
	w.core.ip(t, "link add br0 type bridge", "link set br0 up")
	return w
}

// place is where somebody sits.
type place struct {
	*netns
	kind   kind
	router *netns // nil in public
	number int
}

// connect gives a namespace an interface into the internet.
func (w *world) connect(n *netns, dev string) (number int) {
	w.t.Helper()
	if w.used++; w.used > 61 {
		w.t.Fatal("the internet is full")
	}
	port := fmt.Sprintf("p%d", w.used)
	wire(w.t, n, dev, w.core, port)
	w.core.ip(w.t, fmt.Sprintf("link set %s master br0 up", port))
	n.ip(w.t, fmt.Sprintf("addr add %s/26 dev %s", w.addr(w.used), dev), fmt.Sprintf("link set %s up", dev))
	return w.used
}

// addr is a public address.
func (w *world) addr(number int) string { return fmt.Sprintf("192.0.0.%d", 192+number) }

// at makes a place for somebody.
func (w *world) at(k kind) *place {
	w.t.Helper()
	if k == public {
		p := &place{netns: newNetns(w.t, "public"), kind: k}
		p.number = w.connect(p.netns, "eth0")
		return p
	}
	p := &place{netns: newNetns(w.t, "home, "+string(k)), kind: k, router: newNetns(w.t, "router, "+string(k))}
	p.number = w.connect(p.router, "wan")
	wire(w.t, p.router, "lan", p.netns, "eth0")
	p.router.forward(w.t)
	p.router.ip(w.t, fmt.Sprintf("addr add %s/24 dev lan", p.inside(1)), "link set lan up")
	p.settle(w.t, 2)
	p.router.nft(w.t, p.rules())
	return p
}

// inside is an address in the home's own network.
func (p *place) inside(host int) string { return fmt.Sprintf("10.%d.0.%d", p.number, host) }

// settle gives the host its address at home.
func (p *place) settle(t testing.TB, host int) {
	t.Helper()
	p.ip(t, fmt.Sprintf("addr add %s/24 dev eth0", p.inside(host)), "link set eth0 up", "route add default via "+p.inside(1))
}

// rules are the router's. What comes in unasked is dropped before it can take a port from the translation.
func (p *place) rules() string {
	masquerade, in, block := "masquerade", `iifname "wan" ct state new drop`, ""
	switch p.kind {
	case symmetric:
		masquerade += " fully-random"
	case full:
		in = ""
	case noUDP:
		block = "meta l4proto udp drop"
	}
	rules := fmt.Sprintf(`
table ip nat {
	chain post { type nat hook postrouting priority srcnat; oifname "wan" %s; }
	chain pre { type nat hook prerouting priority dstnat; }
}
table ip filter {
	chain forw { type filter hook forward priority 0; %s; %s; }
	chain inpt { type filter hook input priority 0; iifname "wan" ct state new meta l4proto { tcp, udp } drop; }
}
`, masquerade, block, in)
	if p.kind == full {
		rules += fmt.Sprintf("add rule ip nat pre iifname \"wan\" dnat to %s\n", p.inside(2))
	}
	return rules
}

// cutUDP makes the router of a home drop all UDP from now on, or not.
func (p *place) cutUDP(t testing.TB, cut bool) {
	t.Helper()
	if cut {
		p.router.nft(t, "add table ip cut; add chain ip cut f { type filter hook forward priority 1; }; add rule ip cut f meta l4proto udp drop\n")
	} else {
		p.router.nft(t, "delete table ip cut\n")
	}
}
