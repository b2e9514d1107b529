package room

import "fmt"

// Role is what a person may do in a room; being on stage is apart from it.
type Role uint8

// The roles in rising order; the numbers are on the wire.
const (
	NoRole    Role = 0
	Listener  Role = 1
	Speaker   Role = 2
	Moderator Role = 3
	Host      Role = 4
)

var roleNames = [...]string{"none", "listener", "speaker", "moderator", "host"}

// String is the role's word in the API.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// ParseRole reads a role's word. The error is Malformed.
func ParseRole(s string) (Role, error) {
	for i, n := range roleNames {
		if i > 0 && n == s {
			return Role(i), nil
		}
	}
	return NoRole, fmt.Errorf("role %.20q: %w", s, Malformed)
}

// Authority tells whether the role may decide for others: moderator or host.
func (r Role) Authority() bool { return r >= Moderator }

// Visibility says who hears of a room and who gets in.
type Visibility uint8

// The numbers are on the wire. Open: listed, anyone may listen. Unlisted: by link. Closed: by link, each person let in by name.
const (
	Open     Visibility = 1
	Unlisted Visibility = 2
	Closed   Visibility = 3
)

var visibilityNames = [...]string{"", "open", "unlisted", "closed"}

// String is the word in the API.
func (v Visibility) String() string {
	if int(v) < len(visibilityNames) {
		return visibilityNames[v]
	}
	return fmt.Sprintf("visibility %d", uint8(v))
}

// ParseVisibility reads the word. The error is Malformed.
func ParseVisibility(s string) (Visibility, error) {
	for i, n := range visibilityNames {
		if i > 0 && n == s {
			return Visibility(i), nil
		}
	}
	return 0, fmt.Errorf("visibility %.20q: %w", s, Malformed)
}

// Reason is why something was refused. It is an error, travels on the wire as its number and in the API
// as its name.
type Reason uint8

// The reasons; the numbers are on the wire and never change.
const (
	Malformed     Reason = 1
	Expired       Reason = 2
	NotYet        Reason = 3
	BadSignature  Reason = 4
	WrongRoom     Reason = 5
	Widened       Reason = 6
	Depth         Reason = 7
	UsedUp        Reason = 8
	Revoked       Reason = 9
	Banned        Reason = 10
	WrongAudience Reason = 11
	Replayed      Reason = 12
	Locked        Reason = 13
	KnockPending  Reason = 14
	Declined      Reason = 15
	NoAdmitter    Reason = 16
	ClockOff      Reason = 17
	NeedsNewer    Reason = 18
	RateLimited   Reason = 19
	NoRelay       Reason = 20
	Ended         Reason = 21
	SecondDevice  Reason = 22
	Busy          Reason = 23
	Removed       Reason = 24
)

var reasonNames = [...]string{
	"none", "malformed", "expired", "not_yet", "bad_signature", "wrong_room", "widened", "depth", "used_up",
	"revoked", "banned", "wrong_audience", "replayed", "locked", "knock_pending", "declined", "no_admitter",
	"clock_off", "needs_newer", "rate_limited", "no_relay", "ended", "second_device", "busy", "removed",
}

// String is the reason's name in the API.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason_%d", uint8(r))
}

// Error makes a Reason an error; compare with errors.Is.
func (r Reason) Error() string { return r.String() }
