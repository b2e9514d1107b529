package trust

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"balai/room/session"
)

// The first gates of speech quality: correlation of 200 ms pieces and ESTOI of every spoken 3 s, each aligned alone.
const (
	minRho      = 0.95
	minESTOI    = 0.95
	minESTOIp10 = 0.85
)

const (
	python = "/usr/bin/python3" // Debian's, which has its packages
	client = "../aiortc/client.py"
	maker  = "../speech/make"
	scorer = "../speech/score.py"
)

// second is an independent WebRTC client, run as a process: it speaks a WAV, if any, and records what it hears.
type second struct {
	cmd  *exec.Cmd
	out  *tail
	err  *tail
	done chan error // its end
	wav  string     // what was heard
}

func talker(d *daemon, id, name, wav string, seconds float64) *second {
	d.t.Helper()
	s := &second{out: &tail{}, err: &tail{}, done: make(chan error, 1), wav: filepath.Join(d.t.TempDir(), name+".wav")}
	s.cmd = exec.CommandContext(d.t.Context(), python, client, "--api", d.url, "--token="+d.token, "--room", id,
		"--record", s.wav, "--seconds", fmt.Sprint(seconds))
	if wav != "" {
		s.cmd.Args = append(s.cmd.Args, "--send", wav)
	}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.err
	if err := s.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	d.t.Cleanup(func() {
		if d.t.Failed() {
			d.t.Logf("the client of %s: %s%s", name, s.out, s.err)
		}
	})
	return s
}

// wait waits for its end and tells the figures of what it heard against what was said.
func (s *second) wait(t *testing.T) string {
	t.Helper()
	err := <-s.done
	var result struct{ Connected bool }
	if err != nil || json.Unmarshal([]byte(s.out.String()), &result) != nil || !result.Connected {
		t.Fatalf("the second client: %v\n%s%s", err, s.out, s.err)
	}
	t.Log(strings.TrimSpace(s.out.String()))
	return s.wav
}

// compare tells what is wrong with what was heard; nothing: "".
func compare(t *testing.T, what, source, heard string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), python, scorer, source, heard).CombinedOutput()
	var s struct {
		Rho   float64 `json:"rho_median"`
		N     int     `json:"rho_n"`
		ESTOI float64 `json:"estoi_median"`
		P10   float64 `json:"estoi_p10"`
		Lag   int     `json:"lag_ms"`
	}
	if err != nil || json.Unmarshal(out, &s) != nil {
		t.Fatalf("score.py: %v\n%s", err, out)
	}
	load, _ := os.ReadFile("/proc/loadavg") // not everywhere
	t.Logf("%s: correlation %.3f of %d pieces, ESTOI %.3f, 10th percentile %.3f, load %s", what, s.Rho, s.N, s.ESTOI, s.P10, strings.TrimSpace(string(load)))
	if s.N < 20 || s.Rho < minRho || s.ESTOI < minESTOI || s.P10 < minESTOIp10 {
		return fmt.Sprintf("%s: correlation %.3f (want %v) of %d pieces, ESTOI %.3f (want %v), 10th percentile %.3f (want %v)\n",
			what, s.Rho, minRho, s.N, s.ESTOI, minESTOI, s.P10, minESTOIp10)
	}
	return ""
}

// wellHeard lets people talk until all that is heard is good. What is bad three times is no fault of a busy machine, which cannot
// run both clients and both daemons in time now and then.
func wellHeard(t *testing.T, talk func() string) {
	t.Helper()
	for try := 1; ; try++ {
		wrong := talk()
		if wrong == "" {
			return
		}
		if try == 3 {
			t.Fatal(wrong)
		}
		t.Log("once more: ", wrong)
	}
}

// TestSecondClient lets a WebRTC client that knows nothing of the page speak and listen through the API of two daemons:
// one way, and then both ways at once. It measures speech, so nothing else of this package runs meanwhile.
func TestSecondClient(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import aiortc, numpy, scipy").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("python3-aiortc is missing: %s", out)
		}
		t.Skip("NOT TESTED: the second WebRTC client. Install python3-aiortc, python3-numpy and python3-scipy (make deps).")
	}
	speech := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), maker, speech).CombinedOutput(); err != nil {
		t.Fatalf("the spoken material: %v\n%s", err, out)
	}
	cut := func(name string, seconds int) string {
		from, to := filepath.Join(speech, name+".wav"), filepath.Join(speech, fmt.Sprintf("%s-%d.wav", name, seconds))
		if out, err := exec.CommandContext(t.Context(), "sox", from, to, "trim", "0", fmt.Sprint(seconds)).CombinedOutput(); err != nil {
			t.Fatalf("sox: %v\n%s", err, out)
		}
		return to
	}
	d1, d2 := start(t, "Ana"), start(t, "Budi")
	id := d1.open("unlisted")
	d2.enter(d1.link(id, "speaker"))
	d1.until(id, "both on stage", func(v session.View) bool { return len(v.Stage) == 2 })

	ana := cut("ana", 12)
	wellHeard(t, func() string {
		d2.until(id, "nobody listens", func(v session.View) bool { return !v.Me.Audio })
		listens := talker(d2, id, "budi", "", 15)
		d2.until(id, "the listener is there", func(v session.View) bool { return v.Me.Audio })
		speaks := talker(d1, id, "ana", ana, 13)
		speaks.wait(t)
		return compare(t, "one way", ana, listens.wait(t))
	})
	ana, budi := cut("ana", 18), cut("budi", 18)
	wellHeard(t, func() string {
		a, b := talker(d1, id, "ana", ana, 20), talker(d2, id, "budi", budi, 20)
		byAna, byBudi := a.wait(t), b.wait(t)
		return compare(t, "both ways, Ana by Budi", ana, byBudi) + compare(t, "both ways, Budi by Ana", budi, byAna)
	})
}
