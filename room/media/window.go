package media

// WindowSize is how far behind the newest counter of a source an entry may still come, in ticks.
const WindowSize = 1024

// Window suppresses duplicates of one source. The zero value takes any counter.
type Window struct {
	top  uint32 // the highest counter taken
	any  bool
	bits [WindowSize / 64]uint64
}

// Fresh reports whether ctr was not taken before and is not too old.
func (w *Window) Fresh(ctr uint32) bool {
	if !w.any || ctr > w.top {
		return true
	}
	if w.top-ctr >= WindowSize {
		return false
	}
	return w.bits[ctr%WindowSize/64]&(1<<(ctr%64)) == 0
}

// Take marks ctr and reports whether it was fresh.
func (w *Window) Take(ctr uint32) bool {
	if !w.Fresh(ctr) {
		return false
	}
	if !w.any || ctr > w.top {
		w.slide(ctr)
	}
	w.bits[ctr%WindowSize/64] |= 1 << (ctr % 64)
	return true
}

// Drop makes ctr fresh again, unless it is too old.
func (w *Window) Drop(ctr uint32) {
	if w.any && ctr <= w.top && w.top-ctr < WindowSize {
		w.bits[ctr%WindowSize/64] &^= 1 << (ctr % 64)
	}
}

func (w *Window) slide(ctr uint32) {
	if !w.any || ctr-w.top >= WindowSize {
		w.bits = [WindowSize / 64]uint64{}
	} else {
		for c := w.top + 1; c <= ctr; c++ {
			w.bits[c%WindowSize/64] &^= 1 << (c % 64)
		}
	}
	w.top, w.any = ctr, true
}
