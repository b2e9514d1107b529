package ledger

import (
	"fmt"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// encodeOp is op as it travels, unsigned. The error is room.Malformed for a consent by no Ed25519 key.
func encodeOp(id room.ID, op *room.Op) (*wire.Op, error) {
	w := &wire.Op{
		Room: id[:], Seq: op.Seq, Grant: op.Grant[:], Seen: EncodeSeen(op.Seen), Kind: uint32(op.Kind), Reason: op.Reason,
		TimeMs: op.Time.UnixMilli(), Beat: op.Beat,
	}
	if op.Prev != (room.OpID{}) {
		w.Prev = op.Prev[:]
	}
	for _, t := range op.Targets {
		w.Targets = append(w.Targets, []byte(t))
	}
	switch op.Kind {
	case room.Dismiss, room.Transfer, room.Succeed:
		w.Cut = &wire.Cut{Seq: op.CutSeq}
		if op.CutHash != (room.OpID{}) {
			w.Cut.Hash = op.CutHash[:]
		}
	case room.Admit:
		w.Admissions = encodeAdmissions(op.Admissions)
	case room.SetPolicy:
		if op.Policy != nil {
			w.Policy = EncodePolicy(*op.Policy)
		}
	case room.NewEpoch:
		w.Epoch = &wire.EpochCommit{N: op.Epoch.N, Id: op.Epoch.ID[:], Cause: uint32(op.Epoch.Cause)}
	case room.Revoke:
		w.Revocation = &wire.Revocation{Invite: op.Invite[:], Branch: op.Branch}
	case room.Ban:
		if op.Invite != (room.InviteID{}) {
			w.Revocation = &wire.Revocation{Invite: op.Invite[:]}
		}
	case room.TallyUses:
		w.Tally = &wire.Tally{Invite: op.Invite[:], Count: op.Count, Root: op.Root[:]}
	case room.Checkpoint:
		w.StateHash = op.Root[:]
	}
	return w, encodeConsents(w, op)
}

func encodeAdmissions(in []room.Admission) []*wire.Admission {
	out := make([]*wire.Admission, len(in))
	for i := range in {
		a := &in[i]
		out[i] = &wire.Admission{Peer: []byte(a.Peer), Role: uint32(a.Role), Name: a.Name, Issuer: []byte(a.Issuer)}
		for j := range a.Chain {
			out[i].Chain = append(out[i].Chain, a.Chain[j][:])
			uses := uint32(0)
			if j < len(a.Uses) {
				uses = uint32(a.Uses[j])
			}
			out[i].MaxUses = append(out[i].MaxUses, uses)
		}
	}
	return out
}

func encodeConsents(w *wire.Op, op *room.Op) error {
	for _, c := range op.Consents {
		key, err := identity.PublicOf(c.By)
		if err != nil {
			return fmt.Errorf("consent: %w", room.Malformed)
		}
		s := &wire.Signed{Body: c.Body, Sig: c.Sig, Key: key}
		if op.Kind == room.Succeed {
			w.Votes = append(w.Votes, s)
		} else {
			w.Countersign = s
		}
	}
	return nil
}
