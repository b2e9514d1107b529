package session

import (
	"maps"
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
