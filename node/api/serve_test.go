package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSlowConnectionsHoldNobodyUp: 500 connections that dribble a header, while a browser asks for the page. How long
// they may stay is the server's own constant; a generous deadline only ends a test that hangs.
func TestSlowConnectionsHoldNobodyUp(t *testing.T) {
	d := start(t)
	var slow []net.Conn
	for range 500 {
		c, err := net.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHo")
		slow = append(slow, c)
		if len(slow)%50 == 0 {
			if status, _, _ := d.do("GET", "/", ""); status != 200 {
				t.Fatalf("with %d slow ones the page is %d", len(slow), status)
			}
		}
	}
	begin := time.Now()
	if status, _, _ := d.do("GET", "/", ""); status != 200 {
		t.Error("the page:", status)
	}
	t.Log("page after", time.Since(begin))
	for i, c := range slow {
		_ = c.SetReadDeadline(begin.Add(limit))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("still open: connection", i)
		}
	}
	t.Log("all closed after", time.Since(begin))
	if headerTimeout > 10*time.Second || maxConns > 64 {
		t.Error("the limits were loosened")
	}
}

// TestTheDoorShedsWhoWaitsLongest: whoever has sent a header stays, and when all have, the newcomer goes.
func TestTheDoorShedsWhoWaitsLongest(t *testing.T) {
	d := &door{conns: map[net.Conn]*visit{}}
	ends := map[net.Conn]net.Conn{}
	enter := func() (net.Conn, context.Context) {
		a, b := net.Pipe()
		ends[a] = b
		return a, d.context(context.Background(), a)
	}
	first, ctx := enter()
	d.entered(ctx)
	second, _ := enter()
	for range maxConns - 2 {
		enter()
	}
	closed := func(c net.Conn) bool {
		_ = ends[c].SetReadDeadline(time.Now())
		_, err := ends[c].Read(make([]byte, 1))
		return errors.Is(err, io.EOF)
	}
	enter()
	if closed(first) || !closed(second) || len(d.conns) != maxConns {
		t.Error("shed:", closed(first), closed(second), len(d.conns))
	}
	for c := range d.conns {
		d.conns[c].waiting = time.Time{}
	}
	last, _ := enter()
	if closed(first) || !closed(last) {
		t.Error("all are served, and the newcomer stays")
	}
	d.state(last, http.StateClosed)
	d.state(first, http.StateIdle)
	enter()
	if !closed(first) {
		t.Error("an idle connection is kept, a newcomer refused")
	}
	for a, b := range ends {
		_ = a.Close()
		_ = b.Close()
	}
}

// TestStopWithOpenStreams: Serve returns though readers hold event streams, half a header and half a body.
func TestStopWithOpenStreams(t *testing.T) {
	d := start(t)
	var open []*reader
	for range 8 {
		r := d.follow()
		r.want("view")
		open = append(open, r)
	}
	for _, text := range []string{
		"GET / HT", "POST " + d.inRoom("/leave") + " HTTP/1.1\r\nHost: " + d.addr + "\r\nAuthorization: Bearer " + testToken +
			"\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{",
	} {
		c, err := net.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, text)
	}
	begin := time.Now()
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	t.Log("stopped after", time.Since(begin))
	for _, r := range open {
		for r.lines.Scan() {
		}
		if err := r.lines.Err(); err != nil {
			t.Error("a stream did not end but break:", err)
		}
	}
	if d.room.watching() != 0 {
		t.Error("a watch is left")
	}
}

