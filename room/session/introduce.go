package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

// Who let me in may be gone before the others have heard of me. They then take no word of mine, nor do I get one of theirs:
// so I show them the decisions by which I am here.
const (
	maxShown      = 32       // decisions that introduce somebody
	maxShownBytes = 12 << 10 // of a request that they are in: it may have 16 KiB
)

// fetchKnown is fetch by a member. A member who does not know her is shown that she is one; others learn nothing of the room.
func (s *Session) fetchKnown(ctx context.Context, p peer.ID, req *wire.LedgerRequest) (*wire.LedgerReply, error) {
	rep, err := s.fetch(ctx, p, req)
	if !errors.Is(err, room.NoAdmitter) {
		return rep, err
	}
	again := &wire.LedgerRequest{Room: req.Room, HandoutKey: req.HandoutKey}
	_ = s.call(ctx, func() error { // without an answer there is nothing to show
		if s.state != nil && s.state.Role(s.me) != room.NoRole && s.state.Role(p) != room.NoRole {
			again.Heads, again.Pass = ledger.EncodeSeen(s.ledger.Heads()), s.pass
			again.Ops = s.introduction(maxShownBytes - proto.Size(again))
		}
		return nil
	})
	if len(again.Ops) == 0 {
		return rep, err
	}
	return s.fetch(ctx, p, again)
}

// introduction are the newest decisions that fit.
func (s *Session) introduction(size int) (ops []*wire.Signed) {
	all := s.ledger.All()
	for _, e := range slices.Backward(all) {
		if size -= proto.Size(e.Signed) + 8; size < 0 || len(ops) == maxShown {
			break
		}
		ops = append(ops, e.Signed)
	}
	slices.Reverse(ops)
	return ops
}

// takeIntroduction adds what a stranger shows, as far as it is signed by authorities that I know: of these she can make up
// nothing. It costs signatures, so of all strangers together only so many are listened to.
func (s *Session) takeIntroduction(p peer.ID, ops []*wire.Signed, now time.Time) {
	if s.guest || len(ops) == 0 || len(ops) > maxShown || s.state.Role(p) != room.NoRole {
		return
	}
	ops = slices.DeleteFunc(slices.Clone(ops), func(op *wire.Signed) bool {
		_, held := s.ledger.Get(ledgerID(op))
		author, err := identity.PeerOf(op.GetKey())
		return held || err != nil || !s.state.Role(author).Authority()
	})
	if len(ops) > 0 && s.flood.allow("", strangers, now) {
		s.takeFetched(ops, now)
	}
}

// askTheSilent asks, when I have just come, a member of whom I have heard, and not by her own word: she may not know me.
func (s *Session) askTheSilent(now time.Time) {
	since := now.Sub(s.since)
	if s.guest || since < askPeriod || since > hearsayTTL || s.people() > bigRoom || !s.due.passed(&s.due.meet, now, askPeriod) {
		return
	}
	silent := slices.DeleteFunc(s.idle(s.others()), func(p peer.ID) bool {
		l := s.live[p]
		return !l.said.IsZero() || now.Sub(l.since) < askPeriod
	})
	if len(silent) > 0 {
		s.fetchFrom(silent[s.dice.IntN(len(silent))])
	}
}
