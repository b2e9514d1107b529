package api

import (
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestHostileRequests is what a page of another site, or DNS rebinding, can make a browser send.
func TestHostileRequests(t *testing.T) {
	d := start(t)
	_, port, _ := net.SplitHostPort(d.addr)
	const end = "\r\n\r\n"
	auth := "\r\nAuthorization: Bearer " + testToken
	host := "\r\nHost: 127.0.0.1:" + port
	leave := "POST " + d.inRoom("/leave") + " HTTP/1.1"
	node := "GET /api/v1/node HTTP/1.1"
	for _, c := range []struct {
		name, text string
		want       int
	}{
		{"rebinding", node + "\r\nHost: evil.example:" + port + auth + "\r\nSec-Fetch-Site: same-origin" + end, 421},
		{"rebinding, Origin is Host", leave + "\r\nHost: evil.example:" + port + "\r\nOrigin: http://evil.example:" + port + auth + end, 421},
		{"rebinding the page", "GET / HTTP/1.1\r\nHost: evil.example:" + port + end, 421},
		{"nip.io", "GET / HTTP/1.1\r\nHost: 127.0.0.1.nip.io:" + port + end, 421},
		{"trailing dot", "GET / HTTP/1.1\r\nHost: localhost.:" + port + end, 421},
		{"no port", "GET / HTTP/1.1\r\nHost: 127.0.0.1" + end, 421},
		{"other port", "GET / HTTP/1.1\r\nHost: 127.0.0.1:1" + end, 421},
		{"another writing of the address", "GET / HTTP/1.1\r\nHost: 2130706433:" + port + end, 421},
		{"empty", "GET / HTTP/1.1\r\nHost: " + end, 421},
		{"missing", "GET / HTTP/1.1" + end, 400},
		{"HTTP/1.0 without", "GET / HTTP/1.0" + end, 421},
		{"two", "GET / HTTP/1.1" + host + "\r\nHost: evil.example" + end, 400},
		{"absolute form, foreign", "GET http://evil.example/api/v1/node HTTP/1.1" + host + auth + end, 421},
		{"absolute form, ours", "GET http://127.0.0.1:" + port + "/api/v1/node HTTP/1.1" + host + auth + end, 421},
		{"proxy", "CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example:80" + end, 421},
		{"form of another site", leave + host + "\r\nOrigin: https://evil.example\r\nSec-Fetch-Site: cross-site" + auth + end, 403},
		{"image in another site", node + host + "\r\nSec-Fetch-Site: cross-site" + auth + end, 403},
		{"link in another site", "GET / HTTP/1.1" + host + "\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate" + end, 403},
		{"another port of this machine", leave + host + "\r\nOrigin: http://127.0.0.1:1\r\nSec-Fetch-Site: same-site" + auth + end, 403},
		{"sandboxed frame", leave + host + "\r\nOrigin: null" + auth + end, 403},
		{"https", leave + host + "\r\nOrigin: https://127.0.0.1:" + port + auth + end, 403},
		{"two origins", leave + host + "\r\nOrigin: http://127.0.0.1:" + port + "\r\nOrigin: http://evil.example" + auth + end, 403},
		{"WebSocket", "GET /api/v1/events HTTP/1.1" + host + "\r\nOrigin: https://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket" + auth + end, 403},
		{"preflight", "OPTIONS /api/v1/node HTTP/1.1" + host + "\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: PUT" + end, 403},
		{"trade of codes", "POST /api/v1/session HTTP/1.1" + host + "\r\nOrigin: https://evil.example" + end, 403},
		{"OPTIONS *", "OPTIONS * HTTP/1.1" + host + end, 405},
		{"a program without the token", node + host + end, 401},

		{"a program", node + host + auth + end, 200},
		{"a program, by name", node + "\r\nHost: localhost:" + port + auth + end, 200},
		{"a program, IPv6", node + "\r\nHost: [::1]:" + port + auth + end, 200},
		{"the page", node + host + "\r\nOrigin: http://127.0.0.1:" + port + "\r\nSec-Fetch-Site: same-origin" + auth + end, 200},
		{"typed into the bar", "GET / HTTP/1.1" + host + "\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate" + end, 200},
	} {
		status, header := d.raw(c.text)
		if status != c.want {
			t.Errorf("%s: %d, want %d", c.name, status, c.want)
		}
		if status != 400 && header.Get("Content-Security-Policy") != contentPolicy {
			t.Errorf("%s: no policy", c.name)
		}
		for k := range header {
			if strings.HasPrefix(k, "Access-Control-") {
				t.Errorf("%s: %s", c.name, k)
			}
		}
	}
	if done := d.room.told(); len(done) != 0 {
		t.Error("something was changed:", done)
	}
}

func TestEveryRouteWantsTheToken(t *testing.T) {
	d := start(t)
	routes := (&handler{}).table()
	if len(routes) < 30 {
		t.Fatal("the table is not whole")
	}
	paths := map[string]string{"/nothing": http.MethodGet, "": http.MethodGet, "/": http.MethodPut}
	for _, rt := range routes {
		paths[rt.pattern] = rt.method
		if rt.free != (rt.pattern == "/session") {
			t.Error("free:", rt.pattern)
		}
		for _, header := range []string{
			"", "Bearer", "Bearer ", "Bearer " + testToken[:42], "Bearer " + testToken + "x", "Bearer  " + testToken,
			"Bearer " + strings.ToUpper(testToken), "Basic " + testToken, testToken,
		} {
			status, body, h := d.do(rt.method, d.concrete(rt.pattern), "", "Authorization", header)
			if rt.free {
				if status != 400 {
					t.Error("session:", status)
				}
				continue
			}
			if status != 401 || h.Get("WWW-Authenticate") != "Bearer" || strings.Contains(body, testToken) {
				t.Errorf("%s %s with %q: %d", rt.method, rt.pattern, header, status)
			}
		}
	}
	for path, method := range paths {
		if path == "/session" {
			continue
		}
		if status, _, _ := d.do(method, base+path, "", "Authorization", ""); status != 401 {
			t.Errorf("%s %s without: %d", method, path, status)
		}
	}
	if status, _, _ := d.do("GET", base+"/node", "", "Authorization", "bearer "+testToken); status != 200 {
		t.Error("the scheme's case counts:", status)
	}
	if done := append(d.room.told(), d.node.told()...); len(done) != 0 {
		t.Error("something was changed:", done)
	}
}

func TestEveryAnswerIsHardened(t *testing.T) {
	d := start(t)
	for _, c := range [][2]string{{"GET", "/"}, {"GET", "/nothing"}, {"GET", base + "/node"}, {"POST", base + "/node"}, {"GET", "/api"}, {"POST", "/"}} {
		_, _, h := d.do(c[0], c[1], "")
		for k, want := range map[string]string{
			"Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
			"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if h.Get(k) != want {
				t.Errorf("%v: %s: %q", c, k, h.Get(k))
			}
		}
		if h.Get("Set-Cookie") != "" {
			t.Errorf("%v: a cookie", c)
		}
	}
}