func TestServeTellsThatTheListenerFailed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	err = Serve(context.Background(), l, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestRandomRequests: whatever is sent, no 5xx and no goroutine is left. BALAI_SOAK=1 sends 100,000.
func TestRandomRequests(t *testing.T) {
	const workers = 4
	total := 20_000
	if os.Getenv("BALAI_SOAK") != "" {
		total = 100_000
	}
	d := start(t)
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	counts := make([]map[int]int, workers)
	for w := range workers {
		counts[w] = map[int]int{}
		wg.Go(func() { d.hammer(rand.New(rand.NewPCG(seed, uint64(w))), total/workers, counts[w]) })
	}
	wg.Wait()
	sum := map[int]int{}
	for _, m := range counts {
		for status, n := range m {
			sum[status] += n
		}
	}
	t.Log(sum)
	for status, n := range sum {
		if status >= 500 || status == 422 {
			t.Errorf("%d times %d", n, status)
		}
	}
	for _, status := range []int{200, 201, 204, 400, 401, 403, 404, 405, 413, 415, 421} {
		if sum[status] == 0 {
			t.Error("the requests are too tame: none was", status)
		}
	}
	for end := time.Now().Add(limit); runtime.NumGoroutine() > before+maxConns/8 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if after := runtime.NumGoroutine(); after > before+maxConns/8 {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
}

// hammer sends n random requests over one connection after the other and counts the answers.
func (d *daemon) hammer(rnd *rand.Rand, n int, counts map[int]int) {
	routes := (&handler{}).table()
	client := &http.Client{Transport: &http.Transport{}, Timeout: limit}
	defer client.CloseIdleConnections()
	for range n {
		req := d.random(rnd, routes)
		if req == nil {
			counts[-1]++
			continue
		}
		resp, err := client.Do(req)
		if err != nil {
			counts[0]++ // the daemon hung up
			continue
		}
		if resp.Header.Get("Content-Type") != eventType {
			_, _ = io.Copy(io.Discard, resp.Body)
		}
		_ = resp.Body.Close()
		counts[resp.StatusCode]++
	}
}

// random is a request near enough to a good one to get past the first check most of the time.
func (d *daemon) random(rnd *rand.Rand, routes []route) *http.Request {
	often := func() bool { return rnd.IntN(10) > 0 }
	rt := routes[rnd.IntN(len(routes))]
	method, path, body := rt.method, d.concrete(rt.pattern), ""
	if !often() {
		method = []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "X"}[rnd.IntN(8)]
	}
	if !often() {
		path = mangle(rnd, path)
	}
	if method != http.MethodGet {
		body = []string{
			"", "{}", `{"text":"a"}`, `{"name":"a","visibility":"open"}`, `{"link":"a"}`, `{"raised":true}`, `{"muted":true}`, `{"kind":2}`, `{"code":"a"}`,
			`{"role":"listener","uses":1,"expires_in":9}`, "v=0", "[", strings.Repeat("[", 3000), strings.Repeat("a", maxBody+1),
		}[rnd.IntN(14)]
		if !often() {
			body = mangle(rnd, body)
		}
	}
	req, err := http.NewRequest(method, "http://"+d.addr+path, strings.NewReader(body))
	if err != nil {
		return nil
	}
	req.Header.Set("Content-Type", []string{rt.inType, jsonType, sdpType, "text/plain"}[min(rnd.IntN(20), 3)])
	if rnd.IntN(20) > 2 {
		req.Header.Set("Content-Type", rt.inType)
	}
	for k, v := range map[string][2]string{
		"Authorization": {"Bearer " + testToken, "Bearer x"}, "Origin": {"", "http://evil.example"}, "Sec-Fetch-Site": {"", "cross-site"},
	} {
		if v := v[min(1, rnd.IntN(20)/19)]; v != "" {
			req.Header.Set(k, v)
		}
	}
	if !often() {
		req.Host = "evil.example"
	}
	return req
}

// mangle changes, doubles or removes a few bytes.
func mangle(rnd *rand.Rand, s string) string {
	b := []byte(s)
	for range 1 + rnd.IntN(4) {
		if len(b) == 0 {
			return string(byte(rnd.IntN(256)))
		}
		i := rnd.IntN(len(b))
		switch rnd.IntN(3) {
		case 0:
			b[i] = byte(rnd.IntN(256))
		case 1:
			b = append(b[:i:i], b[i+1:]...)
		default:
			b = append(b[:i:i], append([]byte{b[i], b[i]}, b[i+1:]...)...)
		}
	}
	return string(b)
}
