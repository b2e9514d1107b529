package session

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"balai/room"
)

// Change lets me, who has to be the host, change what the room is: edit gets the policy in force and leaves it as it
// shall be. An edit that changes nothing writes nothing. Errors: ErrForbidden, also for an open room that shall not be
// open; ErrOver; room.RateLimited; that of edit; that it could not be stored.
func (s *Session) Change(ctx context.Context, edit func(*room.Policy) error) error {
	return s.call(ctx, func() error { return s.setPolicy(edit, time.Now()) })
}

func (s *Session) setPolicy(edit func(*room.Policy) error, now time.Time) error {
	if s.phase != Live {
		return ErrOver
	}
	if !s.state.May(s.me, room.SetPolicy, "") {
		return ErrForbidden
	}
	p := s.state.Policy
	p.Tags = slices.Clone(p.Tags)
	if err := edit(&p); err != nil {
		return err
	}
	if s.state.Policy.Visibility == room.Open && p.Visibility != room.Open {
		return fmt.Errorf("an open room stays open, its key is known: %w", ErrForbidden)
	}
	if reflect.DeepEqual(p, s.state.Policy) {
		return nil
	}
	if !s.flood.allow(s.me, decisions, now) {
		return fmt.Errorf("at most %v decisions a minute: %w", 60*rates[decisions].second, room.RateLimited)
	}
	_, err := s.appendOp(room.Op{Kind: room.SetPolicy, Policy: &p}, now, true)
	return err
}
