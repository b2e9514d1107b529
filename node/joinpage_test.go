package node

import (
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func TestJoinPage(t *testing.T) {
	h := joinPage()
	for _, c := range []struct {
		method, path string
		status       int
		kind, has    string
	}{
		{"GET", "/j", 200, "text/html", "You are invited"},
		{"HEAD", "/j", 200, "text/html", ""},
		{"GET", "/join.js", 200, "text/javascript", "location.hash"},
		{"GET", "/", 404, "", ""},
		{"GET", "/j/", 404, "", ""},
		{"GET", "/j/x", 404, "", ""},
		{"GET", "/join.html", 404, "", ""},
		{"GET", "/joinpage.go", 404, "", ""},
		{"GET", "/metrics", 404, "", ""},
		{"POST", "/j", 405, "", ""},
		{"DELETE", "/join.js", 405, "", ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || !strings.HasPrefix(w.Header().Get("Content-Type"), c.kind) || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Header().Get("Content-Type"))
		}
		if c.status != 200 {
			continue
		}
		for name, part := range map[string]string{
			"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
		} {
			if !strings.Contains(w.Header().Get(name), part) {
				t.Errorf("%s %s: %s is %q", c.method, c.path, name, w.Header().Get(name))
			}
		}
		if w.Header().Get("Set-Cookie") != "" {
			t.Error("a cookie")
		}
	}
}

// The token is in the fragment, which no request carries; the page must not send it by a way of its own either.
func TestJoinPageSendsNothing(t *testing.T) {
	for _, word := range []string{"fetch(", "XMLHttpRequest", "sendBeacon", "WebSocket", "<form", "<img", "http://", "https://"} {
		if strings.Contains(string(joinJS)+string(joinHTML), word) {
			t.Errorf("the page holds %q", word)
		}
	}
}

// What is protected and what is not is said in each language: every text of the page has its words.
func TestJoinPageInEachLanguage(t *testing.T) {
	says := regexp.MustCompile(`data-say="([a-z]+)"`).FindAllSubmatch(joinHTML, -1)
	if len(says) < 15 {
		t.Fatal("texts:", len(says))
	}
	for _, m := range says {
		if n := strings.Count(string(joinJS), "\n    "+string(m[1])+": '"); n != 2 {
			t.Errorf("%s stands in %d other languages", m[1], n)
		}
	}
	for _, word := range []string{"IP address", "record", "encrypted"} {
		if !strings.Contains(string(joinHTML), word) {
			t.Errorf("the page does not say %q", word)
		}
	}
}

// Connections beyond the limit wait; those that end make place.
func TestFewConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitConns(inner, 2)
	accepted := make(chan net.Conn, 3)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() //nolint:errcheck // a test's
	}
	first, second := <-accepted, <-accepted
	if len(l.(*fewConns).slots) != 2 || len(accepted) != 0 {
		t.Error("more connections than allowed")
	}
	_ = first.Close()
	_ = first.Close() // twice is once
	third := <-accepted
	_, _ = second.Close(), third.Close()
	_ = l.Close()
	<-ended
}

func TestCommunityPagesAreServed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	c := &community{cfg: BootstrapConfig{Web: addr, Log: testLog()}, served: make(chan error, 2)}
	if err := c.serveHTTP(); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + addr + "/j")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 200 {
		t.Error(res.Status)
	}
	big, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/j", nil)
	if err != nil {
		t.Fatal(err)
	}
	big.Header.Set("X-Big", strings.Repeat("x", 64<<10))
	if res, err := client.Do(big); err == nil {
		_ = res.Body.Close()
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a header of 64 KiB: %s", res.Status)
		}
	}
	if err := c.stop(); err != nil {
		t.Error(err)
	}
}
