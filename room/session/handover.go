package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

// A room is handed over by an op of the host that the next host has countersigned. A daemon countersigns when
// the host asks it over a stream and its person is a moderator: who took on the one duty can take the other,
// and a room never goes to a key that nobody answers for. The host makes her a moderator first, in the open.

// errNotModerator says what to do before a transfer.
var errNotModerator = fmt.Errorf("appoint this person a moderator first: only a moderator's daemon takes the room: %w", ErrForbidden)

// errNotHere says why there was no countersignature.
var errNotHere = fmt.Errorf("the other person's daemon did not answer: she has to be in the room: %w", room.Busy)

// transferTries is how often a host asks again when a decision of hers came in between.
const transferTries = 5

const handOverPause = time.Second

// pause waits; it says false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// transfer asks the other's countersignature and hands the room over. Not in the session's goroutine.
func (s *Session) transfer(ctx context.Context, to peer.ID) error {
	for range transferTries {
		var prev room.OpID
		if err := s.call(ctx, func() (err error) { prev, err = s.mayTransfer(to); return err }); err != nil {
			return err
		}
		rep, err := s.fetch(ctx, to, &wire.LedgerRequest{Room: s.cfg.Room[:], Accept: prev[:]})
		if errors.Is(err, room.Busy) {
			if !pause(ctx, handOverPause) { // she has not heard of my last op yet; asking told her
				return ctx.Err()
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errNotHere, err)
		}
		if rep.Accept == nil {
			return errNotHere
		}
		c := room.Consent{By: to, Body: rep.Accept.Body, Sig: rep.Accept.Sig}
		err = s.call(ctx, func() error { return s.handOver(to, c) })
		if !errors.Is(err, room.BadSignature) {
			return err
		}
	}
	return errNotHere
}

// mayTransfer answers my last op, which the countersignature names.
func (s *Session) mayTransfer(to peer.ID) (room.OpID, error) {
	switch {
	case s.phase != Live:
		return room.OpID{}, ErrOver
	case s.state.Role(s.me) != room.Host:
		return room.OpID{}, ErrForbidden
	case s.state.Role(to) == room.NoRole || to == s.me:
		return room.OpID{}, ErrUnknown
	case s.state.Role(to) != room.Moderator:
		return room.OpID{}, errNotModerator
	}
	return s.lastOf(s.me), nil
}

// lastOf is the last op of an authority: the genesis when the founder has written none, zero for another.
func (s *Session) lastOf(p peer.ID) room.OpID {
	if _, id := s.headOf(p); id != (room.OpID{}) || p != s.ledger.Founder() {
		return id
	}
	return ledger.IDOf(s.ledger.Genesis())
}

// acceptRoom countersigns for the host p, whose last op is prev.
func (s *Session) acceptRoom(p peer.ID, prev []byte) *wire.LedgerReply {
	host, err := identity.PublicOf(p)
	switch {
	case len(prev) != len(room.OpID{}) || err != nil:
		return refuseLedger(room.Malformed)
	case p != s.state.Host || s.state.Role(s.me) != room.Moderator:
		return refuseLedger(room.Declined)
	case s.lastOf(p) != room.OpID(prev):
		s.fetchFrom(p)
		return refuseLedger(room.Busy)
	}
	c := ledger.Agree(s.cfg.Key, room.Transfer, s.cfg.Room, host, room.OpID(prev))
	return &wire.LedgerReply{Accept: &wire.Signed{Body: c.Body, Sig: c.Sig, Key: s.cfg.Key.Public()}}
}

// handOver writes the transfer.
func (s *Session) handOver(to peer.ID, c room.Consent) error {
	if s.phase != Live {
		return ErrOver
	}
	_, err := s.appendOp(room.Op{Kind: room.Transfer, Targets: []peer.ID{to}, Consents: []room.Consent{c}}, time.Now(), true)
	return err
}
