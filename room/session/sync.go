package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

const (
	askPeriod   = 2 * time.Second         // between looks for what is missing
	askApart    = 30 * time.Millisecond   // guests ask one person for a new key so far from each other,
	askWithin   = 1500 * time.Millisecond // as long as all have asked by then: with a second try that is within rekeySwitch
	keylessWait = 8 * time.Second         // an authority that nobody gives the epoch in force draws a new one after this
	lonely      = 6 * time.Second         // without a word from anybody, ask whether I am still in
)

// serveLedger answers a member with the ops and keys that it misses.
func (s *Session) serveLedger(ctx context.Context, st Stream, req *wire.LedgerRequest) {
	rep := &wire.LedgerReply{Refused: uint32(room.NoAdmitter)}
	_ = s.call(ctx, func() error { rep = s.ledgerReply(st.Remote(), req, time.Now()); return nil })
	_ = st.SetDeadline(time.Now().Add(stepWait))
	_ = st.Write(rep)
}

func refuseLedger(r room.Reason) *wire.LedgerReply { return &wire.LedgerReply{Refused: uint32(r)} }

func (s *Session) ledgerReply(p peer.ID, req *wire.LedgerRequest, now time.Time) *wire.LedgerReply {
	if s.phase != Live {
		return refuseLedger(room.NoAdmitter)
	}
	var pass *wire.Pass
	s.takeIntroduction(p, req.Ops, now)
	if s.state.Role(p) == room.NoRole {
		var reason room.Reason
		if pass, reason = s.checkPass(p, req.Pass, now); reason != 0 || s.guest {
			return s.notMember(p)
		}
		req = &wire.LedgerRequest{Room: req.Room, Heads: req.Heads}
	}
	if !s.flood.allow(p, requests, now) {
		return refuseLedger(room.RateLimited) // each may be answered by megabytes
	}
	if req.Leave != nil {
		s.takeLeave(p, req.Leave, now)
		return &wire.LedgerReply{}
	}
	if len(req.Accept) > 0 {
		return s.acceptRoom(p, req.Accept)
	}
	if len(req.Succeed) > 0 {
		return s.askedToAgree(p, req.Succeed, now)
	}
	heads, err := ledger.DecodeSeen(req.Heads)
	if err != nil {
		return refuseLedger(room.Malformed)
	}
	if req.HandoutKey != nil && s.isElsewhere(p, req.HandoutKey, s.presenceOf(p)*5/2, now) {
		return refuseLedger(room.SecondDevice)
	}
	if pass == nil {
		s.touch(p, now)
	}
	records := s.liveRecords()
	if pass != nil && len(req.Heads) > 0 {
		records = nil // she has had them
	}
	rep := &wire.LedgerReply{Pass: s.passFor(p, pass, now), Genesis: s.ledger.Genesis(), Records: records, Sources: s.sourceRecords(now)}
	rep.Ops, rep.More = s.missing(heads)
	// No earlier epoch: its step stands still, and would open what was said before p came.
	for _, id := range slices.Compact([]room.EpochID{s.state.Epoch.ID, s.keys.seal}) {
		if k := s.keys.at(id); k >= 0 {
			rep.Keys = append(rep.Keys, keyStep(s.keys.epochs[k]))
		}
	}
	if l := s.carry.force.Lease(); l != nil {
		rep.Lease = l.Signed
	}
	return rep
}

// notMember refuses a stranger, and shows the op to whom it put out. The reason says whether she is banned now: the op alone
// would not, as a ban that was lifted leaves her out.
func (s *Session) notMember(p peer.ID) *wire.LedgerReply {
	id, out := s.state.Removed[p]
	if !out {
		return refuseLedger(room.NoAdmitter)
	}
	rep := refuseLedger(s.whyOut(p))
	if op, held := s.ledger.Get(id); held {
		rep.Ops = []*wire.Signed{op}
	}
	return rep
}

const (
	maxOps     = 2000    // in one reply
	maxOpBytes = 2 << 20 // in one reply
)

