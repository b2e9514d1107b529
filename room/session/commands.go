package session

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// ErrForbidden refuses a command that my role does not allow.
var ErrForbidden = errors.New("your role in this room does not allow that")

// ErrUnknown refuses a command about somebody who is not here.
var ErrUnknown = errors.New("nobody of that id is in this room")

// ErrOver refuses a command to a session that is not in its room: not yet, or not any more.
var ErrOver = errors.New("you are not in this room now")

// InviteTerms is what an invite grants; the shape of POST …/invites.
type InviteTerms struct {
	Role      room.Role
	Uses      int // 0 unlimited
	NotBefore time.Time
	ExpiresIn time.Duration // 0: 24 h
	Audience  peer.ID       // empty: anyone
	Depth     int
	Knock     bool
	Strict    bool
}

// Act appends a decision of mine about target: stage, audience, mute, unmute, lower, kick, ban, unban,
// appoint, dismiss, admit, decline; or about the room (target empty): lock, unlock, end. A transfer hands the room to a
// moderator, whose daemon countersigns: she has to be here, and I stay as a speaker. Succeed without a target is the
// heir's wish for the room of a lost host, for which the moderators are asked; about the heir who asks, it is a
// moderator's consent, and decline her refusal.
// Errors: ErrForbidden, ErrUnknown, ErrOver, that it could not be stored, or why there was no countersignature.
func (s *Session) Act(ctx context.Context, kind room.Kind, target peer.ID, reason string) error {
	switch kind {
	case room.Transfer:
		return s.transfer(ctx, target)
	case room.Succeed:
		return s.succeed(ctx, target)
	}
	return s.call(ctx, func() error { return s.act(kind, target, reason) })
}

// RaiseHand raises or lowers my hand.
func (s *Session) RaiseHand(ctx context.Context, raised bool) error {
	if raised {
		if err := s.asMember(ctx); err != nil {
			return err
		}
	}
	return s.call(ctx, func() error { return s.raiseHand(raised) })
}

// Mute switches my microphone; while muted not one of its frames leaves the daemon.
func (s *Session) Mute(ctx context.Context, muted bool) error {
	return s.call(ctx, func() error { return s.mute(muted) })
}

// Invite issues an invite, or delegates the one that I came by.
func (s *Session) Invite(ctx context.Context, t InviteTerms) (v InviteView, err error) {
	err = s.call(ctx, func() error { v, err = s.issue(t); return err })
	return v, err
}

// Invites lists the invites that I issued, newest first.
func (s *Session) Invites(ctx context.Context) (v []InviteView, err error) {
	err = s.call(ctx, func() error { v = s.listInvites(); return nil })
	return v, err
}

// Revoke closes an invite; with branch also all who came through it are out.
func (s *Session) Revoke(ctx context.Context, id room.InviteID, branch bool) error {
	return s.call(ctx, func() error { return s.revoke(id, branch) })
}

// Say sends a line of chat.
func (s *Session) Say(ctx context.Context, text string) (l Line, err error) {
	if err := s.asMember(ctx); err != nil {
		return l, err
	}
	err = s.call(ctx, func() error { l, err = s.say(text); return err })
	return l, err
}

// Lines is the chat that this daemon has heard, oldest first.
func (s *Session) Lines(ctx context.Context) (l []Line, err error) {
	err = s.call(ctx, func() error { l = append(l, s.chat...); return nil })
	return l, err
}

// React sends a reaction, 1 to 6.
func (s *Session) React(ctx context.Context, kind int) error {
	if err := s.asMember(ctx); err != nil {
		return err
	}
	return s.call(ctx, func() error { return s.react(kind) })
}

// Members is a page of at most 200 members after the peer id given, in the order of ids.
func (s *Session) Members(ctx context.Context, after string) (m []MemberView, err error) {
	err = s.call(ctx, func() error { m = s.members(after); return nil })
	return m, err
}

// Removed is a page of at most 200 people who were put out and not let in again, as Members.
func (s *Session) Removed(ctx context.Context, after string) (r []RemovedView, err error) {
	err = s.call(ctx, func() error { r = s.removed(after); return nil })
	return r, err
}

// Ledger is every decision in order.
func (s *Session) Ledger(ctx context.Context) (d []Decision, err error) {
	err = s.call(ctx, func() error { d = s.decisions(); return nil })
	return d, err
}

// Leave says goodbye and ends the session; the room goes on.
func (s *Session) Leave(ctx context.Context) error {
	return s.call(ctx, func() error { return s.leave() })
}
