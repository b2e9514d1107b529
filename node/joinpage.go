package node

import (
	_ "embed"
	"net/http"
)

// joinHTML is the page behind an https link. Its script never sends the token anywhere: the token is in the
// fragment, which browsers keep to themselves.
//
//go:embed join.html
var joinHTML []byte

//go:embed join.js
var joinJS []byte

// joinPage serves the static page behind /j.
func joinPage() http.Handler {
	serve := func(kind string, b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Content-Type", kind)
			h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Referrer-Policy", "no-referrer")
			_, _ = w.Write(b)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /j", serve("text/html; charset=utf-8", joinHTML))
	mux.HandleFunc("GET /join.js", serve("text/javascript; charset=utf-8", joinJS))
	return mux
}
