// Package p2p owns the libp2p side of Balai: the host and whom it may dial, the two gossips and who is let
// into them, control streams, rendezvous, peers remembered or heard on the local network, and media links.
// It does not know what a message means: records are verified by the packages of room, and nothing here
// decides who belongs to a room.
package p2p

import "time"

// Sizes in bytes.
const (
	maxRecord  = 4 << 10  // a signed peer record
	maxControl = 64 << 10 // a message on a control stream, unless its protocol says otherwise
	maxGossip  = 16 << 10 // a gossip message with its envelope

	// MaxBundle is the most that Link.Send takes: it fits a fresh QUIC path.
	MaxBundle = 1150
)

// Counts.
const (
	maxRecordAddrs = 16   // addresses in a peer record, the rest is ignored
	maxStreams     = 1024 // control streams being served, in all
	maxPeerStreams = 16   // control streams being served, one peer
	maxLinks       = 1024 // media links, in all
	maxCarried     = 2048 // media links of a community node, in all
	maxPeerLinks   = 8    // media links, one peer
	linkQueue      = 3    // bundles waiting on one link; the oldest goes first
	maxLAN         = 256  // peers heard by mDNS that are kept
	maxRemembered  = 512  // peers kept in the store
	maxReferrals   = 4096 // peers whose referrer is kept
	badReferrals   = 16   // failed dials within retryAfter that silence a referrer
)

// Times.
const (
	messageTimeout = 10 * time.Second    // one message on a control stream
	dialTimeout    = 10 * time.Second    // a dial by this package on its own account
	retryAfter     = 5 * time.Minute     // a peer that could not be dialled is left alone
	lateAfter      = 10 * time.Second    // one whose dial only ran out of time, the first time
	rememberFor    = 30 * 24 * time.Hour // a remembered peer that was not met again is forgotten
	learnedFor     = time.Hour           // addresses from a record stay in the peerstore
	silentAfter    = 10 * time.Second    // a member of the mesh that says nothing is greeted again
	silentLongest  = time.Minute         // and then ever more rarely, up to this
	deafAfter      = 3 * time.Second     // a gossip peer that is in no topic known here is greeted again
	deafLongest    = 5 * time.Minute     // up to this
	watchEvery     = time.Second
)
