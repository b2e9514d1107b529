package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"balai/identity"
	"balai/room"
	"balai/room/session"
)

// Problem is a refusal by the API (RFC 9457). The client returns it as an error; errors.Is(err, room.Expired) compares
// its reason.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Reason string `json:"reason"` // in snake_case

	allow string // header of a 405
}

// Error is the detail, or the title where there is none.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}

// Is compares the reason with a room.Reason, or with a refusal of room/session.
func (p *Problem) Is(target error) bool {
	switch t := target.(type) {
	case room.Reason:
		return p.Reason == t.String()
	default:
		return (target == session.ErrForbidden && p.Reason == reasonForbidden) ||
			(target == session.ErrUnknown && p.Reason == reasonUnknown) ||
			(target == session.ErrOver && p.Reason == reasonOver)
	}
}

// The reasons that are the API's own; the others are room.Reason's words.
const (
	reasonForbidden   = "forbidden"
	reasonUnknown     = "unknown"
	reasonOver        = "over"
	reasonNotFound    = "not_found"
	reasonMethod      = "method"
	reasonHost        = "host"
	reasonOrigin      = "origin"
	reasonToken       = "token"
	reasonCode        = "code"
	reasonTooLarge    = "too_large"
	reasonMediaType   = "media_type"
	reasonUnavailable = "unavailable"
	reasonNoMix       = "no_mix"
	reasonUnanswered  = "unanswered"
	reasonBug         = "bug"
)

// refuse makes a problem.
func refuse(status int, reason, detail string, args ...any) *Problem {
	return &Problem{
		Type: "balai:problem/" + reason, Title: http.StatusText(status), Status: status,
		Detail: fmt.Sprintf(detail, args...), Reason: reason,
	}
}

func malformed(detail string, args ...any) *Problem {
	return refuse(http.StatusBadRequest, room.Malformed.String(), detail, args...)
}

func notFound() *Problem {
	return refuse(http.StatusNotFound, reasonNotFound, "there is nothing at this address")
}

// problemOf maps what a Backend or a Room answered. What it does not know is a failure to store or to reach something:
// the words are passed on.
func problemOf(err error) *Problem {
	var p *Problem
	var why room.Reason
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, session.ErrForbidden):
		return refuse(http.StatusForbidden, reasonForbidden, "%v", err)
	case errors.Is(err, session.ErrUnknown), errors.Is(err, ErrNoLeg):
		return refuse(http.StatusNotFound, reasonUnknown, "%v", err)
	case errors.Is(err, session.ErrOver):
		return refuse(http.StatusConflict, reasonOver, "%v", err)
	case errors.Is(err, ErrNoMix):
		return refuse(http.StatusNotImplemented, reasonNoMix, "%v", err)
	case errors.Is(err, ErrUnanswered):
		return refuse(http.StatusBadGateway, reasonUnanswered, "%v", err)
	case errors.Is(err, ErrOffer), errors.Is(err, identity.ErrProfile):
		return malformed("%v", err)
	case errors.As(err, &why):
		return refuse(statusOf(why), why.String(), "%v", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return refuse(http.StatusServiceUnavailable, reasonUnavailable, "the daemon did not get it done in time")
	}
	return refuse(http.StatusServiceUnavailable, reasonUnavailable, "%v", err)
}

// statusOf is 400 for what a link or a request is by itself, 409 for what the room says to it.
func statusOf(why room.Reason) int {
	switch why {
	case room.Malformed, room.Expired, room.NotYet, room.BadSignature, room.Depth, room.Widened:
		return http.StatusBadRequest
	case room.RateLimited:
		return http.StatusTooManyRequests
	}
	return http.StatusConflict
}

func (p *Problem) write(w http.ResponseWriter) {
	data, err := json.Marshal(p)
	if err != nil {
		panic("impossible: a problem is strings: " + err.Error())
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if p.allow != "" {
		w.Header().Set("Allow", p.allow)
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(data)
}
