package session

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

// removedGrace is how long a removed peer stays in the gate, so that it hears why.
const removedGrace = 500 * time.Millisecond

// newLedger starts an empty ledger from a genesis of this room.
func (s *Session) newLedger(genesis *wire.Signed) (*ledger.Ledger, error) {
	g, err := ledger.ParseGenesis(genesis)
	if err != nil {
		return nil, err
	}
	if g.Room() != s.cfg.Room || g.Nonce != s.cfg.Secret.Nonce() {
		return nil, room.WrongRoom
	}
	return ledger.New(genesis)
}

// openLedger takes up a stored ledger, which comes in no order.
func (s *Session) openLedger(genesis *wire.Signed, ops []*wire.Signed) error {
	l, err := s.newLedger(genesis)
	if err != nil {
		return err
	}
	l.Add(inOrder(ops)...)
	s.ledger, s.state, s.dirty = l, l.State(), true
	return nil
}

// inOrder puts each op after those that it names: only some thousands may wait in a ledger, the rest would be refused.
func inOrder(ops []*wire.Signed) []*wire.Signed {
	left, out := make(map[room.OpID]*wire.Signed, len(ops)), make([]*wire.Signed, 0, len(ops))
	for _, op := range ops {
		left[ledgerID(op)] = op
	}
	var put func(id []byte)
	put = func(id []byte) {
		signed := left[[32]byte(id)]
		if signed == nil {
			return
		}
		delete(left, [32]byte(id))
		var op wire.Op
		_ = proto.Unmarshal(signed.Body, &op) // the ledger refuses what cannot be read
		names := [][]byte{op.Prev, op.Grant, op.GetCut().GetHash()}
		for _, seen := range op.Seen {
			names = append(names, seen.Hash)
		}
		for _, n := range names {
			if len(n) == len(room.OpID{}) {
				put(n)
			}
		}
		out = append(out, signed)
	}
	for _, op := range ops {
		id := ledgerID(op)
		put(id[:])
	}
	return out
}

