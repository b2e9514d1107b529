package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

const (
	answerTimeout = 10 * time.Second // for a Backend to get something done
	writeTimeout  = 10 * time.Second // for a reader to take an answer, or one event
)

// route is one line of the table that both the server and the OpenAPI document are made from.
type route struct {
	method, pattern, summary string

	in, out reflect.Type // of the JSON bodies; nil: none, or not JSON
	inType  string       // media type of the request's body
	outType string       // media type of the answer, where it has one
	query   []string
	status  int   // of success
	more    []int // what else it may answer, beside what all may
	free    bool  // needs no bearer token
	stream  bool  // lasts; it sees to its own deadlines

	serve func(*call) error
}

// call is one request on its way through a route.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	vars map[string]string
}

// none is the body of a request, or of an answer, that has none.
type none struct{}

// endpoint makes a route whose bodies are JSON. An error becomes a problem; status is that of success.
func endpoint[In, Out any](method, pattern, summary string, status int, f func(*call, In) (Out, error)) route {
	rt := route{method: method, pattern: pattern, summary: summary, status: status}
	if t := reflect.TypeFor[In](); t != reflect.TypeFor[none]() {
		rt.in, rt.inType = t, jsonType
	}
	if t := reflect.TypeFor[Out](); t != reflect.TypeFor[none]() {
		rt.out, rt.outType = t, jsonType
	}
	rt.serve = func(c *call) error {
		var in In
		if method != http.MethodGet {
			data, err := readBody(c.w, c.r, jsonType)
			if err != nil {
				return err
			}
			if err := decode(data, &in); err != nil {
				return err
			}
		}
		out, err := f(c, in)
		if err != nil {
			return err
		}
		return c.answer(status, rt.outType, out)
	}
	return rt
}

// or adds statuses that a route may also answer.
func (rt route) or(statuses ...int) route {
	rt.more = append(rt.more, statuses...)
	return rt
}

func (rt route) asking(query ...string) route {
	rt.query = query
	return rt
}

// match gives the variables of the pattern if path, below base, is of its form.
func (rt *route) match(path []string) (vars map[string]string, ok bool) {
	pattern := strings.Split(rt.pattern, "/")[1:]
	if len(pattern) != len(path) {
		return nil, false
	}
	vars = map[string]string{}
	for i, p := range pattern {
		if strings.HasPrefix(p, "{") {
			vars[strings.Trim(p, "{}")] = path[i]
		} else if p != path[i] {
			return nil, false
		}
	}
	return vars, true
}

// find is the route for a request that the guard let through.
func (h *handler) find(r *http.Request) (*route, map[string]string, *Problem) {
	below, ok := strings.CutPrefix(r.URL.EscapedPath(), base+"/")
	if !ok {
		return nil, nil, notFound()
	}
	path := strings.Split(below, "/")
	for i := range path {
		var err error
		if path[i], err = url.PathUnescape(path[i]); err != nil {
			return nil, nil, notFound()
		}
	}
	var allowed []string
	for i := range h.routes {
		rt := &h.routes[i]
		vars, ok := rt.match(path)
		if ok && rt.method == r.Method {
			return rt, vars, nil
		}
		if ok && !slices.Contains(allowed, rt.method) {
			allowed = append(allowed, rt.method)
		}
	}
	if allowed == nil {
		return nil, nil, notFound()
	}
	return nil, nil, wrongMethod(allowed...)
}

// wrongMethod is a 405 that tells the right ones.
func wrongMethod(allowed ...string) *Problem {
	p := refuse(http.StatusMethodNotAllowed, reasonMethod, "use %s here", strings.Join(allowed, " or "))
	p.allow = strings.Join(allowed, ", ")
	return p
}

// serveAPI answers a request below /api.
func (h *handler) serveAPI(w http.ResponseWriter, r *http.Request) *Problem {
	w.Header().Set("Cache-Control", "no-store")
	rt, vars, p := h.find(r)
	if p != nil {
		return p
	}
	if !rt.stream {
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		r = r.WithContext(ctx)
	}
	if err := rt.serve(&call{w: w, r: r, vars: vars}); err != nil {
		p = problemOf(err)
		h.log.Debug("api refuses", "method", rt.method, "path", rt.pattern, "status", p.Status, "reason", p.Reason)
	}
	return p
}

// answer writes what a route has to say; nothing but the status without a media type.
func (c *call) answer(status int, mediaType string, v any) error {
	if mediaType == "" {
		c.w.WriteHeader(status)
		return nil
	}
	data, err := marshal(v)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", mediaType)
	c.w.WriteHeader(status)
	_, _ = c.w.Write(data)
	return nil
}

// marshal is JSON in which a list that is nil is [] and a map that is nil {}.
func marshal(v any) ([]byte, error) {
	data, err := json.Marshal(filled(reflect.ValueOf(v)).Interface())
	if err != nil {
		return nil, fmt.Errorf("this answer cannot be written: %w", err)
	}
	return data, nil
}

// filled copies what it changes: views are shared with their session.
func filled(v reflect.Value) reflect.Value {
	t := v.Type()
	switch t.Kind() {
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return v
		}
		list := reflect.MakeSlice(t, v.Len(), v.Len())
		for i := range v.Len() {
			list.Index(i).Set(filled(v.Index(i)))
		}
		return list
	case reflect.Map:
		m := reflect.MakeMapWithSize(t, v.Len())
		for _, k := range v.MapKeys() {
			m.SetMapIndex(k, filled(v.MapIndex(k)))
		}
		return m
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return v
		}
		s := reflect.New(t).Elem()
		for i := range t.NumField() {
			s.Field(i).Set(filled(v.Field(i)))
		}
		return s
	}
	return v
}

// room is the joined room of the path; its id malformed or unknown is 404.
func (h *handler) room(c *call) (Room, error) {
	_, rm, err := h.roomID(c)
	return rm, err
}

func (h *handler) roomID(c *call) (room.ID, Room, error) {
	id, err := room.ParseID(c.vars["id"])
	if err != nil {
		return id, nil, notFound()
	}
	rm, ok := h.backend.Room(id)
	if !ok {
		return id, nil, refuse(http.StatusNotFound, reasonUnknown, "you are not in a room of this id")
	}
	return id, rm, nil
}

// peer is the peer of the path.
func (c *call) peer() (peer.ID, error) {
	p, ok := parsePeer(c.vars["peer"])
	if !ok {
		return "", notFound()
	}
	return p, nil
}

// parsePeer reads a peer id in the one form that libp2p prints.
func parsePeer(s string) (peer.ID, bool) {
	p, err := peer.Decode(s)
	return p, err == nil && p.String() == s
}
