package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

// Hash is SHA-256 over the state: the same for the same set of ops, in whatever order they came.
func (l *Ledger) Hash() [32]byte {
	s := l.State()
	w := digest{sha256.New()}
	w.bytes([]byte("balai-state/1"), s.Room[:], []byte(s.Host))
	w.policy(&s.Policy)
	w.list(s.Moderators)
	w.list(s.Forked)
	w.list(s.Stage)
	each(w, s.Members, func(m room.Member) {
		w.num(uint64(m.Role), bit(m.OnStage)|bit(m.Muted)<<1, uint64(m.Since.UnixMilli()), uint64(len(m.Chain)))
		w.bytes([]byte(m.Name), []byte(m.By))
		for _, id := range m.Chain {
			w.bytes(id[:])
		}
	})
	each(w, s.Banned, func(b bool) { w.num(bit(b)) })
	for _, m := range []map[peer.ID]room.OpID{s.Removed, s.Declined} {
		each(w, m, func(id room.OpID) { w.bytes(id[:]) })
	}
	each(w, s.Unconfirmed, func(d room.Doubt) { w.bytes(d.Op[:]) })
	each(w, byText(s.Revoked, inviteText), func(b bool) { w.num(bit(b)) })
	each(w, byText(s.Uses, inviteText), func(n int) { w.num(uint64(n)) })
	each(w, s.Vouched, func(b bool) { w.num(bit(b)) })
	each(w, s.Lowered, func(n uint64) { w.num(n) })
	w.epoch(s.Epoch)
	each(w, byText(s.Epochs, func(id room.EpochID) string { return string(id[:]) }), w.epoch)
	w.num(bit(s.Locked), bit(s.Ended))
	if len(s.Closed) > 0 {
		each(w, byText(s.Closed, inviteText), func(by map[peer.ID]bool) { each(w, by, func(b bool) { w.num(bit(b)) }) })
	}
	return [32]byte(w.h.Sum(nil))
}

// digest writes values with their lengths, so that no two states give the same bytes.
type digest struct{ h hash.Hash }

func (w digest) num(ns ...uint64) {
	var b [8]byte
	for _, n := range ns {
		binary.BigEndian.PutUint64(b[:], n)
		w.h.Write(b[:])
	}
}

func (w digest) bytes(bs ...[]byte) {
	for _, b := range bs {
		w.num(uint64(len(b)))
		w.h.Write(b)
	}
}

func (w digest) epoch(e room.EpochCommit) {
	w.num(e.N, uint64(e.Cause))
	w.h.Write(e.ID[:])
}

func (w digest) policy(p *room.Policy) {
	w.num(uint64(p.Visibility), uint64(p.MinVersion), bit(p.ConstantRate), bit(p.VouchedOnly), uint64(len(p.Tags)), uint64(p.StartsAt.Unix()))
	w.bytes([]byte(p.Name), []byte(p.Topic), []byte(p.Language))
	for _, t := range p.Tags {
		w.bytes([]byte(t))
	}
}

func (w digest) list(ids []peer.ID) {
	w.num(uint64(len(ids)))
	for _, id := range ids {
		w.bytes([]byte(id))
	}
}

func each[K ~string, V any](w digest, m map[K]V, value func(V)) {
	w.num(uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		w.bytes([]byte(k))
		value(m[k])
	}
}

func byText[K comparable, V any](m map[K]V, text func(K) string) map[string]V {
	out := make(map[string]V, len(m))
	for k, v := range m {
		out[text(k)] = v
	}
	return out
}

func inviteText(id room.InviteID) string { return string(id[:]) }

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