// missing is what somebody with these heads lacks, as much as fits into one reply.
func (s *Session) missing(heads []room.Seen) (ops []*wire.Signed, more bool) {
	ops, more = s.ledger.Since(heads, maxOps)
	size := 0
	for i, op := range ops {
		if size += len(op.Body) + 128; size > maxOpBytes {
			return ops[:i], true
		}
	}
	return ops, more
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
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() })
	defer stop()
	if err := st.Write(req); err != nil {
		return nil, err
	}
	var rep wire.LedgerReply
	if err := st.Read(&rep); err != nil {
		return nil, err
	}
	if rep.Refused != 0 {
		return &rep, room.Reason(rep.Refused)
	}
	return &rep, nil
}

// askGap is the least time between two looks at one member's ops.
const askGap = time.Second

// fetchFrom asks p for what I miss, once at a time and not without a pause.
func (s *Session) fetchFrom(p peer.ID) {
	now := time.Now()
	if now.Sub(s.asked[p]) < askGap {
		return
	}
	s.fetchNow(p, now)
}

func (s *Session) fetchNow(p peer.ID, now time.Time) {
	if s.phase != Live || s.fetching[p] || p == s.me || len(s.fetching) > 4 || s.ctx.Err() != nil {
		return
	}
	s.fetching[p], s.asked[p] = true, now
	req := &wire.LedgerRequest{Room: s.cfg.Room[:], Heads: ledger.EncodeSeen(s.ledger.Locator())}
	if s.guest {
		req.Pass = s.pass // a member's place is in the ledger, which who does not know her shall learn
	}
	s.wg.Go(func() {
		rep, err := s.fetchKnown(s.ctx, p, req)
		_ = s.call(s.ctx, func() error {
			delete(s.fetching, p)
			if err == nil {
				s.takeReply(rep, p, time.Now())
				return nil
			}
			if why := s.provenOut(p, rep); why != 0 {
				s.refuse(why)
			}
			if errors.Is(err, room.NoAdmitter) {
				s.passRefused(time.Now())
			}
			return nil
		})
	})
}

// whyOut is why p is out, of whom the ledger says that she is.
func (s *Session) whyOut(p peer.ID) room.Reason {
	if s.state.Banned[p] {
		return room.Banned
	}
	return room.Removed
}

// provenOut is why I am out, as p says, 0 unless it may be believed that I am: p is an authority that may put me out, or it
// shows the op of one about me that I have not seen. Anybody else may only be ahead of me, or lie. What a moderator says or
// signs puts out no authority: her op would not count, so her word does not either.
func (s *Session) provenOut(p peer.ID, rep *wire.LedgerReply) room.Reason {
	why := room.Reason(rep.GetRefused())
	if why != room.Removed && why != room.Banned {
		return 0
	}
	if s.state.May(p, room.Kick, s.me) {
		return why
	}
	if len(rep.Ops) == 0 {
		return 0
	}
	op, id, err := ledger.ParseOp(rep.Ops[0])
	if err != nil || id != s.cfg.Room || !slices.Contains(op.Targets, s.me) {
		return 0
	}
	_, old := s.ledger.Get(op.ID)
	switch {
	case !s.state.May(op.Author, op.Kind, s.me) || old:
	case op.Kind == room.Ban:
		return why
	case op.Kind == room.Kick:
		return room.Removed // it shows no ban
	}
	return 0
}

func (s *Session) takeReply(rep *wire.LedgerReply, from peer.ID, now time.Time) {
	if s.phase.Over() {
		return
	}
	news := s.takeFetched(rep.Ops, now)
	if s.phase.Over() {
		return
	}
	s.meet(rep.Records, from)
	for _, src := range rep.Sources[:min(len(rep.Sources), maxSources)] {
		s.takeSourceOf(src)
	}
	for _, k := range rep.Keys[:min(len(rep.Keys), epochsKept+1)] {
		s.takeKey(k, now)
	}
	s.takePass(rep.Pass, now)
	if rep.Lease != nil && s.phase == Live {
		_ = s.takeLease(rep.Lease, from, now)
	}
	if rep.More && news {
		s.fetchNow(from, now)
	}
}

// maxStrays is how many decisions that turn out to be nothing are looked at of one reply: each costs signatures.
const maxStrays = 64

