package trust

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"balai/identity"
	"balai/node"
	"balai/node/api"
	"balai/room"
	"balai/room/invite"
	"balai/room/session"
	"balai/test/stalls"
)

// Trust test 9: a key or a token that others can read: the daemon does not start, and says which file and why.
func TestExposedFiles(t *testing.T) {
	t.Parallel()
	for _, file := range []string{node.KeyFile, "token"} {
		for _, mode := range []os.FileMode{0o640, 0o604} {
			d := start(t, "Ana")
			d.end(os.Interrupt)
			path := filepath.Join(d.dir, file)
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := command(d.dir, runArgs(d.dir, "Ana")...)
			stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
			out, err := cmd.CombinedOutput()
			stop()
			if code := cmd.ProcessState.ExitCode(); err == nil || code != 1 {
				t.Errorf("%s %o: exit code %d, %v", file, mode, code, err)
			}
			if s := string(out); !strings.Contains(s, path) || !strings.Contains(s, "others") || strings.Contains(s, d.token) {
				t.Errorf("%s %o: it says %q", file, mode, s)
			}
			if _, err := os.Stat(filepath.Join(d.dir, "api.json")); err == nil {
				t.Errorf("%s %o: api.json is there", file, mode)
			}
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			was := d.id
			d.run()
			if d.id != was {
				t.Errorf("%s %o: another identity after the mode is mended", file, mode)
			}
			d.end(os.Interrupt)
		}
	}
}

// bait is an address on loopback that counts who dials it, by TCP and UDP.
type bait struct {
	tcp  net.Listener
	udp  net.PacketConn
	hits atomic.Int32

	once sync.Once
	key  *identity.Key // of somebody who is said to be there
}

func newBait(t *testing.T) *bait {
	t.Helper()
	x := &bait{}
	var err error
	if x.tcp, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if x.udp, err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for c, err := x.tcp.Accept(); err == nil; c, err = x.tcp.Accept() {
			x.hits.Add(1)
			_ = c.Close() // whoever dialled gets no more
		}
	})
	wg.Go(func() {
		b := make([]byte, 2000)
		for _, _, err := x.udp.ReadFrom(b); err == nil; _, _, err = x.udp.ReadFrom(b) {
			x.hits.Add(1)
		}
	})
	t.Cleanup(func() {
		_, _ = x.tcp.Close(), x.udp.Close()
		wg.Wait()
	})
	return x
}

// link is an honest invite of somebody who is said to be at the bait.
func (x *bait) link(t *testing.T) string {
	t.Helper()
	host, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	var hints []invite.Hint
	for _, a := range []string{
		fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", x.tcp.Addr().(*net.TCPAddr).Port, host.ID()),
		fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1/p2p/%s", x.udp.LocalAddr().(*net.UDPAddr).Port, host.ID()),
	} {
		h, err := invite.ParseHint(a, invite.HintMember)
		if err != nil {
			t.Fatal(err)
		}
		hints = append(hints, h)
	}
	now := time.Now()
	v, err := invite.Issue(host, host.Public(), room.NewSecret(), invite.Terms{Role: room.Speaker, NotBefore: now.Add(-time.Hour), Expiry: now.Add(time.Hour), Hints: hints})
	if err != nil {
		t.Fatal(err)
	}
	return v.Link()
}

