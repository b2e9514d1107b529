package invite

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
)

// Skew is how far a clock may be off before an invite counts as early or late.
const Skew = 90 * time.Second

// Grants tells the appoint op under which issuer is a moderator now; ok is false for everyone else. The
// host is never asked for.
type Grants func(issuer ed25519.PublicKey) (appoint room.OpID, ok bool)

// Verify tells whether the invite lets anybody into the room id at now, as far as the invite itself can
// tell: uses, revocation and bans are the ledger's. The error is, in this order, room.WrongRoom,
// BadSignature (also an issuer without a grant), Depth, Widened, NotYet or Expired.
func (c *Chain) Verify(id room.ID, now time.Time, grants Grants) error {
	if c.Room() != id {
		return fmt.Errorf("invite into %v: %w", c.Room(), room.WrongRoom)
	}
	var appoint room.OpID
	if !c.byHost(0) {
		var ok bool
		if appoint, ok = grants(c.Issuer()); !ok {
			return fmt.Errorf("the issuer is no moderator: %w", room.BadSignature)
		}
	}
	for i := range c.Blocks {
		if !c.verifyBlock(i, appoint) {
			return fmt.Errorf("block %d: %w", i, room.BadSignature)
		}
	}
	return c.verifyTerms(now)
}

// VerifyOffline is Verify for who knows nothing of the room. vouched is false when a moderator issued the
// invite: her appointment cannot be seen, so her block's signature is not checked; all else is.
func (c *Chain) VerifyOffline(now time.Time) (vouched bool, err error) {
	vouched = c.byHost(0)
	for i := range c.Blocks {
		if i == 0 && !vouched {
			continue
		}
		if !c.verifyBlock(i, room.OpID{}) {
			return vouched, fmt.Errorf("block %d: %w", i, room.BadSignature)
		}
	}
	return vouched, c.verifyTerms(now)
}

func (c *Chain) verifyBlock(i int, appoint room.OpID) bool {
	k := &c.Blocks[i]
	return identity.Verify(k.Issuer, blockDomain, c.signed(i, appoint), k.Sig)
}

func (c *Chain) verifyTerms(now time.Time) error {
	if d := c.Blocks[0].Depth; d > MaxDepth {
		return fmt.Errorf("depth %d: %w", d, room.Depth)
	}
	for i := 1; i < len(c.Blocks); i++ {
		if err := narrows(&c.Blocks[i-1], &c.Blocks[i]); err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
	}
	g := c.last()
	if now.Add(Skew).Before(g.NotBefore) {
		return fmt.Errorf("from %v: %w", g.NotBefore, room.NotYet)
	}
	if now.Add(-Skew).After(g.Expiry) {
		return fmt.Errorf("until %v: %w", g.Expiry, room.Expired)
	}
	return nil
}

// narrows tells whether a delegated block grants no more than its parent. The error is room.Depth or
// room.Widened.
func narrows(parent, child *Block) error {
	if parent.Depth == 0 {
		return fmt.Errorf("may not be given on: %w", room.Depth)
	}
	wider := ""
	switch {
	case child.Depth >= parent.Depth:
		wider = "depth"
	case child.Role > parent.Role:
		wider = "role"
	case parent.flags()&flagsKept&^child.flags() != 0:
		wider = "flags"
	case parent.Audience != nil && !parent.Audience.Equal(child.Audience):
		wider = "audience"
	case parent.Uses != 0 && (child.Uses == 0 || child.Uses > parent.Uses):
		wider = "uses"
	case child.NotBefore.Before(parent.NotBefore) || child.Expiry.After(parent.Expiry):
		wider = "time"
	default:
		return nil
	}
	return fmt.Errorf("%s: %w", wider, room.Widened)
}

// Admits tells whether admitter may let newcomer in by this invite. The error is room.WrongAudience when
// it is for another person, room.NoAdmitter when it is strict and admitter is not its issuer.
func (c *Chain) Admits(newcomer, admitter peer.ID) error {
	g := c.last()
	if g.Audience != nil && peerOf(g.Audience) != newcomer {
		return fmt.Errorf("the invite is for another person: %w", room.WrongAudience)
	}
	if g.Strict && peerOf(c.Issuer()) != admitter {
		return fmt.Errorf("only the issuer admits: %w", room.NoAdmitter)
	}
	return nil
}

// Claim proves to admitter, who sent nonce, that newcomer holds the invite: an Ed25519 signature by the
// invite's key, of no use to another newcomer, at another admitter or for another nonce.
func (v *Invite) Claim(newcomer, admitter peer.ID, nonce []byte) []byte {
	return sign(holderKey(v.seed), claimDomain, claimBody(v.Room(), newcomer, admitter, nonce))
}

// VerifyClaim tells whether sig is the claim of newcomer to this invite at admitter for nonce. The error is
// room.BadSignature, or that of Admits.
func (c *Chain) VerifyClaim(newcomer, admitter peer.ID, nonce, sig []byte) error {
	if err := c.Admits(newcomer, admitter); err != nil {
		return err
	}
	if !identity.Verify(c.Holder, claimDomain, claimBody(c.Room(), newcomer, admitter, nonce), sig) {
		return fmt.Errorf("claim: %w", room.BadSignature)
	}
	return nil
}

// claimBody is room 32 | length u8, newcomer | length u8, admitter | nonce.
func claimBody(id room.ID, newcomer, admitter peer.ID, nonce []byte) []byte {
	b := append([]byte(nil), id[:]...)
	b = append(append(b, byte(len(newcomer))), newcomer...)
	b = append(append(b, byte(len(admitter))), admitter...)
	return append(b, nonce...)
}
