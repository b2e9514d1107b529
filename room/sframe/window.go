package sframe

// replayWindow is how many counters back a frame may still come, in ticks of 20 ms.
const replayWindow = 1024

// window remembers which counters were opened (RFC 3711 §3.3.2, with a floor).
type window struct {
	floor uint32 // nothing below is ever fresh
	top   uint32 // the highest counter marked
	any   bool
	bits  [replayWindow / 64]uint64
}

func newWindow(floor uint32) window { return window{floor: floor} }

func (w *window) fresh(ctr uint32) bool {
	switch {
	case ctr < w.floor:
		return false
	case !w.any || ctr > w.top:
		return true
	case w.top-ctr >= replayWindow:
		return false
	}
	return w.bits[ctr%replayWindow/64]&(1<<(ctr%64)) == 0
}

func (w *window) mark(ctr uint32) {
	if !w.any || ctr > w.top {
		w.slide(ctr)
	}
	w.bits[ctr%replayWindow/64] |= 1 << (ctr % 64)
}

func (w *window) clear(ctr uint32) {
	if w.any && ctr <= w.top && w.top-ctr < replayWindow {
		w.bits[ctr%replayWindow/64] &^= 1 << (ctr % 64)
	}
}

func (w *window) slide(ctr uint32) {
	if !w.any || ctr-w.top >= replayWindow {
		w.bits = [replayWindow / 64]uint64{}
	} else {
		for c := w.top + 1; c < ctr; c++ {
			w.bits[c%replayWindow/64] &^= 1 << (c % 64)
		}
		w.bits[ctr%replayWindow/64] &^= 1 << (ctr % 64)
	}
	w.top, w.any = ctr, true
}
