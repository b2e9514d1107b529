package p2p

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"

	"balai/node/p2p/rendezvous"
	"balai/room"
)

const (
	rendezvousProtocol protocol.ID = rendezvous.Protocol

	discoverLimit    = 256 << 10 // bytes of one answer, whoever serves
	discoverPages    = 10
	requestsPerVisit = 32 // requests on one stream
)

// Rendezvous speaks the libp2p rendezvous protocol with points: the connected peers of CommunityNodes.
type Rendezvous struct {
	h *Host

	mu    sync.Mutex // guards table
	table *rendezvous.Registry
}

// Rendezvous is this host's rendezvous client.
func (h *Host) Rendezvous() *Rendezvous { return h.rendezvous }

// Register enters this host's record in namespace ns at point for two hours; register again to renew. The
// error is a refusal by the point (see the libp2p specification for its words) or the connection's.
func (r *Rendezvous) Register(ctx context.Context, point peer.ID, ns string) error {
	ttl := uint64(rendezvous.DefaultTTL / time.Second)
	answer, err := r.ask(ctx, point, &rendezvous.Message{
		Type:     rendezvous.Message_REGISTER.Enum(),
		Register: &rendezvous.Message_Register{Ns: &ns, SignedPeerRecord: r.h.Record(), Ttl: &ttl},
	})
	if err != nil {
		return err
	}
	res := answer.GetRegisterResponse()
	if answer.GetType() != rendezvous.Message_REGISTER_RESPONSE || res == nil {
		return fmt.Errorf("p2p: rendezvous answer: %w", room.Malformed)
	}
	return statusError(res.GetStatus())
}

// Unregister takes this host out of ns at point. The point does not answer.
func (r *Rendezvous) Unregister(ctx context.Context, point peer.ID, ns string) error {
	s, err := r.h.Open(ctx, point, rendezvousProtocol)
	if err != nil {
		return err
	}
	err = s.Write(&rendezvous.Message{
		Type:       rendezvous.Message_UNREGISTER.Enum(),
		Unregister: &rendezvous.Message_Unregister{Ns: &ns},
	})
	return errors.Join(err, s.Close())
}

// Discover asks point who is in ns and returns their signed peer records, not yet verified: hand each to
// Learn. At most 1,000.
func (r *Rendezvous) Discover(ctx context.Context, point peer.ID, ns string) ([][]byte, error) {
	var out [][]byte
	var cookie []byte
	for range discoverPages {
		limit := uint64(rendezvous.MaxPage)
		answer, err := r.ask(ctx, point, &rendezvous.Message{
			Type:     rendezvous.Message_DISCOVER.Enum(),
			Discover: &rendezvous.Message_Discover{Ns: &ns, Limit: &limit, Cookie: cookie},
		})
		if err != nil {
			return out, err
		}
		res := answer.GetDiscoverResponse()
		if answer.GetType() != rendezvous.Message_DISCOVER_RESPONSE || res == nil {
			return out, fmt.Errorf("p2p: rendezvous answer: %w", room.Malformed)
		}
		if err := statusError(res.GetStatus()); err != nil {
			return out, err
		}
		got := res.GetRegistrations()
		for _, g := range got[:min(len(got), rendezvous.MaxPage)] {
			if n := len(g.GetSignedPeerRecord()); n > 0 && n <= maxRecord {
				out = append(out, g.GetSignedPeerRecord())
			}
		}
		if cookie = res.GetCookie(); len(got) == 0 || len(cookie) == 0 {
			break
		}
	}
	return out, nil
}

