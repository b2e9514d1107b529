package session

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

const (
	enterFor      = 30 * time.Second // how long a newcomer looks for somebody who lets in, from the last who had no time for it
	enterMost     = 3 * time.Minute  // and at most
	findWait      = 10 * time.Second // for a round of candidates
	returnAlone   = 4 * time.Second  // an authority that finds nobody goes on alone after this
	firstPause    = 300 * time.Millisecond
	longestPause  = 5 * time.Second
	shadowPause   = time.Second // when I am told that I am here already
	returnForever = 365 * 24 * time.Hour
	asksAtOnce    = 4 // candidates asked together: one that hangs holds up nobody
	unanimous     = 3 // rounds in which all candidates said the same: then it is believed
	maxCandidates = 64
	maxRecords    = 128 // peer records taken of one reply
	returnReplies = 200 // of one member, for a long ledger
)

// final tells whether a refusal by one authority stands for all.
func final(r room.Reason) bool {
	switch r {
	case room.NoAdmitter, room.Busy, room.RateLimited, room.KnockPending, room.NoRelay:
		return false
	}
	return true
}

// entry is one search for entry. It belongs to the goroutine of enter.
type entry struct {
	s      *Session
	start  time.Time
	held   time.Time                 // when somebody was there last who had no time for me
	last   room.Reason               // the last that anybody said
	same   int                       // rounds in which all said it
	second time.Time                 // since when I am told that I am here already
	twin   bool                      // I was told so in the last round
	clocks map[peer.ID]time.Duration // how far those of authorities are ahead of mine that differ too much
}

// enter looks for somebody who lets me in, until it is done, refused or out of time. Its own goroutine.
func (s *Session) enter() {
	limit := enterMost
	if s.cfg.Genesis != nil {
		limit = returnForever
	}
	ctx, cancel := s.ctxOf(limit)
	defer cancel()
	e := &entry{s: s, start: time.Now(), held: time.Now(), last: room.NoAdmitter, clocks: map[peer.ID]time.Duration{}}
	for wait := firstPause; ctx.Err() == nil && (s.cfg.Genesis != nil || time.Since(e.held) < enterFor); wait = min(2*wait, longestPause) {
		if e.round(ctx) || !e.twin && s.mayGoAlone(time.Since(e.start)) {
			return
		}
		if e.twin {
			wait = min(wait, shadowPause)
		}
		pause(ctx, wait)
	}
	if s.ctx.Err() == nil {
		e.refuse(e.last)
	}
}

// refuse ends the search.
func (e *entry) refuse(r room.Reason) {
	_ = e.s.call(e.s.ctx, func() error {
		if e.s.refuse(r); r == room.ClockOff && len(e.clocks) > 0 {
			ahead := slices.Sorted(maps.Values(e.clocks))
			e.s.clockAhead, e.s.clocks = ahead[len(ahead)/2], len(ahead)
		}
		return nil
	})
}

// candidates are whom to ask now.
func (s *Session) candidates(ctx context.Context) []peer.ID {
	ctx, cancel := context.WithTimeout(ctx, findWait)
	defer cancel()
	list := slices.DeleteFunc(slices.Clone(s.cfg.Ports.Candidates(ctx)), func(p peer.ID) bool { return p == s.me || p == "" })
	return list[:min(len(list), maxCandidates)]
}

// round asks every candidate once; done means that there is nothing more to ask.
func (e *entry) round(ctx context.Context) (done bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list := e.s.candidates(ctx)
	said := map[room.Reason]bool{}
	meet, settle := e.s.hello, e.join
	if e.s.cfg.Genesis != nil {
		meet, settle = e.s.askBack, e.back
	}
	for a := range e.s.askAll(ctx, list, meet) {
		err, begun := a.err, a.st != nil
		if err == nil {
			err = settle(ctx, a)
		}
		a.close()
		if err == nil || e.s.phaseNow().Over() {
			return true
		}
		r, proven := refusalIn(err)
		if proven && e.stands(r) {
			e.refuse(r)
			return true
		}
		if said[r] = true; r != 0 {
			e.last = r
		}
		if r == room.Busy || r == room.RateLimited || r == 0 && (begun || errors.Is(err, context.DeadlineExceeded)) {
			e.held = time.Now() // a handshake that broke off: it may be slow, as a machine is that lets in many
		}
		if r == room.ClockOff {
			e.clocks[a.peer] = a.ahead
		}
	}
	e.twin = said[room.SecondDevice]
	return e.agreed(said)
}

// agreed believes what every candidate has said for some rounds, whoever they are. That she is out no host believes: she goes
// in alone.
func (e *entry) agreed(said map[room.Reason]bool) bool {
	host := e.s.View().Me.Role == room.Host.String() && (e.last == room.Removed || e.last == room.Banned)
	if len(said) != 1 || said[0] || !final(e.last) || host {
		e.same = 0
		return false
	}
	if e.same++; e.same < unanimous || !e.stands(e.last) {
		return false
	}
	e.refuse(e.last)
	return true
}

