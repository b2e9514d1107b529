//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"balai/room/session"
)

// Gates of speech quality: correlation of 200 ms pieces and ESTOI of every spoken 3 s, each aligned alone.
const (
	minRho   = 0.95
	minESTOI = 0.93
)

const (
	python = "/usr/bin/python3" // Debian's, which has its packages
	client = "../aiortc/client.py"
	maker  = "../speech/make"
	scorer = "../speech/score.py"
)

// talker is an independent WebRTC client, run in a person's namespace: it speaks a WAV, if any, and records what it hears.
type talker struct {
	name string
	cmd  *exec.Cmd
	out  tail
	wav  string // what was heard
}

func (m *meeting) talker(d *person, wav string, seconds int) *talker {
	m.t.Helper()
	k := &talker{name: d.name, wav: filepath.Join(m.t.TempDir(), d.name+".wav")}
	k.cmd = exec.CommandContext(m.t.Context(), python, client, "--api", d.url, "--token="+d.token, "--room", m.id, "--record", k.wav, "--seconds", fmt.Sprint(seconds))
	if wav != "" {
		k.cmd.Args = append(k.cmd.Args, "--send", wav)
	}
	k.cmd.Stdout, k.cmd.Stderr = &k.out, &k.out
	if err := d.at.start(k.cmd); err != nil {
		m.t.Fatal(err)
	}
	return k
}

func (k *talker) wait(t testing.TB) string {
	t.Helper()
	if err := k.cmd.Wait(); err != nil {
		t.Fatalf("%s: %v\n%s", k.name, err, k.out.String())
	}
	return k.wav
}

// score tells whether what was heard is good.
func score(t testing.TB, what, source, heard string) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), python, scorer, source, heard).CombinedOutput()
	var s struct {
		Rho   float64 `json:"rho_median"`
		N     int     `json:"rho_n"`
		ESTOI float64 `json:"estoi_median"`
	}
	if err != nil || json.Unmarshal(out, &s) != nil {
		t.Fatalf("score.py: %v\n%s", err, out)
	}
	load, _ := os.ReadFile("/proc/loadavg")
	t.Logf("%s: correlation %.3f of %d pieces, ESTOI %.3f, load %s", what, s.Rho, s.N, s.ESTOI, strings.TrimSpace(string(load)))
	return s.N >= 20 && s.Rho >= minRho && s.ESTOI >= minESTOI
}

// TestSpeech sends real speech over one path of each kind and scores what arrives. Nothing else of this package runs
// meanwhile.
func TestSpeech(t *testing.T) {
	need(t)
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import aiortc, numpy, scipy").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("python3-aiortc is missing: %s", out)
		}
		t.Skip("NOT TESTED: speech over the lab's paths. Install python3-aiortc, python3-numpy and python3-scipy (make deps).")
	}
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), maker, dir).CombinedOutput(); err != nil {
		t.Fatalf("the spoken material: %v\n%s", err, out)
	}
	spoken := filepath.Join(dir, "ana-14.wav")
	if out, err := exec.CommandContext(t.Context(), "sox", filepath.Join(dir, "ana.wav"), spoken, "trim", "0", "14").CombinedOutput(); err != nil {
		t.Fatalf("sox: %v\n%s", err, out)
	}
	type path struct {
		name string
		m    *meeting
	}
	var paths []path
	w := newWorld(t)
	boot := w.community()
	for _, c := range []struct {
		name      string
		ana, budi kind
	}{{"degraded", noUDP, public}, {"direct", cone, cone}, {"relay", symmetric, symmetric}} {
		paths = append(paths, path{c.name, &meeting{t: t, people: []*person{
			w.person("Ana-"+c.name, w.at(c.ana), boot), w.person("Budi-"+c.name, w.at(c.budi), boot),
		}}})
	}
	for i, p := range paths {
		ana, budi := p.m.people[0], p.m.people[1]
		m := gather(t, 2, ana, budi)
		paths[i].m = m
		say := func() bool {
			budi.until(m.id, "nobody listens", func(v session.View) bool { return !v.Me.Audio })
			listens := m.talker(budi, "", 19)
			budi.until(m.id, "the listener is there", func(v session.View) bool { return v.Me.Audio })
			for _, p := range m.people {
				p.until(m.id, "the carrier is "+paths[i].name, func(v session.View) bool { return v.Carrier == paths[i].name })
			}
			began := time.Now()
			speaks := m.talker(ana, spoken, 15)
			speaks.wait(t)
			t.Logf("%s: spoken in %v", p.name, time.Since(began).Round(time.Millisecond))
			return score(t, p.name, spoken, listens.wait(t))
		}
		// What is bad three times is no fault of a busy machine.
		for try := 1; !say(); try++ {
			if try == 3 {
				t.Errorf("%s: want a correlation of %v and ESTOI %v", p.name, minRho, minESTOI)
				break
			}
		}
	}
}
