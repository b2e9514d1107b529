package room

import (
	"crypto/ed25519"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Kind is what an op decides; the numbers are on the wire.
type Kind uint16

// The kinds of op. The first six are the host's alone; moderators may do the rest.
const (
	Appoint    Kind = 1
	Dismiss    Kind = 2
	Transfer   Kind = 3
	SetPolicy  Kind = 4
	Checkpoint Kind = 5
	End        Kind = 6
	Admit      Kind = 7
	Decline    Kind = 8
	Kick       Kind = 9
	Ban        Kind = 10
	Unban      Kind = 11
	ToStage    Kind = 12
	ToAudience Kind = 13
	Mute       Kind = 14
	Unmute     Kind = 15
	Lower      Kind = 16
	Revoke     Kind = 17
	Vouch      Kind = 18
	Unvouch    Kind = 19
	Lock       Kind = 20
	NewEpoch   Kind = 21
	TallyUses  Kind = 22
	Unlock     Kind = 23
	Succeed    Kind = 24
)

var kindNames = [...]string{
	"none", "appoint", "dismiss", "transfer", "policy", "checkpoint", "end", "admit", "decline", "kick", "ban", "unban", "stage",
	"audience", "mute", "unmute", "lower", "revoke", "vouch", "unvouch", "lock", "epoch", "tally", "unlock", "succeed",
}

// String is the kind's word in the API and the ledger view.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// HostOnly tells whether only the host may write it.
func (k Kind) HostOnly() bool { return k >= Appoint && k <= End }

// OpID is SHA-256 over the signed bytes of an op or genesis.
type OpID [32]byte

// InviteID is the public key of an invite's last holder.
type InviteID [32]byte

// String is lower-case base32.
func (i InviteID) String() string { return lower32(i[:]) }

// EpochID is SHA-256("balai-epoch/1" || E)[:16].
type EpochID [16]byte

// Seen names the highest op held of one authority when an op was written.
type Seen struct {
	Author peer.ID
	Seq    uint64
	Hash   OpID
}

// Admission lets one peer in; Chain is empty when an authority admits by itself.
type Admission struct {
	Peer  peer.ID
	Role  Role // Listener or Speaker
	Name  string
	Chain []InviteID // invite blocks, root first
	Uses  []uint16   // max uses of each block of Chain, 0 unlimited

	Issuer peer.ID // who signed the root block of Chain; empty: the author of the op
}

// Leaf is the invite that the person came by, zero when an authority admits by itself.
func (a *Admission) Leaf() (leaf InviteID) {
	if n := len(a.Chain); n > 0 {
		leaf = a.Chain[n-1]
	}
	return leaf
}

// Consent is a signature that an op carries besides its author's: the new host's to a transfer, a
// moderator's to a succession. Body and Sig are as received.
type Consent struct {
	By   peer.ID
	Body []byte
	Sig  []byte
}

// EpochCommit names an epoch secret without telling it.
type EpochCommit struct {
	N     uint64
	ID    EpochID
	Cause uint8 // 1 created, 2 kick or ban, 3 leave, 4 merge
}

// Op is one decision, decoded and with a good signature. Whether it counts is the ledger's to say.
type Op struct {
	ID         OpID
	Author     peer.ID
	Seq        uint64
	Prev       OpID
	Grant      OpID
	Seen       []Seen
	Kind       Kind
	Targets    []peer.ID
	Reason     string
	Time       time.Time // display only
	CutSeq     uint64    // dismiss, transfer: highest op of the target that counts; succeed: of the lost host
	CutHash    OpID
	Admissions []Admission
	Epoch      EpochCommit
	Policy     *Policy
	Invite     InviteID  // revoke, tally; ban: by which a guest came, whom no admission names
	Branch     bool      // revoke
	Count      uint64    // tally
	Root       OpID      // tally: Merkle root; checkpoint: state hash
	Beat       uint64    // lower: hands raised at this beat or before
	Consents   []Consent // transfer: the new host's; succeed: the moderators'
}

// Policy is what the host decides about the room.
type Policy struct {
	Visibility   Visibility
	MinVersion   uint32
	ConstantRate bool
	VouchedOnly  bool
	Name         string
	Topic        string
	Language     string
	Tags         []string
	StartsAt     time.Time // zero: now
}

// Genesis opens a room; it is op 0 of the host's chain.
type Genesis struct {
	ID      OpID
	Host    ed25519.PublicKey
	Nonce   [16]byte
	Created time.Time
	Policy  Policy
	Heir    ed25519.PublicKey // nil: none
}

// Room is the id that the genesis gives.
func (g *Genesis) Room() ID { return IDOf(g.Host, g.Nonce) }
