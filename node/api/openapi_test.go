package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"balai/room/session"
)

// promised is the table that programs are written against.
var promised = strings.Fields(`
	POST/session POST/codes GET/node GET/profile PUT/profile GET/rooms POST/rooms GET/rooms/{id}/relays PUT/rooms/{id}/relays/{peer}
	DELETE/rooms/{id}/relays/{peer} POST/invites/inspect POST/rooms/join GET/rooms/{id} PATCH/rooms/{id} POST/rooms/{id}/leave
	POST/rooms/{id}/end POST/rooms/{id}/lock POST/rooms/{id}/transfer POST/rooms/{id}/succession PUT/rooms/{id}/succession GET/rooms/{id}/members GET/rooms/{id}/removed
	POST/rooms/{id}/members/{peer}/{action} PUT/rooms/{id}/hand PUT/rooms/{id}/microphone POST/rooms/{id}/reactions
	GET/rooms/{id}/messages POST/rooms/{id}/messages GET/rooms/{id}/invites POST/rooms/{id}/invites
	DELETE/rooms/{id}/invites/{invite} GET/rooms/{id}/ledger POST/rooms/{id}/audio DELETE/rooms/{id}/audio/{leg}
	GET/rooms/{id}/stats GET/events GET/doctor GET/metrics POST/echo DELETE/echo/{leg} GET/openapi.json`)

type openDoc struct {
	OpenAPI    string
	Paths      map[string]map[string]openOp
	Components struct {
		Schemas map[string]struct {
			Properties           map[string]any
			AdditionalProperties any
			Required             []string
		}
	}
}

type openOp struct {
	OperationID string
	Responses   map[string]struct {
		Content map[string]any
	}
	RequestBody struct {
		Required bool
		Content  map[string]any
	}
}

func TestTheDocumentHasEveryRoute(t *testing.T) {
	d := start(t)
	status, body, h := d.do("GET", base+"/openapi.json", "")
	if status != 200 || h.Get("Content-Type") != jsonType || body != string(OpenAPI("test")) {
		t.Fatal(status, h)
	}
	var doc openDoc
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Error("version", doc.OpenAPI)
	}
	var there []string
	ids := map[string]bool{}
	for path, ops := range doc.Paths {
		for method, op := range ops {
			there = append(there, strings.ToUpper(method)+strings.TrimPrefix(path, base))
			if ids[op.OperationID] || op.OperationID == "" {
				t.Error("two operations named", op.OperationID)
			}
			ids[op.OperationID] = true
			for _, status := range []string{"401", "403", "421"} {
				if op.Responses[status].Content[problemType] == nil {
					t.Error(method, path, "has no", status)
				}
			}
			if _, ok := op.Responses["422"]; ok {
				t.Error(method, path, "has 422")
			}
		}
	}
	want := slices.Clone(promised)
	slices.Sort(want)
	slices.Sort(there)
	if !slices.Equal(want, there) {
		t.Errorf("promised %v\nthere    %v", want, there)
	}
	for name, fields := range map[string]string{
		"Room":          "id name topic visibility language tags host state reason me stage audience hands core chair epoch encryption carrier created_at starts_at knocks members host_name audience_list locked local relays vouched forked differs succession no_relay assist",
		"Relay":         "peer_id name kind vouched holds_key me use",
		"Relays":        "relays vouched offers answering",
		"Community":     "peer_id addrs",
		"Invite":        "id link qr role uses used depth audience knock strict not_before expires_at revoked",
		"Stats":         "parents children forwarded up_kbps loss delay_ms gaps speakers uplink links",
		"Member":        "peer_id name headline role muted came_by since",
		"Removed":       "peer_id name banned kind by by_name reason at",
		"Fork":          "peer_id name role settled",
		"Succession":    "heir heir_name host_heard_at from needed asking agreed against asked answer",
		"Problem":       "type title status detail reason",
		"Node":          "peer_id words name version addrs reachability peers clock_skew_ms api_version",
		"Profile":       "name headline bio languages avatar",
		"NewRoom":       "name topic visibility language tags starts_at relays heir local",
		"InviteRequest": "role uses expires_in audience depth knock strict not_before",
		"Inspection":    "room host host_words role uses expires_at not_before depth knock strict audience invite issuer chain hints expired reason",
		"View":          "node profile hallway rooms invites",
		"Listing":       "id name topic visibility language tags host host_name on_stage audience stage source state starts_at issued_at",
		"Message":       "id peer_id name text at",
		"Me":            "peer_id role on_stage hand muted audio",
		"MemberEvent":   "room peer_id name", "MessageEvent": "room id text", "HandEvent": "room peer_id raised position",
		"ReactionEvent": "room peer_id kind", "InviteEvent": "room id link qr",
	} {
		for _, f := range strings.Fields(fields) {
			if doc.Components.Schemas[name].Properties[f] == nil {
				t.Errorf("%s has no %s", name, f)
			}
		}
		if doc.Components.Schemas[name].AdditionalProperties != nil {
			t.Error(name, "forbids more fields")
		}
	}
	if strings.Contains(body, `"array","null"`) || strings.Contains(body, `"null","array"`) {
		t.Error("a list may be null")
	}
}

