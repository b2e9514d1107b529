package api

import (
	"net/http"
)

type sessionIn struct {
	Code string `json:"code"`
}

type sessionOut struct {
	Token string `json:"token"`
}

type codeOut struct {
	Code string `json:"code"`
	URL  string `json:"url"`
}

// profileIn is Profile as a request: what is left out is emptied.
type profileIn struct {
	Name      string   `json:"name"`
	Headline  string   `json:"headline,omitempty"`
	Bio       string   `json:"bio,omitempty"`
	Languages []string `json:"languages,omitempty"`
	Avatar    string   `json:"avatar,omitempty"`
}

func (h *handler) homeRoutes() []route {
	session := endpoint(http.MethodPost, "/session", "Trades a one-time code for the bearer token.", http.StatusOK, h.redeem)
	session.free = true
	return []route{
		session,
		endpoint(http.MethodPost, "/codes", "Makes a one-time code that opens the page.", http.StatusCreated, h.mint),
		get("/node", "This daemon.", func(*call, none) (Node, error) { return h.backend.Node(), nil }),
		get("/profile", "What others see of me.", func(*call, none) (Profile, error) { return h.backend.Profile(), nil }),
		endpoint(http.MethodPut, "/profile", "Replaces the profile; what is left out is emptied.", http.StatusOK, h.setProfile),
		get("/doctor", "The checks and their findings, in words of the language `lang`: en, id or zh; any other: English.", func(c *call, _ none) ([]Finding, error) {
			return h.backend.Doctor(c.r.Context(), c.r.URL.Query().Get("lang")), nil
		}).asking("lang"),
		{
			method: http.MethodGet, pattern: "/events", status: http.StatusOK, outType: eventType, stream: true, serve: h.events,
			summary: "Server-sent events: first `view`, the whole, then changes. A reader that is too slow gets a new `view`.",
		},
		{
			method: http.MethodGet, pattern: "/metrics", status: http.StatusOK, outType: "text/plain", serve: h.serveMetrics,
			summary: "Prometheus metrics.", more: []int{http.StatusNotFound},
		},
		{
			method: http.MethodGet, pattern: "/openapi.json", status: http.StatusOK, outType: jsonType, summary: "This document.",
			serve: func(c *call) error {
				c.w.Header().Set("Content-Type", jsonType)
				_, _ = c.w.Write(h.openapi)
				return nil
			},
		},
	}
}

func (h *handler) redeem(_ *call, in sessionIn) (sessionOut, error) {
	if !h.codes.Redeem(in.Code) {
		return sessionOut{}, refuse(http.StatusUnauthorized, reasonCode, "this code was used, is older than a minute or was never given: `balai open` makes a new one")
	}
	return sessionOut{Token: h.token}, nil
}

func (h *handler) mint(*call, none) (codeOut, error) {
	code := h.codes.Mint()
	return codeOut{Code: code, URL: h.pageURL(code)}, nil
}

func (h *handler) setProfile(c *call, in profileIn) (Profile, error) {
	if err := h.backend.SetProfile(c.r.Context(), Profile(in)); err != nil {
		return Profile{}, err
	}
	return h.backend.Profile(), nil
}

func (h *handler) serveMetrics(c *call) error {
	if h.metrics == nil {
		return notFound()
	}
	h.metrics.ServeHTTP(c.w, c.r)
	return nil
}
