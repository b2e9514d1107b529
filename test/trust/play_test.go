package trust

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/node"
	"balai/room/session"
	"balai/room/wire"
	"balai/test/hostile"
)

// helper is a community node, a process of its own, that carries rooms.
type helper struct {
	t       *testing.T
	id      string
	addrs   []string
	metrics string // URL
	cmd     *exec.Cmd
	stderr  *tail
	ended   chan struct{}
}

func startHelper(t *testing.T) *helper {
	t.Helper()
	dir := t.TempDir()
	h := &helper{t: t, stderr: &tail{}, ended: make(chan struct{})}
	h.cmd = command(dir, "bootstrap", "--data", dir, "--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--listen", "/ip4/127.0.0.1/tcp/0", "--metrics", "127.0.0.1:0", "--json")
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.cmd.Stderr = h.stderr
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make(chan string, 1)
	go func() {
		r := bufio.NewReader(out)
		s, _ := r.ReadString('\n') // empty when it ended without a word
		line <- s
		_, _ = io.Copy(io.Discard, r)
		_ = h.cmd.Wait() // the code is in ProcessState
		close(h.ended)
	}()
	t.Cleanup(func() {
		_ = h.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-h.ended:
		case <-time.After(patience):
			_ = h.cmd.Process.Kill()
			<-h.ended
			t.Error("the community node did not end")
		}
		if s := h.stderr.String(); t.Failed() || strings.Contains(s, "panic:") {
			t.Logf("the community node wrote:\n%s", last(s, 4000))
		}
	})
	var ready struct {
		ID    string `json:"peer_id"`
		Addrs []string
	}
	select {
	case s := <-line:
		if json.Unmarshal([]byte(s), &ready) != nil {
			t.Fatalf("the community node says %q\n%s", s, h.stderr)
		}
	case <-time.After(patience):
		t.Fatal("the community node does not get ready")
	}
	h.id, h.addrs = ready.ID, ready.Addrs
	var at string
	eventually(t, "the community node says where its metrics are", func() bool {
		at = regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(h.stderr.String())
		return at != ""
	})
	h.metrics = "http://" + at + "/metrics"
	return h
}

// place is where somebody can be called.
type place struct {
	name string
	id   peer.ID
	addr string // QUIC
}

func placeOf(name, id string, addrs []string) place {
	p, err := peer.Decode(id)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return place{name, p, addrs[slices.IndexFunc(addrs, func(a string) bool { return strings.Contains(a, "/quic-v1/") })]}
}

func (h *helper) place() place { return placeOf("the community node", h.id, h.addrs) }
func (d *daemon) place() place { return placeOf(d.name, d.id, d.addrs) }

// figures are what a process says of itself by its metrics.
type figures map[string]float64

func (f figures) String() string {
	return fmt.Sprintf("%.0f goroutines, heap %.1f MiB, resident %.1f MiB", f["go_goroutines"], f["go_memstats_heap_alloc_bytes"]/(1<<20), f["process_resident_memory_bytes"]/(1<<20))
}

func (h *helper) figures() figures { return readFigures(h.t, h.metrics, "") }
func (d *daemon) figures() figures { return readFigures(d.t, d.url+"/api/v1/metrics", d.token) }

func readFigures(t *testing.T, url, token string) figures {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	out := figures{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			if x, err := strconv.ParseFloat(value, 64); err == nil {
				out[name] = x
			}
		}
	}
	return out
}

// calm is the least of some figures within three seconds: what is there between two sweeps of the garbage collector, and
// when those who just left are forgotten.
func calm(t *testing.T, read func() figures) figures {
	t.Helper()
	return calmFor(t, 3*time.Second, read)
}

func calmFor(t *testing.T, d time.Duration, read func() figures) figures {
	t.Helper()
	least := read()
	for end := time.Now().Add(d); time.Now().Before(end); {
		pause(t, 100*time.Millisecond)
		for k, v := range read() {
			least[k] = min(least[k], v)
		}
	}
	return least
}

