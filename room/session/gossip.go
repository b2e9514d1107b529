package session

import (
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room"
	"balai/room/ledger"
	"balai/room/sframe"
	"balai/room/wire"
)

// ErrIgnore is Gossip's answer to what may be right but not for me, not yet. Any other error of Gossip is
// false for everybody for ever.
var ErrIgnore = errors.New("ignored")

// ErrFalse is Gossip's answer to what no honest member sends.
var ErrFalse = errors.New("false for everybody")

// maxSkew is how far another's clock may be off.
const maxSkew = 90 * time.Second

// publish seals a record with the epoch in use and sends it.
func (s *Session) publish(topic string, m proto.Message) {
	e, ok := s.keys.sealing()
	if !ok || s.guest {
		return
	}
	plain, err := proto.Marshal(m)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	s.cfg.Ports.Publish(topic, e.SealGossip(s.cfg.Room, s.cfg.Secret.Name(topic), plain))
}

func (s *Session) publishStage(m *wire.StageMessage) { s.publish(StageTopic, m) }

// Gossip takes a sealed message of one of the room's topics and says what pubsub should make of it: nil to
// pass it on, ErrIgnore, or ErrFalse. Any goroutine; never blocks.
func (s *Session) Gossip(topic string, from peer.ID, data []byte) error {
	sh := s.shared.Load()
	if sh == nil || !sh.live {
		return ErrIgnore
	}
	if !s.flood.allow(from, forwards, time.Now()) {
		return errFlood
	}
	plain, err := s.unseal(sh, topic, from, data)
	if err != nil {
		if errors.Is(err, errUnknown) {
			s.post(func() { s.fetchFrom(from) })
		}
		return err
	}
	if topic == OpsTopic {
		return s.takeOps(sh, from, plain)
	}
	return s.takeStage(sh, plain)
}

var (
	errLate    = fmt.Errorf("an older step: %w", ErrIgnore)            // a step that I have left behind
	errUnknown = fmt.Errorf("an epoch or step unknown: %w", ErrIgnore) // one that I should ask for
	errFlood   = fmt.Errorf("too much of it: %w", ErrIgnore)
)

// unseal opens with the epoch that the message names; a step just left still opens.
func (s *Session) unseal(sh *shared, topic string, from peer.ID, data []byte) ([]byte, error) {
	id, step, err := sframe.GossipEpoch(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFalse, err)
	}
	known := false
	for _, e := range sh.keys {
		if e.ID != id {
			continue
		}
		known = true
		if step < e.Step {
			continue
		}
		plain, err := e.OpenGossip(s.cfg.Room, s.cfg.Secret.Name(topic), data)
		proven := sh.proven[room.EpochID(id)]
		switch {
		case errors.Is(err, sframe.ErrStep):
			return nil, errUnknown
		case err != nil && !proven:
			s.post(func() { s.doubt(room.EpochID(id), from) })
			return nil, fmt.Errorf("%w: %w", ErrIgnore, err)
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrFalse, err)
		}
		if !proven || step > e.Step {
			s.post(func() { s.prove(room.EpochID(id), step, time.Now()) })
		}
		return plain, nil
	}
	if known {
		return nil, errLate
	}
	return nil, errUnknown
}

// takeOps passes on what authorities have signed, at the rate that they are allowed. What it leaves out here
// is found by its absence, and fetched.
func (s *Session) takeOps(sh *shared, from peer.ID, plain []byte) error {
	var m wire.OpsMessage
	if proto.Unmarshal(plain, &m) != nil {
		return ErrFalse
	}
	now := time.Now()
	for _, signed := range m.Ops {
		op, id, err := ledger.ParseOp(signed)
		if err != nil || id != s.cfg.Room {
			return ErrFalse
		}
		if _, authority := sh.state.Rank(op.Author); !authority {
			s.post(func() { s.fetchFrom(from) })
			return ErrIgnore
		}
		kind := decisions
		if op.Kind == room.Admit || op.Kind == room.TallyUses {
			kind = admissions
		}
		if !s.flood.allow(op.Author, kind, now) {
			return errFlood
		}
	}
	if !s.post(func() {
		s.addOps(m.Ops, time.Now())
		if m.Handout != nil && s.phase == Live {
			s.takeHandout(m.Handout, time.Now())
		}
	}) {
		return ErrIgnore
	}
	return nil
}