// Trust test 10: a link opened touches no network; a join dials nothing private unless that is asked for; who is in has the
// microphone off.
func TestLinksAndPrivateAddresses(t *testing.T) {
	t.Parallel()
	d, x := start(t, "Budi"), newBait(t)
	for range 20 {
		if _, err := d.Inspect(t.Context(), x.link(t)); err != nil {
			t.Fatal(err)
		}
	}
	pause(t, time.Second)
	if n := x.hits.Load(); n > 0 {
		t.Errorf("inspecting dialled %d times", n)
	}
	// The default too: the page asks before it says local.
	for _, body := range []map[string]any{{"link": x.link(t)}, {"link": x.link(t), "local": false}} {
		if err := d.Do(t.Context(), "POST", "/rooms/join", body, nil); err != nil {
			t.Fatal(err)
		}
	}
	pause(t, 6*time.Second)
	if n := x.hits.Load(); n > 0 {
		t.Errorf("a join without local dialled a private address %d times", n)
	}
	if _, err := d.Join(t.Context(), x.link(t), "", true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bait works: local dials it", func() bool { return x.hits.Load() > 0 })

	host := start(t, "Ana")
	id := host.open("unlisted")
	v := d.enter(host.link(id, "speaker"))
	if !v.Me.OnStage || !v.Me.Muted {
		t.Errorf("a speaker who has just come in: %+v", v.Me)
	}
	l := attach(d, id, "budi")
	if v := d.until(id, "the leg is known", func(v session.View) bool { return v.Me.Audio }); !v.Me.Muted {
		t.Errorf("with a leg: %+v", v.Me)
	}
	pause(t, time.Second)
	var s api.Stats
	if err := d.Do(t.Context(), "GET", "/rooms/"+id+"/stats", nil, &s); err != nil || s.Uplink.Frames != 0 {
		t.Errorf("%d frames of a microphone that is off went up, %v", s.Uplink.Frames, err)
	}
	l.close()
}

// TestOffers: what a browser leg refuses, by status.
func TestOffers(t *testing.T) {
	t.Parallel()
	d := start(t, "Ana")
	id := d.open("unlisted")
	one, three := newPC(t, 1), newPC(t, 3)
	t.Cleanup(func() { _, _ = one.GracefulClose(), three.GracefulClose() })
	mixed, good := offerOf(t, one), offerOf(t, three)
	path := "/api/v1/rooms/" + id + "/audio"
	for _, c := range []struct {
		name, path, kind string
		body             []byte
		want             int
	}{
		{"one receiving m-line", path, "application/sdp", mixed, 501},
		{"no SDP", path, "application/sdp", []byte("hello"), 400},
		{"empty", path, "application/sdp", nil, 400},
		{"bad UTF-8", path, "application/sdp", append([]byte{0xff, 0xfe}, good...), 400},
		{"half of it", path, "application/sdp", good[:len(good)/2], 400},
		{"as JSON", path, "application/json", good, 415},
		{"without a type", path, "", good, 415},
		{"too long", path, "application/sdp", append(good, make([]byte, 64<<10)...), 413},
		{"another room", "/api/v1/rooms/" + strings.Repeat("a", len(id)) + "/audio", "application/sdp", good, 404},
		{"no room id", "/api/v1/rooms/x/audio", "application/sdp", good, 404},
		{"three", path, "application/sdp", good, 201},
	} {
		resp, body := d.request("POST", c.path, c.kind, c.body)
		if resp.StatusCode != c.want {
			t.Errorf("%s: %s, want %d\n%s", c.name, resp.Status, c.want, body)
		}
		if c.want >= 400 && !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
			t.Errorf("%s: %s", c.name, resp.Header.Get("Content-Type"))
		}
		if at := resp.Header.Get("Location"); (at != "") != (c.want == 201) {
			t.Errorf("%s: Location %q", c.name, at)
		} else if at != "" {
			for _, want := range []int{204, 404} {
				if resp, _ := d.request("DELETE", at, "", nil); resp.StatusCode != want {
					t.Errorf("DELETE %s: %s, want %d", at, resp.Status, want)
				}
			}
		}
	}
}

// slowLimit is after what time connections that say nothing ought to be closed, and half of it more: 500 goroutines of this test
// have to notice.
const slowLimit = 15 * time.Second

