package ledger

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// ErrForbidden refuses a draft that would not count.
var ErrForbidden = errors.New("the author may not decide this")

// Draft signs a decision of k: it fills room, number, links, cut (when CutHash is zero: the target's last op held),
// what was seen, and time. It does not add the op. Errors: room.Ended; room.Removed when k was an authority once;
// ErrForbidden, also for a checkpoint of more heads than an op names; room.Banned for an admission;
// room.SecondDevice when k's chain is forked; room.Busy while an op of k
// is held of which earlier ones are missing: fetch first; room.Malformed when it is too long or has a wrong shape.
func (l *Ledger) Draft(k *identity.Key, op room.Op, now time.Time) (*wire.Signed, error) {
	me := k.ID()
	grant, err := l.may(me, &op)
	if err != nil {
		return nil, err
	}
	op.Author, op.Time, op.Grant, op.Prev, op.Seq = me, now, grant.op.ID, room.OpID{}, 1
	a := l.authors[me]
	if a != nil && len(a.forks) > 0 {
		if _, fork := l.lawful().path(a); fork != nil {
			return nil, fmt.Errorf("own chain: %w", room.SecondDevice)
		}
	}
	if l.wait.author[string(k.Public())] > 0 {
		return nil, fmt.Errorf("own chain: %w", room.Busy)
	}
	if last := l.head(a); last != nil {
		op.Prev, op.Seq = last.op.ID, last.op.Seq+1
	} else if a != nil && a.root == l.root() {
		op.Prev = a.root.op.ID
	}
	if err := l.fillCut(&op); err != nil {
		return nil, err
	}
	op.Seen = l.news(me, op.Kind == room.Checkpoint)
	if op.Kind == room.Checkpoint && len(op.Seen) == maxNamed {
		return nil, fmt.Errorf("a checkpoint cannot name all heads: %w", ErrForbidden)
	}
	if op.Kind == room.Checkpoint && op.Root == (room.OpID{}) {
		op.Root = l.Hash()
	}
	w, err := encodeOp(l.id, &op)
	if err != nil {
		return nil, err
	}
	s := wire.Sign(k, wire.DomainOp, w)
	if len(s.Body) > MaxRecord {
		return nil, fmt.Errorf("an op of %d bytes: %w", len(s.Body), room.Malformed)
	}
	if _, _, err := l.parse.op(s); err != nil {
		return nil, err
	}
	return s, nil
}

// may answers the grant under which p may write op now.
func (l *Ledger) may(p peer.ID, op *room.Op) (*node, error) {
	s := l.State()
	if s.Ended {
		return nil, room.Ended
	}
	if op.Kind == room.Succeed {
		if p != l.heir || s.Host == p {
			return nil, ErrForbidden
		}
		return l.root(), nil
	}
	t := l.law.tenureOf(p)
	if t == nil {
		if len(l.law.of[p]) > 0 {
			return nil, room.Removed
		}
		return nil, ErrForbidden
	}
	if !s.May(p, op.Kind, "") {
		return nil, ErrForbidden
	}
	for _, target := range op.Targets {
		self := target == p && (op.Kind == room.Kick || op.Kind == room.Ban || op.Kind == room.Decline)
		if self || !s.May(p, op.Kind, target) {
			return nil, ErrForbidden
		}
	}
	if op.Kind == room.SetPolicy && op.Policy != nil && s.Policy.Visibility == room.Open && op.Policy.Visibility != room.Open {
		return nil, fmt.Errorf("an open room stays open: %w", ErrForbidden)
	}
	for i := range op.Admissions {
		if s.Banned[op.Admissions[i].Peer] {
			return nil, room.Banned
		}
	}
	return t.start, nil
}

// fillCut names the last op of the target, or of the lost host, unless the caller named one.
func (l *Ledger) fillCut(op *room.Op) error {
	if op.CutHash != (room.OpID{}) {
		return nil
	}
	switch op.Kind {
	case room.Dismiss, room.Transfer:
		if len(op.Targets) != 1 {
			return fmt.Errorf("one target: %w", room.Malformed)
		}
		if n := l.head(l.authors[op.Targets[0]]); n != nil && n != l.root() {
			op.CutSeq, op.CutHash = n.op.Seq, n.op.ID
		}
	case room.Succeed:
		last := l.LastOfHost()
		op.CutSeq, op.CutHash = last.Seq, last.Hash
	}
	return nil
}

// LastOfHost names the last op that the host wrote as host, or with Seq 0 what made her host: what a Succeed cuts at
// and the moderators' consents to it name.
func (l *Ledger) LastOfHost() room.Seen {
	t := l.lawful().host
	path, _ := l.law.path(l.authors[t.who])
	for _, n := range slices.Backward(path) {
		if n.grant == t.start && n.void == whyNot {
			return seenOf(n)
		}
	}
	return room.Seen{Author: t.who, Hash: t.start.op.ID}
}

// news names the heads of the other authors that the last op of me has not in its past; all names every head.
func (l *Ledger) news(me peer.ID, all bool) (out []room.Seen) {
	own := l.head(l.authors[me])
	for _, id := range l.people() {
		n := l.head(l.authors[id])
		if id == me || n == nil || !all && own != nil && before(n, own) {
			continue
		}
		if out = append(out, seenOf(n)); len(out) == maxNamed {
			break
		}
	}
	return out
}

// maxNamed keeps what an op names well below MaxRecord; the next op names the rest.
const maxNamed = 24

// Agree is the consent of k that a decision of another key needs: to a room.Transfer by the host from (prev: the
// host's last op, or the genesis), as the new host; to a room.Succeed by the heir from (prev: the hash of LastOfHost),
// as a moderator.
func Agree(k *identity.Key, kind room.Kind, id room.ID, from ed25519.PublicKey, prev room.OpID) room.Consent {
	s := wire.Sign(k, consentDomain(kind), &wire.Acceptance{Room: id[:], From: from, Prev: prev[:]})
	return room.Consent{By: k.ID(), Body: s.Body, Sig: s.Sig}
}

func consentDomain(kind room.Kind) string {
	if kind == room.Succeed {
		return domainVote
	}
	return wire.DomainAccept
}

// Agreed reads a consent that another has sent: what Agree of her key makes. The error is room.Malformed or
// room.BadSignature, also when it is about something else.
func Agreed(s *wire.Signed, kind room.Kind, id room.ID, from ed25519.PublicKey, prev room.OpID) (room.Consent, error) {
	p := parser{peers: map[string]peer.ID{}}
	return p.consent(s, consentDomain(kind), id[:], from, prev)
}
