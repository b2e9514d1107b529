package session

import (
	"testing"
	"time"

	"balai/room"
	"balai/room/sframe"
	"balai/room/wire"
)

// A key at a step near the last one that there is, and then a later step of it, stop nobody's program.
func TestAKeyAtTheLastSteps(t *testing.T) {
	s, now := still(t), time.Now()
	e := sframe.NewEpoch(2)
	s.write(t, room.Op{Kind: room.NewEpoch, Epoch: room.EpochCommit{N: 2, ID: room.EpochID(e.ID), Cause: causeKick}})
	for _, first := range []uint32{1 << 20, lastStep, 1<<32 - 400, 1<<32 - 4} {
		key := func(step uint32) *wire.KeyStep {
			return &wire.KeyStep{N: e.N, Id: e.ID[:], Step: step, Secret: make([]byte, 32)}
		}
		s.takeReply(&wire.LedgerReply{Keys: []*wire.KeyStep{key(first), key(first + 2), key(first + 3)}}, mustKey(t).ID(), now)
		s.keys.drop(room.EpochID(e.ID))
	}
	if !s.takeKey(keyStep(e), now) {
		t.Error("the true key is not taken any more")
	}
}
