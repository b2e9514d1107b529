package invite

import (
	"errors"
	"time"

	"balai/identity"
	"balai/room"
)

// Inspection is what a link says of itself, in the words of the local API. No network was asked: the
// room's name and the uses that are left cannot be known.
type Inspection struct {
	Room      string      `json:"room"`
	Host      string      `json:"host"`       // peer id
	HostWords string      `json:"host_words"` // fingerprint
	Role      string      `json:"role"`
	Uses      int         `json:"uses"` // 0 is unlimited
	Expiry    time.Time   `json:"expires_at"`
	NotBefore time.Time   `json:"not_before"`
	Depth     int         `json:"depth"`
	Knock     bool        `json:"knock"`
	Strict    bool        `json:"strict"`
	Audience  string      `json:"audience,omitempty"` // peer id
	Invite    string      `json:"invite"`             // id
	Issuer    string      `json:"issuer"`             // host, or unverified: a moderator whose appointment cannot be seen
	Chain     int         `json:"chain"`
	Hints     int         `json:"hints"`
	Expired   bool        `json:"expired"`
	Reason    string      `json:"reason,omitempty"` // why it would be refused now
	Refusal   room.Reason `json:"-"`                // the same; 0 when nothing speaks against it
}

// Inspect tells what the invite says. An invite that fails Verify is described too, except for one with a
// false signature: then what it says is nobody's word, and the error is room.BadSignature.
func (v *Invite) Inspect(now time.Time) (Inspection, error) {
	vouched, err := v.VerifyOffline(now)
	if errors.Is(err, room.BadSignature) {
		return Inspection{}, err
	}
	g, host := v.Grant(), peerOf(v.Host)
	s := Inspection{
		Room: v.Room().String(), Host: host.String(), HostWords: identity.Fingerprint(host),
		Role: g.Role.String(), Uses: int(g.Uses), Expiry: g.Expiry, NotBefore: g.NotBefore,
		Depth: int(g.Depth), Knock: g.Knock, Strict: g.Strict,
		Invite: v.ID().String(), Issuer: "unverified", Chain: len(v.Blocks), Hints: len(v.Hints),
		Expired: now.Add(-Skew).After(g.Expiry),
	}
	if vouched {
		s.Issuer = "host"
	}
	if g.Audience != nil {
		s.Audience = peerOf(g.Audience).String()
	}
	if errors.As(err, &s.Refusal) {
		s.Reason = s.Refusal.String()
	}
	return s, nil
}