// ask sends one request and reads its answer.
func (r *Rendezvous) ask(ctx context.Context, point peer.ID, m *rendezvous.Message) (*rendezvous.Message, error) {
	s, err := r.h.Open(ctx, point, rendezvousProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Close() //nolint:errcheck // the answer is all that matters
	s.SetLimit(discoverLimit)
	if until, ok := ctx.Deadline(); ok {
		if err := s.SetDeadline(until); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := s.Write(m); err != nil {
		return nil, err
	}
	var answer rendezvous.Message
	if err := s.Read(&answer); err != nil {
		return nil, fmt.Errorf("p2p: rendezvous: %w", err)
	}
	return &answer, nil
}

// statusError turns a refusal into the closest reason.
func statusError(s rendezvous.Message_ResponseStatus) error {
	var reason room.Reason
	switch s {
	case rendezvous.Message_OK:
		return nil
	case rendezvous.Message_E_NOT_AUTHORIZED:
		reason = room.RateLimited
	case rendezvous.Message_E_UNAVAILABLE, rendezvous.Message_E_INTERNAL_ERROR:
		reason = room.Busy
	case rendezvous.Message_E_INVALID_SIGNED_PEER_RECORD:
		reason = room.BadSignature
	default:
		reason = room.Malformed
	}
	return fmt.Errorf("p2p: rendezvous point says %s: %w", s, reason)
}

// serve makes this host a rendezvous point.
func (r *Rendezvous) serve() error {
	var instance [8]byte
	if _, err := rand.Read(instance[:]); err != nil {
		return err
	}
	r.table = rendezvous.NewRegistry(instance)
	r.h.Handle(rendezvousProtocol, maxControl, func(s *Stream) {
		for range requestsPerVisit {
			var m rendezvous.Message
			if s.Read(&m) != nil {
				return
			}
			answer := r.answer(s.Remote(), &m)
			if answer != nil && s.Write(answer) != nil {
				return
			}
		}
	})
	return nil
}

// answer does what m asks; nil where the protocol has no answer.
func (r *Rendezvous) answer(from peer.ID, m *rendezvous.Message) *rendezvous.Message {
	now := r.h.cfg.Now()
	switch m.GetType() {
	case rendezvous.Message_REGISTER:
		status, ttl := r.register(from, m.GetRegister(), now)
		res := &rendezvous.Message_RegisterResponse{Status: status.Enum()}
		if status == rendezvous.Message_OK {
			res.Ttl = proto.Uint64(uint64(ttl / time.Second))
		}
		return &rendezvous.Message{Type: rendezvous.Message_REGISTER_RESPONSE.Enum(), RegisterResponse: res}
	case rendezvous.Message_UNREGISTER:
		r.mu.Lock()
		r.table.Unregister(m.GetUnregister().GetNs(), string(from))
		r.mu.Unlock()
	case rendezvous.Message_DISCOVER:
		return &rendezvous.Message{Type: rendezvous.Message_DISCOVER_RESPONSE.Enum(), DiscoverResponse: r.discover(m.GetDiscover(), now)}
	}
	return nil
}

func (r *Rendezvous) register(from peer.ID, q *rendezvous.Message_Register, now time.Time) (rendezvous.Message_ResponseStatus, time.Duration) {
	rec, err := openRecord(q.GetSignedPeerRecord())
	if err != nil || rec.PeerID != from {
		return rendezvous.Message_E_INVALID_SIGNED_PEER_RECORD, 0
	}
	if q.GetTtl() > uint64(rendezvous.MaxTTL/time.Second) {
		return rendezvous.Message_E_INVALID_TTL, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table.Register(q.GetNs(), string(from), q.GetSignedPeerRecord(), time.Duration(q.GetTtl())*time.Second, now)
}

func (r *Rendezvous) discover(q *rendezvous.Message_Discover, now time.Time) *rendezvous.Message_DiscoverResponse {
	limit := int(min(q.GetLimit(), rendezvous.MaxPage))
	r.mu.Lock()
	found, cookie, status := r.table.Discover(q.GetNs(), limit, q.GetCookie(), now)
	r.mu.Unlock()
	res := &rendezvous.Message_DiscoverResponse{Status: status.Enum(), Cookie: cookie}
	for _, g := range found {
		left := uint64(g.Until.Sub(now) / time.Second)
		res.Registrations = append(res.Registrations, &rendezvous.Message_Register{Ns: &g.Namespace, SignedPeerRecord: g.Record, Ttl: &left})
	}
	return res
}
