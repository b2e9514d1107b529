package session

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"balai/room"
	"balai/room/wire"
)

// writes counts what a session writes and how often it waits for the disk.
type writes struct {
	Ports
	waits int
	names map[string]bool
}

func (w *writes) Save(name string, data []byte) error {
	w.waits++
	return w.Ports.Save(name, data)
}

func (w *writes) SaveAll(data map[string][]byte) error {
	w.waits++
	for name := range maps.Keys(data) {
		w.names[name] = true
	}
	return w.Ports.SaveAll(data)
}

// A long ledger is stored in one write, also by who comes back, and in whatever order it came.
func TestALongLedgerIsOneWrite(t *testing.T) {
	simulate(t, 1, func(t *testing.T, w *world) {
		host, _, l := w.stage(1, 0)
		var ops []*wire.Signed
		host.in(func(s *Session) {
			for i := range 100 {
				op, err := s.ledger.Draft(s.cfg.Key, room.Op{Kind: room.Lock + room.Kind(i%2)*(room.Unlock-room.Lock)}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				s.ledger.Add(op)
				ops = append(ops, op)
			}
		})
		slices.Reverse(ops)
		l[0].in(func(s *Session) {
			disk := &writes{Ports: s.cfg.Ports, names: map[string]bool{}}
			s.cfg.Ports = disk
			s.addOps(ops, time.Now())
			s.cfg.Ports = disk.Ports
			if disk.waits != 1 || len(disk.names) != len(ops) {
				t.Errorf("%d ops stored in %d writes", len(disk.names), disk.waits)
			}
		})
	})
}

// A stored ledger that is longer than what may wait for others is taken up whole, in whatever order it lies on the disk.
func TestALongLedgerIsTakenUp(t *testing.T) {
	s := still(t)
	const n = 6000
	var ops []*wire.Signed
	head := s.ledger.LastOfHost()
	grant := s.ownGrant()
	for i, last := 0, head.Hash; i < n; i++ {
		op := wire.Sign(s.cfg.Key, wire.DomainOp, &wire.Op{
			Room: s.cfg.Room[:], Seq: head.Seq + uint64(i) + 1, Prev: last[:], Grant: grant[:], Kind: uint32(room.Lock),
		})
		ops, last = append(ops, op), ledgerID(op)
	}
	before, _ := s.ledger.Since(nil, n)
	ops = append(ops, before...)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
	if err := s.openLedger(s.ledger.Genesis(), ops); err != nil {
		t.Fatal(err)
	}
	if got := len(s.ledger.All()); got != len(ops) {
		t.Errorf("%d of %d", got, len(ops))
	}
}