// appendOp writes a decision of mine: it is stored before it counts, and announced unless the caller does.
func (s *Session) appendOp(op room.Op, now time.Time, announce bool) (*wire.Signed, error) {
	signed, err := s.ledger.Draft(s.cfg.Key, op, now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	if err := s.saveLedger(nil, []*wire.Signed{signed}); err != nil {
		return nil, err
	}
	s.ledger.Add(signed)
	s.quote(signed)
	if announce {
		s.publish(OpsTopic, &wire.OpsMessage{Ops: []*wire.Signed{signed}})
	}
	s.afterLedger(now)
	return signed, nil
}

// addOps takes ops from others and tells whether any was news. Those that are linked are stored; the others
// wait in the ledger alone, and are asked for again after a restart.
func (s *Session) addOps(ops []*wire.Signed, now time.Time) (news bool) {
	if s.ledger == nil || len(ops) == 0 {
		return false
	}
	var linked []*wire.Signed
	for i, v := range s.ledger.Add(ops...) {
		switch v.Status {
		case ledger.Added:
			linked = append(linked, ops[i])
			s.quote(ops[i])
			news = true
		case ledger.Pending:
			s.pending[v.ID] = ops[i]
			news = true
		}
	}
	if news {
		s.keep(nil, append(linked, s.takeLinked()...))
		s.afterLedger(now)
	}
	return news
}

// keep stores what others decided, in one write; genesis may be nil. What could not be stored is asked for again after a restart.
func (s *Session) keep(genesis *wire.Signed, ops []*wire.Signed) {
	if s.guest {
		return // she comes by her link again
	}
	if err := s.saveLedger(genesis, ops); err != nil {
		s.cfg.Log.Warn("ledger not stored", "ops", len(ops), "err", err)
	}
}

// keepLedger stores all that is held: a newcomer's, or what a guest knew and did not store when she becomes a member.
func (s *Session) keepLedger() {
	all := s.ledger.All()
	ops := make([]*wire.Signed, len(all))
	for i, e := range all {
		ops[i] = e.Signed
	}
	s.keep(s.ledger.Genesis(), ops)
}

// takeLinked gives the ops that have been linked since they came, and forgets those that never will be.
func (s *Session) takeLinked() (linked []*wire.Signed) {
	for id, op := range s.pending {
		if _, ok := s.ledger.Get(id); ok {
			linked = append(linked, op)
			delete(s.pending, id)
		} else if v := s.ledger.Add(op)[0]; v.Status != ledger.Duplicate && v.Status != ledger.Pending {
			delete(s.pending, id)
		}
	}
	return linked
}

// saveLedger writes ops, and a genesis unless it is nil, all or nothing: each write waits for the disk.
func (s *Session) saveLedger(genesis *wire.Signed, ops []*wire.Signed) error {
	data := make(map[string][]byte, len(ops)+1)
	var err error
	if genesis != nil {
		if data["genesis"], err = proto.Marshal(genesis); err != nil {
			return err
		}
	}
	for _, op := range ops {
		id := ledgerID(op)
		if data["op/"+hex.EncodeToString(id[:])], err = proto.Marshal(op); err != nil {
			return err
		}
	}
	if len(data) == 0 {
		return nil
	}
	return s.cfg.Ports.SaveAll(data)
}

const (
	checkpointEvery  = 10_000    // ops
	checkpointPeriod = time.Hour // at the least, whatever others write meanwhile
)

// checkpoint writes the host's word what state the ops make, for others to compare, when there are many new ones.
func (s *Session) checkpoint(now time.Time) {
	if s.state.Host != s.me || s.ledger.Unchecked() < s.checkEvery || len(s.state.Forked) > 0 || !s.due.passed(&s.due.checkpoint, now, checkpointPeriod) {
		return
	}
	if _, err := s.appendOp(room.Op{Kind: room.Checkpoint}, now, true); err != nil {
		s.cfg.Log.Warn("no checkpoint", "err", err)
	}
}

// afterLedger draws the consequences of a changed ledger.
func (s *Session) afterLedger(now time.Time) {
	old := s.state
	if old == nil {
		old = &room.State{}
	}
	if s.state, s.dirty = s.ledger.State(), true; s.phase == Live {
		s.state = s.withDoubts(s.state, old, now)
	}
	if s.phase != Live {
		return
	}
	if s.state.Ended {
		s.phase = Ended
		return
	}
	_, out := s.state.Removed[s.me]
	switch in := s.state.Role(s.me) != room.NoRole; {
	case in && s.guest:
		s.guest = false
		s.keepLedger()
	case in:
	case !s.guest, out:
		s.refuse(s.whyOut(s.me))
		return
	case s.cutOff(s.ownTrail()):
		s.refuse(room.Revoked)
		return
	}
	if s.state.Epoch.N > old.Epoch.N {
		s.paid()
	}
	s.followRemovals(old, now)
	s.followStage(old)
	if s.state.Epoch.N == 0 {
		s.owe(now, causeCreated)
		s.rekeyIfOwed(now)
	}
	s.takeEarly(now)
	s.followEpoch(now)
	if s.keys.at(s.state.Epoch.ID) < 0 {
		s.askForKey(now)
	}
	s.answerKnocks()
	s.gate(now)
	s.tellMembers(old, now)
}

// followRemovals cuts who is a member no more and asks for a new epoch.
func (s *Session) followRemovals(old *room.State, now time.Time) {
	for p := range old.Members {
		if s.state.Role(p) != room.NoRole {
			continue
		}
		s.forget(p)
		s.grace[p] = now.Add(removedGrace)
		s.owe(now, causeKick)
	}
	for p := range s.live {
		if s.state.Role(p) == room.NoRole {
			s.forget(p)
		}
	}
	for p := range s.state.Removed { // also who was let in beyond a partition, or by a pass, and holds its key
		delete(s.guests, p)
		if _, known := old.Removed[p]; !known {
			s.owe(now, causeKick)
		}
	}
	if newBranch(s.state, old) { // those who came by it with a pass hold the key
		s.carry.cut = now.Add(cutAfter)
		s.owe(now, causeKick)
	}
	s.rekeyIfOwed(now)
}

// newBranch tells whether an invite was revoked with all who came by it, by anybody.
func newBranch(s, old *room.State) bool {
	for id, branch := range s.Revoked {
		if branch && !old.Revoked[id] {
			return true
		}
	}
	for id, by := range s.Closed {
		for p, branch := range by {
			if branch && !old.Closed[id][p] {
				return true
			}
		}
	}
	return false
}

// followStage closes my microphone when my place changes or a moderator mutes me.
func (s *Session) followStage(old *room.State) {
	me := s.state.Members[s.me]
	if me.OnStage != s.wasStage || me.Muted && !old.Members[s.me].Muted {
		s.muted = true
	}
	if me.OnStage && !s.wasStage {
		s.hand = nil
	}
	s.wasStage = me.OnStage
	if low, ok := s.loweredAt(s.me); s.hand != nil && ok && low >= s.hand.Beat && low > 0 {
		s.hand = nil
	}
}

// gate tells pubsub who belongs here.
func (s *Session) gate(now time.Time) {
	peers := make([]peer.ID, 0, len(s.state.Members)+len(s.grace))
	for p := range s.state.Members {
		peers = append(peers, p)
	}
	var leaving []peer.ID
	for p, until := range s.grace {
		if _, in := s.state.Members[p]; now.Before(until) && !in {
			peers, leaving = append(peers, p), append(leaving, p)
		}
	}
	slices.Sort(peers)
	if s.guest {
		peers = nil // I am in no gossip
	}
	s.cfg.Ports.Members(slices.Compact(peers), leaving)
	if l := s.carry.force.Lease(); l != nil { // they need not be members
		for _, ad := range l.Ads {
			s.cfg.Ports.Learn(ad.Record, ad.Peer)
		}
	}
}

// introduce is how soon a newcomer hears of me.
const introduce = 500 * time.Millisecond

// tellMembers sends an event for each member whose entry changed.
func (s *Session) tellMembers(old *room.State, now time.Time) {
	for p, m := range s.state.Members {
		if _, was := old.Members[p]; !was && s.due.presence.After(now.Add(introduce)) {
			s.due.presence = now.Add(introduce)
		}
		if o, was := old.Members[p]; !was || o.Role != m.Role || o.OnStage != m.OnStage || o.Muted != m.Muted {
			v := s.memberView(p)
			s.emit(Event{Kind: EventMember, Member: &v})
		}
	}
}

// act is Act in the session's goroutine.
func (s *Session) act(kind room.Kind, target peer.ID, reason string) error {
	if s.phase != Live {
		return ErrOver
	}
	if kind == room.Decline && s.isAsked(target) {
		return s.agree(target, false)
	}
	if !s.state.May(s.me, kind, target) {
		return ErrForbidden
	}
	if !s.flood.allow(s.me, decisions, time.Now()) {
		return fmt.Errorf("at most %v decisions a minute: %w", 60*rates[decisions].second, room.RateLimited)
	}
	if !identity.PlainLine(reason) {
		return fmt.Errorf("a reason is one line without control characters and changes of writing direction: %w", room.Malformed)
	}
	op := room.Op{Kind: kind, Reason: reason}
	if target != "" {
		op.Targets = []peer.ID{target}
	}
	switch kind {
	case room.Admit:
		return s.admitByName(target)
	case room.Decline:
		if s.knocks[target] == nil {
			return ErrUnknown
		}
	case room.Lower:
		h, up := s.handOf(target)
		if !up {
			return nil
		}
		op.Beat = h.Beat
	case room.Unban, room.Lock, room.Unlock, room.End, room.Ban:
	case room.Vouch, room.Unvouch:
		if target == s.me || s.state.Role(target) != room.NoRole {
			return fmt.Errorf("only a community node can be vouched for, and this is a member: %w", room.Malformed)
		}
	default:
		if _, guest := s.guests[target]; s.state.Role(target) == room.NoRole && !(guest && kind == room.Kick) {
			return ErrUnknown
		}
	}
	if by := s.guests[target].by; kind == room.Ban && len(by.chain) > 0 && (s.me == s.state.Host || s.me == by.issuer) {
		op.Invite = by.chain[len(by.chain)-1]
	}
	_, err := s.appendOp(op, time.Now(), true)
	return err
}

func (s *Session) headOf(p peer.ID) (uint64, room.OpID) {
	for _, h := range s.ledger.Heads() {
		if h.Author == p {
			return h.Seq, h.Hash
		}
	}
	return 0, room.OpID{}
}

// mute is Mute in the session's goroutine.
func (s *Session) mute(muted bool) error {
	if s.phase != Live {
		return ErrOver
	}
	me := s.state.Members[s.me]
	if !muted && (!me.OnStage || me.Muted) {
		return ErrForbidden
	}
	if s.muted != muted {
		s.muted, s.dirty = muted, true
		s.due.presence = time.Time{}
		s.replan(time.Now()) // before the answer: a mute that was answered is a mute
	}
	return nil
}

// leave is Leave in the session's goroutine.
func (s *Session) leave() error {
	if s.phase.Over() {
		return ErrOver
	}
	s.phase, s.dirty = Left, true // goodbye is said at the end of Run
	return nil
}

// ctxOf bounds work that the session started by its own life.
func (s *Session) ctxOf(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, d)
}

func ledgerID(op *wire.Signed) room.OpID { return ledger.IDOf(op) }
