package ledger

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// Version is the protocol version that this ledger understands; a room may ask for a newer one.
const Version = 1

// MaxRecord is the longest body of an op or genesis, in bytes.
const MaxRecord = 4 << 10

// Limits of the texts of a policy, in bytes, and of its tags.
const (
	maxName     = 128
	maxTopic    = 512
	maxLanguage = 35 // RFC 5646, section 4.4.1
	maxTags     = 8
	maxTag      = 64
)

// lastSecond is the end of the year 9999: later times cannot be written as RFC 3339.
const lastSecond = 253402300799

// NewGenesis opens a room: k becomes its host, r its secret, heir (nil: nobody) may succeed. The error is
// room.Malformed for a policy that no member would take.
func NewGenesis(k *identity.Key, r room.Secret, p room.Policy, heir ed25519.PublicKey, now time.Time) (*wire.Signed, error) {
	nonce := r.Nonce()
	g := &wire.Genesis{Host: k.Public(), Nonce: nonce[:], CreatedS: now.Unix(), Policy: EncodePolicy(p), Heir: heir}
	s := wire.Sign(k, wire.DomainGenesis, g)
	if _, err := ParseGenesis(s); err != nil {
		return nil, err
	}
	return s, nil
}

// ParseGenesis checks and decodes a genesis. The error is room.BadSignature, room.Malformed or, when the room
// wants a newer protocol than Version, room.NeedsNewer.
func ParseGenesis(s *wire.Signed) (*room.Genesis, error) {
	var w wire.Genesis
	if err := open(s, wire.DomainGenesis, &w); err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	if string(w.Host) != string(s.Key) {
		return nil, fmt.Errorf("genesis: not signed by its host: %w", room.BadSignature)
	}
	if len(w.Nonce) != 16 || len(w.Heir) != 0 && len(w.Heir) != ed25519.PublicKeySize || !goodSecond(w.CreatedS) {
		return nil, fmt.Errorf("genesis: %w", room.Malformed)
	}
	p, err := DecodePolicy(w.Policy)
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	if p.MinVersion > Version {
		return nil, fmt.Errorf("genesis: version %d: %w", p.MinVersion, room.NeedsNewer)
	}
	g := &room.Genesis{
		ID: identity.RecordID(wire.DomainGenesis, s.Body), Host: w.Host, Nonce: [16]byte(w.Nonce),
		Created: time.Unix(w.CreatedS, 0).UTC(), Policy: p,
	}
	if len(w.Heir) > 0 {
		g.Heir = w.Heir
	}
	return g, nil
}

// EncodePolicy is p as it travels.
func EncodePolicy(p room.Policy) *wire.Policy {
	w := &wire.Policy{
		Visibility: uint32(p.Visibility), MinVersion: p.MinVersion, ConstantRate: p.ConstantRate, VouchedOnly: p.VouchedOnly,
		Name: p.Name, Topic: p.Topic, Language: p.Language, Tags: p.Tags,
	}
	if !p.StartsAt.IsZero() {
		w.StartsAtS = p.StartsAt.Unix()
	}
	return w
}

// DecodePolicy checks lengths and values. The error is room.Malformed.
func DecodePolicy(w *wire.Policy) (room.Policy, error) {
	bad := w == nil || w.Visibility < uint32(room.Open) || w.Visibility > uint32(room.Closed) || len(w.Name) > maxName || len(w.Topic) > maxTopic ||
		len(w.Language) > maxLanguage || len(w.Tags) > maxTags || !goodSecond(w.StartsAtS)
	for _, t := range w.GetTags() {
		bad = bad || len(t) > maxTag || !identity.PlainLine(t)
	}
	for _, t := range []string{w.GetName(), w.GetTopic(), w.GetLanguage()} {
		bad = bad || !identity.PlainLine(t)
	}
	if bad {
		return room.Policy{}, fmt.Errorf("policy: %w", room.Malformed)
	}
	p := room.Policy{
		Visibility: room.Visibility(w.Visibility), MinVersion: w.MinVersion, ConstantRate: w.ConstantRate, VouchedOnly: w.VouchedOnly,
		Name: w.Name, Topic: w.Topic, Language: w.Language, Tags: w.Tags,
	}
	if w.StartsAtS != 0 {
		p.StartsAt = time.Unix(w.StartsAtS, 0).UTC()
	}
	return p, nil
}

func goodSecond(s int64) bool { return s >= 0 && s <= lastSecond }

// open checks length and signature, then decodes.
func open(s *wire.Signed, domain string, m proto.Message) error {
	if !s.Bare() || len(s.Body) > MaxRecord {
		return room.Malformed
	}
	if !identity.Verify(s.Key, domain, s.Body, s.Sig) {
		return room.BadSignature
	}
	if err := proto.Unmarshal(s.Body, m); err != nil {
		return room.Malformed
	}
	return nil
}