// Trust test 5: 500 connections that never finish their header: the page answers all the same, and they are closed.
func TestSlowConnections(t *testing.T) {
	t.Parallel()
	d := start(t, "Ana")
	began := time.Now()
	var wg sync.WaitGroup
	var closed atomic.Int32
	for i := range 500 {
		c, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
		if err != nil {
			closed.Add(1) // shed before it could say a word
			continue
		}
		wg.Go(func() {
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nX-Slow: "+strconv.Itoa(i)) // it may be closed already
			at := time.Now()
			_ = c.SetReadDeadline(at.Add(patience))
			if _, err := io.Copy(io.Discard, c); (err == nil || !os.IsTimeout(err)) && stalls.Took(at) < slowLimit {
				closed.Add(1)
			}
		})
	}
	var worst time.Duration // of the time in which the machine ran
	for range 20 {
		at := time.Now()
		resp, err := http.Get(d.url + "/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("the page: %s", resp.Status)
		}
		worst = max(worst, stalls.Took(at))
		http.DefaultClient.CloseIdleConnections() // each on a connection of its own
		time.Sleep(20 * time.Millisecond)
	}
	wg.Wait()
	t.Logf("the page's slowest answer took %v; all connections were closed after %v", worst, time.Since(began))
	if n := closed.Load(); n != 500 {
		t.Errorf("%d of 500 slow connections were closed", n)
	}
	if worst > 5*time.Second { // half a second is the goal; a busy machine may double it, but not tenfold
		t.Errorf("the page took %v", worst)
	}
	if _, err := d.Node(t.Context()); err != nil {
		t.Error(err)
	}
}

// Trust test 8: whatever is asked, no 5xx, and no goroutine is left. BALAI_SOAK=1 asks 100,000 times.
func TestRandomRequests(t *testing.T) {
	t.Parallel()
	total := 20_000
	if os.Getenv("BALAI_SOAK") != "" {
		total = 100_000
	}
	const workers = 4
	d, seed := start(t, "Ana"), uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	q := newQuestions(t, d)
	before := goroutines(d)
	var wg sync.WaitGroup
	var mu sync.Mutex
	sum := map[int]int{}
	for w := range workers {
		wg.Go(func() {
			counts := q.ask(rand.New(rand.NewPCG(seed, uint64(w))), total/workers)
			mu.Lock()
			defer mu.Unlock()
			for status, n := range counts {
				sum[status] += n
			}
		})
	}
	wg.Wait()
	t.Log(sum)
	for status, n := range sum {
		if status >= 500 && status != 501 || status == 422 {
			t.Errorf("%d times %d", n, status)
		}
	}
	for _, status := range []int{200, 201, 202, 204, 400, 401, 403, 404, 405, 413, 415, 421} {
		if sum[status] == 0 {
			t.Error("the requests are too tame: none was", status)
		}
	}
	q.forgetRooms()
	after := 0
	eventually(t, "the goroutines are as many as before", func() bool { after = goroutines(d); return after <= before+16 })
	t.Logf("%d goroutines before, %d after", before, after)
	if s := d.stderr.String(); strings.Contains(s, "panic") {
		t.Error("the log tells of a panic")
	}
}

// questions are requests that a real daemon is asked at random.
type questions struct {
	d      *daemon
	room   string
	routes [][2]string // method, path below /api/v1
}

func newQuestions(t *testing.T, d *daemon) *questions {
	t.Helper()
	q := &questions{d: d, room: d.open("unlisted")}
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := d.Do(t.Context(), "GET", "/openapi.json", nil, &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for m := range methods {
			if m = strings.ToUpper(m); m == "GET" || m == "POST" || m == "PUT" || m == "DELETE" {
				q.routes = append(q.routes, [2]string{m, path})
			}
		}
	}
	if len(q.routes) < 30 {
		t.Fatalf("only %d routes", len(q.routes))
	}
	return q
}

func (q *questions) ask(rnd *rand.Rand, n int) map[int]int {
	counts := map[int]int{}
	c := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer c.CloseIdleConnections()
	for range n {
		ctx, cancel := context.WithTimeout(background(q.d.t), patience)
		req := q.random(ctx, rnd)
		if req == nil {
			counts[-1]++
			cancel()
			continue
		}
		resp, err := c.Do(req)
		if err != nil {
			counts[0]++ // the daemon hung up
			cancel()
			continue
		}
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			_, _ = io.Copy(io.Discard, resp.Body)
		}
		_ = resp.Body.Close()
		counts[resp.StatusCode]++
		cancel()
	}
	return counts
}

