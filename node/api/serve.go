package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 60 * time.Second
	stopTimeout   = 2 * time.Second // of the 5 s in which the daemon is to be gone
	maxHeader     = 16 << 10        // bytes
	maxConns      = 64
)

// Serve runs the handler on the listener until ctx ends, then stops: streams and waits end at once, answers that are
// being written get a moment. It returns when every connection is closed and every request is over; nil unless the
// listener failed.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	d := &door{conns: map[net.Conn]*visit{}}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			d.entered(r.Context())
			h.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnContext:                  d.context, ConnState: d.state,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		d.closeWaiting()
		soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		_ = srv.Shutdown(soon)
		err = <-failed
	}
	_ = srv.Close()
	d.open.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// door bounds the connections. When there are too many, the one goes that has been without a complete request header
// for the longest time: who only holds a connection gives way to who asks for something.
type door struct {
	open sync.WaitGroup // one for each connection, until its last request is over

	mu    sync.Mutex
	conns map[net.Conn]*visit
}

// visit is one connection; waiting is since when it has owed a request header, zero while a request is served.
type visit struct{ waiting time.Time }

type visitKey struct{}

// context is called once for each connection, before anything else.
func (d *door) context(ctx context.Context, c net.Conn) context.Context {
	d.open.Add(1)
	v := &visit{waiting: time.Now()}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.conns) >= maxConns {
		d.shed(c)
	}
	d.conns[c] = v
	return context.WithValue(ctx, visitKey{}, v)
}

// shed closes the connection that has waited longest, or, when all are being served, the new one.
func (d *door) shed(fresh net.Conn) {
	oldest, since := fresh, time.Time{}
	for c, v := range d.conns {
		if !v.waiting.IsZero() && (since.IsZero() || v.waiting.Before(since)) {
			oldest, since = c, v.waiting
		}
	}
	delete(d.conns, oldest)
	_ = oldest.Close()
}

// closeWaiting closes what nothing is served on.
func (d *door) closeWaiting() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c, v := range d.conns {
		if !v.waiting.IsZero() {
			_ = c.Close()
		}
	}
}

func (d *door) state(c net.Conn, s http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch s {
	case http.StateIdle:
		if v := d.conns[c]; v != nil {
			v.waiting = time.Now()
		}
	case http.StateClosed: // comes last; no handler of ours hijacks
		delete(d.conns, c)
		d.open.Done()
	}
}

// entered marks the connection of a request whose header is complete.
func (d *door) entered(ctx context.Context) {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		d.mu.Lock()
		v.waiting = time.Time{}
		d.mu.Unlock()
	}
}
