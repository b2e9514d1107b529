package node

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
	"balai/room/election"
	"balai/room/session"
)

// pathFinding explains how the audio of a room travels to this daemon, and for whom this daemon passes it on.
func pathFinding(say wording, v session.View, r session.Report) api.Finding {
	switch {
	case v.Encryption != "on":
		return finding("path", "fail", say("Audio of “%s”: no key", v.Name), say("The key of this room has not arrived; nothing can be heard or sent."), say("Wait some seconds; if it stays, leave and join again."))
	case v.NoRelay, v.Assist && v.Members >= election.AssistMax:
		return finding("path", "fail", say("Audio of “%s”: no relay", v.Name),
			say("More than 16 people are here or want in, and nobody here can be reached from outside. Those who are in hear each other as far as direct links go; nobody else gets in."),
			say("Add a community relay; the host or a moderator may: balai room vouch %q /dns/HOST/udp/PORT/quic-v1/p2p/ID", v.Name))
	case v.Members <= 1 && len(r.Links) == 0:
		return finding("path", "ok", say("Audio of “%s”: you are alone here", v.Name), say("There is nobody to send to yet."), say("Invite somebody."))
	}
	f := meshPath(say, v, r)
	if len(v.Relays) > 0 {
		f = relayedPath(say, v, r)
	}
	if r.Children > 0 {
		f.Detail = say.sentences(f.Detail, say("Your machine passes the room on to %d people at %s.", r.Children, rate(r.UpKbps)))
	}
	return f
}

// meshPath is about direct links.
func meshPath(say wording, v session.View, r session.Report) api.Finding {
	if len(r.Links) == 0 {
		return finding("path", "fail", say("Audio of “%s”: nobody is linked", v.Name), say("Other people are here, but no direct link to them is open."), say("Check that UDP is not blocked."))
	}
	if slow := overTCP(v, r, nil); len(slow) > 0 {
		return finding("path", "warn", say("Audio of “%s”: over TCP", v.Name), say("UDP does not get through to %s; audio may stutter.", say.list(slow)), say("Allow UDP in the firewall."))
	}
	if v.Assist {
		return finding("path", "warn", say("Audio of “%s”: %d direct links, more than is good", v.Name, len(r.Links)),
			say("Nobody here can be reached from outside, so nobody can relay, and everybody sends to everybody. Who cannot link directly is helped by a third person in the room."),
			say("A community relay would help; the host or a moderator may add one."))
	}
	return finding("path", "ok", say("Audio of “%s”: %d direct links", v.Name, len(r.Links)), say("Sealed end to end; nobody is in between."), "")
}

// relayedPath is about a room that relays carry.
func relayedPath(say wording, v session.View, r session.Report) api.Finding {
	uses := map[string][]session.RelayView{}
	for _, n := range v.Relays {
		if n.Me {
			return finding("path", "ok", say("Audio of “%s”: your machine carries it", v.Name), say("It is one of the relays of this room; others hear each other through it. It is in the room and hears it anyway."), "")
		}
		uses[n.Use] = append(uses[n.Use], n)
	}
	active := append(uses["parent"], uses["suspect"]...)
	switch {
	case len(active) == 0 && len(uses["warm"]) == 0:
		return finding("path", "warn", say("Audio of “%s”: looking for a relay", v.Name), say("The room is carried by relays, and none of them passes it on to this machine at the moment."), say("Wait some seconds; if it stays, check that UDP is not blocked."))
	case len(uses["parent"]) == 0:
		return finding("path", "warn", say("Audio of “%s”: the relay falters", v.Name), say("What came through %s comes late or not at all; another relay is asked.", named(say, append(active, uses["warm"]...))), "")
	}
	who := make([]string, 0, len(active))
	for _, n := range active {
		who = append(who, sees(say, n))
	}
	detail := say.sentences(who...)
	if slow := overTCP(v, r, uses["parent"]); len(slow) > 0 {
		return finding("path", "warn", say("Audio of “%s”: through a relay, over TCP", v.Name),
			say.sentences(say("UDP does not get through to %s; audio may stutter.", say.list(slow)), detail), say("Allow UDP in the firewall."))
	}
	if warm := uses["warm"]; len(warm) > 0 {
		detail = say.sentences(detail, say("If it fails, %s takes over.", named(say, warm)))
	}
	return finding("path", "ok", say("Audio of “%s”: through %s", v.Name, named(say, uses["parent"])), say.sentences(say("Sealed end to end."), detail), "")
}

// sees says what a relay can and cannot see.
func sees(say wording, n session.RelayView) string {
	if n.Kind == "member" {
		return say("%s is in the room, hears it anyway, and sees who its listeners are.", n.Name)
	}
	s := say("The community node %s cannot hear the room; it sees the addresses of its neighbours, and the sizes and times of what it passes on.", n.Name)
	if !n.Vouched {
		s = say.sentences(s, say("Nobody in this room has vouched for it."))
	}
	return s
}

func named(say wording, list []session.RelayView) string {
	names := make([]string, 0, len(list))
	for _, n := range list {
		names = append(names, n.Name)
	}
	return say.both(names)
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
func (d *daemon) checkRelay(say wording) api.Finding {
	carried := 0
	for _, j := range d.allRooms() {
		if j.s.View().State == session.Live && j.lastReport().Children > 0 {
			carried++
		}
	}
	return relayFinding(say, d.cfg.Relay, d.host.Reachability(), carried)
}

// relayFinding is about the setting --relay, how far others can reach this daemon, and for how many rooms it passes
// audio on now.
func relayFinding(say wording, setting, reach string, carried int) api.Finding {
	if carried > 0 {
		return finding("relay", "ok", say("This machine carries %d rooms for others", carried),
			say("It passes on sealed audio of rooms that you are in."), say("To stop that, start with --relay never."))
	}
	switch {
	case setting == "never":
		return finding("relay", "ok", say("This machine does not carry rooms"), say("It was started with --relay never and passes on nobody else's audio."), "")
	case setting == "only-lan":
		return finding("relay", "ok", say("This machine may carry rooms of your own network"), say("It was started with --relay only-lan: rooms that use addresses of this network, and no others."), "")
	case reach == "public":
		return finding("relay", "ok", say("This machine may carry rooms"), say("When a room grows beyond six people it can be chosen to pass on its audio. It is asked only for rooms that you are in."),
			say("If you do not want that, start with --relay never."))
	case reach == "local":
		return finding("relay", "ok", say("This machine may carry rooms of your own network"), say("Others on this network reach it; whether others on the internet do is not known."), "")
	case reach == "private":
		return finding("relay", "ok", say("This machine cannot carry rooms"), say("Others cannot reach it, so no room of more than six people chooses it. You hear and speak all the same."), "")
	}
	return finding("relay", "ok", say("Whether this machine could carry rooms is not known yet"), say("That depends on whether others can reach it."), "")
}
