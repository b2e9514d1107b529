package overlay

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/election"
	"balai/room/wire"
)

// Short is a peer's short id, as paths and lists of the removed carry it.
type Short = [8]byte

// Event is what happens to an overlay. Each is told once, with the time.
type Event interface{ event() }

// Situation is what the session knows, whole, whenever any of it changes.
type Situation struct {
	People  []peer.ID // here besides me: the mesh, while there is one
	Dial    []peer.ID // those of People that this side calls
	Stage   []peer.ID // on stage and here, without me
	OnStage bool      // I am
	Removed map[Short]bool
	Links   map[peer.ID][]Short // with whom these have a media link, as they say
	Slots   int                 // children that I take; 0: none
	Ad      *wire.Signed        // my own, if I would relay
	Pass    *wire.Signed        // shown to parents that do not find me in the ledger

	CoreOnly bool // I carry while a lease names me, and otherwise look for no parent: a community node
}

// Leased says which lease is in force. Renewals are told too: children hear of them from here.
type Leased struct{ Lease *election.Lease }

// Linked says that a media link with Peer is open.
type Linked struct{ Peer peer.ID }

// Unlinked says that it ended, or that it could not be opened.
type Unlinked struct{ Peer peer.ID }

// Pulse is what the media path saw of a peer: of a parent at each heartbeat, of others about once a second.
type Pulse struct {
	Peer  peer.ID
	Last  time.Time // its last bundle
	Tick  uint64    // the core's tick, as it says
	Level uint32
	Path  [][]byte      // as received
	Ahead time.Duration // by how much its newest frame is ahead of the newest that I hold
}

// Lied says that frames by Peer were not their speaker's. Until it is Proven that Peer was not deceived itself, another
// parent shall send meanwhile.
type Lied struct {
	Peer   peer.ID
	Proven bool
}

// Got is a record of the link's stream: Join, JoinAnswer, Redirect, Busy, LinkLeave, Feed or lease. Of a Join the session
// says whether its sender belongs to the room: Refused is 0 when it does.
type Got struct {
	Peer    peer.ID
	Record  *wire.LinkRecord
	Refused room.Reason
	Prefix  string // of a Join: the network that the link comes from, empty for a member
}

// Found answers Find.
type Found struct{ Peers []peer.ID }

// Load says whether this node's upload is at its limit.
type Load struct{ Over bool }

// Quit begins a polite leave: children have three seconds.
type Quit struct{}

func (Situation) event() {}
func (Leased) event()    {}
func (Linked) event()    {}
func (Unlinked) event()  {}
func (Lied) event()      {}
func (Got) event()       {}
func (Found) event()     {}
func (Load) event()      {}
func (Quit) event()      {}

// Action is what the session shall do.
type Action interface{ action() }

// Tell sends a record on the stream of the open link with Peer.
type Tell struct {
	Peer   peer.ID
	Record *wire.LinkRecord
}

// Ping asks the media path for a sign of life of Peer.
type Ping struct{ Peer peer.ID }

// Find asks for more peers of this room (rendezvous, hints, remembered): nobody here answers.
type Find struct{}

// Learn passes on what a peer told: a lease to be checked, sources, ads whose peer records may be dialled.
type Learn struct {
	From    peer.ID
	Lease   *wire.Signed
	Sources []*wire.Signed
	Ads     []*election.Ad
}

// Dead says that a parent was given up, silent or a liar: if it is in the core, the chair should hear of it.
type Dead struct{ Peer peer.ID }

func (Tell) action()  {}
func (Ping) action()  {}
func (Find) action()  {}
func (Learn) action() {}
func (Dead) action()  {}

// Mode is what a child gets; the numbers are on the wire.
type Mode uint32

// Single and Mirror are everything, Mirror from two parents at once; a Warm parent is silent; an Assist sends only
// named speakers, as they come from themselves. 3 and 4 are the stripes.
const (
	Single Mode = 1
	Mirror Mode = 2
	Warm   Mode = 5
	Assist Mode = 6
)

// active tells whether frames flow.
func (m Mode) active() bool { return m == Single || m == Mirror }

// Feed is one peer that frames are forwarded to.
type Feed struct {
	Peer    peer.ID
	Mode    Mode
	Counted bool      // of all its parents, I am the one who counts it
	Only    []peer.ID // nil: all speakers
	Direct  bool      // only frames that came on their speaker's own link, and my own: for the others of the core
}

// Plan is what links and the media path shall do. It is read-only. Frames are taken from their speaker's own link and
// from Parents; own frames go to Up and to Feeds.
type Plan struct {
	Links   []peer.ID // hold a media link with these, and close every other
	Dial    []peer.ID // those of Links that this side calls
	Accept  bool      // calls of others are welcome
	Up      []peer.ID
	Parents []peer.ID // forwarded frames are taken from these
	Feeds   []Feed    // warm ones get heartbeats only
	Core    bool      // I am in the core: I choose the loudest of those who uplink to me
	Clock   bool      // heartbeats carry my own tick, else the one of the parent that sends
	Level   uint32
	Path    []Short // heartbeats carry it; the last is me
}

// Parent is one parent as the room's statistics show it.
type Parent struct {
	Peer    peer.ID
	Mode    Mode
	Suspect bool
}
