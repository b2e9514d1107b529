//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"balai/node/api"
	"balai/room/session"
	"balai/test/stalls"
)

// patience bounds what a test waits for; a pass never depends on how long it took.
const patience = 90 * time.Second

// binary is the daemon, built once.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // they wait far more than they work
	os.Exit(withBinary(m))
}

func withBinary(m *testing.M) int {
	dir, err := os.MkdirTemp("", "balai-lab-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	defer stalls.Watch()()
	binary = filepath.Join(dir, "balai")
	build := exec.Command("go", "build", "-o", binary, "balai/cmd/balai")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "the daemon does not build:", err)
		return 1
	}
	return m.Run()
}

// soak tells whether the long versions run.
func soak() bool { return os.Getenv("BALAI_SOAK") == "1" }

// logLevel is what daemons write on standard error; only a failure shows it.
func logLevel() string {
	if l := os.Getenv("BALAI_LAB_LOG"); l != "" {
		return l
	}
	return "info"
}

// tail keeps what a process wrote.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *tail) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// process is a daemon or community node in a process of its own.
type process struct {
	t      testing.TB
	at     *netns
	name   string
	dir    string
	id     string
	addrs  []string
	cmd    *exec.Cmd
	stdin  io.Closer // its end is the process's end
	stderr *tail
	ended  chan struct{}
	gone   bool
}

// launch starts balai and waits until it is ready. Whatever becomes of this process, the other ends with it.
func launch(t testing.TB, at *netns, name string, wrap []string, args ...string) (p *process, url string) {
	t.Helper()
	p = &process{t: t, at: at, name: name, dir: t.TempDir()}
	return p, p.run(wrap, args...)
}

// run starts the process with the folder as it is.
func (p *process) run(wrap []string, args ...string) (url string) {
	t := p.t
	t.Helper()
	p.stderr, p.ended, p.gone = &tail{}, make(chan struct{}), false
	line := slices.Concat(wrap, []string{binary}, args, []string{"--data", p.dir, "--json", "--until-eof", "--log", logLevel()})
	p.cmd = exec.Command(line[0], line[1:]...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "BALAI_") && !strings.HasPrefix(e, "XDG_") && !strings.HasPrefix(e, "HOME=") {
			p.cmd.Env = append(p.cmd.Env, e)
		}
	}
	p.cmd.Env = append(p.cmd.Env, "HOME="+p.dir)
	p.cmd.Stderr = p.stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = in
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.at.start(p.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.cleanup)
	said := make(chan string, 1)
	go func() {
		r := bufio.NewReader(out)
		s, _ := r.ReadString('\n') // empty when it ended without a word
		said <- s
		_, _ = io.Copy(io.Discard, r)
		_ = p.cmd.Wait() // the code is in ProcessState
		close(p.ended)
	}()
	var ready struct {
		PeerID string `json:"peer_id"`
		URL    string
		Addrs  []string
	}
	select {
	case s := <-said:
		if json.Unmarshal([]byte(s), &ready) != nil {
			t.Fatalf("%s is not ready but says %q\n%s", p.name, s, p.stderr)
		}
	case <-time.After(patience):
		t.Fatalf("%s does not get ready\n%s", p.name, p.stderr)
	}
	p.id, p.addrs = ready.PeerID, ready.Addrs
	return ready.URL
}

// end sends a signal and waits for the end of the process.
func (p *process) end(sig syscall.Signal) {
	p.gone = true
	_ = p.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.ended
		p.t.Errorf("%s did not end by %v", p.name, sig)
	}
	if s := p.stderr.String(); strings.Contains(s, "panic:") || strings.Contains(s, "fatal error:") {
		p.t.Errorf("%s crashed", p.name)
	}
}

func (p *process) cleanup() {
	if !p.gone {
		_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may have been stopped
		p.end(syscall.SIGTERM)
	}
	_ = p.stdin.Close()
	if p.t.Failed() {
		s := p.stderr.String()
		p.t.Logf("%s (%s) wrote:\n%s", p.name, p.id, s[max(0, len(s)-6000):])
	}
}

// community starts a community node in public.
func (w *world) community() *process {
	w.t.Helper()
	p, _ := launch(w.t, w.at(public).netns, "the community node", nil, "bootstrap")
	return p
}

// internet is how multiaddrs in public begin.
const internet = "/ip4/192.0.0."

// public lists the addresses of a node that others can dial.
func (p *process) public() (out []string) {
	for _, a := range p.addrs {
		if strings.HasPrefix(a, internet) {
			out = append(out, a)
		}
	}
	return out
}

// person is somebody's daemon.
type person struct {
	*process
	place *place // nil: in this process, on loopback
	http  *http.Client
	url   string
	token string
	boot  *process
}

