package trust

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
const patience = 60 * time.Second

// binary is the daemon, built once.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "16") // they wait far more than they work
	os.Exit(withBinary(m))
}

func withBinary(m *testing.M) int {
	dir, err := os.MkdirTemp("", "balai-trust-")
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

// daemon is one person's daemon, a process of its own.
type daemon struct {
	*api.Client
	t     *testing.T
	name  string
	dir   string
	url   string
	token string
	id    string
	addrs []string
	more  []string // arguments beyond the usual ones

	cmd    *exec.Cmd
	stderr *tail
	stdout *tail
	ended  chan struct{}
	gone   bool
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

// command is balai with nothing of this machine's settings.
func command(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "BALAI_") && !strings.HasPrefix(e, "XDG_") && !strings.HasPrefix(e, "HOME=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+dir)
	return cmd
}

func runArgs(dir, name string) []string {
	return []string{
		"run", "--data", dir, "--api", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--listen", "/ip4/127.0.0.1/tcp/0",
		"--no-mdns", "--no-browser", "--json", "--name", name,
	}
}

// start starts a daemon, with more arguments than the usual ones, and waits until it is ready; it is stopped at the end of the test.
func start(t *testing.T, name string, more ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, name: name, dir: t.TempDir(), more: more}
	d.run()
	t.Cleanup(func() {
		if !d.gone {
			d.end(syscall.SIGTERM)
		}
		if t.Failed() {
			t.Logf("%s wrote:\n%s", name, last(d.stderr.String(), 4000))
		}
	})
	return d
}

// run starts the process with the folder as it is.
func (d *daemon) run() {
	d.t.Helper()
	d.cmd, d.stderr, d.stdout, d.ended, d.gone = command(d.dir, append(runArgs(d.dir, d.name), d.more...)...), &tail{}, &tail{}, make(chan struct{}), false
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	d.cmd.Stderr = d.stderr
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	line := make(chan string, 1)
	go func() {
		r := bufio.NewReader(out)
		s, _ := r.ReadString('\n') // empty when it ended without a word
		line <- s
		_, _ = io.Copy(d.stdout, r)
		_ = d.cmd.Wait() // the code is in ProcessState
		close(d.ended)
	}()
	var ready struct {
		PeerID, URL string
		Addrs       []string
	}
	select {
	case s := <-line:
		if json.Unmarshal([]byte(strings.ReplaceAll(s, "peer_id", "PeerID")), &ready) != nil {
			d.t.Fatalf("%s is not ready but says %q\n%s", d.name, s, d.stderr)
		}
	case <-time.After(patience):
		d.end(syscall.SIGKILL)
		d.t.Fatalf("%s does not get ready\n%s", d.name, d.stderr)
	}
	d.id, d.addrs = ready.PeerID, ready.Addrs
	if d.Client, err = api.Dial(d.dir); err != nil {
		d.t.Fatal(err)
	}
	d.readAPI()
}

// readAPI reads where the API is and its token.
func (d *daemon) readAPI() {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join(d.dir, "api.json"))
	var at struct{ URL, Token string }
	if err != nil || json.Unmarshal(b, &at) != nil {
		d.t.Fatalf("api.json: %q, %v", b, err)
	}
	d.url, d.token = at.URL, at.Token
}

// end sends a signal and waits for the end of the process.
func (d *daemon) end(sig os.Signal) (took time.Duration) {
	d.gone = true
	began := time.Now()
	_ = d.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-d.ended:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.ended
		d.t.Errorf("%s did not end by %v", d.name, sig)
	}
	took = time.Since(began)
	if d.Client != nil {
		d.Close()
	}
	if strings.Contains(d.stderr.String(), "panic:") || strings.Contains(d.stderr.String(), "fatal error:") {
		d.t.Errorf("%s crashed:\n%s", d.name, last(d.stderr.String(), 4000))
	}
	return took
}

func last(s string, n int) string { return s[max(0, len(s)-n):] }

// request is one call of the API, whatever it says.
func (d *daemon) request(method, path, kind string, body []byte) (*http.Response, []byte) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.url+path, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+d.token)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp, b
}

// open opens a room on loopback and waits until it is live.
func (d *daemon) open(visibility string) string {
	d.t.Helper()
	local := true
	v, err := d.Create(d.t.Context(), api.NewRoom{Name: "Room of " + d.name, Visibility: visibility, Local: &local})
	if err != nil {
		d.t.Fatal(err)
	}
	d.until(v.ID, "the room is live", func(v session.View) bool { return v.State == session.Live })
	return v.ID
}

func (d *daemon) link(id, role string) string {
	d.t.Helper()
	v, err := d.Invite(d.t.Context(), id, api.InviteRequest{Role: role, ExpiresIn: 3600})
	if err != nil {
		d.t.Fatal(err)
	}
	return v.Link
}

// enter joins by a link and waits until it is in.
func (d *daemon) enter(link string) session.View {
	d.t.Helper()
	v, err := d.Join(d.t.Context(), link, "", true)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.until(v.ID, "let in", func(v session.View) bool { return v.State == session.Live })
}

// until waits for a view.
func (d *daemon) until(id, what string, ok func(session.View) bool) session.View {
	d.t.Helper()
	var v session.View
	d.t.Log(d.name, "waits for:", what)
	defer func() {
		if d.t.Failed() {
			b, _ := json.Marshal(v)
			d.t.Logf("%s sees %s", d.name, last(string(b), 4000))
		}
	}()
	eventually(d.t, what, func() bool {
		var err error
		if v, err = d.Room(d.t.Context(), id); err != nil {
			d.t.Fatal(err)
		}
		return ok(v)
	})
	return v
}

// mute is the person's own switch.
func (d *daemon) mute(id string, muted bool) {
	d.t.Helper()
	if err := d.Do(d.t.Context(), "PUT", "/rooms/"+id+"/microphone", map[string]bool{"muted": muted}, nil); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) act(id, who, action string) {
	d.t.Helper()
	if err := d.Act(d.t.Context(), id, who, action, "because"); err != nil {
		d.t.Fatal(err)
	}
}

// stats are those of one speaker, as this daemon hears them.
func (d *daemon) stats(id, speaker string) (s api.Speaker, ok bool) {
	d.t.Helper()
	var all api.Stats
	if err := d.Do(d.t.Context(), "GET", "/rooms/"+id+"/stats", nil, &all); err != nil {
		d.t.Fatal(err)
	}
	for _, s := range all.Speakers {
		if s.PeerID == speaker {
			return s, true
		}
	}
	return s, false
}

// uplink is how many frames of the microphone were sent.
func (d *daemon) uplink(id string) uint64 {
	d.t.Helper()
	var all api.Stats
	if err := d.Do(d.t.Context(), "GET", "/rooms/"+id+"/stats", nil, &all); err != nil {
		d.t.Fatal(err)
	}
	return all.Uplink.Frames
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("waited in vain for: " + what)
}

func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}

var errRefused = errors.New("refused")

// background is the test's context without its end, for what is cleaned up by itself.
func background(t *testing.T) context.Context { return context.WithoutCancel(t.Context()) }

func defaultTransport() (*http.Transport, bool) {
	c, ok := http.DefaultTransport.(*http.Transport)
	return c, ok
}
