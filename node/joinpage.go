package node

import (
	_ "embed"
	"net"
	"net/http"
	"sync"
)

// joinHTML is the page behind an https link. Its script never sends the token anywhere: the token is in the
// fragment, which browsers keep to themselves.
//
//go:embed join.html
var joinHTML []byte

//go:embed join.js
var joinJS []byte

// Limits of the public pages.
const (
	maxPageConns  = 256
	maxPageHeader = 8 << 10
)

// joinPage serves two files, and no others: the page behind /j and its script. There is no body to send to it.
func joinPage() http.Handler {
	serve := func(kind string, b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Content-Type", kind)
			h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
			h.Set("Cross-Origin-Resource-Policy", "same-origin")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Cache-Control", "public, max-age=3600")
			_, _ = w.Write(b) // a reader that is gone needs no answer
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /j", serve("text/html; charset=utf-8", joinHTML))
	mux.HandleFunc("GET /join.js", serve("text/javascript; charset=utf-8", joinJS))
	return http.MaxBytesHandler(mux, 0)
}

// fewConns is a listener that holds a bounded number of connections; the next one waits to be accepted.
type fewConns struct {
	net.Listener
	slots chan struct{}
	done  chan struct{} // closed with the listener
	end   sync.Once
}

func limitConns(l net.Listener, n int) net.Listener {
	return &fewConns{Listener: l, slots: make(chan struct{}, n), done: make(chan struct{})}
}

// Accept is net.Listener.
func (l *fewConns) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &countedConn{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close is net.Listener.
func (l *fewConns) Close() error {
	l.end.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// countedConn gives its slot back when it is closed.
type countedConn struct {
	net.Conn
	free func()
}

// Close is net.Conn.
func (c *countedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
