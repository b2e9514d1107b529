package api

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"balai/identity"
	"balai/room"
	"balai/room/invite"
	"balai/room/session"
)

func issue(by *identity.Key, t invite.Terms) *invite.Invite {
	v, err := invite.Issue(by, by.Public(), room.NewSecret(), t)
	if err != nil {
		panic(err)
	}
	return v
}

func newKey() *identity.Key {
	k, err := identity.Generate()
	if err != nil {
		panic(err)
	}
	return k
}

func goodLink() string {
	return issue(newKey(), invite.Terms{Role: room.Listener, Expiry: time.Now().Add(time.Hour)}).Link()
}

func TestInspect(t *testing.T) {
	clk := &clock{at: time.Unix(1_800_000_000, 0)}
	d := start(t, func(c *Config) { c.Now = clk.now })
	host := newKey()
	terms := invite.Terms{Role: room.Speaker, Uses: 3, Depth: 1, Expiry: clk.at.Add(time.Hour), Knock: true}
	link := issue(host, terms).Link()
	look := func(link string) (int, invite.Inspection, string) {
		body, err := json.Marshal(map[string]string{"link": link})
		if err != nil {
			t.Fatal(err)
		}
		status, answer, _ := d.do("POST", base+"/invites/inspect", string(body))
		var v invite.Inspection
		_ = json.Unmarshal([]byte(answer), &v)
		return status, v, answer
	}
	status, v, answer := look(link)
	if status != 200 || v.Host != host.ID().String() || v.HostWords != identity.Fingerprint(host.ID()) || v.Role != "speaker" || v.Uses != 3 || v.Depth != 1 ||
		!v.Knock || v.Strict || v.Issuer != "host" || v.Chain != 1 || v.Expired || v.Reason != "" || !v.Expiry.Equal(clk.at.Add(time.Hour)) {
		t.Error(status, answer)
	}
	clk.add(2 * time.Hour)
	if status, v, answer := look(link); status != 200 || !v.Expired || v.Reason != "expired" {
		t.Error("expired:", status, answer)
	}
	clk.add(-4 * time.Hour)
	terms.NotBefore = clk.at.Add(time.Hour)
	if status, v, answer := look(issue(host, terms).Link()); status != 200 || v.Reason != "not_yet" {
		t.Error("early:", status, answer)
	}
	for name, link := range map[string]string{
		"malformed": "balai:join#AQ", "empty": "", "long": strings.Repeat("a", 5000),
	} {
		if status, _, answer := look(link); status != 400 || !strings.Contains(answer, `"reason":"malformed"`) {
			t.Error(name, status, answer)
		}
	}
	v2 := issue(host, terms)
	v2.Blocks[0].Sig[0] ^= 1
	if status, _, answer := look(v2.Link()); status != 400 || !strings.Contains(answer, `"reason":"bad_signature"`) {
		t.Error("bad signature:", status, answer)
	}
	if done := append(d.node.told(), d.room.told()...); len(done) != 0 {
		t.Error("inspect asked for more:", done)
	}
}

// TestQR reads the drawing back: square, white below, with a quiet zone and the finder patterns in their corners.
func TestQR(t *testing.T) {
	v := issue(newKey(), invite.Terms{Role: room.Listener, Expiry: time.Now().Add(time.Hour)})
	text := qrOf(v.Link())
	var svg struct {
		ViewBox string `xml:"viewBox,attr"`
		Role    string `xml:"role,attr"`
		Title   string `xml:"title"`
		Path    []struct {
			Fill string `xml:"fill,attr"`
			D    string `xml:"d,attr"`
		} `xml:"path"`
	}
	if err := xml.Unmarshal([]byte(text), &svg); err != nil {
		t.Fatal(err)
	}
	var side int
	if _, err := fmt.Sscanf(svg.ViewBox, "0 0 %d %d", &side, &side); err != nil || svg.Role != "img" || svg.Title == "" || len(svg.Path) != 2 || svg.Path[0].Fill != "#fff" {
		t.Fatal(err, text[:200])
	}
	modules := side - 2*quietZone
	if version := (modules - 17) / 4; (modules-17)%4 != 0 || version > 14 {
		t.Error("version", version)
	}
	dark := map[[2]int]bool{}
	for _, run := range strings.Split(strings.TrimSuffix(svg.Path[1].D, "z"), "z") {
		var x, y, n, back int
		if _, err := fmt.Sscanf(run, "M%d %dh%dv1h-%d", &x, &y, &n, &back); err != nil || n != back || n < 1 {
			t.Fatal(run, err)
		}
		for i := range n {
			dark[[2]int{x + i, y}] = true
		}
	}
	for p := range dark {
		if min(p[0], p[1]) < quietZone || max(p[0], p[1]) >= side-quietZone {
			t.Fatal("in the quiet zone:", p)
		}
	}
	last := side - quietZone - 7
	for _, at := range [][2]int{{quietZone, quietZone}, {last, quietZone}, {quietZone, last}} {
		for i := range 49 {
			x, y := i%7, i/7
			ring := max(x-3, 3-x, y-3, 3-y)
			if dark[[2]int{at[0] + x, at[1] + y}] != (ring != 2) {
				t.Fatal("no finder pattern at", at)
			}
		}
	}
	if qrOf("") != "" || qrOf(strings.Repeat("x", 5000)) != "" {
		t.Error("what cannot be drawn is drawn")
	}
}

// Only what may be read by a page's script is offered as an https link, over each node of which a name is known.
func TestWebLinks(t *testing.T) {
	host := newKey()
	link := func(change func(*invite.Terms)) session.InviteView {
		terms := invite.Terms{Role: room.Listener, Expiry: time.Now().Add(time.Hour)}
		change(&terms)
		return session.InviteView{Link: issue(host, terms).Link()}
	}
	nodes := []Community{
		{PeerID: "a", Addrs: []string{"/dns4/one.example/udp/4330/quic-v1/p2p/a", "/dns/one.example/tcp/4330/p2p/a", "/ip4/192.0.2.1/udp/1/quic-v1/p2p/a"}},
		{PeerID: "b", Addrs: []string{"/dns6/two.example/udp/1/quic-v1/p2p/b", "/dns4/bad_name!/udp/1/quic-v1/p2p/b", "dns/x/y/z", "/dns4/short"}},
	}
	for name, c := range map[string]struct {
		view session.InviteView
		want []string
	}{
		"listener": {link(func(*invite.Terms) {}), []string{"https://one.example/j#", "https://two.example/j#"}},
		"speaker":  {link(func(t *invite.Terms) { t.Role = room.Speaker }), nil},
		"strict":   {link(func(t *invite.Terms) { t.Strict = true }), nil},
		"bound":    {link(func(t *invite.Terms) { t.Audience = newKey().ID() }), nil},
		"unknown":  {session.InviteView{}, nil},
	} {
		var got []string
		_, token, _ := strings.Cut(c.view.Link, "#")
		for _, l := range shown(nodes, c.view)[0].Web {
			got = append(got, strings.TrimSuffix(l, token))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