// flat compares two figures of one process by generous bounds, and reads the second again while they are not kept: on a slow
// machine those who left are forgotten later.
func flat(t *testing.T, what string, before, after figures, read func() figures) {
	t.Helper()
	var grown []string
	for end := time.Now().Add(patience); ; {
		grown = grown[:0]
		for name, more := range map[string]float64{"go_goroutines": 40, "go_memstats_heap_alloc_bytes": 12 << 20, "process_resident_memory_bytes": 64 << 20} {
			if after[name] > before[name]+more {
				grown = append(grown, name)
			}
		}
		if len(grown) == 0 || time.Now().After(end) {
			break
		}
		after = calm(t, read)
	}
	t.Logf("%s: before: %v; after: %v", what, before, after)
	if len(grown) > 0 {
		t.Errorf("%s: %v grow", what, grown)
	}
}

// play is a hall with a core: a host who speaks and a listener, who relay nothing, a member that relays, and, if there is
// one, a community node. Light people, who are no daemons, make the room large enough.
type play struct {
	*hall
	citra *daemon
	node  *helper
	crowd []*liar
}

// light makes one of them: in the room and no more.
func light(l *liar) { l.deaf = true }

// never is a person who cannot be reached: it relays nothing.
var never = []string{"--relay", "never"}

// newPlay starts the daemons and opens the room; withNode says whether there is a community node, which all know.
func newPlay(t *testing.T, withNode bool, budi, citra []string) *play {
	t.Helper()
	p := &play{hall: &hall{}}
	var more []string
	if withNode {
		p.node = startHelper(t)
		more = []string{"--bootstrap", p.node.place().addr}
	}
	var wg sync.WaitGroup
	for _, d := range []struct {
		at   **daemon
		name string
		args []string
	}{{&p.ana, "Ana", never}, {&p.budi, "Budi", budi}, {&p.citra, "Citra", citra}} {
		wg.Go(func() { *d.at = start(t, d.name, slices.Concat(d.args, more)...) })
	}
	wg.Wait()
	p.id = p.ana.open("unlisted")
	return p
}

// enter lets light people in.
func (p *play) enter(t *testing.T, people int) {
	t.Helper()
	link := p.ana.link(p.id, "listener")
	for range people {
		p.crowd = append(p.crowd, newLiarWith(t, light, link, p.ana))
	}
}

// vouch lets the host vouch for the community node.
func (p *play) vouch(t *testing.T) {
	t.Helper()
	if err := p.ana.Do(t.Context(), "PUT", "/rooms/"+p.id+"/relays/"+p.node.id, nil, nil); err != nil {
		t.Fatal(err)
	}
}

// talk connects the legs.
func (p *play) talk() {
	p.speaks, p.listens = attach(p.ana, p.id, "ana"), attach(p.budi, p.id, "budi")
	p.ana.mute(p.id, false)
	p.listens.hears("ana")
}

// carried waits until the core is those ids, in any order, the listener hears by them alone, and it has stayed so.
func (p *play) carried(t *testing.T, core ...string) {
	t.Helper()
	slices.Sort(core)
	var since, told time.Time
	eventuallyWithin(t, 4*patience, "the core carries the room", func() bool {
		a, b := p.view(p.ana), p.view(p.budi)
		ok := !p.linked(p.budi, p.ana.id)
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			t.Logf("core %v, wanted %v; ana uses %v, budi uses %v; linked with each other: %v", a.Core, core, a.Relays, b.Relays, !ok)
		}
		for _, v := range []session.View{a, b} {
			has := slices.Sorted(slices.Values(v.Core))
			ok = ok && slices.Equal(has, core) && len(by(v, "parent")) > 0
		}
		if !ok {
			since = time.Time{}
		} else if since.IsZero() {
			since = time.Now()
		}
		return ok && time.Since(since) > settled/2
	})
	p.listens.hears("ana")
}

