// Package api owns the local HTTP interface of the daemon: the guard before it, its routes, its event stream, their
// OpenAPI document, the serving of the page's files and the Go client. It does not decide anything about rooms: it
// asks a Backend, and room/session decides.
package api

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/session"
)

// Version is the number of this interface, in its paths and in GET /node.
const Version = 1

// The refusals that a Backend answers with besides those of room/session, room.Reason and identity.ErrProfile.
var (
	// ErrOffer: the SDP offer cannot be read. 400.
	ErrOffer = errors.New("the SDP offer cannot be used")
	// ErrNoMix: the offer has one receiving m-line, which needs a mix that this program cannot make. 501.
	ErrNoMix = errors.New("one receiving m-line would need a mix, which this daemon does not make: offer three")
	// ErrUnanswered: nobody answers at the address of a community node, or who answers is none. 502.
	ErrUnanswered = errors.New("no community node answers there")
	// ErrNoLeg: no leg of that name. 404.
	ErrNoLeg = errors.New("there is no such audio leg")
)

// Backend is the daemon behind the API. All methods are safe from any goroutine; those with a context may block
// until it ends, the others may not block.
type Backend interface {
	Node() Node
	Profile() Profile
	// SetProfile stores the profile and tells rooms. Errors: identity.ErrProfile, or that it could not be stored.
	SetProfile(ctx context.Context, p Profile) error
	// Doctor tells what the checks found, in the language lang: en, id or zh, English for any other.
	Doctor(ctx context.Context, lang string) []Finding
	// Watch calls fn with the name of what has changed, one of the Changed… names; the new state is then asked for.
	// fn does not block. The answer ends the watch: after it returned fn is not called again.
	Watch(fn func(changed string)) (cancel func())

	// Hallway lists the rooms heard of, mine too.
	Hallway() []Listing
	// Create opens a room; n has been checked for form.
	Create(ctx context.Context, n NewRoom) (Room, error)
	// JoinLink begins to join the room of an invite link. An error by the link itself is a room.Reason.
	JoinLink(ctx context.Context, link string, local bool) (Room, error)
	// JoinRoom begins to join a room that was heard of, or that I belong to. Not heard of: session.ErrUnknown.
	JoinRoom(ctx context.Context, id room.ID, local bool) (Room, error)
	// Room finds a room joined since this daemon started, also one that is over, by its id.
	Room(id room.ID) (Room, bool)
	// Rooms are all that Room finds, oldest first.
	Rooms() []Room
	// Stats of a room that Room finds.
	Stats(id room.ID) Stats
	// Reach makes sure of a connection to the community node of a multiaddr with /p2p/ that the person typed: it is
	// dialled as it is, private or not. Errors: room.Malformed, ErrUnanswered.
	Reach(ctx context.Context, addr string) error
	// Communities are the community nodes connected now.
	Communities() []Community

	// Answer takes an SDP offer for a browser leg in a room, which replaces an older leg there. Errors: ErrOffer,
	// ErrNoMix, or one of the session's.
	Answer(ctx context.Context, id room.ID, offer string) (leg, answer string, err error)
	// HangUp ends a leg. Error: ErrNoLeg.
	HangUp(ctx context.Context, id room.ID, leg string) error
	// Echo takes an offer for a leg that plays back what it hears a second later. Errors as Answer.
	Echo(ctx context.Context, offer string) (leg, answer string, err error)
	// EndEcho ends such a leg. Error: ErrNoLeg.
	EndEcho(ctx context.Context, leg string) error
}

// What Backend.Watch tells of: the daemon's own state, the profile, the hallway, the doctor's findings, and which
// rooms Backend.Rooms has.
const (
	ChangedNode    = "node"
	ChangedProfile = "profile"
	ChangedHallway = "hallway"
	ChangedDoctor  = "doctor"
	ChangedRooms   = "rooms"
)

// Room is what the API needs of a joined room; *session.Session is one.
type Room interface {
	View() session.View
	Watch(fn func(session.Event)) (cancel func())
	Act(ctx context.Context, kind room.Kind, target peer.ID, reason string) error
	Change(ctx context.Context, edit func(*room.Policy) error) error
	RaiseHand(ctx context.Context, raised bool) error
	Mute(ctx context.Context, muted bool) error
	Invite(ctx context.Context, t session.InviteTerms) (session.InviteView, error)
	Invites(ctx context.Context) ([]session.InviteView, error)
	Revoke(ctx context.Context, id room.InviteID, branch bool) error
	Say(ctx context.Context, text string) (session.Line, error)
	Lines(ctx context.Context) ([]session.Line, error)
	React(ctx context.Context, kind int) error
	Members(ctx context.Context, after string) ([]session.MemberView, error)
	Removed(ctx context.Context, after string) ([]session.RemovedView, error)
	Ledger(ctx context.Context) ([]session.Decision, error)
	Leave(ctx context.Context) error
}

var _ Room = (*session.Session)(nil)

// Config is what New needs. Backend, Token and Addr are required.
type Config struct {
	Backend Backend
	Token   string           // the bearer token, from LoadOrCreateToken
	Codes   *Codes           // nil: codes of its own
	Web     fs.FS            // the page, index.html at its root; nil: no page
	Addr    string           // host:port that the listener is bound to
	Version string           // of the program, for the OpenAPI document
	Log     *slog.Logger     // nil: none
	Now     func() time.Time // nil: time.Now
	Metrics http.Handler     // nil: GET /metrics is 404
}