// stands tells whether a refusal ends the search. That I am here already may be the shadow of a process that
// was killed: it stands only when it outlives that.
func (e *entry) stands(r room.Reason) bool {
	if r != room.SecondDevice {
		return final(r)
	}
	if e.second.IsZero() {
		e.second = time.Now()
	}
	return time.Since(e.second) > presenceTTL+presencePeriod
}

// proof is a refusal by somebody who proved to be an authority.
type proof struct{ room.Reason }

func (p proof) Unwrap() error { return p.Reason }

// refusalIn is the reason in an error, 0 for none, and whether an authority gave it.
func refusalIn(err error) (r room.Reason, proven bool) {
	var p proof
	if errors.As(err, &p) {
		return p.Reason, true
	}
	errors.As(err, &r)
	return r, false
}

// asked is a candidate that answered.
type asked struct {
	peer  peer.ID
	err   error
	st    Stream // of a newcomer's handshake
	nonce []byte
	ahead time.Duration     // its clock before mine
	reply *wire.LedgerReply // to one who comes back
}

func (a *asked) close() {
	if a.st != nil {
		_ = a.st.Reset()
	}
}

// askAll asks some candidates at once and gives their answers as they come. Who does not want more ends ctx.
func (s *Session) askAll(ctx context.Context, list []peer.ID, ask func(context.Context, peer.ID) *asked) <-chan *asked {
	todo, out := make(chan peer.ID, len(list)), make(chan *asked)
	for _, p := range list {
		todo <- p
	}
	close(todo)
	left := make(chan struct{}, asksAtOnce)
	for range asksAtOnce {
		s.wg.Go(func() {
			for p := range todo {
				if ctx.Err() != nil {
					break
				}
				a := ask(ctx, p)
				select {
				case out <- a:
				case <-ctx.Done():
					a.close()
				}
			}
			left <- struct{}{}
		})
	}
	s.wg.Go(func() {
		for range asksAtOnce {
			<-left
		}
		close(out)
	})
	return out
}

// phaseNow is the phase, from any goroutine.
func (s *Session) phaseNow() Phase { return s.view.Load().State }

// mayGoAlone lets an authority that found nobody act by itself.
func (s *Session) mayGoAlone(since time.Duration) (alone bool) {
	if s.cfg.Genesis == nil || since < returnAlone {
		return false
	}
	_ = s.call(s.ctx, func() error {
		if _, authority := s.state.Rank(s.me); authority && s.phase == Joining {
			alone = true
			s.goLive(time.Now())
			s.rekey(time.Now(), causeLeave)
		}
		return nil
	})
	return alone
}

// askBack asks p for the ops and keys that I missed while away.
func (s *Session) askBack(ctx context.Context, p peer.ID) *asked {
	a := &asked{peer: p}
	req := &wire.LedgerRequest{Room: s.cfg.Room[:]}
	a.err = s.call(ctx, func() error {
		req.Heads, req.HandoutKey = ledger.EncodeSeen(s.ledger.Locator()), s.toldHandoutKey(time.Now())
		return nil
	})
	if a.err == nil {
		a.reply, a.err = s.fetchKnown(ctx, p, req)
	}
	if a.err != nil && a.reply != nil {
		_ = s.call(ctx, func() error {
			if why := s.provenOut(p, a.reply); why != 0 {
				a.err = proof{why}
			}
			return nil
		})
	}
	return a
}

// back takes what p told and goes in; a long ledger comes in several parts.
func (e *entry) back(ctx context.Context, a *asked) error {
	s := e.s
	for range returnReplies {
		more := false
		err := s.call(s.ctx, func() error {
			if more = s.addOps(a.reply.Ops[:min(len(a.reply.Ops), maxOps)], time.Now()) && a.reply.More; more {
				return nil
			}
			return s.comeBack(a, time.Now())
		})
		if err != nil || !more {
			return err
		}
		if a = s.askBack(ctx, a.peer); a.err != nil {
			return a.err
		}
	}
	return errors.New("no end of ops")
}

// comeBack is the moment of being in again.
func (s *Session) comeBack(a *asked, now time.Time) error {
	if s.phase.Over() {
		return ErrOver
	}
	if s.state.Ended {
		s.phase, s.dirty = Ended, true
		return nil
	}
	if s.state.Role(s.me) == room.NoRole {
		return proof{s.whyOut(s.me)} // by ops that I have verified
	}
	s.arrive(a.reply.Records, a.peer, now)
	s.takeReply(&wire.LedgerReply{Keys: a.reply.Keys, Sources: a.reply.Sources}, a.peer, now)
	s.wasStage = s.state.Members[s.me].OnStage
	s.goLive(now)
	return nil
}

// meet learns the addresses of the members that the other side knows.
func (s *Session) meet(records [][]byte, from peer.ID) (known []peer.ID) {
	for _, r := range records[:min(len(records), maxRecords)] {
		if p := s.cfg.Ports.Learn(r, from); p != "" && p != s.me && s.state.Role(p) != room.NoRole {
			known = append(known, p)
		}
	}
	return known
}

// arrive takes those for live of whom I hear on entering.
func (s *Session) arrive(records [][]byte, from peer.ID, now time.Time) {
	for _, p := range append(s.meet(records, from), from) {
		if s.state.Role(p) != room.NoRole {
			s.hearsay(p, now)
		}
	}
}
