package api

import (
	"context"
	"net/http"

	"balai/room"
	"balai/room/session"
)

// actions are what may be done about a member, as the path names them.
var actions = map[string]room.Kind{
	"stage": room.ToStage, "audience": room.ToAudience, "mute": room.Mute, "unmute": room.Unmute, "lower": room.Lower,
	"kick": room.Kick, "ban": room.Ban, "unban": room.Unban, "appoint": room.Appoint, "dismiss": room.Dismiss,
	"admit": room.Admit, "decline": room.Decline,
}

const maxReaction = 6

type actionIn struct {
	Reason string `json:"reason,omitempty"`
}

type handIn struct {
	Raised bool `json:"raised"`
}

type microphoneIn struct {
	Muted bool `json:"muted"`
}

type reactionIn struct {
	Kind int `json:"kind" minimum:"1" maximum:"6"`
}

type messageIn struct {
	Text string `json:"text"`
}

func (h *handler) memberRoutes() []route {
	return []route{
		get("/rooms/{id}/members", "At most 200 members after the peer id given; an empty list ends them.", paged(h, Room.Members)).
			asking("after").or(http.StatusBadRequest),
		get("/rooms/{id}/removed", "Who was kicked or banned and not let in again: at most 200 after the peer id given; an empty list ends them.", paged(h, Room.Removed)).
			asking("after").or(http.StatusBadRequest),
		do(http.MethodPost, "/rooms/{id}/members/{peer}/{action}",
			"Decides about a member: stage, audience, mute, unmute, lower, kick, ban, unban, appoint, dismiss, admit or decline.", h.act),
		do(http.MethodPut, "/rooms/{id}/hand", "Raises or lowers my hand.", h.hand),
		do(http.MethodPut, "/rooms/{id}/microphone", "Mutes or unmutes my microphone, in the daemon.", h.microphone),
		do(http.MethodPost, "/rooms/{id}/reactions", "Sends a reaction, 1 to 6.", h.react),
		get("/rooms/{id}/messages", "The chat that this daemon has heard, oldest first.", h.messages),
		endpoint(http.MethodPost, "/rooms/{id}/messages", "Says a line in the chat.", http.StatusCreated, h.say),
	}
}

// paged answers with a page of a room's list of people.
func paged[T any](h *handler, list func(Room, context.Context, string) ([]T, error)) func(*call, none) ([]T, error) {
	return func(c *call, _ none) ([]T, error) {
		rm, err := h.room(c)
		if err != nil {
			return nil, err
		}
		after, err := c.after()
		if err != nil {
			return nil, err
		}
		return list(rm, c.r.Context(), after)
	}
}

// after is the peer id that a page follows; empty: the first page.
func (c *call) after() (string, error) {
	after := c.r.URL.Query().Get("after")
	if after != "" {
		if _, ok := parsePeer(after); !ok {
			return "", malformed("after is not a peer id")
		}
	}
	return after, nil
}

func (h *handler) act(c *call, in actionIn) error {
	rm, err := h.room(c)
	if err != nil {
		return err
	}
	kind, ok := actions[c.vars["action"]]
	if !ok {
		return notFound()
	}
	p, err := c.peer()
	if err != nil {
		return err
	}
	return rm.Act(c.r.Context(), kind, p, in.Reason)
}

func (h *handler) hand(c *call, in handIn) error {
	rm, err := h.room(c)
	if err != nil {
		return err
	}
	return rm.RaiseHand(c.r.Context(), in.Raised)
}

func (h *handler) microphone(c *call, in microphoneIn) error {
	rm, err := h.room(c)
	if err != nil {
		return err
	}
	return rm.Mute(c.r.Context(), in.Muted)
}

func (h *handler) react(c *call, in reactionIn) error {
	rm, err := h.room(c)
	if err != nil {
		return err
	}
	if in.Kind < 1 || in.Kind > maxReaction {
		return malformed("a reaction is 1 to %d", maxReaction)
	}
	return rm.React(c.r.Context(), in.Kind)
}

func (h *handler) messages(c *call, _ none) ([]session.Line, error) {
	rm, err := h.room(c)
	if err != nil {
		return nil, err
	}
	return rm.Lines(c.r.Context())
}

func (h *handler) say(c *call, in messageIn) (session.Line, error) {
	rm, err := h.room(c)
	if err != nil {
		return session.Line{}, err
	}
	return rm.Say(c.r.Context(), in.Text)
}
