package session

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/overlay"
	"balai/room/sframe"
)

// Media is all that the media path of a room needs to know; the session hands out a new one whenever any
// of it changes. It is read-only.
type Media struct {
	Room         room.ID
	Me           Source             // my own source; sealing starts at no lower counter than ever used
	Send         bool               // I am on stage, not muted by a moderator and my microphone is on
	Epochs       []sframe.Epoch     // at most 4, oldest first, each at its present step
	Seal         int                // index in Epochs of the one that I seal with, -1: none
	Commits      []room.EpochCommit // what signature blocks are checked under: needs no secret
	Sources      []Source           // of the others
	Plan         *overlay.Plan      // who gets frames, and from whom they are taken; nil: nobody
	ConstantRate bool
}

// Source is one person's media source.
type Source struct {
	Peer    peer.ID
	ID      uint32 // 24 bits
	Salt    [8]byte
	Epoch   room.EpochID
	Ctr     uint32 // the window starts here
	Now     uint32 // where the counter was when this was said, as its owner signed: of who is on stage the newest, else one that differs from what time makes of the last
	Allowed bool   // on stage and not muted by a moderator: frames are played
}

// Report is what the media path tells back, each second and when somebody starts or stops to speak.
type Report struct {
	Source   uint32 // my own
	Ctr      uint32 // its counter now
	Sources  []SourceReport
	Links    []LinkReport
	Leg      bool // a browser leg is up
	Speaking bool // my own microphone carries speech
	Up       uint64
	Dropped  uint64

	Forwarded uint64 // entries sent to those that I forward to
	Children  int    // peers that get them
	UpKbps    uint32 // all that this room sends, packet overhead included
}

// SourceReport is about one source of another person.
type SourceReport struct {
	Peer      peer.ID
	ID        uint32
	Level     uint8 // -dBov, RFC 6464
	Speaking  bool
	Slot      int // -1: none
	LastHeard time.Time
	Frames    uint64
	Lost      uint64
	Opened    uint64
	Refused   uint64
	Silenced  bool // muted here for want of signatures
}

// LinkReport is about one media link.
type LinkReport struct {
	Peer     peer.ID
	Degraded bool // carried by a stream
	RTT      time.Duration
	In, Out  uint64 // bundles
	InBytes  uint64
	OutBytes uint64
	Lost     uint64
}
