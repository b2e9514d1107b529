package ledger

import (
	"crypto/ed25519"
	"fmt"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// Limits of an op besides MaxRecord.
const (
	// MaxTargets bounds the people that one op decides about, and the admissions of one admit.
	MaxTargets = 64
	maxSeen    = 48  // authorities named by one op
	maxReason  = 256 // bytes
	maxLabel   = 160 // bytes of a person's name
	maxChain   = 3   // invite blocks
	maxPeer    = 64  // bytes of a peer id
	maxVotes   = 24  // consents of a succession
	domainVote = "balai-vote/1"
)

// IDOf is the id of a signed op: SHA-256 over the bytes that its signature covers.
func IDOf(s *wire.Signed) room.OpID { return identity.RecordID(wire.DomainOp, s.GetBody()) }

// ParseOp checks and decodes one op and tells its room. It does not ask whether the op counts. The error is
// room.Malformed or room.BadSignature.
func ParseOp(s *wire.Signed) (*room.Op, room.ID, error) {
	p := parser{peers: map[string]peer.ID{}}
	return p.op(s)
}

// EncodeSeen is heads as they travel. Authors whose id carries no Ed25519 key are left out.
func EncodeSeen(heads []room.Seen) []*wire.Seen {
	out := make([]*wire.Seen, 0, len(heads))
	for _, h := range heads {
		if key, err := identity.PublicOf(h.Author); err == nil {
			out = append(out, &wire.Seen{Key: key, Seq: h.Seq, Hash: h.Hash[:]})
		}
	}
	return out
}

// maxHeads bounds the heads that DecodeSeen reads.
const maxHeads = 1024

// DecodeSeen reads what EncodeSeen wrote. The error is room.Malformed.
func DecodeSeen(in []*wire.Seen) ([]room.Seen, error) {
	if len(in) > maxHeads {
		return nil, fmt.Errorf("%d heads: %w", len(in), room.Malformed)
	}
	p := parser{peers: map[string]peer.ID{}}
	return p.seen(in)
}

// parser remembers the peer ids of keys: their derivation costs more than the rest of the parsing.
type parser struct{ peers map[string]peer.ID }

// maxPeersKept bounds the parser's memory.
const maxPeersKept = 4096

func (p *parser) peerOf(key []byte) (peer.ID, error) {
	if id, ok := p.peers[string(key)]; ok {
		return id, nil
	}
	if len(key) != ed25519.PublicKeySize {
		return "", room.Malformed
	}
	id, err := identity.PeerOf(key)
	if err != nil {
		return "", room.Malformed
	}
	if len(p.peers) < maxPeersKept {
		p.peers[string(key)] = id
	}
	return id, nil
}

func (p *parser) seen(in []*wire.Seen) ([]room.Seen, error) {
	out := make([]room.Seen, len(in))
	for i, s := range in {
		author, err := p.peerOf(s.GetKey())
		if err != nil || len(s.GetHash()) != 32 {
			return nil, fmt.Errorf("seen: %w", room.Malformed)
		}
		out[i] = room.Seen{Author: author, Seq: s.Seq, Hash: room.OpID(s.Hash)}
	}
	return out, nil
}

// op checks length, signature and shape. The shape of an unknown kind is not looked at.
func (p *parser) op(s *wire.Signed) (*room.Op, room.ID, error) {
	var w wire.Op
	if err := open(s, wire.DomainOp, &w); err != nil {
		return nil, room.ID{}, fmt.Errorf("op: %w", err)
	}
	author, err := p.peerOf(s.Key)
	bad := err != nil || len(w.Room) != 32 || w.Seq == 0 || w.Seq > math.MaxUint32 || len(w.Prev) != 32 && len(w.Prev) != 0 || len(w.Grant) != 32 ||
		len(w.Seen) > maxSeen || len(w.Targets) > MaxTargets || len(w.Reason) > maxReason || !identity.PlainLine(w.Reason) || w.TimeMs < 0 || w.TimeMs > lastSecond*1000 || w.Kind > math.MaxUint16
	if bad {
		return nil, room.ID{}, fmt.Errorf("op: %w", room.Malformed)
	}
	op := &room.Op{
		ID: IDOf(s), Author: author, Seq: w.Seq, Grant: room.OpID(w.Grant), Kind: room.Kind(w.Kind), Reason: w.Reason,
		Time: time.UnixMilli(w.TimeMs).UTC(), Count: w.Tally.GetCount(), Beat: w.Beat,
	}
	copy(op.Prev[:], w.Prev)
	if op.Seen, err = p.seen(w.Seen); err != nil {
		return nil, room.ID{}, err
	}
	if err := p.decision(op, &w, s.Key); err != nil {
		return nil, room.ID{}, fmt.Errorf("op %v: %w", op.Kind, err)
	}
	return op, room.ID(w.Room), nil
}

// decision decodes what an op of its kind must hold. Fields of other kinds are ignored.
func (p *parser) decision(op *room.Op, w *wire.Op, author []byte) error {
	switch op.Kind {
	case room.Appoint, room.Dismiss, room.Transfer:
		return p.handing(op, w, author)
	case room.Ban:
		if err := fill(op.Invite[:], w.Revocation.GetInvite(), true); err != nil {
			return err
		}
		return targets(op, w.Targets)
	case room.Kick, room.Unban, room.ToStage, room.ToAudience, room.Mute, room.Unmute, room.Lower, room.Decline, room.Vouch, room.Unvouch:
		return targets(op, w.Targets)
	case room.Admit:
		return admissions(op, w.Admissions)
	case room.SetPolicy:
		pol, err := DecodePolicy(w.Policy)
		op.Policy = &pol
		return err
	case room.NewEpoch:
		if len(w.Epoch.GetId()) != 16 || w.Epoch.Cause > math.MaxUint8 {
			return room.Malformed
		}
		op.Epoch = room.EpochCommit{N: w.Epoch.N, ID: room.EpochID(w.Epoch.Id), Cause: uint8(w.Epoch.Cause)}
	case room.Revoke:
		op.Branch = w.Revocation.GetBranch()
		return fill(op.Invite[:], w.Revocation.GetInvite(), false)
	case room.TallyUses:
		if err := fill(op.Root[:], w.Tally.GetRoot(), true); err != nil {
			return err
		}
		return fill(op.Invite[:], w.Tally.GetInvite(), false)
	case room.Checkpoint:
		return fill(op.Root[:], w.StateHash, true)
	case room.Succeed:
		return p.succession(op, w, author)
	}
	return nil
}

// handing decodes an op that makes or unmakes an authority.
func (p *parser) handing(op *room.Op, w *wire.Op, author []byte) error {
	if err := targets(op, w.Targets); err != nil || len(op.Targets) != 1 {
		return room.Malformed
	}
	key, err := identity.PublicOf(op.Targets[0])
	if err != nil || op.Kind != room.Appoint && cut(op, w.Cut) != nil {
		return room.Malformed
	}
	if op.Kind != room.Transfer {
		return nil
	}
	c, err := p.consent(w.Countersign, wire.DomainAccept, w.Room, author, op.Prev)
	if err != nil || string(w.Countersign.Key) != string(key) {
		return fmt.Errorf("not countersigned: %w", room.BadSignature)
	}
	op.Consents = []room.Consent{c}
	return nil
}

func (p *parser) succession(op *room.Op, w *wire.Op, author []byte) error {
	if err := cut(op, w.Cut); err != nil || len(w.Votes) > maxVotes || len(w.Cut.GetHash()) != 32 {
		return room.Malformed
	}
	for _, v := range w.Votes {
		c, err := p.consent(v, domainVote, w.Room, author, op.CutHash)
		if err != nil {
			return err
		}
		op.Consents = append(op.Consents, c)
	}
	return nil
}

// consent checks a second signature of an op: over the room, the key that acts and the op that it follows.
func (p *parser) consent(s *wire.Signed, domain string, id, from []byte, prev room.OpID) (room.Consent, error) {
	var a wire.Acceptance
	if err := open(s, domain, &a); err != nil {
		return room.Consent{}, err
	}
	by, err := p.peerOf(s.Key)
	if err != nil || string(a.Room) != string(id) || string(a.From) != string(from) || string(a.Prev) != string(prev[:]) {
		return room.Consent{}, room.BadSignature
	}
	return room.Consent{By: by, Body: s.Body, Sig: s.Sig}, nil
}

func cut(op *room.Op, w *wire.Cut) error {
	if w == nil || w.Seq > math.MaxUint32 {
		return room.Malformed
	}
	op.CutSeq = w.Seq
	if op.Kind != room.Succeed && (w.Seq == 0) != (len(w.Hash) == 0) {
		return room.Malformed
	}
	return fill(op.CutHash[:], w.Hash, true)
}

func targets(op *room.Op, in [][]byte) error {
	if len(in) == 0 {
		return room.Malformed
	}
	op.Targets = make([]peer.ID, len(in))
	for i, b := range in {
		id, err := peerID(b)
		if err != nil {
			return err
		}
		op.Targets[i] = id
	}
	return nil
}

func admissions(op *room.Op, in []*wire.Admission) error {
	if len(in) == 0 || len(in) > MaxTargets {
		return room.Malformed
	}
	op.Admissions = make([]room.Admission, len(in))
	for i, w := range in {
		a := &op.Admissions[i]
		var err error
		if a.Peer, err = peerID(w.GetPeer()); err != nil {
			return err
		}
		a.Role, a.Name = room.Role(min(w.Role, math.MaxUint8)), w.Name
		if a.Role != room.Listener && a.Role != room.Speaker || len(a.Name) > maxLabel || !identity.PlainLine(a.Name) || len(w.Chain) > maxChain || len(w.MaxUses) != len(w.Chain) {
			return room.Malformed
		}
		if len(w.Chain) == 0 {
			continue
		}
		if a.Issuer = op.Author; len(w.Issuer) > 0 {
			if a.Issuer, err = peerID(w.Issuer); err != nil {
				return err
			}
		}
		a.Chain, a.Uses = make([]room.InviteID, len(w.Chain)), make([]uint16, len(w.Chain))
		for j, id := range w.Chain {
			if len(id) != 32 || w.MaxUses[j] > math.MaxUint16 {
				return room.Malformed
			}
			a.Chain[j], a.Uses[j] = room.InviteID(id), uint16(w.MaxUses[j])
		}
	}
	return nil
}

func peerID(b []byte) (peer.ID, error) {
	if len(b) == 0 || len(b) > maxPeer {
		return "", room.Malformed
	}
	id, err := peer.IDFromBytes(b)
	if err != nil {
		return "", room.Malformed
	}
	return id, nil
}

func fill(dst, src []byte, mayMiss bool) error {
	if len(src) != len(dst) && (len(src) != 0 || !mayMiss) {
		return room.Malformed
	}
	copy(dst, src)
	return nil
}
