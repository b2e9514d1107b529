package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"balai/room/session"
)

const (
	eventType = "text/event-stream"
	keepAlive = 15 * time.Second
)

// The shapes of the event stream that are not some other route's.
type (
	// whole is the first event, and what a reader gets that fell behind.
	whole struct {
		Node    Node                `json:"node"`
		Profile Profile             `json:"profile"`
		Hallway []Listing           `json:"hallway"`
		Rooms   []session.View      `json:"rooms"`
		Invites map[string][]Invite `json:"invites"` // by room; mine
	}
	memberEvent struct {
		Room string `json:"room"`
		session.MemberView
	}
	messageEvent struct {
		Room string `json:"room"`
		session.Line
	}
	handEvent struct {
		Room string `json:"room"`
		session.HandEvent
	}
	reactionEvent struct {
		Room string `json:"room"`
		session.ReactionEvent
	}
	inviteEvent struct {
		Room string `json:"room"`
		Invite
	}
)

// stream is one reader of the events. All of it but the feed belongs to the goroutine of its request.
type stream struct {
	h    *handler
	ctx  context.Context
	w    http.ResponseWriter
	feed *feed
	id   uint64
	live map[Room]func() // how to end the watch of a room
}

// events is GET /events (HTML standard, section 9.2). It lasts until the reader goes or the server stops.
func (h *handler) events(c *call) error {
	c.w.Header().Set("Content-Type", eventType)
	c.w.WriteHeader(http.StatusOK)
	s := &stream{h: h, ctx: c.r.Context(), w: c.w, feed: newFeed(), live: map[Room]func(){}}
	defer h.backend.Watch(func(changed string) { s.feed.put(item{name: changed, key: changed}) })()
	defer s.unwatch()
	s.watchRooms()
	if s.view() != nil {
		return nil
	}
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for err := error(nil); err == nil; {
		select {
		case <-s.ctx.Done():
			return nil
		case <-tick.C:
			err = s.write(": keep-alive\n\n")
		case <-s.feed.wake:
			err = s.drain()
		}
	}
	return nil // the reader is gone, or too slow to be waited for: it has the status already
}

// watchRooms watches the rooms that are new, and lets those go that the backend has forgotten.
func (s *stream) watchRooms() (news []Room) {
	there := map[Room]bool{}
	for _, rm := range s.h.backend.Rooms() {
		there[rm] = true
		if _, known := s.live[rm]; !known {
			s.live[rm] = rm.Watch(s.feed.of(rm.View().ID))
			news = append(news, rm)
		}
	}
	for rm, cancel := range s.live {
		if !there[rm] {
			cancel()
			delete(s.live, rm)
		}
	}
	return news
}

func (s *stream) unwatch() {
	for _, cancel := range s.live {
		cancel()
	}
}

// view sends the whole.
func (s *stream) view() error {
	b := s.h.backend
	v := whole{Node: b.Node(), Profile: b.Profile(), Hallway: b.Hallway(), Invites: map[string][]Invite{}}
	for _, rm := range b.Rooms() {
		r := rm.View()
		v.Rooms = append(v.Rooms, r)
		if r.State.Over() {
			continue
		}
		if mine, err := rm.Invites(s.ctx); err == nil && len(mine) > 0 {
			v.Invites[r.ID] = shown(b.Communities(), mine...)
		}
	}
	return s.send("view", v)
}

// drain sends what the feed has gathered.
func (s *stream) drain() error {
	items, lost := s.feed.take()
	if lost {
		s.watchRooms()
		return s.view()
	}
	for _, it := range items {
		if err := s.item(it); err != nil {
			return err
		}
	}
	return nil
}

// item sends one change. What the daemon itself is asked for is as of now, not as of the change.
func (s *stream) item(it item) error {
	b := s.h.backend
	switch it.name {
	case ChangedNode:
		return s.send(it.name, b.Node())
	case ChangedProfile:
		return s.send(it.name, b.Profile())
	case ChangedHallway:
		return s.send(it.name, b.Hallway())
	case ChangedDoctor:
		return s.send(it.name, b.Doctor(s.ctx, ""))
	case ChangedRooms:
		for _, rm := range s.watchRooms() {
			if err := s.send(session.EventRoom, rm.View()); err != nil {
				return err
			}
		}
		return nil
	}
	return s.roomItem(it.room, it.event)
}

// roomItem sends an event of a room.
func (s *stream) roomItem(id string, e session.Event) error {
	switch {
	case e.Room != nil:
		return s.send(e.Kind, *e.Room)
	case e.Member != nil:
		return s.send(e.Kind, memberEvent{id, *e.Member})
	case e.Line != nil:
		return s.send(e.Kind, messageEvent{id, *e.Line})
	case e.Hand != nil:
		return s.send(e.Kind, handEvent{id, *e.Hand})
	case e.Reaction != nil:
		return s.send(e.Kind, reactionEvent{id, *e.Reaction})
	case e.Invite != nil:
		return s.send(e.Kind, inviteEvent{id, shown(s.h.backend.Communities(), *e.Invite)[0]})
	}
	return nil
}

// send writes one event with the next id.
func (s *stream) send(name string, v any) error {
	data, err := marshal(v)
	if err != nil {
		return err
	}
	s.id++
	return s.write(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", s.id, name, data))
}

// write gives the reader a while, and no longer.
func (s *stream) write(text string) error {
	rc := http.NewResponseController(s.w)
	_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return rc.Flush()
}
