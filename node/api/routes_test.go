package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"balai/room"
	"balai/room/session"
)

// TestWhatEachRouteDoes: method, path, body -> status and what the room or the node was told.
func TestWhatEachRouteDoes(t *testing.T) {
	d := start(t)
	peerPath := "/members/" + testPeer
	d.room.view.Succession.Heir = testNode
	for _, c := range []struct {
		method, path, body string
		status             int
		told               string
	}{
		{"POST", "/leave", "", 204, "leave"},
		{"POST", "/leave", "{}", 204, "leave"},
		{"POST", "/end", "", 204, "end  "},
		{"POST", "/lock", "", 204, "lock  "},
		{"POST", "/lock", `{}`, 204, "lock  "},
		{"POST", "/lock", `{"locked":true}`, 204, "lock  "},
		{"POST", "/lock", `{"locked":false}`, 204, "unlock  "},
		{"POST", "/transfer", `{"peer":"` + testPeer + `"}`, 204, "transfer " + testPeer + " "},
		{"POST", "/transfer", `{"peer":"me"}`, 400, ""},
		{"POST", "/succession", "", 204, "succeed  "},
		{"PUT", "/succession", `{"agree":true}`, 204, "succeed " + testNode + " "},
		{"PUT", "/succession", `{"agree":false}`, 204, "decline " + testNode + " "},
		{"PUT", "/succession", ``, 400, ""},
		{"PATCH", "", `{"name":"new"}`, 204, `change new old old unlisted ["old"] false`},
		{"PATCH", "", `{"topic":"new","language":"","tags":["a","b"],"visibility":"open"}`, 204, `change old new  open ["a" "b"] false`},
		{"PATCH", "", `{"tags":[]}`, 204, `change old old old unlisted [] false`},
		{"PATCH", "", `{"constant_rate":true}`, 204, `change old old old unlisted ["old"] true`},
		{"PATCH", "", `{"visibility":"public"}`, 400, ""},
		{"PATCH", "", `{"name":null}`, 400, ""},
		{"PATCH", "", `{"name":1}`, 400, ""},
		{"PATCH", "", `{"host":"x"}`, 400, ""},
		{"PUT", "/relays/" + testPeer, "", 204, "vouch " + testPeer + " "},
		{"DELETE", "/relays/" + testPeer, "", 204, "unvouch " + testPeer + " "},
		{"PUT", "/relays/me", "", 404, ""},
		{"PUT", "/relays/" + testPeer, `{"addr":"/dns/a/tcp/1/p2p/` + testPeer + `"}`, 204, "vouch " + testPeer + " "},
		{"PUT", "/relays/" + testPeer, `{"addr":"/dns/a/tcp/1/p2p/` + testNode + `"}`, 400, ""},
		{"PUT", "/relays/" + testPeer, `{"addr":"/dns/a/tcp/1"}`, 400, ""},
		{"PUT", "/relays/" + testPeer, `{"addr":1}`, 400, ""},
		{"PUT", "/relays/" + testPeer, `{"addr":"/dns/nobody/tcp/1/p2p/` + testPeer + `"}`, 502, ""},
		{"DELETE", "/relays/me", "", 404, ""},
		{"DELETE", "/relays/" + testPeer, `{"addr":"/dns/a/tcp/1"}`, 400, ""},
		{"GET", "/relays", "", 200, ""},
		{"POST", peerPath + "/stage", "", 204, "stage " + testPeer + " "},
		{"POST", peerPath + "/audience", "", 204, "audience " + testPeer + " "},
		{"POST", peerPath + "/mute", "{}", 204, "mute " + testPeer + " "},
		{"POST", peerPath + "/unmute", "", 204, "unmute " + testPeer + " "},
		{"POST", peerPath + "/lower", "", 204, "lower " + testPeer + " "},
		{"POST", peerPath + "/kick", `{"reason":"noise"}`, 204, "kick " + testPeer + " noise"},
		{"POST", peerPath + "/ban", "", 204, "ban " + testPeer + " "},
		{"POST", peerPath + "/unban", "", 204, "unban " + testPeer + " "},
		{"POST", peerPath + "/appoint", "", 204, "appoint " + testPeer + " "},
		{"POST", peerPath + "/dismiss", "", 204, "dismiss " + testPeer + " "},
		{"POST", peerPath + "/admit", "", 204, "admit " + testPeer + " "},
		{"POST", peerPath + "/decline", "", 204, "decline " + testPeer + " "},
		{"POST", peerPath + "/praise", "", 404, ""},
		{"POST", "/members/me/kick", "", 404, ""},
		{"POST", "/members/" + testPeer[:40] + "/kick", "", 404, ""},
		{"PUT", "/hand", `{"raised":true}`, 204, "hand true"},
		{"PUT", "/microphone", `{"muted":false}`, 204, "muted false"},
		{"POST", "/reactions", `{"kind":6}`, 204, "react 6"},
		{"POST", "/reactions", `{"kind":7}`, 400, ""},
		{"POST", "/reactions", `{"kind":1.5}`, 400, ""},
		{"POST", "/messages", `{"text":"hai"}`, 201, "say hai"},
		{"GET", "/members?after=" + testPeer, "", 200, "members " + testPeer},
		{"GET", "/members?after=me", "", 400, ""},
		{"GET", "/removed", "", 200, "removed "},
		{"GET", "/removed?after=" + testPeer, "", 200, "removed " + testPeer},
		{"GET", "/removed?after=me", "", 400, ""},
		{"POST", "/invites", `{"role":"speaker","uses":2,"expires_in":60}`, 201, "invite speaker 2 1m0s"},
		{"POST", "/invites", `{"role":"moderator","uses":2,"expires_in":60}`, 400, ""},
		{"POST", "/invites", `{"role":"listener","uses":-1,"expires_in":60}`, 400, ""},
		{"POST", "/invites", `{"role":"listener","uses":65536,"expires_in":60}`, 400, ""},
		{"POST", "/invites", `{"role":"listener","uses":1,"expires_in":0}`, 400, ""},
		{"POST", "/invites", `{"role":"listener","uses":1,"expires_in":9223372036854775807}`, 400, ""},
		{"POST", "/invites", `{"role":"listener","uses":1,"expires_in":60,"depth":3}`, 400, ""},
		{"POST", "/invites", `{"role":"listener","uses":1,"expires_in":60,"audience":"x"}`, 400, ""},
		{"POST", "/invites", `{"role":"listener","uses":1}`, 400, ""},
		{"DELETE", "/invites/" + room.ID{9}.String() + "?branch=true", "", 204, "revoke " + room.ID{9}.String() + " true"},
		{"DELETE", "/invites/" + room.ID{9}.String(), "", 204, "revoke " + room.ID{9}.String() + " false"},
		{"DELETE", "/invites/" + room.ID{9}.String() + "?branch=maybe", "", 400, ""},
		{"DELETE", "/invites/x", "", 404, ""},
	} {
		before := len(d.room.told())
		status, body, _ := d.do(c.method, d.inRoom(c.path), c.body)
		told := strings.Join(d.room.told()[before:], "; ")
		if status != c.status || told != c.told {
			t.Errorf("%s %s %s: %d %s told %q", c.method, c.path, c.body, status, body, told)
		}
	}
}

