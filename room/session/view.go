package session

import "time"

// View is one joined room as the local API shows it: the shape `room` of docs/api.md. It is a value; the
// session makes a new one for each change.
type View struct {
	ID           string      `json:"id"`
	Name         string      `json:"name"`
	Topic        string      `json:"topic"`
	Visibility   string      `json:"visibility"`
	Language     string      `json:"language"`
	Tags         []string    `json:"tags"`
	Host         string      `json:"host"`
	HostName     string      `json:"host_name"`
	State        Phase       `json:"state"`
	Reason       string      `json:"reason,omitempty"`
	ClockAheadMS int64       `json:"clock_ahead_ms,omitempty"` // of clock_off: by how much the clocks of those who let in are ahead of mine, their median
	Clocks       int         `json:"clocks,omitempty"`         // how many these are: of one either may be wrong
	Me           Me          `json:"me"`
	Stage        []OnStage   `json:"stage"`
	Audience     int         `json:"audience"`
	AudienceList []Person    `json:"audience_list"`
	Members      int         `json:"members"`
	Hands        []string    `json:"hands"`
	Knocks       []Person    `json:"knocks"`
	Core         []string    `json:"core"`
	Chair        string      `json:"chair"`
	Epoch        EpochView   `json:"epoch"`
	Encryption   string      `json:"encryption"`  // on, no_key
	Carrier      string      `json:"carrier"`     // connecting (others are here, and no media link is open), direct, relay, degraded
	Relays       []RelayView `json:"relays"`      // who carries the room now, the core first; empty: a mesh
	Vouched      []string    `json:"vouched"`     // community nodes that the ledger vouches for
	Forked       []ForkView  `json:"forked"`      // who signed two different histories
	Unconfirmed  []Person    `json:"unconfirmed"` // for authorities: let in by who is no longer trusted, out at Until unless another admits them
	Differs      bool        `json:"differs"`     // the host's checkpoint is of another state than the same ops make here
	Succession   Succession  `json:"succession"`  // what becomes of a room whose host is lost
	NoRelay      bool        `json:"no_relay"`    // too many for a mesh, and nobody who could relay
	Assist       bool        `json:"assist"`      // a mesh larger than it should be, for want of a relay
	Locked       bool        `json:"locked"`
	Local        bool        `json:"local"`
	ConstantRate bool        `json:"constant_rate"` // who is on stage sends the same at all times
	CreatedAt    time.Time   `json:"created_at"`
	StartsAt     *time.Time  `json:"starts_at,omitempty"`
}

// RelayView is one node that carries the room.
type RelayView struct {
	PeerID   string `json:"peer_id"`
	Name     string `json:"name"`
	Kind     string `json:"kind"` // member, community
	Vouched  bool   `json:"vouched"`
	HoldsKey bool   `json:"holds_key"` // a member: it hears the room anyway
	Me       bool   `json:"me"`
	Use      string `json:"use"` // parent: my audio goes by it; warm: ready to; suspect: in doubt; empty: neither
}

// ForkView is somebody who signed two different decisions with one number: what she decided from there on does not count.
type ForkView struct {
	PeerID  string `json:"peer_id"`
	Name    string `json:"name"`
	Role    string `json:"role"`    // what she is now
	Settled bool   `json:"settled"` // a later decision of somebody else named the history that counts
}

// Succession tells who may take the room over when the host is lost, and how far that is.
type Succession struct {
	Heir        string     `json:"heir"` // empty: nobody
	HeirName    string     `json:"heir_name"`
	HostHeardAt *time.Time `json:"host_heard_at"` // null while the host is here
	From        *time.Time `json:"from"`          // from when the heir may ask
	Needed      int        `json:"needed"`        // moderators who have to agree, while the host is away
	Asking      bool       `json:"asking"`        // I am the heir and ask
	Agreed      []string   `json:"agreed"`        // to me, so far
	Against     []string   `json:"against"`
	Asked       bool       `json:"asked"`  // I am a moderator and the heir asks me
	Answer      string     `json:"answer"` // mine: yes, no, empty
}

// Phase is where a session is in its life.
type Phase string

// The phases; the words are the API's.
const (
	Joining  Phase = "joining"
	Knocking Phase = "knocking"
	Live     Phase = "live"
	Left     Phase = "left"
	Ended    Phase = "ended"
	Refused  Phase = "refused"
)

// Over tells whether the session has come to its end.
func (p Phase) Over() bool { return p == Left || p == Ended || p == Refused }

// Me is this daemon's own place in the room.
type Me struct {
	PeerID  string `json:"peer_id"`
	Role    string `json:"role"`
	OnStage bool   `json:"on_stage"`
	Hand    bool   `json:"hand"`
	Muted   bool   `json:"muted"`
	Audio   bool   `json:"audio"` // a browser leg is up

	Speaking bool `json:"speaking"` // my microphone is on and carries speech
}

