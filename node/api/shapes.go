package api

import (
	"time"

	"balai/room/session"
)

// Node is the shape of GET /node.
type Node struct {
	PeerID       string   `json:"peer_id"`
	Words        string   `json:"words"` // fingerprint
	Name         string   `json:"name"`
	Version      string   `json:"version"`
	Addrs        []string `json:"addrs"`        // dialable multiaddrs, with /p2p
	Reachability string   `json:"reachability"` // public, private, unknown
	Peers        int      `json:"peers"`
	ClockSkewMS  int64    `json:"clock_skew_ms"`
	APIVersion   int      `json:"api_version"`
	KeyProtected bool     `json:"key_protected"` // the key on the disk opens with a passphrase alone
}

// Profile is the shape of /profile.
type Profile struct {
	Name      string   `json:"name"`
	Headline  string   `json:"headline"`
	Bio       string   `json:"bio"`
	Languages []string `json:"languages"`
	Avatar    string   `json:"avatar"` // data URL, or empty
}

// Listing is one room of the hallway.
type Listing struct {
	ID         string           `json:"id"`
	Name       string           `json:"name"`
	Topic      string           `json:"topic"`
	Visibility string           `json:"visibility"`
	Language   string           `json:"language"`
	Tags       []string         `json:"tags"`
	Host       string           `json:"host"`
	HostName   string           `json:"host_name"`
	OnStage    int              `json:"on_stage"`
	Audience   int              `json:"audience"`
	Stage      []session.Person `json:"stage"`
	Source     string           `json:"source"` // lobby, lan, mine
	State      session.Phase    `json:"state,omitempty"`
	StartsAt   *time.Time       `json:"starts_at,omitempty"`
	IssuedAt   time.Time        `json:"issued_at"`
}

// NewRoom is the body of POST /rooms.
type NewRoom struct {
	Name       string     `json:"name"`
	Topic      string     `json:"topic,omitempty"`
	Visibility string     `json:"visibility" enum:"open,unlisted,closed"`
	Language   string     `json:"language,omitempty"`
	Tags       []string   `json:"tags,omitempty"`
	StartsAt   *time.Time `json:"starts_at,omitempty"`
	Relays     []string   `json:"relays,omitempty"` // multiaddrs of community relays
	Heir       string     `json:"heir,omitempty"`   // peer id of who may take the room over when the host is lost
	Local      *bool      `json:"local,omitempty"`  // nil: as the listen addresses say

	ConstantRate bool `json:"constant_rate,omitempty"`
}

// RoomChange is the body of PATCH /rooms/{id}. What is left out stays as it is.
type RoomChange struct {
	Name       *string   `json:"name,omitempty"`
	Topic      *string   `json:"topic,omitempty"`
	Visibility *string   `json:"visibility,omitempty" enum:"open,unlisted,closed"`
	Language   *string   `json:"language,omitempty"`
	Tags       *[]string `json:"tags,omitempty"` // empty: none

	ConstantRate *bool `json:"constant_rate,omitempty"`
}

// InviteRequest is the body of POST /rooms/{id}/invites.
type InviteRequest struct {
	Role      string     `json:"role" enum:"listener,speaker"`
	Uses      int        `json:"uses"`       // 0: unlimited
	ExpiresIn int64      `json:"expires_in"` // seconds
	NotBefore *time.Time `json:"not_before,omitempty"`
	Audience  string     `json:"audience,omitempty"` // peer id
	Depth     int        `json:"depth,omitempty"`
	Knock     bool       `json:"knock,omitempty"`
	Strict    bool       `json:"strict,omitempty"`
}

// Invite is the shape `invite`.
type Invite struct {
	session.InviteView
	QR  string   `json:"qr"`            // SVG; empty where the link is not known
	Web []string `json:"web,omitempty"` // https links, one for each community node connected that has a name; for listeners only
}

// Finding is one check of the doctor, in plain English.
type Finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, warn, fail
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Action string `json:"action"`
}

// relaysOut is by whom a room is carried, and who could be asked to.
type relaysOut struct {
	Relays    []session.RelayView `json:"relays"`
	Vouched   []string            `json:"vouched"`
	Offers    []Community         `json:"offers"`    // connected now, and not vouched for
	Answering []Community         `json:"answering"` // connected now, and vouched for
}

// Community is a community node that this daemon is connected to.
type Community struct {
	PeerID string   `json:"peer_id"`
	Addrs  []string `json:"addrs"` // as they were typed, here or with --bootstrap; empty for one met otherwise
}

// Stats is the shape `stats`.
type Stats struct {
	Parents   []Parent  `json:"parents"`
	Children  int       `json:"children"`  // peers that this daemon passes frames on to
	Forwarded uint64    `json:"forwarded"` // frames passed on, so far
	UpKbps    uint32    `json:"up_kbps"`   // all that this room sends
	Loss      float64   `json:"loss"`      // share, 0 to 1
	DelayMS   float64   `json:"delay_ms"`
	Gaps      uint64    `json:"gaps"`
	Uplink    Uplink    `json:"uplink"`
	Links     []Link    `json:"links"`
	Speakers  []Speaker `json:"speakers"`
}

// Parent is one node that sends me the room's audio.
type Parent struct {
	PeerID string `json:"peer_id"`
	State  string `json:"state"` // active, warm, suspect
	Stripe *int   `json:"stripe"`
}

// Uplink is what became of the microphone's frames.
type Uplink struct {
	Frames  uint64 `json:"frames"`
	Dropped uint64 `json:"dropped"`
	Reason  string `json:"reason"` // of the last drop
}

// Link is one media link.
type Link struct {
	PeerID    string  `json:"peer_id"`
	Carrier   string  `json:"carrier"`
	RTTMS     float64 `json:"rtt_ms"`
	InFrames  uint64  `json:"in_frames"`
	OutFrames uint64  `json:"out_frames"`
	Lost      uint64  `json:"lost"`
}

// Speaker is what was received of one person.
type Speaker struct {
	PeerID    string     `json:"peer_id"`
	Slot      *int       `json:"slot"`
	LastHeard *time.Time `json:"last_heard"` // null: never
	HeardBy   int        `json:"heard_by"`
	Frames    uint64     `json:"frames"`
	Lost      uint64     `json:"lost"`
	Opened    uint64     `json:"opened"`
	Refused   uint64     `json:"refused"`
	Level     int        `json:"level"` // -dBov, RFC 6464
}