// person starts a daemon at a place, which knows a community node, if any.
func (w *world) person(name string, at *place, boot *process, args ...string) *person {
	w.t.Helper()
	return w.wrapped(nil, name, at, boot, args...)
}

// wrapped is person within another program, such as prlimit.
func (w *world) wrapped(wrap []string, name string, at *place, boot *process, args ...string) *person {
	w.t.Helper()
	d := &person{place: at, boot: boot}
	d.process, d.url = launch(w.t, at.netns, name, wrap, d.args(name, args...)...)
	d.http = &http.Client{Transport: &http.Transport{DialContext: at.DialContext}, Timeout: patience}
	w.t.Cleanup(d.http.CloseIdleConnections)
	d.readToken()
	return d
}

// found waits until others can find a way to the daemon: at home, a circuit for control or an address outside.
func (d *person) found() {
	d.t.Helper()
	began := time.Now()
	eventually(d.t, d.name+" has an address that others can dial", func() bool {
		var n api.Node
		d.do("GET", "/node", nil, &n)
		return slices.ContainsFunc(n.Addrs, func(a string) bool { return strings.HasPrefix(a, internet) })
	})
	d.t.Logf("%s has an address that others can dial after %v", d.name, time.Since(began).Round(time.Millisecond))
}

func (d *person) args(name string, more ...string) []string {
	args := []string{"run", "--api", "127.0.0.1:0", "--no-mdns", "--no-browser", "--name", name}
	if d.boot != nil {
		for _, a := range d.boot.public() {
			args = append(args, "--bootstrap", a)
		}
	}
	return append(args, more...)
}

// again starts the daemon anew with the same folder.
func (d *person) again(args ...string) {
	d.t.Helper()
	d.http.CloseIdleConnections()
	d.url = d.run(nil, d.args(d.name, args...)...)
}

func (d *person) readToken() {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join(d.dir, "token"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.token = strings.TrimSpace(string(b))
}

// try is one call of the API.
func (d *person) try(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	kind := "application/json"
	switch v := in.(type) {
	case nil:
	case sdp:
		body, kind = v, "application/sdp"
	default:
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, d.url+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+d.token)
	if in != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s %s: %s: %s", d.name, method, path, resp.Status, b)
	}
	if s, ok := out.(*sdp); ok {
		*s = b
		return nil
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	return json.Unmarshal(b, out)
}

// sdp is an offer or an answer.
type sdp []byte

func (d *person) do(method, path string, in, out any) {
	d.t.Helper()
	if err := d.try(context.WithoutCancel(d.t.Context()), method, path, in, out); err != nil {
		d.t.Fatal(err)
	}
}

// open opens a room and waits until it is live.
func (d *person) open(visibility string) string {
	d.t.Helper()
	var v session.View
	d.do("POST", "/rooms", api.NewRoom{Name: "Room of " + d.name, Visibility: visibility}, &v)
	d.until(v.ID, "the room is live", func(v session.View) bool { return v.State == session.Live })
	return v.ID
}

// link is an invite.
func (d *person) link(id, role string) string {
	d.t.Helper()
	var v api.Invite
	d.do("POST", "/rooms/"+id+"/invites", api.InviteRequest{Role: role, ExpiresIn: 3600}, &v)
	return v.Link
}

// enter joins by a link and waits until it is in.
func (d *person) enter(link string) session.View {
	d.t.Helper()
	var v session.View
	d.do("POST", "/rooms/join", map[string]any{"link": link, "local": d.place == nil}, &v)
	return d.until(v.ID, "let in", func(v session.View) bool { return v.State == session.Live })
}

func (d *person) mute(id string, muted bool) {
	d.t.Helper()
	d.do("PUT", "/rooms/"+id+"/microphone", map[string]bool{"muted": muted}, nil)
}

// view is the room as this daemon sees it, with what only newer daemons tell.
func (d *person) view(id string) (v session.View) {
	d.t.Helper()
	d.do("GET", "/rooms/"+url.PathEscape(id), nil, &v)
	return v
}

// until waits for a view.
func (d *person) until(id, what string, ok func(session.View) bool) (v session.View) {
	d.t.Helper()
	eventually(d.t, d.name+" waits for: "+what, func() bool {
		v = d.view(id)
		if v.State.Over() && !ok(v) {
			d.t.Fatalf("%s waits for: %s, but the room is %s, %s", d.name, what, v.State, v.Reason)
		}
		return ok(v)
	})
	return v
}

func (d *person) stats(id string) (s api.Stats) {
	d.t.Helper()
	d.do("GET", "/rooms/"+id+"/stats", nil, &s)
	return s
}

// of is what was received of one speaker.
func of(s api.Stats, speaker *person) (out api.Speaker) {
	for _, x := range s.Speakers {
		if x.PeerID == speaker.id {
			return x
		}
	}
	return out
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("in vain: " + what)
}

func pause(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}
