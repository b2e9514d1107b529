package node

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
	"balai/node/p2p"
	"balai/room"
	"balai/room/session"
)

func TestOneIsSingular(t *testing.T) {
	at := newCommunity(t)
	ana := newPerson(t, "Ana", at...)
	title := func(check string) string {
		for _, f := range ana.Doctor(t.Context(), "") {
			if f.Check == check {
				return f.Title
			}
		}
		return ""
	}
	eventually(t, "the community node", func() bool { return title("community") == "One community node answers" })
	if got := title("peers"); got != "One peer is connected" {
		t.Errorf("peers: %q", got)
	}
	if got := wordsIn("")("%d peers are connected", 2); got != "2 peers are connected" {
		t.Error(got)
	}
}

// TestThePathInWords: what a made-up room tells of the way of its audio.
func TestThePathInWords(t *testing.T) {
	ana, budi := peer.ID("ana"), peer.ID("budi")
	links := []session.LinkReport{{Peer: ana}, {Peer: budi}}
	slow := []session.LinkReport{{Peer: ana, Degraded: true}, {Peer: budi}}
	relay := func(p peer.ID, name, kind, use string) session.RelayView {
		return session.RelayView{PeerID: p.String(), Name: name, Kind: kind, HoldsKey: kind == "member", Use: use}
	}
	vouched := relay(ana, "…hub", "community", "parent")
	vouched.Vouched = true
	me := relay(ana, "Ana", "member", "")
	me.Me = true
	people := []session.Person{{PeerID: ana.String(), Name: "Ana"}}
	for _, tt := range []struct {
		name          string
		view          session.View
		report        session.Report
		status, title string
		detail        string
	}{
		{"no key", session.View{Encryption: "no_key", Members: 3}, session.Report{Links: links}, "fail", "no key", "nothing can be heard"},
		{"alone", session.View{Members: 1}, session.Report{}, "ok", "you are alone here", ""},
		{"unlinked", session.View{Members: 2}, session.Report{}, "fail", "nobody is linked", ""},
		{"one", session.View{Members: 2}, session.Report{Links: links[:1]}, "ok", "a direct link to one person", "nobody is in between"},
		{"mesh", session.View{Members: 3}, session.Report{Links: links}, "ok", "2 direct links", "nobody is in between"},
		{"tcp", session.View{Members: 3, AudienceList: people}, session.Report{Links: slow}, "warn", "over TCP", "get through to Ana;"},
		{"assist", session.View{Members: 9, Assist: true}, session.Report{Links: links}, "warn", "2 direct links, more than is good", "helped by a third person"},
		{"no relay", session.View{Members: 16, NoRelay: true}, session.Report{Links: links}, "fail", "no relay", "nobody here can be reached from outside"},
		{
			"member",
			session.View{Members: 9, Relays: []session.RelayView{relay(ana, "Ana", "member", "parent"), relay(budi, "Budi", "member", "warm")}},
			session.Report{Links: links},
			"ok", "through Ana", "Ana is in the room, hears it anyway, and sees who its listeners are. If it fails, Budi takes over.",
		},
		{
			"two parents",
			session.View{Members: 9, Relays: []session.RelayView{relay(ana, "Ana", "member", "parent"), relay(budi, "Budi", "member", "parent")}},
			session.Report{Links: links},
			"ok", "through Ana and Budi", "",
		},
		{"community", session.View{Members: 9, Relays: []session.RelayView{vouched}}, session.Report{Links: links}, "ok", "through …hub", "The community node …hub cannot hear the room"},
		{
			"unvouched",
			session.View{Members: 9, Relays: []session.RelayView{relay(ana, "…hub", "community", "parent")}},
			session.Report{Links: links},
			"ok", "through …hub", "Nobody in this room has vouched for it.",
		},
		{
			"relay over tcp",
			session.View{Members: 9, Relays: []session.RelayView{relay(ana, "Ana", "member", "parent")}},
			session.Report{Links: slow},
			"warn", "through a relay, over TCP", "get through to Ana;",
		},
		{
			"warm over tcp",
			session.View{Members: 9, Relays: []session.RelayView{relay(ana, "Ana", "member", "warm"), relay(budi, "Budi", "member", "parent")}},
			session.Report{Links: slow},
			"ok", "through Budi", "",
		},
		{"searching", session.View{Members: 9, Relays: []session.RelayView{relay(ana, "Ana", "member", "")}}, session.Report{}, "warn", "looking for a relay", ""},
		{
			"doubt",
			session.View{Members: 9, Relays: []session.RelayView{relay(ana, "Ana", "member", "suspect"), relay(budi, "Budi", "member", "warm")}},
			session.Report{Links: links},
			"warn", "the relay falters", "came through Ana and Budi",
		},
		{
			"me",
			session.View{Members: 9, Relays: []session.RelayView{me, relay(budi, "Budi", "member", "parent")}},
			session.Report{Links: links, Children: 12, UpKbps: 1540},
			"ok", "your machine carries it", "Your machine passes the room on to 12 people at 1.5 Mbit/s.",
		},
		{
			"branch",
			session.View{Members: 9, Relays: []session.RelayView{relay(budi, "Budi", "member", "parent")}},
			session.Report{Links: links, Children: 1, UpKbps: 96},
			"ok", "through Budi", "passes the room on to one person at 96 kbit/s.",
		},
	} {
		tt.view.Name = "Tea"
		if tt.view.Encryption == "" {
			tt.view.Encryption = "on"
		}
		f := pathFinding(wordsIn(""), tt.view, tt.report)
		if f.Check != "path" || f.Status != tt.status || f.Title != "Audio of “Tea”: "+tt.title || !strings.Contains(f.Detail, tt.detail) {
			t.Errorf("%s: %+v", tt.name, f)
		}
		if tt.view.NoRelay != strings.Contains(f.Action, `balai room vouch "Tea" /dns/`) {
			t.Errorf("%s: action %q", tt.name, f.Action)
		}
	}
}

