package media

import "time"

// RingTime is how long an entry is kept to be sent again; older frames are of no use to anybody.
const RingTime = 400 * time.Millisecond

// Ring keeps the last entries of a link's or a source's stream, oldest overwritten first.
type Ring struct {
	slots []kept
	next  int
}

type kept struct {
	entry  []byte
	at     time.Time
	source uint32
	ctr    uint32
	kind   Kind
}

// NewRing keeps at most n entries.
func NewRing(n int) *Ring { return &Ring{slots: make([]kept, n)} }

// Put copies an entry that passed at now.
func (r *Ring) Put(e *Entry, now time.Time) {
	k := &r.slots[r.next]
	r.next = (r.next + 1) % len(r.slots)
	k.entry = append(k.entry[:0], e.Raw...)
	k.at, k.source, k.ctr, k.kind = now, e.Source, e.Ctr, e.Kind
}

// Get is the entry of that kind, source and counter, if it is not older than RingTime. It is valid until the ring has
// gone round.
func (r *Ring) Get(kind Kind, source, ctr uint32, now time.Time) ([]byte, bool) {
	for i := range r.slots {
		k := &r.slots[i]
		if k.ctr == ctr && k.source == source && k.kind == kind && k.live(now) {
			return k.entry, true
		}
	}
	return nil, false
}

// Newest appends to dst at most n frames of source below ctr, newest first: the redundancy of a bundle whose primary
// is ctr.
func (r *Ring) Newest(dst [][]byte, source, ctr uint32, n int, now time.Time) [][]byte {
	for i := 1; i <= len(r.slots) && n > 0; i++ {
		k := &r.slots[(r.next-i+len(r.slots))%len(r.slots)]
		if k.kind == Frame && k.source == source && k.ctr < ctr && k.live(now) {
			dst = append(dst, k.entry)
			n--
		}
	}
	return dst
}

func (k *kept) live(now time.Time) bool { return len(k.entry) > 0 && now.Sub(k.at) <= RingTime }
