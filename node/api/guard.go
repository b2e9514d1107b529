package api

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

const (
	apiRoot     = "/api"
	base        = "/api/v1"
	sessionPath = base + "/session"

	contentPolicy = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"
)

// guard decides before any routing who may ask at all: nobody is trusted for being on this machine. A page of another
// site reaches 127.0.0.1 as well as ours does, and by DNS rebinding under a name of its own.
type guard struct {
	hosts map[string]bool
	token []byte
}

func newGuard(addr, token string) *guard {
	g := &guard{hosts: map[string]bool{}, token: []byte(token)}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return g // no Host is ours: everything is refused
	}
	names := []string{"127.0.0.1", "localhost", "::1"}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		names = append(names, host)
	}
	for _, n := range names {
		g.hosts[net.JoinHostPort(n, port)] = true
	}
	return g
}

// check is nil for a request that may be routed.
func (g *guard) check(r *http.Request) *Problem {
	if r.URL.Host != "" || r.URL.Scheme != "" || !g.hosts[r.Host] {
		return refuse(http.StatusMisdirectedRequest, reasonHost, "this daemon answers only to its own address")
	}
	if !sameOrigin(r) {
		return refuse(http.StatusForbidden, reasonOrigin, "requests from other sites are refused; links travel as balai: or by paste")
	}
	if isAPI(r.URL.Path) && r.URL.Path != sessionPath && !g.bearer(r) {
		return refuse(http.StatusUnauthorized, reasonToken, "this needs the bearer token; `balai open` opens a page that has it")
	}
	return nil
}

func isAPI(path string) bool { return path == apiRoot || strings.HasPrefix(path, apiRoot+"/") }

// sameOrigin looks at what browsers say and no script can change (Fetch standard, sections 3.2 and 3.6). Programs that
// are no browser say nothing.
func sameOrigin(r *http.Request) bool {
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
	return true
}

// bearer compares the token (RFC 6750, section 2.1) without telling by its time how near a guess came.
func (g *guard) bearer(r *http.Request) bool {
	values := r.Header["Authorization"]
	if len(values) != 1 || len(g.token) == 0 {
		return false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare([]byte(token), g.token) == 1
}

// harden sets what every answer carries.
func harden(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}
