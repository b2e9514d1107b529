package session

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

const (
	askPeriod = 2 * time.Second // between looks for what is missing
	lonely    = 6 * time.Second // without a word from anybody, ask whether I am still in
)

// serveLedger answers a member with the ops and keys that it misses.
func (s *Session) serveLedger(ctx context.Context, st Stream, req *wire.LedgerRequest) {
	rep := &wire.LedgerReply{Refused: uint32(room.NoAdmitter)}
	_ = s.call(ctx, func() error { rep = s.ledgerReply(st.Remote(), req, time.Now()); return nil })
	_ = st.SetDeadline(time.Now().Add(stepWait))
	_ = st.Write(rep)
}

func (s *Session) ledgerReply(p peer.ID, req *wire.LedgerRequest, now time.Time) *wire.LedgerReply {
	if s.phase != Live {
		return &wire.LedgerReply{Refused: uint32(room.NoAdmitter)}
	}
	if s.state.Role(p) == room.NoRole {
		r := room.NoAdmitter
		if _, out := s.state.Removed[p]; out {
			r = room.Removed
		}
		return &wire.LedgerReply{Refused: uint32(r)}
	}
	heads, err := ledger.DecodeSeen(req.Heads)
	if err != nil {
		return &wire.LedgerReply{Refused: uint32(room.Malformed)}
	}
	s.touch(p, now)
	rep := &wire.LedgerReply{Genesis: s.ledger.Genesis(), Records: s.liveRecords(), Sources: s.sourceRecords(now)}
	rep.Ops, rep.More = s.ledger.Since(heads, maxOps)
	want := append([][]byte{s.state.Epoch.ID[:]}, req.Epochs...)
	for i, id := range want {
		if len(id) != 16 || i > epochsKept || i > 0 && string(id) == string(want[0]) {
			continue
		}
		if k := s.keys.at(room.EpochID(id)); k >= 0 {
			rep.Keys = append(rep.Keys, keyStep(s.keys.epochs[k]))
		}
	}
	return rep
}

// fetch asks one member. Any goroutine but the session's.
func (s *Session) fetch(ctx context.Context, p peer.ID, req *wire.LedgerRequest) (*wire.LedgerReply, error) {
	ctx, cancel := context.WithTimeout(ctx, stepWait)
	defer cancel()
	st, err := s.cfg.Ports.Open(ctx, p, LedgerProtocol)
	if err != nil {
		return nil, err
	}
	defer st.Reset() //nolint:errcheck // the conversation is over
	if err := st.Write(req); err != nil {
		return nil, err
	}
	var rep wire.LedgerReply
	if err := st.Read(&rep); err != nil {
		return nil, err
	}
	if rep.Refused != 0 {
		return nil, room.Reason(rep.Refused)
	}
	return &rep, nil
}

// fetchFrom asks p for what I miss, once at a time.
func (s *Session) fetchFrom(p peer.ID) {
	if s.phase != Live || s.fetching[p] || p == s.me || len(s.fetching) > 4 || s.ctx.Err() != nil {
		return
	}
	s.fetching[p] = true
	req := &wire.LedgerRequest{Room: s.cfg.Room[:], Heads: ledger.EncodeSeen(s.ledger.Heads())}
	s.wg.Go(func() {
		rep, err := s.fetch(s.ctx, p, req)
		_ = s.call(s.ctx, func() error {
			delete(s.fetching, p)
			if err == nil {
				s.takeReply(rep, p, time.Now())
				return nil
			}
			if errors.Is(err, room.Removed) {
				s.confirmRemoval(p)
			}
			return nil
		})
	})
}

// confirmRemoval believes an authority that I am out; another member may only be ahead of me, or lie.
func (s *Session) confirmRemoval(p peer.ID) {
	if _, authority := s.state.Rank(p); authority || len(s.live) <= 1 {
		s.refuse(room.Removed)
	}
}

func (s *Session) takeReply(rep *wire.LedgerReply, from peer.ID, now time.Time) {
	s.addOps(rep.Ops, now)
	if s.phase.Over() {
		return
	}
	s.meet(rep.Records, from, now)
	for _, src := range rep.Sources {
		s.takeSourceOf(src)
	}
	for _, k := range rep.Keys {
		s.takeKey(k)
	}
	if rep.More {
		s.fetchFrom(from)
	}
}

// compareHeads asks p when it holds ops that I do not.
func (s *Session) compareHeads(p peer.ID, theirs []*wire.Seen) {
	heads, err := ledger.DecodeSeen(theirs)
	if err != nil {
		return
	}
	mine := map[peer.ID]uint64{}
	for _, h := range s.ledger.Heads() {
		mine[h.Author] = h.Seq
	}
	for _, h := range heads {
		if h.Seq > mine[h.Author] {
			s.fetchFrom(p)
			return
		}
	}
}

// askAround looks for what is missing: an epoch without its secret, ops that others name, company.
func (s *Session) askAround(now time.Time) {
	if !s.due.passed(&s.due.ask, now, askPeriod) {
		return
	}
	others := s.others()
	missing := s.keys.at(s.state.Epoch.ID) < 0 || len(s.ledger.Wanted()) > 0
	if missing && len(others) > 0 {
		s.fetchFrom(others[int(now.Unix())%len(others)])
		return
	}
	if len(others) == 0 && len(s.state.Members) > 1 && !s.asking {
		s.asking = true
		s.wg.Go(s.lookForCompany)
	}
}

// others are the live members beside me, in the order of ids.
func (s *Session) others() (out []peer.ID) {
	for p := range s.live {
		if p != s.me && s.state.Role(p) != room.NoRole {
			out = append(out, p)
		}
	}
	sortPeers(out)
	return out
}

// lookForCompany finds members again when all have fallen silent. Its own goroutine.
func (s *Session) lookForCompany() {
	ctx, cancel := s.ctxOf(lonely)
	defer cancel()
	for _, p := range s.cfg.Ports.Candidates(ctx) {
		if ctx.Err() != nil {
			break
		}
		_ = s.call(ctx, func() error { s.fetchFrom(p); return nil })
	}
	select {
	case <-ctx.Done():
	case <-s.done:
	}
	_ = s.call(s.ctx, func() error { s.asking = false; return nil })
}
