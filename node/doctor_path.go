package node

import (
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
	"balai/room/election"
	"balai/room/session"
)

// pathFinding explains how the audio of a room travels to this daemon, and for whom this daemon passes it on.
func pathFinding(v session.View, r session.Report) api.Finding {
	title := "Audio of “" + v.Name + "”"
	switch {
	case v.Encryption != "on":
		return finding("path", "fail", title+": no key", "The key of this room has not arrived; nothing can be heard or sent.", "Wait some seconds; if it stays, leave and join again.")
	case v.NoRelay, v.Assist && v.Members >= election.AssistMax:
		return finding("path", "fail", title+": no relay",
			"More than 16 people are here or want in, and nobody here can be reached from outside. Those who are in hear each other as far as direct links go; nobody else gets in.",
			fmt.Sprintf("Add a community relay; the host or a moderator may: balai room vouch %q /dns/HOST/udp/PORT/quic-v1/p2p/ID", v.Name))
	case v.Members <= 1 && len(r.Links) == 0:
		return finding("path", "ok", title+": you are alone here", "There is nobody to send to yet.", "Invite somebody.")
	}
	f := meshPath(title, v, r)
	if len(v.Relays) > 0 {
		f = relayedPath(title, v, r)
	}
	if r.Children > 0 {
		f.Detail += fmt.Sprintf(" Your machine passes the room on to %s at %s.", count(r.Children, "one person", "people"), rate(r.UpKbps))
	}
	return f
}

// meshPath is about direct links.
func meshPath(title string, v session.View, r session.Report) api.Finding {
	if len(r.Links) == 0 {
		return finding("path", "fail", title+": nobody is linked", "Other people are here, but no direct link to them is open.", "Check that UDP is not blocked.")
	}
	if slow := overTCP(v, r, nil); len(slow) > 0 {
		return finding("path", "warn", title+": over TCP", "UDP does not get through to "+strings.Join(slow, ", ")+"; audio may stutter.", "Allow UDP in the firewall.")
	}
	links := count(len(r.Links), "a direct link to one person", "direct links")
	if v.Assist {
		return finding("path", "warn", title+": "+links+", more than is good",
			"Nobody here can be reached from outside, so nobody can relay, and everybody sends to everybody. Who cannot link directly is helped by a third person in the room.",
			"A community relay would help; the host or a moderator may add one.")
	}
	return finding("path", "ok", title+": "+links, "Sealed end to end; nobody is in between.", "")
}

// relayedPath is about a room that relays carry.
func relayedPath(title string, v session.View, r session.Report) api.Finding {
	uses := map[string][]session.RelayView{}
	for _, n := range v.Relays {
		if n.Me {
			return finding("path", "ok", title+": your machine carries it", "It is one of the relays of this room; others hear each other through it. It is in the room and hears it anyway.", "")
		}
		uses[n.Use] = append(uses[n.Use], n)
	}
	active := append(uses["parent"], uses["suspect"]...)
	switch {
	case len(active) == 0 && len(uses["warm"]) == 0:
		return finding("path", "warn", title+": looking for a relay", "The room is carried by relays, and none of them passes it on to this machine at the moment.", "Wait some seconds; if it stays, check that UDP is not blocked.")
	case len(uses["parent"]) == 0:
		return finding("path", "warn", title+": the relay falters", "What came through "+named(append(active, uses["warm"]...))+" comes late or not at all; another relay is asked.", "")
	}
	who := make([]string, 0, len(active))
	for _, n := range active {
		who = append(who, sees(n))
	}
	detail := strings.Join(who, " ")
	if slow := overTCP(v, r, uses["parent"]); len(slow) > 0 {
		return finding("path", "warn", title+": through a relay, over TCP", "UDP does not get through to "+strings.Join(slow, ", ")+"; audio may stutter. "+detail, "Allow UDP in the firewall.")
	}
	if warm := uses["warm"]; len(warm) > 0 {
		detail += " If it fails, " + named(warm) + " takes over."
	}
	return finding("path", "ok", title+": through "+named(uses["parent"]), "Sealed end to end. "+detail, "")
}

// sees says what a relay can and cannot see.
func sees(n session.RelayView) string {
	if n.Kind == "member" {
		return n.Name + " is in the room, hears it anyway, and sees who its listeners are."
	}
	s := "The community node " + n.Name + " cannot hear the room; it sees the addresses of its neighbours, and the sizes and times of what it passes on."
	if !n.Vouched {
		s += " Nobody in this room has vouched for it."
	}
	return s
}

func named(list []session.RelayView) string {
	names := make([]string, 0, len(list))
	for _, n := range list {
		names = append(names, n.Name)
	}
	return strings.Join(names, " and ")
}

// overTCP are the names of those whose links a stream carries; among is who counts, nil for all.
func overTCP(v session.View, r session.Report, among []session.RelayView) (slow []string) {
	names := map[string]string{}
	for _, p := range v.Stage {
		names[p.PeerID] = p.Name
	}
	for _, p := range v.AudienceList {
		names[p.PeerID] = p.Name
	}
	relays := map[string]bool{}
	for _, n := range among {
		names[n.PeerID], relays[n.PeerID] = n.Name, true
	}
	for _, l := range r.Links {
		if id := l.Peer.String(); l.Degraded && (among == nil || relays[id]) {
			slow = append(slow, nameOf(names, l.Peer))
		}
	}
	return slow
}

func nameOf(names map[string]string, p peer.ID) string {
	if n := names[p.String()]; n != "" {
		return n
	}
	return p.String()
}

// rate is kbit/s in words.
func rate(kbps uint32) string {
	if kbps < 1000 {
		return fmt.Sprintf("%d kbit/s", kbps)
	}
	return fmt.Sprintf("%.1f Mbit/s", float64(kbps)/1000)
}

// checkRelay says whether this daemon may carry rooms, and whether it does.
func (d *daemon) checkRelay() api.Finding {
	carried := 0
	for _, j := range d.allRooms() {
		if j.s.View().State == session.Live && j.lastReport().Children > 0 {
			carried++
		}
	}
	return relayFinding(d.cfg.Relay, d.host.Reachability(), carried)
}

// relayFinding is about the setting --relay, how far others can reach this daemon, and for how many rooms it passes
// audio on now.
func relayFinding(setting, reach string, carried int) api.Finding {
	if carried > 0 {
		return finding("relay", "ok", "This machine carries "+count(carried, "one room", "rooms")+" for others",
			"It passes on sealed audio of rooms that you are in.", "To stop that, start with --relay never.")
	}
	switch {
	case setting == "never":
		return finding("relay", "ok", "This machine does not carry rooms", "It was started with --relay never and passes on nobody else's audio.", "")
	case setting == "only-lan":
		return finding("relay", "ok", "This machine may carry rooms of your own network", "It was started with --relay only-lan: rooms that use addresses of this network, and no others.", "")
	case reach == "public":
		return finding("relay", "ok", "This machine may carry rooms", "When a room grows beyond six people it can be chosen to pass on its audio. It is asked only for rooms that you are in.",
			"If you do not want that, start with --relay never.")
	case reach == "local":
		return finding("relay", "ok", "This machine may carry rooms of your own network", "Others on this network reach it; whether others on the internet do is not known.", "")
	case reach == "private":
		return finding("relay", "ok", "This machine cannot carry rooms", "Others cannot reach it, so no room of more than six people chooses it. You hear and speak all the same.", "")
	}
	return finding("relay", "ok", "Whether this machine could carry rooms is not known yet", "That depends on whether others can reach it.", "")
}