func TestMayThisMachineRelay(t *testing.T) {
	for _, tt := range []struct {
		setting, reach string
		carried        int
		want           string
	}{
		{"auto", "public", 0, "This machine may carry rooms"},
		{"", "public", 0, "This machine may carry rooms"},
		{"auto", "private", 0, "This machine cannot carry rooms"},
		{"auto", "local", 0, "This machine may carry rooms of your own network"},
		{"auto", "unknown", 0, "Whether this machine could carry rooms is not known yet"},
		{"only-lan", "public", 0, "This machine may carry rooms of your own network"},
		{"never", "public", 0, "This machine does not carry rooms"},
		{"auto", "public", 1, "This machine carries one room for others"},
		{"auto", "public", 2, "This machine carries 2 rooms for others"},
	} {
		if f := relayFinding(wordsIn(""), tt.setting, tt.reach, tt.carried); f.Title != tt.want || f.Status != "ok" || f.Check != "relay" {
			t.Errorf("%+v: %+v", tt, f)
		}
	}
}

func TestTheDoctorsNewsAreTold(t *testing.T) {
	ana, budi := newPerson(t, "Ana"), newPerson(t, "Budi")
	news := make(chan string, 4096)
	defer ana.Watch(func(what string) { news <- what })()
	host := ana.open("unlisted")
	guest := budi.enter(inviteTo(t, host, session.InviteTerms{Role: room.Listener}))
	until(t, guest, "the room", func(v session.View) bool { return v.State == session.Live })
	eventually(t, "the doctor's event", func() bool {
		for len(news) > 0 {
			if <-news == api.ChangedDoctor {
				return true
			}
		}
		return false
	})
}

func TestOwnMetrics(t *testing.T) {
	ana := newPerson(t, "Ana")
	r := ana.open("unlisted")
	until(t, r, "the room", func(v session.View) bool { return v.State == session.Live })
	ana.counts.gossip(p2p.Reject)
	ana.counts.media(session.Report{Up: 5, Sources: []session.SourceReport{{ID: 1, Frames: 9}}}, session.Report{Up: 2, Sources: []session.SourceReport{{ID: 1, Frames: 4}, {ID: 2, Frames: 70}}})
	w := httptest.NewRecorder()
	ana.metricsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"balai_rooms 1\n", "balai_links 0\n", `balai_frames_total{direction="up"} 3`, `balai_frames_total{direction="down"} 5`, `balai_gossip_messages_total{verdict="reject"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q", want)
		}
	}
}
