package node

import (
	"net/http/httptest"
	"strings"
	"testing"

	"balai/node/api"
	"balai/node/p2p"
	"balai/room"
	"balai/room/session"
)

func TestOneIsSingular(t *testing.T) {
	at := newCommunity(t)
	ana := newPerson(t, "Ana", at...)
	title := func(check string) string {
		for _, f := range ana.Doctor(t.Context()) {
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
	if got := count(2, "One thing is", "things are"); got != "2 things are" {
		t.Error(got)
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
