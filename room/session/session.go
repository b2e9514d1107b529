// Package session owns one joined room: a single goroutine holds its state, its ledger and its keys, and
// touches the world only through Ports. It does not carry audio: it tells the media path what to do.
package session

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// Session is one joined room. Make it with New, then Run it; its methods are safe from any goroutine.
type Session struct {
	in   chan func()
	done chan struct{} // closed when Run returns
	view atomic.Pointer[View]

	watchMu  sync.Mutex
	watchers map[int]func(Event)

	// Owned by Run.
	chat []Line
}

// View is the room as it is now. Any goroutine.
func (s *Session) View() View { return *s.view.Load() }

// Watch calls fn for each event, in order, from the session's goroutine: fn must not block nor call back
// into the session. The answer ends the watch.
func (s *Session) Watch(fn func(Event)) (cancel func()) { panic("todo") }

// Report takes what the media path tells.
func (s *Session) Report(r Report) {}

// Serve answers a control stream whose first record has been read: *wire.Hello or *wire.LedgerRequest.
// It returns when the conversation is over.
func (s *Session) Serve(ctx context.Context, st Stream, first proto.Message) {}

// Gossip takes a sealed message of one of the room's topics and says what pubsub should make of it.
func (s *Session) Gossip(topic string, from peer.ID, data []byte) error { return nil }

func (s *Session) call(ctx context.Context, f func() error) error { return nil }

func (s *Session) act(kind room.Kind, target peer.ID, reason string) error { return nil }
func (s *Session) raiseHand(bool) error                                    { return nil }
func (s *Session) mute(bool) error                                         { return nil }
func (s *Session) issue(t InviteTerms) (InviteView, error)                 { return InviteView{}, nil }
func (s *Session) listInvites() []InviteView                               { return nil }
func (s *Session) revoke(room.InviteID, bool) error                        { return nil }
func (s *Session) say(string) (Line, error)                                { return Line{}, nil }
func (s *Session) react(int) error                                         { return nil }
func (s *Session) members(string) []MemberView                             { return nil }
func (s *Session) decisions() []Decision                                   { return nil }
func (s *Session) leave() error                                            { return nil }
func (s *Session) transfer(peer.ID) error                                  { return nil }