func TestTheDoctorIsAskedInALanguage(t *testing.T) {
	d := start(t)
	for query, want := range map[string]string{"": "[]", "?lang=zh": `"title":"zh"`} {
		if status, body, _ := d.do("GET", base+"/doctor"+query, ""); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
}

func TestRoomsAndJoining(t *testing.T) {
	d := start(t)
	for _, c := range []struct {
		path, body string
		status     int
		told       string
	}{
		{"/rooms", `{"name":"a","visibility":"open"}`, 201, "create a open"},
		{"/rooms", `{"name":"a","visibility":"secret"}`, 400, ""},
		{"/rooms", `{"name":"","visibility":"open"}`, 400, ""},
		{"/rooms", `{"name":"a"}`, 400, ""},
		{"/rooms", `{"name":"a","visibility":"open","relays":["/dns/a/tcp/1/p2p/` + testNode + `"]}`, 201, "reach /dns/a/tcp/1/p2p/" + testNode + "; create a open"},
		{"/rooms", `{"name":"a","visibility":"open","relays":["/dns/nobody/tcp/1/p2p/` + testNode + `"]}`, 502, ""},
		{"/rooms", `{"name":"a","visibility":"open","relays":["/dns/nobody/tcp/1/p2p/` + testNode + `","/dns/a/tcp/1/p2p/` + testNode + `"]}`, 201, "reach /dns/a/tcp/1/p2p/" + testNode + "; create a open"},
		{"/rooms", `{"name":"a","visibility":"open","relays":["/dns/a/tcp/1"]}`, 400, ""},
		{"/rooms", `{"name":"a","visibility":"open","heir":"` + testNode + `"}`, 201, "create a open"},
		{"/rooms", `{"name":"a","visibility":"open","heir":"Budi"}`, 400, ""},
		{"/rooms", `{"name":"a","visibility":"open","relays":["` + strings.Repeat(`/dns/a/tcp/1/p2p/`+testNode+`","`, maxRelays) + `/dns/a/tcp/1/p2p/` + testNode + `"]}`, 400, ""},
		{"/rooms", `{"name":"a","visibility":"open","starts_at":"soon"}`, 400, ""},
		{"/rooms/join", `{"link":"x","local":true}`, 202, "join x true"},
		{"/rooms/join", `{"room":"` + d.room.id.String() + `"}`, 202, "join room false"},
		{"/rooms/join", `{"room":"` + (room.ID{8}).String() + `"}`, 404, ""},
		{"/rooms/join", `{"room":"x"}`, 400, ""},
		{"/rooms/join", `{"room":"x","link":"x"}`, 400, ""},
		{"/rooms/join", `{}`, 400, ""},
		{"/rooms/join", ``, 400, ""},
	} {
		before := len(d.node.told())
		status, body, h := d.do("POST", base+c.path, c.body)
		told := strings.Join(d.node.told()[before:], "; ")
		if status != c.status || told != c.told {
			t.Errorf("%s %s: %d %s told %q", c.path, c.body, status, body, told)
		}
		if status == 201 && h.Get("Location") != d.inRoom("") {
			t.Error("Location:", h.Get("Location"))
		}
		var v session.View
		if status < 300 && (json.Unmarshal([]byte(body), &v) != nil || v.ID != d.room.id.String()) {
			t.Error(body)
		}
	}
}

// TestNoHeir: where nobody inherits, nobody can be answered.
func TestNoHeir(t *testing.T) {
	d := start(t)
	if status, body, _ := d.do("PUT", d.inRoom("/succession"), `{"agree":true}`); status != 404 || len(d.room.told()) > 0 {
		t.Errorf("%d %s, told %v", status, body, d.room.told())
	}
}

// TestRelays: who carries the room, what was vouched for, and what else there is.
func TestRelays(t *testing.T) {
	d := start(t)
	d.room.view.Vouched = []string{testPeer}
	d.room.view.Relays = []session.RelayView{{PeerID: testPeer, Name: "…U5SA", Kind: "community", Vouched: true, Use: "parent"}}
	status, body, _ := d.do("GET", d.inRoom("/relays"), "")
	const want = `{"relays":[{"peer_id":"` + testPeer + `","name":"…U5SA","kind":"community","vouched":true,"holds_key":false,"me":false,"use":"parent"}],` +
		`"vouched":["` + testPeer + `"],"offers":[{"peer_id":"` + testNode + `","addrs":[]}],"answering":[{"peer_id":"` + testPeer + `","addrs":[]}]}`
	if status != 200 || body != want {
		t.Errorf("%d %s", status, body)
	}
	if status, body, _ = d.do("POST", base+"/rooms", `{"name":"a","visibility":"open","relays":["/dns/a/tcp/1/p2p/`+testNode+`"]}`); status != 201 {
		t.Fatal(status, body)
	}
	if told := d.room.told(); len(told) != 1 || told[0] != "vouch "+testNode+" " {
		t.Error("vouched:", told)
	}
	d.room.fail(session.ErrForbidden)
	for _, method := range []string{"PUT", "DELETE"} {
		if status, body, _ := d.do(method, d.inRoom("/relays/"+testNode), ""); status != 403 || !strings.Contains(body, `"reason":"forbidden"`) {
			t.Error(method, status, body)
		}
	}
}

func TestRefusalsOfTheRoom(t *testing.T) {
	d := start(t)
	for _, c := range []struct {
		err    error
		status int
		reason string
	}{
		{session.ErrForbidden, 403, "forbidden"},
		{fmt.Errorf("kick: %w", session.ErrForbidden), 403, "forbidden"},
		{session.ErrUnknown, 404, "unknown"},
		{session.ErrOver, 409, "over"},
		{errors.New("disk full"), 503, "unavailable"},
		{fmt.Errorf("the text is too long: %w", room.Malformed), 400, "malformed"},
		{room.Expired, 400, "expired"},
		{room.NotYet, 400, "not_yet"},
		{room.BadSignature, 400, "bad_signature"},
		{room.Depth, 400, "depth"},
		{room.Widened, 400, "widened"},
		{room.Locked, 409, "locked"},
		{room.RateLimited, 429, "rate_limited"},
		{room.SecondDevice, 409, "second_device"},
	} {
		d.room.fail(c.err)
		d.node.fail(c.err)
		for _, path := range []string{d.inRoom("/leave"), d.inRoom("/members/" + testPeer + "/kick"), base + "/rooms/join"} {
			body := ""
			if path == base+"/rooms/join" {
				body = `{"link":"x"}`
			}
			status, answer, h := d.do("POST", path, body)
			var p Problem
			if err := json.Unmarshal([]byte(answer), &p); err != nil {
				t.Fatal(answer)
			}
			if status != c.status || p.Status != status || p.Reason != c.reason || p.Detail != c.err.Error() || p.Title == "" ||
				p.Type != "balai:problem/"+c.reason || h.Get("Content-Type") != problemType {
				t.Errorf("%v: %d %s", c.err, status, answer)
			}
		}
	}
	d.node.fail(nil)
	if status, _, _ := d.do("PUT", base+"/profile", `{"name":"a\nb"}`); status != 400 {
		t.Error("a bad profile:", status)
	}
	if status, body, _ := d.do("PUT", base+"/profile", `{"name":"Ani"}`); status != 200 || body != `{"name":"Ani","headline":"","bio":"","languages":[],"avatar":""}` {
		t.Error("profile:", status, body)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	d := start(t)
	id := d.room.id.String()
	for _, path := range []string{
		"/api", "/api/", "/api/v1", "/api/v2/node", "/api/v1/", "/api/v1//node", "/api/v1/node/", "/api/v1/nodes", "/api/v1/../v1/node", "/api/v1/%6eode/x",
		base + "/rooms/" + strings.ToUpper(id), base + "/rooms/" + id[:51], base + "/rooms/" + room.ID{2}.String(), base + "/rooms/%ff", base + "/rooms/..%2f..",
		base + "/rooms/" + id + "/x", "/nothing", "/assets", "/assets/", "/../index.html", "/.git", "//", "/index.html/",
	} {
		if status, body, h := d.do("GET", path, ""); status != 404 || h.Get("Content-Type") != problemType {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
	for path, allow := range map[string]string{
		"/": "GET, HEAD", "/x": "GET, HEAD", base + "/node": "GET", base + "/profile": "GET, PUT", base + "/rooms": "GET, POST", base + "/rooms/join": "GET, POST",
		d.inRoom("/leave"): "POST", d.inRoom("/hand"): "PUT", d.inRoom("/invites"): "GET, POST", d.inRoom("/audio"): "POST", base + "/metrics": "GET",
	} {
		for _, method := range []string{"PATCH", "TRACE", "BREW"} {
			if path == base+"/rooms/join" {
				continue // also the form of a room's path, whose id is malformed
			}
			if status, _, h := d.do(method, path, ""); status != 405 || h.Get("Allow") != allow {
				t.Errorf("%s %s: %d Allow %q", method, path, status, h.Get("Allow"))
			}
		}
	}
	if status, _, _ := d.do("GET", d.inRoom("/leave"), ""); status != 405 || len(d.room.told()) != 0 {
		t.Error("GET changes state:", status)
	}
}

func TestAudio(t *testing.T) {
	d := start(t)
	for _, path := range []string{d.inRoom("/audio"), base + "/echo"} {
		status, body, h := d.do("POST", path, "v=0 offer", "Content-Type", sdpType)
		if status != 201 || body != "v=0 answer" || h.Get("Content-Type") != sdpType || h.Get("Location") != path+"/leg1" {
			t.Error(path, status, body, h)
		}
		for body, want := range map[string]int{"": 400, "hello": 400, "v=0\xff": 400, "one": 501, strings.Repeat("v", maxBody+1): 413} {
			if status, _, h := d.do("POST", path, body, "Content-Type", sdpType); status != want || h.Get("Content-Type") != problemType {
				t.Errorf("%s %.10q: %d", path, body, status)
			}
		}
		for _, mediaType := range []string{"", jsonType, "application/sdp; charset=latin1"} {
			if status, _, _ := d.do("POST", path, "v=0", "Content-Type", mediaType); status != 415 {
				t.Errorf("%s as %s: %d", path, mediaType, status)
			}
		}
		if status, _, _ := d.do("DELETE", path+"/leg2", ""); status != 404 {
			t.Error("another leg:", status)
		}
		if status, _, _ := d.do("DELETE", h.Get("Location"), ""); status != 204 {
			t.Error("hang up:", status)
		}
	}
	if status, _, _ := d.do("POST", base+"/rooms/"+room.ID{3}.String()+"/audio", "v=0", "Content-Type", sdpType); status != 404 {
		t.Error("no such room:", status)
	}
}

// TestListsAreNeverNull: what a session leaves nil is an empty list outside, and the session's own view stays as it is.
func TestListsAreNeverNull(t *testing.T) {
	d := start(t)
	for _, path := range []string{base + "/rooms", base + "/doctor", d.inRoom("/members"), d.inRoom("/removed"), d.inRoom("/messages"), d.inRoom("/invites")} {
		if status, body, _ := d.do("GET", path, ""); status != 200 || body != "[]" {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	_, body, _ := d.do("GET", d.inRoom(""), "")
	var v map[string]any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"tags", "stage", "audience_list", "hands", "knocks", "core", "relays", "vouched", "forked"} {
		if _, ok := v[field].([]any); !ok {
			t.Errorf("%s is %v", field, v[field])
		}
	}
	if _, body, _ := d.do("GET", d.inRoom("/ledger"), ""); !strings.Contains(body, `"targets":[]`) {
		t.Error(body)
	}
	if d.room.View().Tags != nil {
		t.Error("the session's view was changed")
	}
}

func TestMetrics(t *testing.T) {
	none := start(t)
	if status, _, _ := none.do("GET", base+"/metrics", ""); status != 404 {
		t.Error("without:", status)
	}
	some := start(t, func(c *Config) {
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("balai_x 1\n")) })
	})
	if status, body, _ := some.do("GET", base+"/metrics", ""); status != 200 || body != "balai_x 1\n" {
		t.Error("with:", status, body)
	}
}

func TestABugIs500AndTheDaemonLives(t *testing.T) {
	d := start(t, func(c *Config) {
		c.Metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("impossible: test") })
	})
	if status, body, _ := d.do("GET", base+"/metrics", ""); status != 500 || strings.Contains(body, "impossible") {
		t.Error(status, body)
	}
	if status, _, _ := d.do("GET", base+"/node", ""); status != 200 {
		t.Error(status)
	}
}

func TestPage(t *testing.T) {
	d := start(t)
	for path, want := range map[string][3]string{
		"/":                       {"<!doctype html>page", "text/html; charset=utf-8", "no-store"},
		"/index.html":             {"<!doctype html>page", "text/html; charset=utf-8", "no-store"},
		"/?x=1":                   {"<!doctype html>page", "text/html; charset=utf-8", "no-store"},
		"/assets/app-12345678.js": {"1", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"},
		"/icon.svg":               {"<svg/>", "image/svg+xml", "no-cache"},
	} {
		status, body, h := d.do("GET", path, "", "Authorization", "")
		if got := [3]string{body, h.Get("Content-Type"), h.Get("Cache-Control")}; status != 200 || got != want {
			t.Errorf("%s: %d %q", path, status, got)
		}
		if status, body, _ := d.do("HEAD", path, ""); status != 200 || body != "" {
			t.Errorf("HEAD %s: %d %q", path, status, body)
		}
	}
}
