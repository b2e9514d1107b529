package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"net"
	"net/http"
	"strings"
	"time"
)

//go:embed launcher
var launcherFiles embed.FS

var launcherPage = template.Must(template.ParseFS(launcherFiles, "launcher/index.html"))

// launcher is the demo's page: a button for each person. It holds no token; a button mints a one-time code at the
// person's daemon. A page of another origin cannot open a Balai page, by design, so a browser is asked to, and where
// there is none the address is there to copy.
type launcher struct {
	host   string // the only Host that is answered
	people []demoPerson
	open   func(url string) error
}

// serveLauncher answers until ctx ends.
func serveLauncher(ctx context.Context, l net.Listener, people []demoPerson) error {
	s := &http.Server{
		Handler:           (&launcher{host: l.Addr().String(), people: people, open: openBrowser}).routes(),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	stopped := make(chan struct{})
	go func() {
		<-ctx.Done()
		_ = s.Close()
		close(stopped)
	}()
	err := s.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return err
}

func (l *launcher) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", l.page)
	for name, kind := range map[string]string{"launcher.js": "text/javascript; charset=utf-8", "launcher.css": "text/css; charset=utf-8"} {
		data, err := launcherFiles.ReadFile("launcher/" + name)
		if err != nil {
			panic("impossible: embedded: " + err.Error())
		}
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(data)
		})
	}
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /open/{name}", l.openPerson)
	return l.guarded(mux)
}

// guarded refuses, before any routing, whoever is not this page itself: another Host, or a request that another site
// made.
func (l *launcher) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case r.Host != l.host:
			http.Error(w, "this page answers only to its own address", http.StatusMisdirectedRequest)
		case !ownRequest(r):
			http.Error(w, "requests from other sites are refused", http.StatusForbidden)
		default:
			r.Body = http.MaxBytesReader(w, r.Body, 1024)
			next.ServeHTTP(w, r)
		}
	})
}

func ownRequest(r *http.Request) bool {
	for _, o := range r.Header["Origin"] {
		if o != "http://"+r.Host {
			return false
		}
	}
	for _, s := range r.Header["Sec-Fetch-Site"] {
		if s != "same-origin" && s != "none" {
			return false
		}
	}
	// A program that is no browser may look, and may open too: it could run `balai open` as well.
	return true
}

func (l *launcher) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = launcherPage.Execute(w, l.people)
}

// openPerson mints a code and asks the system's browser to show the page.
func (l *launcher) openPerson(w http.ResponseWriter, r *http.Request) {
	for _, p := range l.people {
		if !strings.EqualFold(p.Name, r.PathValue("name")) {
			continue
		}
		url, err := pageOf(r.Context(), p.Data)
		if err != nil {
			http.Error(w, "the daemon of "+p.Name+" does not answer", http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(openShape{URL: url, Opened: l.open(url) == nil})
		return
	}
	http.NotFound(w, r)
}
