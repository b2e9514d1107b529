package room

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Member is one person as the ledger knows her.
type Member struct {
	Peer    peer.ID
	Role    Role
	OnStage bool
	Muted   bool // by a moderator; a self-mute is not in the ledger
	Name    string
	Chain   []InviteID // the invite she came by, root first
	By      peer.ID    // who admitted her
	Since   time.Time  // display only
}

// State is what the ops of a room make together: a pure function of their set. It is read-only to all but
// room/ledger, which builds it anew.
type State struct {
	Room       ID
	Policy     Policy
	Host       peer.ID
	Moderators []peer.ID // in grant order
	Members    map[peer.ID]Member
	Banned     map[peer.ID]bool
	Removed    map[peer.ID]OpID // kicked or banned and not admitted again: by which op
	Declined   map[peer.ID]OpID
	Revoked    map[InviteID]bool             // closed by a host; true: with its branch
	Closed     map[InviteID]map[peer.ID]bool // by moderators, likewise: it holds for those of them who issued it, see IsRevoked
	Uses       map[InviteID]int
	Vouched    map[peer.ID]bool
	Lowered    map[peer.ID]uint64 // hands raised at this beat or before are down
	Epoch      EpochCommit        // the one in force
	Epochs     map[EpochID]EpochCommit
	Forked     []peer.ID // authors of two ops with one number
	Stage      []peer.ID // on stage, longest there first
	Locked     bool
	Ended      bool

	// Unconfirmed were let in only by ops that do not count (past a cut, or after a fork). They are no members.
	Unconfirmed map[peer.ID]Doubt
}

// Doubt is the last op that let somebody in and does not count, and what she would be if it did.
type Doubt struct {
	Op     OpID
	Member Member
}

// Role tells p's role, NoRole for who is no member.
func (s *State) Role(p peer.ID) Role {
	if p == s.Host {
		return Host
	}
	if slices.Contains(s.Moderators, p) {
		return Moderator
	}
	return s.Members[p].Role
}

// IsRevoked tells whether an invite that comes of issuer's lets nobody new in, and whether all who came by it are out. Who
// asks has the issuer from the invite itself: what admissions tell of it is their author's word.
func (s *State) IsRevoked(id InviteID, issuer peer.ID) (branch, revoked bool) {
	all, byHost := s.Revoked[id]
	own, byIssuer := s.Closed[id][issuer]
	return all || own, byHost || byIssuer
}

// Rank orders authorities: host 0, moderators from 1 in grant order; ok is false for everyone else.
func (s *State) Rank(p peer.ID) (rank int, ok bool) {
	if p == s.Host {
		return 0, true
	}
	i := slices.Index(s.Moderators, p)
	return i + 1, i >= 0
}

// May tells whether actor may write an op of this kind about target (empty: the room itself).
// Moderators cannot touch each other or the host; the host may do all.
func (s *State) May(actor peer.ID, kind Kind, target peer.ID) bool {
	r := s.Role(actor)
	if !r.Authority() || kind.HostOnly() && r != Host {
		return false
	}
	if target == "" || target == actor || r == Host {
		return true
	}
	return !s.Role(target).Authority()
}
