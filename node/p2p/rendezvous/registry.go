// Package rendezvous owns the messages of the libp2p rendezvous protocol and the table of a rendezvous
// point: who is registered where and until when, with limits. It opens no stream, verifies no signature
// and has no clock.
package rendezvous

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"
)

// Protocol is the id of the protocol, of the libp2p specification.
const Protocol = "/rendezvous/1.0.0"

// Limits of a rendezvous point and of the protocol.
const (
	MaxNamespace = 255 // bytes, by the specification
	DefaultTTL   = 2 * time.Hour
	MinTTL       = 2 * time.Hour // rust-libp2p refuses less; so does everybody then
	MaxTTL       = 72 * time.Hour
	MaxPage      = 100 // registrations in one answer

	maxPeer      = 64       // registrations of one peer
	maxNamespace = 1000     // registrations in one namespace
	maxTotal     = 20_000   // registrations
	maxPageBytes = 48 << 10 // records in one answer
	sweepEvery   = time.Minute
)

// Registration is one peer in one namespace.
type Registration struct {
	Namespace string
	Peer      string // peer id bytes
	Record    []byte // signed peer record
	Until     time.Time
	seq       uint64
}

// Registry is the table of a rendezvous point. It is not safe for concurrent use.
type Registry struct {
	instance [8]byte
	seq      uint64
	total    int
	spaces   map[string][]*Registration     // by seq
	peers    map[string]map[string]struct{} // namespaces by peer
	swept    time.Time
}

// NewRegistry makes an empty table. The cookies of another instance are not accepted.
func NewRegistry(instance [8]byte) *Registry {
	return &Registry{instance: instance, spaces: map[string][]*Registration{}, peers: map[string]map[string]struct{}{}}
}

// Register enters or renews peer in ns with a record already verified. A zero ttl means DefaultTTL.
// It returns the status to answer, and the ttl granted.
func (r *Registry) Register(ns, peer string, record []byte, ttl time.Duration, now time.Time) (Message_ResponseStatus, time.Duration) {
	if ttl == 0 {
		ttl = DefaultTTL
	}
	switch {
	case ns == "" || len(ns) > MaxNamespace:
		return Message_E_INVALID_NAMESPACE, 0
	case ttl < MinTTL || ttl > MaxTTL:
		return Message_E_INVALID_TTL, 0
	}
	r.Expire(ns, now)
	r.Unregister(ns, peer)
	if r.total >= maxTotal && now.Sub(r.swept) >= sweepEvery {
		r.swept = now
		r.ExpireAll(now)
	}
	if len(r.peers[peer]) >= maxPeer {
		return Message_E_NOT_AUTHORIZED, 0
	}
	if r.total >= maxTotal || len(r.spaces[ns]) >= maxNamespace {
		return Message_E_UNAVAILABLE, 0
	}
	r.seq++
	r.spaces[ns] = append(r.spaces[ns], &Registration{Namespace: ns, Peer: peer, Record: record, Until: now.Add(ttl), seq: r.seq})
	r.total++
	if r.peers[peer] == nil {
		r.peers[peer] = map[string]struct{}{}
	}
	r.peers[peer][ns] = struct{}{}
	return Message_OK, ttl
}

// Unregister takes peer out of ns; an empty ns means everywhere.
func (r *Registry) Unregister(ns, peer string) {
	if ns == "" {
		for ns := range r.peers[peer] {
			r.Unregister(ns, peer)
		}
		return
	}
	if _, ok := r.peers[peer][ns]; ok {
		r.remove(ns, func(g *Registration) bool { return g.Peer == peer })
	}
}

// Expire forgets what is over in ns.
func (r *Registry) Expire(ns string, now time.Time) {
	r.remove(ns, func(g *Registration) bool { return !now.Before(g.Until) })
}

// ExpireAll forgets what is over.
func (r *Registry) ExpireAll(now time.Time) {
	for ns := range r.spaces {
		r.Expire(ns, now)
	}
}

func (r *Registry) remove(ns string, gone func(*Registration) bool) {
	old := r.spaces[ns]
	kept := slices.DeleteFunc(old, func(g *Registration) bool {
		if !gone(g) {
			return false
		}
		r.total--
		if delete(r.peers[g.Peer], ns); len(r.peers[g.Peer]) == 0 {
			delete(r.peers, g.Peer)
		}
		return true
	})
	if len(kept) == 0 {
		delete(r.spaces, ns)
		return
	}
	r.spaces[ns] = kept
}

// Discover lists what is registered in ns after the cookie of an earlier page, oldest first, at most
// limit (0: MaxPage). The cookie returned goes on from there. It does not list namespaces: an empty ns
// is refused.
func (r *Registry) Discover(ns string, limit int, cookie []byte, now time.Time) ([]*Registration, []byte, Message_ResponseStatus) {
	if ns == "" || len(ns) > MaxNamespace {
		return nil, nil, Message_E_INVALID_NAMESPACE
	}
	after, ok := r.openCookie(ns, cookie)
	if !ok {
		return nil, nil, Message_E_INVALID_COOKIE
	}
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	r.Expire(ns, now)
	var out []*Registration
	size := 0
	for _, g := range r.spaces[ns] {
		if g.seq <= after {
			continue
		}
		if size += len(g.Record); len(out) == limit || size > maxPageBytes {
			break
		}
		out = append(out, g)
		after = g.seq
	}
	return out, r.cookie(ns, after), Message_OK
}

// cookie is instance 8 | SHA-256(ns)[:8] | last seq 8.
func (r *Registry) cookie(ns string, seq uint64) []byte {
	h := sha256.Sum256([]byte(ns))
	return binary.BigEndian.AppendUint64(append(r.instance[:len(r.instance):len(r.instance)], h[:8]...), seq)
}

func (r *Registry) openCookie(ns string, cookie []byte) (uint64, bool) {
	if len(cookie) == 0 {
		return 0, true
	}
	if len(cookie) != 24 || !bytes.Equal(cookie[:16], r.cookie(ns, 0)[:16]) {
		return 0, false
	}
	return binary.BigEndian.Uint64(cookie[16:]), true
}
