package p2p

import (
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
)

// circuitSearch knows whether libp2p's search for reservations was begun and whether it runs. One that begins while its host
// closes would never end (go-libp2p v0.51.0: AutoRelay.Close stops what does not run yet).
type circuitSearch struct {
	begun, runs chan struct{}
	once        [2]sync.Once
}

// searchBegins bounds the wait for a search to run.
const searchBegins = 500 * time.Millisecond

func (c *circuitSearch) init() { c.begun, c.runs = make(chan struct{}), make(chan struct{}) }

func (c *circuitSearch) begin() { c.once[0].Do(func() { close(c.begun) }) }

// asked: the search wants candidates, so it runs.
func (c *circuitSearch) asked() { c.once[1].Do(func() { close(c.runs) }) }

// settle waits until a search that was begun can be stopped.
func (c *circuitSearch) settle() {
	select {
	case <-c.begun:
	default:
		return
	}
	t := time.NewTimer(searchBegins)
	defer t.Stop()
	select {
	case <-c.runs:
	case <-t.C:
	}
}

// seekCircuits makes the search for reservations begin with the first community node, instead of when AutoNAT
// has judged, 15 s after the start: a host that turns out to be public gives them up again.
func (h *Host) seekCircuits() {
	bus := h.host.EventBus()
	sub, err := bus.Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		h.cfg.Log.Error("circuits", "err", err)
		return
	}
	defer sub.Close() //nolint:errcheck // a local bus
	emitter, err := bus.Emitter(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		h.cfg.Log.Error("circuits", "err", err)
		return
	}
	defer emitter.Close() //nolint:errcheck // a local bus
	for {
		select {
		case <-h.ctx.Done():
			return
		case e, ok := <-sub.Out():
			if !ok {
				return
			}
			if !slices.Contains(e.(event.EvtPeerIdentificationCompleted).Protocols, rendezvousProtocol) {
				continue
			}
			h.circuits.begin()
			if err := emitter.Emit(event.EvtLocalReachabilityChanged{Reachability: network.ReachabilityUnknown}); err != nil {
				h.cfg.Log.Debug("circuits", "err", err)
			}
			return
		}
	}
}
