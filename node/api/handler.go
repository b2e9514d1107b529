package api

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// handler answers all of the API and the page.
type handler struct {
	backend Backend
	guard   *guard
	codes   *Codes
	page    *page
	addr    string
	token   string
	log     *slog.Logger
	now     func() time.Time
	metrics http.Handler
	routes  []route
	openapi []byte
}

// New makes the handler of the API and the page. It starts nothing; Serve runs it.
func New(c Config) http.Handler {
	h := &handler{
		backend: c.Backend, guard: newGuard(c.Addr, c.Token), codes: c.Codes, page: &page{files: c.Web},
		addr: c.Addr, token: c.Token, log: c.Log, now: c.Now, metrics: c.Metrics,
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.now == nil {
		h.now = time.Now
	}
	if h.codes == nil {
		h.codes = &Codes{Now: h.now}
	}
	h.routes = h.table()
	h.openapi = document(h.routes, c.Version)
	return h
}

// ServeHTTP guards, then routes.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.recover(w, r)
	harden(w.Header())
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout + writeTimeout))
	p := h.guard.check(r)
	switch {
	case p != nil:
	case isAPI(r.URL.Path):
		p = h.serveAPI(w, r)
	default:
		p = h.page.serve(w, r)
	}
	if p != nil {
		turnAway(w, r, p)
	}
}

// turnAway answers with a problem. The connection of a request with a body ends there: nobody knows how much of the
// body was read.
func turnAway(w http.ResponseWriter, r *http.Request, p *Problem) {
	if r.ContentLength == 0 {
		p.write(w)
		return
	}
	w.Header().Set("Connection", "close")
	p.write(w)
	throwAway(w, r)
}

// recover makes a panic of ours a 500 for this request alone, and a line in the log.
func (h *handler) recover(w http.ResponseWriter, r *http.Request) {
	bug := recover()
	if bug == nil {
		return
	}
	if bug == http.ErrAbortHandler {
		panic(bug)
	}
	h.log.Error("api: a bug", "method", r.Method, "what", bug, "stack", string(debug.Stack()))
	turnAway(w, r, refuse(http.StatusInternalServerError, reasonBug, "this is a fault of the daemon; its log says more"))
}

// table is every route of the API, in the order of the document.
func (h *handler) table() []route {
	t := append(h.homeRoutes(), h.roomRoutes()...)
	t = append(t, h.relayRoutes()...)
	t = append(t, h.memberRoutes()...)
	t = append(t, h.inviteRoutes()...)
	return append(t, h.audioRoutes()...)
}

// pageURL is where a browser finds the page, with a code to trade for the token.
func (h *handler) pageURL(code string) string { return "http://" + h.addr + "/#code=" + code }

func get[Out any](pattern, summary string, f func(*call, none) (Out, error)) route {
	return endpoint(http.MethodGet, pattern, summary, http.StatusOK, f)
}

// do makes a route that answers 204.
func do[In any](method, pattern, summary string, f func(*call, In) error) route {
	return endpoint(method, pattern, summary, http.StatusNoContent, func(c *call, in In) (none, error) { return none{}, f(c, in) })
}

// flag reads a query parameter that is true, false or absent.
func (c *call) flag(name string) (bool, error) {
	switch v := c.r.URL.Query().Get(name); strings.ToLower(v) {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	}
	return false, malformed("%s is true or false", name)
}
