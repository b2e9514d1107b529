package media

import "time"

const (
	// Slots is how many people are heard at once.
	Slots = 3

	smoothing = 0.5
	enterBy   = 6.0 // dB over the weakest
	enterFor  = 60 * time.Millisecond
	holdFor   = time.Second
	expireIn  = 150 * time.Millisecond
	maxHeard  = 64 // sources in the table
)

// Loudest decides which sources have the slots. Up to Slots sources all have one, whatever their level. Beyond that a
// source enters when it is 6 dB over the weakest for 60 ms, but nobody is put out in the first second; a source not
// heard for 150 ms counts as silent; the dominant one is always in; a slot is kept until another needs it. The zero
// value is ready.
type Loudest struct {
	slots    [Slots]voice
	waiting  []voice
	dominant uint32
	any      bool // dominant is set
}

type voice struct {
	source  uint32
	score   float64 // dBov, -127 to 0
	heard   time.Time
	entered time.Time // into the slot
	over    time.Time // waiting: since when over the weakest, or zero
	leads   time.Time // since when over the dominant, or zero
	used    bool
}

// Hear takes a frame of source with its level at now; and gives the source a slot if it earns one.
func (l *Loudest) Hear(source uint32, level Level, now time.Time) {
	v := l.find(source, now)
	if v == nil {
		return
	}
	x := -float64(level)
	if v.heard.IsZero() || now.Sub(v.heard) > expireIn {
		v.score = x
	} else {
		v.score += smoothing * (x - v.score)
	}
	v.heard = now
	l.lead(v, now)
	if slot := l.Slot(source); slot < 0 {
		l.contest(v, now)
	}
}

// Slot is the slot of source, or -1.
func (l *Loudest) Slot(source uint32) int {
	for i := range l.slots {
		if l.slots[i].used && l.slots[i].source == source {
			return i
		}
	}
	return -1
}

// Dominant is the source that leads; false if none was heard.
func (l *Loudest) Dominant() (uint32, bool) { return l.dominant, l.any }

// Remove forgets a source: it left, was muted, or may not speak. Its slot is free.
func (l *Loudest) Remove(source uint32) {
	if i := l.Slot(source); i >= 0 {
		l.slots[i] = voice{}
	}
	for i := range l.waiting {
		if l.waiting[i].source == source {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			break
		}
	}
	if l.any && l.dominant == source {
		l.any = false
	}
}

// find returns the entry of source, making one in a free slot or among the waiting; nil if the table is full.
func (l *Loudest) find(source uint32, now time.Time) *voice {
	if i := l.Slot(source); i >= 0 {
		return &l.slots[i]
	}
	at := -1
	for i := range l.waiting {
		if l.waiting[i].source == source {
			at = i
		}
	}
	for i := range l.slots {
		if l.slots[i].used {
			continue
		}
		v := voice{source: source, entered: now, used: true}
		if at >= 0 {
			v.score, v.heard = l.waiting[at].score, l.waiting[at].heard
			l.waiting = append(l.waiting[:at], l.waiting[at+1:]...)
		}
		l.slots[i] = v
		return &l.slots[i]
	}
	if at < 0 {
		if len(l.waiting) == maxHeard {
			return nil
		}
		l.waiting = append(l.waiting, voice{source: source, used: true})
		at = len(l.waiting) - 1
	}
	return &l.waiting[at]
}

func (v *voice) loud(now time.Time) float64 {
	if now.Sub(v.heard) > expireIn {
		return -float64(Silence)
	}
	return v.score
}

// lead makes v the dominant if there is none, the old one fell silent, or v has been clearly over it long enough.
func (l *Loudest) lead(v *voice, now time.Time) {
	if l.any && l.dominant == v.source {
		return
	}
	d := l.leader()
	switch {
	case d == nil || now.Sub(d.heard) > expireIn:
	case v.score < d.score+enterBy:
		v.leads = time.Time{}
		return
	case v.leads.IsZero():
		v.leads = now
		return
	case now.Sub(v.leads) < enterFor:
		return
	}
	l.dominant, l.any, v.leads = v.source, true, time.Time{}
}

func (l *Loudest) leader() *voice {
	if !l.any {
		return nil
	}
	if i := l.Slot(l.dominant); i >= 0 {
		return &l.slots[i]
	}
	for i := range l.waiting {
		if l.waiting[i].source == l.dominant {
			return &l.waiting[i]
		}
	}
	return nil
}

// contest gives v, which waits, the weakest one's slot if it has earned it.
func (l *Loudest) contest(v *voice, now time.Time) {
	leads := l.any && l.dominant == v.source
	weakest := -1
	for i := range l.slots {
		s := &l.slots[i]
		held := now.Sub(s.entered) < holdFor || l.any && s.source == l.dominant
		if held && !leads {
			continue
		}
		if weakest < 0 || s.loud(now) < l.slots[weakest].loud(now) {
			weakest = i
		}
	}
	if weakest < 0 {
		return
	}
	w := l.slots[weakest]
	if !leads {
		if v.score < w.loud(now)+enterBy {
			v.over = time.Time{}
			return
		}
		if v.over.IsZero() {
			v.over = now
		}
		if now.Sub(v.over) < enterFor {
			return
		}
	}
	in := *v
	in.entered, in.over = now, time.Time{}
	w.over = time.Time{}
	l.slots[weakest], *v = in, w
}
