package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startedDemo is a demo in a process of its own.
type startedDemo struct {
	cmd   *exec.Cmd
	shape demoShape
}

func runDemo(t *testing.T) *startedDemo {
	t.Helper()
	d := &startedDemo{cmd: exec.Command("balai", "demo", "--json", "--no-browser", "--data", t.TempDir())}
	var log strings.Builder
	d.cmd.Stderr = &log
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.cmd.Process.Kill() })
	if err := json.NewDecoder(out).Decode(&d.shape); err != nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		t.Fatalf("the demo did not start: %v\n%s", err, log.String())
	}
	return d
}

// ask makes one request as a browser or another program would.
func ask(t *testing.T, method, target string, change func(*http.Request)) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), awaitLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestDemo(t *testing.T) {
	d := runDemo(t)
	if len(d.shape.People) != len(demoPeople) || len(d.shape.Community) == 0 {
		t.Fatalf("shape: %+v", d.shape)
	}
	seen := map[string]bool{}
	for _, p := range d.shape.People {
		seen[p.PeerID], seen[p.URL] = true, true
	}
	if len(seen) != 2*len(demoPeople) {
		t.Errorf("people share an id or an address: %+v", d.shape.People)
	}
	t.Run("launcher", func(t *testing.T) { testLauncher(t, d) })
	t.Run("meet", func(t *testing.T) { testMeet(t, d) })

	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	for _, p := range d.shape.People {
		if _, err := os.Stat(filepath.Join(p.Data, "api.json")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", p.Name, err)
		}
	}
}

// testLauncher: the page lets its own buttons in and nobody else, and a button's code is good once.
func testLauncher(t *testing.T, d *startedDemo) {
	base := d.shape.Launcher
	status, page := ask(t, "GET", base, nil)
	if status != http.StatusOK {
		t.Fatalf("page: %d", status)
	}
	for _, name := range demoPeople {
		if !strings.Contains(page, `data-name="`+name+`"`) {
			t.Errorf("no button for %s", name)
		}
	}
	for _, file := range []string{"launcher.js", "launcher.css"} {
		if status, _ := ask(t, "GET", base+file, nil); status != http.StatusOK {
			t.Errorf("%s: %d", file, status)
		}
	}
	for name, c := range map[string]struct {
		want   int
		change func(*http.Request)
	}{
		"another host":        {http.StatusMisdirectedRequest, func(r *http.Request) { r.Host = "evil.example" }},
		"a rebound name":      {http.StatusMisdirectedRequest, func(r *http.Request) { r.Host = "127.0.0.1.nip.io:" + r.URL.Port() }},
		"no port":             {http.StatusMisdirectedRequest, func(r *http.Request) { r.Host = "127.0.0.1" }},
		"another origin":      {http.StatusForbidden, func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }},
		"a null origin":       {http.StatusForbidden, func(r *http.Request) { r.Header.Set("Origin", "null") }},
		"another port":        {http.StatusForbidden, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }},
		"an image elsewhere":  {http.StatusForbidden, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }},
		"the page itself":     {http.StatusOK, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") }},
		"typed in the window": {http.StatusOK, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "none") }},
	} {
		if status, _ := ask(t, "POST", base+"open/Ana", c.change); status != c.want {
			t.Errorf("%s: %d, want %d", name, status, c.want)
		}
	}
	if status, _ := ask(t, "POST", base+"open/Mallory", nil); status != http.StatusNotFound {
		t.Errorf("a stranger: %d", status)
	}
	if status, _ := ask(t, "GET", base+"open/Ana", nil); status != http.StatusMethodNotAllowed {
		t.Errorf("a GET that would change something: %d", status)
	}
	for _, p := range d.shape.People {
		testCode(t, base, p)
	}
}

// testCode trades the code of a person's button for her token, once.
func testCode(t *testing.T, base string, p demoPerson) {
	t.Helper()
	_, answer := ask(t, "POST", base+"open/"+p.Name, nil)
	var opened openShape
	if err := json.Unmarshal([]byte(answer), &opened); err != nil {
		t.Fatalf("%s: %v: %s", p.Name, err, answer)
	}
	u, err := url.Parse(opened.URL)
	if err != nil || "http://"+u.Host != p.URL {
		t.Fatalf("%s opens %s, want %s", p.Name, opened.URL, p.URL)
	}
	code, ok := strings.CutPrefix(u.Fragment, "code=")
	if !ok {
		t.Fatalf("no code in %q", opened.URL)
	}
	for _, want := range []int{http.StatusOK, http.StatusUnauthorized} {
		status, _ := ask(t, "POST", p.URL+"/api/v1/session", func(r *http.Request) {
			r.Header.Set("Content-Type", "application/json")
			r.Body = io.NopCloser(strings.NewReader(`{"code":"` + code + `"}`))
		})
		if status != want {
			t.Errorf("%s's code: %d, want %d", p.Name, status, want)
		}
	}
}

// testMeet: the people of the demo really meet, by the commands that a person would type.
func testMeet(t *testing.T, d *startedDemo) {
	ana, budi := d.shape.People[0].Data, d.shape.People[1].Data
	balai(t, ana, "room", "create", "Demo tea")
	link := strings.TrimSpace(balai(t, ana, "invite", "create", "Demo tea", "--role", "speaker"))
	if out := balai(t, budi, "room", "join", link, "--local"); !strings.Contains(out, "state  live") {
		t.Fatalf("Budi did not get in:\n%s", out)
	}
	for end := time.Now().Add(awaitLimit); ; time.Sleep(100 * time.Millisecond) {
		if out := balai(t, ana, "room", "show", "Demo tea"); strings.Contains(out, "Budi") {
			return
		} else if time.Now().After(end) {
			t.Fatalf("Ana does not see Budi:\n%s", out)
		}
	}
}

func balai(t *testing.T, data string, args ...string) string {
	t.Helper()
	var log strings.Builder
	cmd := exec.Command("balai", append(args, "--data", data)...)
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("balai %v: %v\n%s%s", args, err, out, log.String())
	}
	return string(out)
}

// A demo that is killed leaves nobody behind.
func TestKilledDemo(t *testing.T) {
	d := runDemo(t)
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
	for _, p := range d.shape.People {
		for end := time.Now().Add(awaitLimit); ; time.Sleep(20 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(p.Data, "api.json")); errors.Is(err, fs.ErrNotExist) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s still runs", p.Name)
			}
		}
	}
}
