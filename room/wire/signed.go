// Package wire owns the control records: balai.proto, the Go code generated from it and the Signed
// envelope. It does not say what a record means.
package wire

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
)

// The domain of each signed record: it is under the signature, so that no record passes for another.
const (
	DomainGenesis    = "balai-genesis/1"
	DomainOp         = "balai-op/1"
	DomainAccept     = "balai-accept/1"
	DomainAd         = "balai-ad/1"
	DomainHandoutKey = "balai-handout-key/1"
	DomainSource     = "balai-source-record/1"
	DomainPresence   = "balai-presence/1"
	DomainBeat       = "balai-beat/1"
	DomainLeave      = "balai-leave/1"
	DomainHeard      = "balai-heard/1"
	DomainChat       = "balai-chat/1"
	DomainReaction   = "balai-reaction/1"
	DomainPass       = "balai-pass/1"
	DomainRelayAd    = "balai-relay-ad/1"
	DomainCoreLease  = "balai-core-lease/1"
	DomainObjection  = "balai-objection/1"
	DomainDigest     = "balai-digest/1"
)

// ErrSigned refuses a record whose envelope, signature or body is wrong.
var ErrSigned = errors.New("not a signed record of this kind")

// Sign encodes m and signs it in domain.
func Sign(k *identity.Key, domain string, m proto.Message) *Signed {
	body, err := proto.Marshal(m)
	if err != nil {
		panic("impossible: own record does not encode: " + err.Error())
	}
	return &Signed{Body: body, Sig: k.Sign(domain, body), Key: k.Public()}
}

// Bare tells whether an envelope has the lengths of one, and holds nothing that nobody signed: records are kept and given on as
// they came, and what somebody adds on the way would go with them.
func (x *Signed) Bare() bool {
	return x != nil && len(x.Key) == ed25519.PublicKeySize && len(x.Sig) == ed25519.SignatureSize && len(x.ProtoReflect().GetUnknown()) == 0
}

// Open checks lengths and the signature over the bytes as received, then decodes into m. The answer is the
// signer. The error is ErrSigned.
func Open(s *Signed, domain string, m proto.Message) (peer.ID, error) {
	if !s.Bare() || !identity.Verify(s.Key, domain, s.Body, s.Sig) {
		return "", fmt.Errorf("%s: %w", domain, ErrSigned)
	}
	if err := proto.Unmarshal(s.Body, m); err != nil {
		return "", fmt.Errorf("%s: %w", domain, ErrSigned)
	}
	p, err := identity.PeerOf(s.Key)
	if err != nil {
		return "", fmt.Errorf("%s: %w", domain, ErrSigned)
	}
	return p, nil
}
