package api

import (
	"context"
	"fmt"
	"net/http"

	"balai/room"
	"balai/room/session"
)

type joinIn struct {
	Link  string `json:"link,omitempty"`
	Room  string `json:"room,omitempty"`
	Local bool   `json:"local,omitempty"` // lets private and loopback addresses be dialled
}

type lockIn struct {
	Locked *bool `json:"locked,omitempty"` // left out: true
}

type transferIn struct {
	Peer string `json:"peer"`
}

type agreeIn struct {
	Agree bool `json:"agree"`
}

func (h *handler) roomRoutes() []route {
	const post = http.MethodPost
	return []route{
		get("/rooms", "The hallway: rooms heard of, with counts and source.", func(*call, none) ([]Listing, error) {
			return h.backend.Hallway(), nil
		}),
		endpoint(post, "/rooms", "Opens a room, with me as its host, and vouches for its relays. If one of them does not answer no room is opened.",
			http.StatusCreated, h.create).or(http.StatusBadGateway),
		endpoint(post, "/rooms/join", "Begins to join, by an invite link or by the id of a room heard of; progress is in the events. A link that fails by itself is 400 with its reason.",
			http.StatusAccepted, h.join).or(http.StatusNotFound, http.StatusConflict),
		get("/rooms/{id}", "A joined room as it is now.", h.viewRoom),
		do(http.MethodPatch, "/rooms/{id}", "Changes what is given of the room. To open it to everybody cannot be taken back, and makes its key public.", h.change),
		do(post, "/rooms/{id}/leave", "Leaves the room.", inRoom(h, Room.Leave)),
		do(post, "/rooms/{id}/end", "Ends the room for all.", inRoom(h, func(rm Room, ctx context.Context) error {
			return rm.Act(ctx, room.End, "", "")
		})),
		do(post, "/rooms/{id}/lock", "Locks the room against newcomers, or opens the lock.", h.lock),
		do(post, "/rooms/{id}/transfer", "Hands the room to another member.", h.transfer),
		do(post, "/rooms/{id}/succession", "The heir wants the room of a lost host: the moderators are asked.", inRoom(h, func(rm Room, ctx context.Context) error {
			return decide(ctx, rm, room.Succeed, "")
		})),
		do(http.MethodPut, "/rooms/{id}/succession", "A moderator's word to the heir who asks.", h.agree),
		get("/rooms/{id}/ledger", "Every decision in order, in words and raw.", h.ledger),
		get("/rooms/{id}/stats", "How the audio travels.", h.stats),
	}
}

// inRoom makes a handler of a command that needs nothing but its room.
func inRoom(h *handler, f func(Room, context.Context) error) func(*call, none) error {
	return func(c *call, _ none) error {
		rm, err := h.room(c)
		if err != nil {
			return err
		}
		return f(rm, c.r.Context())
	}
}

func (h *handler) create(c *call, in NewRoom) (session.View, error) {
	if in.Name == "" {
		return session.View{}, malformed("a room needs a name")
	}
	if _, err := room.ParseVisibility(in.Visibility); err != nil {
		return session.View{}, malformed("visibility is open, unlisted or closed")
	}
	if in.Heir != "" {
		if _, ok := parsePeer(in.Heir); !ok {
			return session.View{}, malformed("the heir is not a peer id")
		}
	}
	relays, err := h.reach(c.r.Context(), in.Relays)
	if err != nil {
		return session.View{}, err
	}
	rm, err := h.backend.Create(c.r.Context(), in)
	if err != nil {
		return session.View{}, err
	}
	for _, p := range relays {
		if err := decide(c.r.Context(), rm, room.Vouch, p); err != nil {
			return session.View{}, fmt.Errorf("the room is open, but %s is not vouched for: %w", p, err)
		}
	}
	v := rm.View()
	c.w.Header().Set("Location", base+"/rooms/"+v.ID)
	return v, nil
}

func (h *handler) join(c *call, in joinIn) (session.View, error) {
	var rm Room
	var err error
	switch {
	case (in.Link == "") == (in.Room == ""):
		return session.View{}, malformed("give a link or a room, one of them")
	case in.Link != "":
		rm, err = h.backend.JoinLink(c.r.Context(), in.Link, in.Local)
	default:
		id, bad := room.ParseID(in.Room)
		if bad != nil {
			return session.View{}, bad
		}
		rm, err = h.backend.JoinRoom(c.r.Context(), id, in.Local)
	}
	if err != nil {
		return session.View{}, err
	}
	return rm.View(), nil
}

func (h *handler) viewRoom(c *call, _ none) (session.View, error) {
	rm, err := h.room(c)
	if err != nil {
		return session.View{}, err
	}
	return rm.View(), nil
}

func (h *handler) change(c *call, in RoomChange) error {
	rm, err := h.room(c)
	if err != nil {
		return err
	}
	var visibility room.Visibility
	if in.Visibility != nil {
		if visibility, err = room.ParseVisibility(*in.Visibility); err != nil {
			return malformed("visibility is open, unlisted or closed")
		}
	}
	return rm.Change(c.r.Context(), func(p *room.Policy) error {
		for to, from := range map[*string]*string{&p.Name: in.Name, &p.Topic: in.Topic, &p.Language: in.Language} {
			if from != nil {
				*to = *from
			}
		}
		if in.Tags != nil {
			p.Tags = *in.Tags
		}
		if in.Visibility != nil {
			p.Visibility = visibility
		}
		if in.ConstantRate != nil {
			p.ConstantRate = *in.ConstantRate
		}
		return nil
	})
}

func (h *handler) lock(c *call, in lockIn) error {
	rm, err := h.room(c)
	if err != nil {
		return err
	}
	kind := room.Lock
	if in.Locked != nil && !*in.Locked {
		kind = room.Unlock
	}
	return rm.Act(c.r.Context(), kind, "", "")
}

func (h *handler) transfer(c *call, in transferIn) error {
	rm, err := h.room(c)
	if err != nil {
		return err
	}
	to, ok := parsePeer(in.Peer)
	if !ok {
		return malformed("the peer is not a peer id")
	}
	return rm.Act(c.r.Context(), room.Transfer, to, "")
}

func (h *handler) agree(c *call, in agreeIn) error {
	rm, err := h.room(c)
	if err != nil {
		return err
	}
	heir, ok := parsePeer(rm.View().Succession.Heir)
	if !ok {
		return session.ErrUnknown
	}
	kind := room.Succeed
	if !in.Agree {
		kind = room.Decline
	}
	return decide(c.r.Context(), rm, kind, heir)
}

func (h *handler) ledger(c *call, _ none) ([]session.Decision, error) {
	rm, err := h.room(c)
	if err != nil {
		return nil, err
	}
	return rm.Ledger(c.r.Context())
}

func (h *handler) stats(c *call, _ none) (Stats, error) {
	id, _, err := h.roomID(c)
	if err != nil {
		return Stats{}, err
	}
	return h.backend.Stats(id), nil
}