// takeStage checks signature, member, time and rate, then hands the record to the session.
func (s *Session) takeStage(sh *shared, plain []byte) error {
	var m wire.StageMessage
	if proto.Unmarshal(plain, &m) != nil {
		return ErrFalse
	}
	switch r := m.Message.(type) {
	case *wire.StageMessage_Presence:
		return stageRecord(s, sh, r.Presence, wire.DomainPresence, presences, &wire.Presence{}, s.gotPresence)
	case *wire.StageMessage_Beat:
		return s.checkBeat(sh, r.Beat)
	case *wire.StageMessage_Leave:
		return stageRecord(s, sh, r.Leave, wire.DomainLeave, leaves, &wire.Leave{}, s.gotLeave)
	case *wire.StageMessage_Heard:
		return stageRecord(s, sh, r.Heard, wire.DomainHeard, heards, &wire.Heard{}, s.gotHeard)
	case *wire.StageMessage_Chat:
		return stageRecord(s, sh, r.Chat, wire.DomainChat, chats, &wire.Chat{}, s.gotChat)
	case *wire.StageMessage_RelayAd:
		return s.checkAd(sh, r.RelayAd)
	case *wire.StageMessage_Lease:
		return s.checkLease(sh, r.Lease)
	case *wire.StageMessage_Objection:
		return s.checkObjection(sh, r.Objection)
	case *wire.StageMessage_Digest:
		return s.checkDigest(sh, r.Digest)
	case *wire.StageMessage_Reaction:
		return stageRecord(s, sh, r.Reaction, wire.DomainReaction, reactions, &wire.Reaction{}, s.gotReaction)
	}
	return nil // a kind of a later version: pass it on
}

// personal is what every stage record of one person has.
type personal interface {
	proto.Message
	GetRoom() []byte
	GetPeer() []byte
	GetTimeMs() int64
}

func stageRecord[M personal](s *Session, sh *shared, signed *wire.Signed, domain string, kind traffic, m M, got func(peer.ID, M, time.Time)) error {
	p, err := wire.Open(signed, domain, m)
	if err != nil || string(m.GetPeer()) != string(p) || string(m.GetRoom()) != string(s.cfg.Room[:]) {
		return ErrFalse
	}
	now := time.Now()
	if sh.state.Role(p) == room.NoRole || !near(m.GetTimeMs(), now) {
		return ErrIgnore
	}
	if !s.flood.allow(p, kind, now) {
		return errFlood
	}
	if !s.post(func() { got(p, m, now) }) {
		return ErrIgnore
	}
	return nil
}

func (s *Session) checkBeat(sh *shared, signed *wire.Signed) error {
	var b wire.Beat
	p, err := wire.Open(signed, wire.DomainBeat, &b)
	if err != nil || string(b.Room) != string(s.cfg.Room[:]) {
		return ErrFalse
	}
	now := time.Now()
	if !sh.state.Members[p].OnStage && !sh.state.Role(p).Authority() || !near(b.TimeMs, now) {
		return ErrIgnore
	}
	if !s.flood.allow(p, beats, now) {
		return errFlood
	}
	if !s.post(func() { s.gotBeat(p, signed, &b, now) }) {
		return ErrIgnore
	}
	return nil
}

// near tells whether a record's time is within the tolerated skew of mine.
func near(ms int64, now time.Time) bool {
	d := now.Sub(time.UnixMilli(ms))
	return d <= maxSkew && d >= -maxSkew
}