// bodies are near enough to good ones to get past the first check most of the time.
var bodies = []string{
	"", "{}", `{"text":"a"}`, `{"name":"a","visibility":"open"}`, `{"name":"a","visibility":"closed","local":true}`, `{"link":"balai:join#AQ"}`,
	`{"link":"LINK"}`, `{"link":"LINK","local":true}`, `{"room":"ROOM"}`, `{"raised":true}`, `{"muted":true}`, `{"muted":false}`, `{"kind":2}`, `{"code":"a"}`,
	`{"role":"listener","uses":1,"expires_in":9}`, `{"role":"speaker","uses":-1,"expires_in":1e99}`, "v=0\r\n", "[", `{"a":"` + "\x00" + `"}`,
	strings.Repeat(`{"a":`, 3000), strings.Repeat("a", 70<<10),
}

func (q *questions) random(ctx context.Context, rnd *rand.Rand) *http.Request {
	often := func() bool { return rnd.IntN(10) > 0 }
	rt := q.routes[rnd.IntN(len(q.routes))]
	method, body := rt[0], ""
	id := q.room
	if !often() {
		id = []string{"x", "", strings.Repeat("a", len(q.room)), "..", "%00"}[rnd.IntN(5)]
	}
	who := []string{q.d.id, "12D3KooWGRUaPJxzwAVg7uV2bD5bpZq6uTVfyYYCaDU6C9NqYc9A", "x"}[rnd.IntN(3)]
	path := strings.NewReplacer("{id}", id, "{peer}", who, "{action}", "lower", "{leg}", "x", "{invite}", "x").Replace(rt[1])
	if rt[0] == "POST" && strings.HasSuffix(rt[1], "/rooms") && rnd.IntN(20) > 0 {
		method = "GET" // each room is a room: a few are enough
	}
	if strings.HasSuffix(path, "/"+q.room+"/end") || strings.HasSuffix(path, "/"+q.room+"/leave") {
		path = strings.Replace(path, q.room, "x", 1) // the room is wanted later
	}
	if !strings.HasPrefix(path, "/api/v1") {
		path = "/api/v1" + path
	}
	if !often() {
		method = []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "X"}[rnd.IntN(8)]
	}
	if !often() {
		path = mangle(rnd, path)
	}
	if method != http.MethodGet {
		body = strings.NewReplacer("LINK", "balai:join#AQ", "ROOM", q.room).Replace(bodies[rnd.IntN(len(bodies))])
		if !often() {
			body = mangle(rnd, body)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, q.d.url+path, strings.NewReader(body))
	if err != nil {
		return nil
	}
	kind := "application/json"
	if strings.HasSuffix(rt[1], "/audio") || strings.HasSuffix(rt[1], "/echo") {
		kind = "application/sdp"
	}
	req.Header.Set("Content-Type", []string{kind, kind, kind, kind, kind, kind, kind, kind, kind, "text/plain"}[rnd.IntN(10)])
	for k, v := range map[string][2]string{
		"Authorization": {"Bearer " + q.d.token, "Bearer x"}, "Origin": {"", "http://evil.example"}, "Sec-Fetch-Site": {"", "cross-site"},
	} {
		if v := v[min(1, rnd.IntN(20)/19)]; v != "" {
			req.Header.Set(k, v)
		}
	}
	if rnd.IntN(20) == 0 {
		req.Host = "evil.example"
	}
	return req
}

// mangle changes, doubles or removes a few bytes.
func mangle(rnd *rand.Rand, s string) string {
	b := []byte(s)
	for range 1 + rnd.IntN(4) {
		if len(b) == 0 {
			return string(rune(rnd.IntN(256)))
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

// forgetRooms leaves every room but the first.
func (q *questions) forgetRooms() {
	q.d.t.Helper()
	list, err := q.d.Hallway(q.d.t.Context())
	if err != nil {
		q.d.t.Fatal(err)
	}
	for _, l := range list {
		if l.ID != q.room {
			_ = q.d.Leave(q.d.t.Context(), l.ID) // it may be over
		}
	}
	q.d.until(q.room, "the first room still lives", func(v session.View) bool { return v.State == session.Live })
}

// goroutines is what the daemon's metrics tell.
func goroutines(d *daemon) int {
	d.t.Helper()
	_, body := d.request("GET", "/api/v1/metrics", "", nil)
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				d.t.Fatal(err)
			}
			return int(n)
		}
	}
	d.t.Fatal("no go_goroutines among the metrics")
	return 0
}