// takeFetched takes what somebody answered, in parts of which each is twice as long as the last: after one that was no news
// the rest is not looked at. An honest reply holds nothing that does not link.
func (s *Session) takeFetched(ops []*wire.Signed, now time.Time) (news bool) {
	ops = slices.DeleteFunc(slices.Clone(ops[:min(len(ops), maxOps)]), func(op *wire.Signed) bool {
		_, held := s.ledger.Get(ledgerID(op))
		return held
	})
	for n := maxStrays; len(ops) > 0; n *= 2 {
		part := ops[:min(n, len(ops))]
		ops = ops[len(part):]
		fit := s.atPace(part, now)
		linked := s.addOps(fit, now)
		if news = news || linked; !linked || len(fit) < len(part) || s.phase.Over() {
			break
		}
	}
	return news
}

// atPace leaves out what an authority has written beyond the pace that it is allowed; it is fetched later. Who
// enters takes all: that is history.
func (s *Session) atPace(ops []*wire.Signed, now time.Time) []*wire.Signed {
	if s.phase != Live {
		return ops
	}
	for i, signed := range ops {
		if _, held := s.ledger.Get(ledgerID(signed)); held {
			continue
		}
		op, _, err := ledger.ParseOp(signed)
		if err == nil && !s.flood.allow(op.Author, backlogs, now) {
			return ops[:i]
		}
	}
	return ops
}

// compareHeads asks p when it holds ops that I do not: later ones, or another branch.
func (s *Session) compareHeads(p peer.ID, theirs []*wire.Seen) {
	heads, err := ledger.DecodeSeen(theirs)
	if err != nil {
		return
	}
	for _, h := range heads {
		if _, held := s.ledger.Get(h.Hash); !held {
			s.fetchFrom(p)
			return
		}
	}
}

// askAround looks for what is missing: an epoch without its secret, ops that others name, company.
func (s *Session) askAround(now time.Time) {
	keyless, period := s.keys.at(s.state.Epoch.ID) < 0, askPeriod
	if keyless && s.guest {
		period = askGap
	}
	if !s.due.passed(&s.due.ask, now, period) {
		return
	}
	others := s.others()
	if (keyless || len(s.ledger.Wanted()) > 0) && len(others) > 0 {
		if has := s.idle(s.holders(others)); keyless && len(has) > 0 {
			others = has
		}
		if others = s.idle(others); len(others) > 0 {
			s.fetchFrom(others[s.dice.IntN(len(others))])
		}
		return
	}
	if len(others) == 0 && len(s.state.Members) > 1 && !s.asking {
		s.asking = true
		s.wg.Go(s.lookForCompany)
	}
}

// idle are those of the peers given whom I do not ask just now: one may never answer.
func (s *Session) idle(among []peer.ID) []peer.ID {
	return slices.DeleteFunc(slices.Clone(among), func(p peer.ID) bool { return s.fetching[p] })
}

// askForKey sees to it that the secret of an epoch that the ledger names is soon asked for. No handout holds guests, and all of
// them learn of an epoch at once, so each waits for a while of its own; who speaks does not use it before rekeySwitch.
func (s *Session) askForKey(now time.Time) {
	switch {
	case !s.guest:
		s.due.ask = time.Time{}
	case s.keyOf != s.state.Epoch.ID:
		s.keyOf, s.due.ask = s.state.Epoch.ID, now.Add(s.keyDelay())
	}
}

// keyDelay is how long a guest waits, the longer the more people there are to each of those who can be asked.
func (s *Session) keyDelay() time.Duration {
	each := max(1, int(min(s.carry.digest.people, maxListeners))/max(1, len(s.others())))
	return time.Duration(s.dice.Int64N(int64(min(askWithin, time.Duration(each)*askApart))))
}

// holders are those of the members given who say that they hold the epoch in force.
func (s *Session) holders(among []peer.ID) (out []peer.ID) {
	for _, p := range among {
		if slices.Contains(s.live[p].epochs, s.state.Epoch.ID) {
			out = append(out, p)
		}
	}
	return out
}

// lostKey draws a new epoch when nobody could give me the one in force: who drew it may have gone with it.
func (s *Session) lostKey(now time.Time) {
	rank, authority := s.state.Rank(s.me)
	if s.keys.at(s.state.Epoch.ID) >= 0 || !authority {
		s.keyless = time.Time{}
		return
	}
	if s.keyless.IsZero() {
		s.keyless = now
	}
	if now.Sub(s.keyless) > keylessWait+time.Duration(rank)*rekeyBackup && len(s.holders(s.others())) == 0 {
		s.keyless = time.Time{}
		s.rekey(now, causeLeave)
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