// TestStatusesAreInTheDocument sends each route many kinds of requests: whatever comes back is documented, and of what
// is documented the rest is known to be the backend's to say.
func TestStatusesAreInTheDocument(t *testing.T) {
	d := start(t)
	d.room.view.Succession.Heir = testNode
	var doc openDoc
	if err := json.Unmarshal(OpenAPI("test"), &doc); err != nil {
		t.Fatal(err)
	}
	for _, rt := range (&handler{}).table() {
		if rt.stream {
			continue
		}
		documented := doc.Paths[base+rt.pattern][strings.ToLower(rt.method)].Responses
		seen := d.provoke(rt)
		for status := range seen {
			if _, ok := documented[strconv.Itoa(status)]; !ok {
				t.Errorf("%s %s answers %d, which is not in the document", rt.method, rt.pattern, status)
			}
		}
		for s := range documented {
			status, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(s)
			}
			if backends := status == 409 || status == 429 || status == 503 || status == 501; !seen[status] && !backends && rt.pattern != "/metrics" {
				t.Errorf("%s %s never answers %d", rt.method, rt.pattern, status)
			}
		}
	}
}

// provoke gathers the statuses that a route answers to good and bad requests.
func (d *daemon) provoke(rt route) map[int]bool {
	seen := map[int]bool{}
	note := func(path, body string, header ...string) {
		status, _, _ := d.do(rt.method, path, body, header...)
		seen[status] = true
	}
	path := d.concrete(rt.pattern)
	good := map[string]string{
		"/profile": `{"name":"a"}`, "/rooms": `{"name":"a","visibility":"open"}`, "/rooms/join": `{"link":"x"}`, "/invites/inspect": `{"link":"` + goodLink() + `"}`,
		"/rooms/{id}/transfer": `{"peer":"` + testPeer + `"}`, "/rooms/{id}/hand": `{"raised":true}`, "/rooms/{id}/microphone": `{"muted":true}`,
		"/rooms/{id}/reactions": `{"kind":1}`, "/rooms/{id}/messages": `{"text":"a"}`, "/rooms/{id}/invites": `{"role":"listener","uses":1,"expires_in":9}`,
	}[rt.pattern]
	if rt.method+rt.pattern == "PUT/rooms/{id}/succession" {
		good = `{"agree":true}`
	}
	if rt.pattern == "/session" {
		_, code, _ := d.do("POST", base+"/codes", "")
		good = `{"code":"` + strings.Split(code, `"`)[3] + `"}`
		note(path, `{"code":"x"}`)
	}
	if rt.inType == sdpType {
		note(path, "v=0", "Content-Type", sdpType)
		note(path, "x", "Content-Type", sdpType)
	} else {
		note(path, good)
	}
	note(path, "", "Authorization", "")
	note(path, "", "Origin", "http://evil.example")
	req := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: evil\r\nContent-Length: 0\r\n\r\n", rt.method, path)
	status, _ := d.raw(req)
	seen[status] = true
	if strings.Contains(rt.pattern, "{id}") {
		body, mediaType := good, jsonType
		if rt.inType == sdpType {
			body, mediaType = "v=0", sdpType
		}
		note(strings.Replace(path, d.room.id.String(), "x", 1), body, "Content-Type", mediaType)
	}
	if strings.Contains(rt.pattern, "{leg}") {
		note(path+"x", "")
	}
	if rt.pattern == "/rooms/join" {
		note(path, `{"room":"`+strings.Repeat("a", 52)+`"}`)
	}
	switch rt.pattern {
	case "/rooms":
		note(path, `{"name":"a","visibility":"open","relays":["/dns/nobody/tcp/1/p2p/`+testPeer+`"]}`)
	case "/rooms/{id}/relays/{peer}":
		note(path, `{"addr":"/dns/nobody/tcp/1/p2p/`+testPeer+`"}`)
	}
	for _, q := range rt.query {
		note(path+"?"+q+"=!", "")
	}
	if rt.method != "GET" {
		note(path, "{", "Content-Type", "text/plain")
		note(path, strings.Repeat(" ", maxBody+1), "Content-Type", rt.inType)
		if rt.inType != sdpType {
			note(path, "{")
		}
	}
	d.room.fail(session.ErrOver)
	defer d.room.fail(nil)
	note(path, good)
	return seen
}