// OnStage is one person on stage.
type OnStage struct {
	PeerID   string `json:"peer_id"`
	Name     string `json:"name"`
	Role     string `json:"role"`
	Muted    bool   `json:"muted"`
	Speaking bool   `json:"speaking"`
	Slot     *int   `json:"slot"`
	HeardBy  int    `json:"heard_by"`
	Live     bool   `json:"live"`
}

// Person is one person elsewhere: audience, knocking or unconfirmed.
type Person struct {
	PeerID string `json:"peer_id"`
	Name   string `json:"name"`
	Role   string `json:"role,omitempty"`
	Hand   *int   `json:"hand,omitempty"` // place in the queue, from 1
	Muted  bool   `json:"muted,omitempty"`

	ByName string     `json:"by_name,omitempty"` // unconfirmed: who let her in
	Until  *time.Time `json:"until,omitempty"`   // unconfirmed: when she is out
}

// EpochView tells which key is in force; Words are equal for all who hold it.
type EpochView struct {
	N     uint64 `json:"n"`
	Step  uint32 `json:"step"`
	Words string `json:"words"`
}

// MemberView is the shape `member`.
type MemberView struct {
	PeerID   string    `json:"peer_id"`
	Name     string    `json:"name"`
	Headline string    `json:"headline"`
	Role     string    `json:"role"`
	OnStage  bool      `json:"on_stage"`
	Muted    bool      `json:"muted"`
	Live     bool      `json:"live"`
	CameBy   string    `json:"came_by,omitempty"` // invite id; shown to authorities only
	Since    time.Time `json:"since"`

	Unconfirmed *time.Time `json:"unconfirmed_until,omitempty"` // she is out then unless another authority admits her; shown to authorities only
}

// RemovedView is the shape `removed`: somebody who was put out and not let in again.
type RemovedView struct {
	PeerID string    `json:"peer_id"`
	Name   string    `json:"name"` // what she called herself when she was let in
	Banned bool      `json:"banned"`
	Kind   string    `json:"kind"` // of the decision that put her out: kick, ban, revoke; admit when her invite was used up
	By     string    `json:"by"`
	ByName string    `json:"by_name"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"` // as its author says
}

// InviteView is the shape `invite`; the API adds the QR.
type InviteView struct {
	ID        string    `json:"id"`
	Link      string    `json:"link"`
	Role      string    `json:"role"`
	Uses      int       `json:"uses"`
	Used      int       `json:"used"`
	Depth     int       `json:"depth"`
	Audience  string    `json:"audience,omitempty"`
	Knock     bool      `json:"knock"`
	Strict    bool      `json:"strict"`
	NotBefore time.Time `json:"not_before"`
	ExpiresAt time.Time `json:"expires_at"`
	Revoked   bool      `json:"revoked"`
}

// Decision is one op of the ledger, in words and raw.
type Decision struct {
	ID      string    `json:"id"`
	Author  string    `json:"author"`
	Name    string    `json:"author_name"`
	Seq     uint64    `json:"seq"`
	Kind    string    `json:"kind"`
	Targets []string  `json:"targets"`
	Reason  string    `json:"reason,omitempty"`
	At      time.Time `json:"at"` // as its author says
	Void    bool      `json:"void"`
	Why     string    `json:"why,omitempty"`
	Words   string    `json:"words"`
	Raw     []byte    `json:"raw"` // the Signed record
}

// Line is one chat message.
type Line struct {
	ID     string    `json:"id"`
	PeerID string    `json:"peer_id"`
	Name   string    `json:"name"`
	Text   string    `json:"text"`
	At     time.Time `json:"at"`
}

// Event is one thing that happened, for the event stream. Exactly one field beside Kind is set.
type Event struct {
	Kind     string // one of the Event… names
	Room     *View
	Member   *MemberView
	Line     *Line
	Hand     *HandEvent
	Reaction *ReactionEvent
	Invite   *InviteView
}

// The names in the event stream of what a session sends.
const (
	EventRoom     = "room"
	EventMember   = "member"
	EventMessage  = "message"
	EventHand     = "hand"
	EventReaction = "reaction"
	EventInvite   = "invite"
)

// HandEvent tells of a raised or lowered hand; Position counts from 1, 0 when lowered.
type HandEvent struct {
	PeerID   string `json:"peer_id"`
	Raised   bool   `json:"raised"`
	Position int    `json:"position"`
}

// ReactionEvent is one reaction, Kind 1 to 6.
type ReactionEvent struct {
	PeerID string `json:"peer_id"`
	Kind   int    `json:"kind"`
}