func (p *play) view(d *daemon) session.View {
	p.ana.t.Helper()
	v, err := d.Room(d.t.Context(), p.id)
	if err != nil {
		d.t.Fatal(err)
	}
	return v
}

// links are the frames and blocks that have come over each media link of a daemon.
func (p *play) links(d *daemon) map[string]uint64 {
	d.t.Helper()
	var s struct {
		Links []struct {
			PeerID   string `json:"peer_id"`
			InFrames uint64 `json:"in_frames"`
		}
	}
	if err := d.Do(d.t.Context(), "GET", "/rooms/"+p.id+"/stats", nil, &s); err != nil {
		d.t.Fatal(err)
	}
	out := map[string]uint64{}
	for _, l := range s.Links {
		out[l.PeerID] = l.InFrames
	}
	return out
}

// linked tells whether a daemon has a media link with another.
func (p *play) linked(d *daemon, other string) bool {
	d.t.Helper()
	_, ok := p.links(d)[other]
	return ok
}

// hearsOnly tells whether, for a second, speech comes to a daemon over its link with one and over no other: of those that are
// held warm only blocks come, five a second.
func (p *play) hearsOnly(d *daemon, from string) bool {
	d.t.Helper()
	before := p.links(d)
	pause(d.t, time.Second)
	after := p.links(d)
	for id, n := range after {
		if n-before[id] > 10 && id != from {
			return false
		}
	}
	return after[from]-before[from] > 25
}

func eventuallyWithin(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("waited in vain for: " + what)
}

// keyOf is a daemon's own key: what is signed with it is what that person might sign.
func keyOf(t *testing.T, d *daemon) *identity.Key {
	t.Helper()
	k, err := identity.Load(filepath.Join(d.dir, node.KeyFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newPeer is a hostile peer that lives as long as the test.
func newPeer(t *testing.T) *hostile.Peer {
	t.Helper()
	p, err := hostile.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// caller is a peer with a media link at a relay.
type caller struct {
	*hostile.Peer
	s      *hostile.Stream
	handle uint32
}

// dial opens a media link with a relay. The error tells that it was refused.
func dial(ctx context.Context, p *hostile.Peer, at place, m [32]byte, sources ...*wire.Signed) (*caller, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := p.Connect(ctx, at.addr); err != nil {
		return nil, err
	}
	s, err := p.OpenLink(ctx, at.id, m, sources...)
	if err != nil {
		return nil, err
	}
	var r wire.LinkRecord
	if err := s.Read(&r); err != nil {
		return nil, err
	}
	if r.GetOpen() == nil {
		_ = s.Reset() // it is over
		return nil, fmt.Errorf("%w: %v", errRefused, &r)
	}
	return &caller{p, s, r.GetOpen().Handle}, nil
}

// join asks a relay to be a child, and returns its answer: ADMIT, REDIRECT, BUSY or CLOSE.
func (c *caller) join(j *wire.Join) (*wire.LinkRecord, error) {
	_ = c.s.SetDeadline(time.Now().Add(10 * time.Second)) // a dead stream fails in the next line
	if err := c.s.Write(&wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: j}}); err != nil {
		return nil, err
	}
	for {
		var r wire.LinkRecord
		if err := c.s.Read(&r); err != nil {
			return nil, err
		}
		switch r.GetRecord().(type) {
		case *wire.LinkRecord_Admit, *wire.LinkRecord_Redirect, *wire.LinkRecord_Busy, *wire.LinkRecord_Close:
			return &r, nil
		}
	}
}

// leave ends it politely.
func (c *caller) leave() {
	_ = c.s.Write(&wire.LinkRecord{Record: &wire.LinkRecord_Leave{Leave: &wire.LinkLeave{As: 2}}}) // it may have ended
	_ = c.s.Write(&wire.LinkRecord{Record: &wire.LinkRecord_Close{Close: &wire.LinkClose{}}})      // the same
	_ = c.s.Close()                                                                                // the same
}
