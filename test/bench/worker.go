package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// workers are the processes of its own that this program starts itself as; each is asked and answers in lines of JSON
// and ends with its input.
var workers = map[string]func() server{
	"udp-forwarder":  func() server { return &udpForwarder{} },
	"pion-forwarder": func() server { return &pionForwarder{} },
	"crowd":          func() server { return &crowd{} },
}

// server is the inside of a worker.
type server interface {
	serve(o *order) (result, error)
	close()
}

// order is what a worker shall do; each verb uses some of the fields.
type order struct {
	Verb   string
	Child  int
	SDP    string
	To     []netip.AddrPort
	Relay  []string // multiaddrs with /p2p/
	Room   []byte
	Passes [][]byte
	Count  int
}

// result is what came of it.
type result struct {
	Fault  string
	SDP    string
	UDP    []netip.AddrPort
	Peers  [][]byte
	Addrs  [][]string // of each peer: multiaddrs with /p2p/
	Times  []float64  // ms
	Frames int        // speaker-frames, the first copy of each
	P50    float64    // ms from sending to receiving
}

// worker is one of them from outside.
type worker struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	told  *bufio.Scanner
}

func startWorker(ctx context.Context, name string) (*worker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &worker{cmd: exec.CommandContext(ctx, self, name)}
	w.cmd.Stderr = os.Stderr
	if w.stdin, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.told = bufio.NewScanner(out)
	w.told.Buffer(nil, 1<<20)
	return w, w.cmd.Start()
}

func (w *worker) ask(o order) (a result, err error) {
	line, err := json.Marshal(o)
	if err != nil {
		return a, err
	}
	if _, err := w.stdin.Write(append(line, '\n')); err != nil {
		return a, err
	}
	if !w.told.Scan() {
		return a, fmt.Errorf("%s: the process has gone", o.Verb)
	}
	if err := json.Unmarshal(w.told.Bytes(), &a); err != nil {
		return a, err
	}
	if a.Fault != "" {
		err = fmt.Errorf("%s: %s", o.Verb, a.Fault)
	}
	return a, err
}

func (w *worker) close() error {
	_ = w.stdin.Close()
	return w.cmd.Wait()
}

// work is the whole life of a worker.
func work(s server) error {
	defer s.close()
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var o order
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			return err
		}
		a, err := s.serve(&o)
		if err != nil {
			a.Fault = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return in.Err()
}

var errVerb = errors.New("an order that is not known")

// cpuOf is the CPU time that a process has used, in all its threads (/proc/PID/schedstat counts one).
func cpuOf(pid int) (total time.Duration, err error) {
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, path := range list {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		var ns int64
		if _, err := fmt.Sscan(string(data), &ns); err != nil {
			return 0, err
		}
		total += time.Duration(ns)
	}
	return total, err
}

// statusOf is a number of kB from /proc/PID/status.
func statusOf(pid int, key string) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			var kb float64
			_, err := fmt.Sscan(rest, &kb)
			return kb, err
		}
	}
	return 0, fmt.Errorf("no %s", key)
}
