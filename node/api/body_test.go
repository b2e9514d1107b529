package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestBodies sends testdata/bodies.txt: one vector a line, status and body as a quoted string.
func TestBodies(t *testing.T) {
	d := start(t)
	for i, v := range vectors(t) {
		before := len(d.room.told())
		status, answer, h := d.do("POST", d.inRoom("/messages"), v.body)
		said := len(d.room.told()) - before
		switch {
		case status != v.status:
			t.Errorf("vector %d, %.60q: %d %s", i, v.body, status, answer)
		case status == 400 && (said != 0 || h.Get("Content-Type") != problemType || !strings.Contains(answer, `"reason":"malformed"`)):
			t.Errorf("vector %d, %.60q: said %d, %s", i, v.body, said, answer)
		case status == 201 && said != 1:
			t.Errorf("vector %d, %.60q: said %d", i, v.body, said)
		}
	}
	deep := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	for _, body := range []string{
		deep, `{"text":` + deep + `}`, strings.Repeat("[", 60_000), `{"text":"a","x":` + strings.Repeat(`{"x":`, 2000) + "1" + strings.Repeat("}", 2001),
	} {
		if status, answer, _ := d.do("POST", d.inRoom("/messages"), body); status != 400 {
			t.Errorf("%.60q: %d %s", body, status, answer)
		}
	}
}

type vector struct {
	status int
	body   string
}

func vectors(t testing.TB) (list []vector) {
	t.Helper()
	data, err := os.ReadFile("testdata/bodies.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		var v vector
		if _, err := fmt.Sscanf(line, "%d %q", &v.status, &v.body); err != nil {
			t.Fatal(line, err)
		}
		list = append(list, v)
	}
	if len(list) < 40 {
		t.Fatal("vectors are missing")
	}
	return list
}

func TestEveryBodyIsChecked(t *testing.T) {
	d := start(t)
	for _, rt := range (&handler{}).table() {
		if rt.method == http.MethodGet || rt.inType == sdpType {
			continue
		}
		path := d.concrete(rt.pattern)
		for body, want := range map[string]int{
			`{"nobody knows this":1}`: 400, "\xff": 400, `[`: 400, strings.Repeat(" ", maxBody+1): 413,
		} {
			if status, _, _ := d.do(rt.method, path, body); status != want {
				t.Errorf("%s %s with %.20q: %d", rt.method, rt.pattern, body, status)
			}
		}
		for _, mediaType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "x"} {
			if status, _, _ := d.do(rt.method, path, "{}", "Content-Type", mediaType); status != 415 {
				t.Errorf("%s %s as %q: %d", rt.method, rt.pattern, mediaType, status)
			}
		}
	}
}

func TestTheLargestBody(t *testing.T) {
	d := start(t)
	frame := `{"text":""}`
	fits := `{"text":"` + strings.Repeat("a", maxBody-len(frame)) + `"}`
	if status, _, _ := d.do("POST", d.inRoom("/messages"), fits, "Content-Type", "application/json; charset=UTF-8"); status != 201 {
		t.Error("64 KiB:", status)
	}
	if status, _, _ := d.do("POST", d.inRoom("/messages"), fits+" "); status != 413 {
		t.Error("64 KiB and a byte:", status)
	}
}

// TestEndlessBody sends what never ends and what says that it is a GiB; the daemon answers and hangs up.
func TestEndlessBody(t *testing.T) {
	d := start(t)
	head := "POST " + d.inRoom("/messages") + " HTTP/1.1\r\nHost: " + d.addr + "\r\nAuthorization: Bearer " + testToken + "\r\nContent-Type: application/json\r\n"
	if status, _ := d.raw(head + "Content-Length: 1073741824\r\n\r\n{"); status != 413 {
		t.Error("a GiB:", status)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 3 {
		c, err := net.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(limit))
		if _, err := io.WriteString(c, head+"Transfer-Encoding: chunked\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer := make(chan string, 1)
		go func() {
			b := make([]byte, 12)
			_, _ = io.ReadFull(c, b)
			answer <- string(b)
		}()
		chunk := fmt.Sprintf("10000\r\n%s\r\n", strings.Repeat(" ", 0x10000))
		sent := 0
		for err == nil && sent < 1<<30 {
			_, err = io.WriteString(c, chunk)
			sent += len(chunk)
		}
		if got := <-answer; got != "HTTP/1.1 413" || err == nil {
			t.Errorf("%q after %d bytes, then %v", got, sent, err)
		}
		_ = c.Close()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 10<<20 {
		t.Error("memory grew by", grown)
	}
}

// bodies are a value of each type that a request may hold.
func bodies() (list []reflect.Type) {
	for _, rt := range (&handler{}).table() {
		if rt.in != nil {
			list = append(list, rt.in)
		}
	}
	return list
}

// FuzzBody: what decode lets through is valid JSON of known fields and comes out again as it went in; nothing else
// than a problem of status 400 comes of the rest, and a whole handler never answers 5xx.
func FuzzBody(f *testing.F) {
	for _, s := range []string{
		``, `{}`, `{"text":"a"}`, `{"link":"balai:join#AQ"}`, `{"room":"a","local":true}`, `{"raised":true}`, `{"muted":false}`, `{"kind":3}`,
		`{"name":"n","visibility":"open","tags":["a"],"starts_at":"2026-01-01T00:00:00Z","local":false}`,
		`{"role":"listener","uses":1,"expires_in":60,"depth":1}`, `{"text":"\ud83d\ude00"}`, `{"text":"\ud83d"}`, `{"a":{"b":[null]}}`,
	} {
		f.Add([]byte(s))
	}
	for _, v := range vectors(f) {
		f.Add([]byte(v.body))
	}
	types := bodies()
	rm := newFakeRoom(1)
	h := New(Config{Backend: newFakeNode(rm), Token: testToken, Addr: "127.0.0.1:1"})
	routes := (&handler{}).table()
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, typ := range types {
			checkDecode(t, typ, data)
		}
		for _, rt := range routes {
			if rt.in == nil {
				continue
			}
			d := daemon{room: rm}
			r := httptest.NewRequest(rt.method, d.concrete(rt.pattern), strings.NewReader(string(data)))
			r.Host = "127.0.0.1:1"
			r.Header.Set("Authorization", "Bearer "+testToken)
			r.Header.Set("Content-Type", jsonType)
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code >= 500 || w.Code == 422 {
				t.Fatalf("%s: %d %s", rt.pattern, w.Code, w.Body)
			}
		}
	})
}

func checkDecode(t *testing.T, typ reflect.Type, data []byte) {
	t.Helper()
	got := reflect.New(typ)
	err := decode(data, got.Interface())
	var p *Problem
	if err != nil {
		if !errors.As(err, &p) || p.Status != 400 {
			t.Fatalf("%q: %v", data, err)
		}
		return
	}
	if len(data) > 0 && (!utf8.Valid(data) || !json.Valid(data)) {
		t.Fatalf("let through: %q", data)
	}
	again, err := json.Marshal(got.Interface())
	if err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	back := reflect.New(typ)
	if err := decode(again, back.Interface()); err != nil {
		t.Fatalf("%q became %q: %v", data, again, err)
	}
	if !reflect.DeepEqual(got.Interface(), back.Interface()) {
		if third, err := json.Marshal(back.Interface()); err != nil || string(third) != string(again) {
			t.Fatalf("%q became %q, then %q", data, again, third)
		}
	}
}
