package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"balai/room/session"
)

const bearerScheme = "bearer"

// schemaNames are the types whose name in the document is the API's word for them.
var schemaNames = map[reflect.Type]string{
	reflect.TypeFor[session.View]():        "Room",
	reflect.TypeFor[session.OnStage]():     "StagePerson",
	reflect.TypeFor[session.MemberView]():  "Member",
	reflect.TypeFor[session.EpochView]():   "Epoch",
	reflect.TypeFor[session.RelayView]():   "Relay",
	reflect.TypeFor[session.RemovedView](): "Removed",
	reflect.TypeFor[session.ForkView]():    "Fork",
	reflect.TypeFor[session.Line]():        "Message",
	reflect.TypeFor[relaysOut]():           "Relays",
	reflect.TypeFor[whole]():               "View",
}

// eventShapes are the data of the event stream, by event, where no route answers with them.
var eventShapes = []reflect.Type{
	reflect.TypeFor[whole](), reflect.TypeFor[memberEvent](), reflect.TypeFor[messageEvent](), reflect.TypeFor[handEvent](),
	reflect.TypeFor[reactionEvent](), reflect.TypeFor[inviteEvent](),
}

// OpenAPI is the document that GET /openapi.json answers with, for programs that generate clients from it.
func OpenAPI(version string) []byte { return document((&handler{}).table(), version) }

// document is the OpenAPI 3.1 of the routes.
func document(routes []route, version string) []byte {
	reg := huma.NewMapRegistry("#/components/schemas/", func(t reflect.Type, hint string) string {
		if name, ok := schemaNames[t]; ok {
			return name
		}
		return huma.DefaultSchemaNamer(t, hint)
	})
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Balai, the local API", Version: version,
			Description: "Fields may be added, never renamed. Times are RFC 3339, durations seconds.",
		},
		Paths: map[string]*huma.PathItem{},
		Components: &huma.Components{
			Schemas:         reg,
			SecuritySchemes: map[string]*huma.SecurityScheme{bearerScheme: {Type: "http", Scheme: "bearer"}},
		},
		Security: []map[string][]string{{bearerScheme: {}}},
	}
	for i := range routes {
		doc.AddOperation(routes[i].operation(reg))
	}
	for _, t := range eventShapes {
		reg.Schema(t, true, "")
	}
	for _, s := range reg.Map() {
		loosen(s)
	}
	data, err := json.Marshal(doc)
	if err != nil {
		panic("impossible: the document is made of our own types: " + err.Error())
	}
	return data
}

// loosen says what marshal does: a list is never null; and what the API promises: fields may be added.
func loosen(s *huma.Schema) {
	if s.Type == huma.TypeObject && s.AdditionalProperties == false {
		s.AdditionalProperties = nil
	}
	if values, ok := s.AdditionalProperties.(*huma.Schema); ok {
		loosen(values)
	}
	for _, p := range s.Properties {
		loosen(p)
	}
	if s.Type == huma.TypeArray {
		s.Nullable = false
		loosen(s.Items)
	}
}

// operation is the route's part of the document.
func (rt *route) operation(reg huma.Registry) *huma.Operation {
	op := &huma.Operation{
		Method: rt.method, Path: base + rt.pattern, OperationID: rt.operationID(), Summary: rt.summary,
		Responses: map[string]*huma.Response{strconv.Itoa(rt.status): {
			Description: http.StatusText(rt.status), Content: content(reg, rt.out, rt.outType),
		}},
	}
	if rt.free {
		op.Security = []map[string][]string{{}}
	}
	if rt.inType != "" {
		op.RequestBody = &huma.RequestBody{Required: mustHaveBody(rt), Content: content(reg, rt.in, rt.inType)}
	}
	for _, name := range rt.vars() {
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	}
	for _, name := range rt.query {
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "query", Schema: &huma.Schema{Type: huma.TypeString}})
	}
	for _, status := range rt.refusals() {
		op.Responses[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status), Content: content(reg, reflect.TypeFor[Problem](), problemType),
		}
	}
	return op
}

// refusals are the statuses that the route may answer besides its own, in rising order.
func (rt *route) refusals() []int {
	all := append([]int{
		http.StatusUnauthorized, http.StatusForbidden, http.StatusMisdirectedRequest, http.StatusServiceUnavailable,
	}, rt.more...)
	inRoom := strings.Contains(rt.pattern, "{id}")
	if inRoom {
		all = append(all, http.StatusNotFound, http.StatusConflict)
	}
	if rt.method != http.MethodGet {
		all = append(all, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if inRoom && rt.method != http.MethodGet {
		all = append(all, http.StatusTooManyRequests)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (rt *route) vars() (names []string) {
	for _, p := range strings.Split(rt.pattern, "/") {
		if strings.HasPrefix(p, "{") {
			names = append(names, strings.Trim(p, "{}"))
		}
	}
	return names
}

// operationID is the method and the fixed words of the path, such as post-rooms-join.
func (rt *route) operationID() string {
	words := []string{strings.ToLower(rt.method)}
	for _, p := range strings.Split(rt.pattern, "/") {
		if p = strings.Trim(p, "{}"); p != "" {
			words = append(words, strings.TrimSuffix(p, ".json"))
		}
	}
	return strings.Join(words, "-")
}

func content(reg huma.Registry, t reflect.Type, mediaType string) map[string]*huma.MediaType {
	switch {
	case mediaType == "":
		return nil
	case t == nil:
		return map[string]*huma.MediaType{mediaType: {Schema: &huma.Schema{Type: huma.TypeString}}}
	}
	s := reg.Schema(t, true, "")
	if s.Ref == "" {
		loosen(s)
	}
	return map[string]*huma.MediaType{mediaType: {Schema: s}}
}

// mustHaveBody tells whether an empty body could not stand for {}.
func mustHaveBody(rt *route) bool {
	return rt.in == nil || decode(nil, reflect.New(rt.in).Interface()) != nil
}
