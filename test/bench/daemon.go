package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"balai/node/api"
	"balai/room/session"
)

const (
	patience = 30 * time.Second // for what must come
	glance   = 2 * time.Millisecond
)

// daemon is one real daemon in a process of its own, on loopback, spoken to by its local API. It ends with this process.
type daemon struct {
	*api.Client
	dir     string
	began   time.Time     // exec
	ready   time.Duration // until api.json was written
	cmd     *exec.Cmd
	stdin   io.Closer
	stopped chan struct{}
}

// daemon starts one and waits for its API. Without a name it is new to its owner, too.
func (l *lab) daemon(ctx context.Context, name string) (*daemon, error) {
	dir, err := os.MkdirTemp(l.dir, "data-"+name)
	if err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, stopped: make(chan struct{})}
	d.cmd = exec.Command(
		l.binary, "run", "--data", dir, "--api", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--listen", "/ip4/127.0.0.1/tcp/0",
		"--no-mdns", "--no-browser", "--until-eof", "--log", "error")
	if name != "" {
		d.cmd.Args = append(d.cmd.Args, "--name", name)
	}
	d.cmd.Stderr = os.Stderr
	if d.stdin, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	d.began = time.Now()
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = d.cmd.Wait() // how it ended is of no interest here
		close(d.stopped)
	}()
	err = until(ctx, "the daemon starts", func() (bool, error) {
		select {
		case <-d.stopped:
			return false, errors.New("the daemon ended")
		default:
		}
		_, err := os.Stat(filepath.Join(dir, "api.json"))
		return err == nil, nil
	})
	d.ready = time.Since(d.began)
	if err == nil {
		d.Client, err = api.Dial(dir)
	}
	if err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

// stop ends the daemon and waits for its end.
func (d *daemon) stop() {
	_ = d.stdin.Close() // --until-eof
	select {
	case <-d.stopped:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.stopped
	}
	if d.Client != nil {
		d.Close()
	}
}

// open starts a room, live when it returns.
func (d *daemon) open(ctx context.Context) (string, error) {
	local := true
	v, err := d.Create(ctx, api.NewRoom{Name: "Bench", Visibility: "unlisted", Local: &local})
	if err != nil {
		return "", err
	}
	return v.ID, d.live(ctx, v.ID)
}

func (d *daemon) live(ctx context.Context, room string) error {
	return until(ctx, "a live room", func() (bool, error) {
		v, err := d.Room(ctx, room)
		if err == nil && v.State == session.Refused {
			return false, fmt.Errorf("refused: %v", v.Reason)
		}
		return v.State == session.Live, err
	})
}

// invite is a link for any number of listeners.
func (d *daemon) invite(ctx context.Context, room string) (string, error) {
	v, err := d.Invite(ctx, room, api.InviteRequest{Role: "listener", ExpiresIn: 3600})
	return v.Link, err
}

func (d *daemon) unmute(ctx context.Context, room string) error {
	return d.Do(ctx, "PUT", "/rooms/"+room+"/microphone", map[string]bool{"muted": false}, nil)
}

func (d *daemon) stats(ctx context.Context, room string) (s api.Stats, err error) {
	err = d.Do(ctx, "GET", "/rooms/"+room+"/stats", nil, &s)
	return s, err
}

// until asks again and again, as often as a millisecond's measurement wants.
func until(ctx context.Context, what string, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		done, err := f()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waited in vain: %s", what), ctx.Err())
		case <-tick.C:
		}
	}
}

// status is a number of kB from /proc/PID/status.
func (d *daemon) status(key string) (float64, error) { return statusOf(d.cmd.Process.Pid, key) }

// cpu is the CPU time that the daemon has used.
func (d *daemon) cpu() (time.Duration, error) { return cpuOf(d.cmd.Process.Pid) }

// address is what api.json says, for what the client has no method for.
func (d *daemon) address() (url, token string, err error) {
	data, err := os.ReadFile(filepath.Join(d.dir, "api.json"))
	if err != nil {
		return "", "", err
	}
	var a struct{ URL, Token string }
	err = json.Unmarshal(data, &a)
	return a.URL, a.Token, err
}
