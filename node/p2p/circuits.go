package p2p

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
)

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
			if err := emitter.Emit(event.EvtLocalReachabilityChanged{Reachability: network.ReachabilityUnknown}); err != nil {
				h.cfg.Log.Debug("circuits", "err", err)
			}
			return
		}
	}
}
