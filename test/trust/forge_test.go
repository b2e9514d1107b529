package trust

import (
	"testing"
	"time"

	"balai/room/media"
	"balai/room/session"
)

// words 1 to 999 of the liar are honest, those of each attack begin at a thousand of their own.
func heardOf(l *leg, from, to int) (n int, first, last time.Time) {
	for _, w := range l.words("liar", time.Time{}) {
		if w.n < from || w.n >= to {
			continue
		}
		if n++; n == 1 {
			first = w.at
		}
		last = w.at
	}
	return n, first, last
}

// refused is how many frames of a speaker a daemon has refused.
func refused(d *daemon, id, speaker string) uint64 {
	s, _ := d.stats(id, speaker)
	return s.Refused
}

// grows waits until a counter has grown by so much.
func grows(t *testing.T, what string, from uint64, by int, now func() uint64) {
	t.Helper()
	eventually(t, what, func() bool { return now() >= from+uint64(by) })
}

// Trust test 36, in the mesh: a member on stage forges its own frames and another's. Nothing forged is heard for more than
// 0.6 s, and the honest speaker is heard all the time.
func TestForger(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	l := newLiar(t, h.ana.link(h.id, "speaker"), h.ana, h.budi)
	h.budi.until(h.id, "the liar is on stage", func(v session.View) bool { return len(v.Stage) == 2 })
	since := h.watch()
	to := []*daemon{h.budi, h.ana}

	n := 0
	eventually(t, "an honest word of the liar", func() bool {
		l.speak(n, n+20, true, nil, to...)
		n += 20
		got, _, _ := heardOf(h.listens, 0, 1000)
		return got > 10
	})
	liar := l.ID().String()

	was := refused(h.budi, h.id, liar)
	l.speak(1000, 1050, true, func(e []byte) []byte { e[5] ^= 0x08; return e }, to...) // the level
	grows(t, "frames with a changed header are refused", was, 50, func() uint64 { return refused(h.budi, h.id, liar) })
	was = refused(h.budi, h.id, liar)
	l.speak(2000, 2050, true, func(e []byte) []byte { e[len(e)-20] ^= 1; return e }, to...)
	grows(t, "frames with a changed ciphertext are refused", was, 50, func() uint64 { return refused(h.budi, h.id, liar) })
	for _, from := range []int{1000, 2000} {
		if got, _, _ := heardOf(h.listens, from, from+1000); got > 0 {
			t.Errorf("%d forged frames were heard", got)
		}
	}
	l.unsigned(t, h, to)
	l.badBlocks(t, h, to)
	l.another(t, h)
	h.heardAllTheTime(since)
}

// unsigned speaks for three seconds without blocks: it is silenced 0.6 s after the first, and heard again once it signs.
func (l *liar) unsigned(t *testing.T, h *hall, to []*daemon) {
	t.Helper()
	l.speak(3000, 3150, false, nil, to...)
	got, first, last := heardOf(h.listens, 3000, 4000)
	t.Logf("without blocks %d of 150 frames were heard, for %v", got, last.Sub(first))
	if got > 40 { // 0.6 s and a quarter: a figure in frames, which a slow machine does not move
		t.Errorf("without blocks %d frames were heard", got)
	}
	n := 4000
	eventually(t, "who signs again is heard again", func() bool {
		l.speak(n, n+20, true, nil, to...)
		n += 20
		got, _, _ := heardOf(h.listens, 4000, 5000)
		return got > 10
	})
}

// badBlocks signs other frames than it sends: properly sealed twins that differ in what was said.
func (l *liar) badBlocks(t *testing.T, h *hall, to []*daemon) {
	t.Helper()
	for n := 5000; n < 5150; {
		var real [][]byte
		for range 10 {
			began := time.Now()
			e := l.frame(n)
			real = append(real, append([]byte(nil), e...))
			for _, d := range to {
				l.send(d, e)
			}
			n++
			time.Sleep(media.Tick - min(media.Tick, time.Since(began)))
		}
		for _, e := range real {
			e[len(e)-1] ^= 1 // another ciphertext than the one that was sent
		}
		b := l.sign(real...)
		for _, d := range to {
			l.send(d, b)
		}
		l.follow(to[0])
	}
	got, first, last := heardOf(h.listens, 5000, 6000)
	t.Logf("with blocks over other frames %d of 150 were heard, for %v", got, last.Sub(first))
	if got > 40 {
		t.Errorf("with false blocks %d frames were heard", got)
	}
}

// another sends what the honest speaker sent, changed and unchanged, and blocks of its own, in her source.
func (l *liar) another(t *testing.T, h *hall) {
	t.Helper()
	was := refused(h.budi, h.id, h.ana.id)
	sent := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		all := l.tapped(h.ana, media.Frame, time.Now().Add(-100*time.Millisecond))
		for _, e := range all {
			same := append([]byte(nil), e.Raw...)
			header, body := append([]byte(nil), same...), append([]byte(nil), same...)
			header[5] ^= 1
			header[8]++ // a counter to come
			body[len(body)-1] ^= 1
			l.send(h.budi, same, header, body)
			sent += 3
		}
		for _, e := range l.tapped(h.ana, media.Block, time.Now().Add(-100*time.Millisecond)) {
			b := append([]byte(nil), e.Raw...)
			b[20] ^= 1
			l.send(h.budi, b)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if sent < 30 {
		t.Fatalf("only %d frames were forged in another's source", sent)
	}
	grows(t, "another's frames from the wrong hand are refused", was, sent/2, func() uint64 { return refused(h.budi, h.id, h.ana.id) })
}

// Trust test 37: frames that are sent again ten seconds later are not heard again, by whoever sends them.
func TestReplay(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	l := newLiar(t, h.ana.link(h.id, "speaker"), h.ana, h.budi)
	h.budi.until(h.id, "the liar is on stage", func(v session.View) bool { return len(v.Stage) == 2 })
	since := h.watch()
	n := 0
	var old [][]byte
	eventually(t, "an honest word of the liar", func() bool {
		old = l.speak(n, n+50, true, nil, h.budi)
		n += 50
		got, _, _ := heardOf(h.listens, n-50, n)
		return got > 40
	})
	for range 5 { // at once, too: these are of the present key, and not too old
		l.send(h.budi, old[len(old)-6:]...)
	}
	hers := l.tapped(h.ana, media.Frame, time.Now().Add(-time.Second))
	herWords := len(h.listens.words("ana", since.at))
	pause(t, 10*time.Second)
	at := time.Now()
	for range 3 {
		for _, e := range old {
			l.send(h.budi, e)
			time.Sleep(2 * time.Millisecond)
		}
		for _, e := range hers {
			l.send(h.budi, e.Raw)
			time.Sleep(2 * time.Millisecond)
		}
	}
	l.speak(n, n+20, true, nil, h.budi) // so that the link is known to have carried all of it
	eventually(t, "the words after", func() bool { got, _, _ := heardOf(h.listens, n, n+20); return got > 10 })
	for _, w := range h.listens.words("liar", at) {
		if w.n < n {
			t.Fatalf("word %d is heard again", w.n)
		}
	}
	pause(t, 1500*time.Millisecond) // the counters are told once a second
	s, ok := h.budi.stats(h.id, l.ID().String())
	if t.Logf("%d frames said, %d came, %d opened, %d refused", n+20, s.Frames, s.Opened, s.Refused); !ok || s.Opened > uint64(n+20) || s.Frames < uint64(n+20+100) {
		t.Error("frames are opened twice")
	}
	if len(hers) < 30 || herWords < 30 {
		t.Errorf("too little to replay: %d, %d", len(hers), herWords)
	}
	h.heardAllTheTime(since)
}

// Trust test 38: a listener sends audio, sealed and signed as it should be: nobody hears it. On stage the same is heard.
func TestListenerSpeaks(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	l := newLiar(t, h.ana.link(h.id, "listener"), h.ana, h.budi)
	since := h.watch()
	l.speak(0, 150, true, nil, h.ana, h.budi)
	for _, d := range []*daemon{h.ana, h.budi} {
		s, ok := d.stats(h.id, l.ID().String())
		if !ok || s.Refused < 100 || s.Opened > 0 || s.Slot != nil {
			t.Errorf("%s: of a listener %d frames are refused, %d opened", d.name, s.Refused, s.Opened)
		}
	}
	for _, who := range []*leg{h.listens, h.speaks} {
		if got, _, _ := heardOf(who, 0, 1000); got > 0 {
			t.Errorf("%s hears %d frames of a listener", who.name, got)
		}
	}
	h.ana.act(h.id, l.ID().String(), "stage")
	h.budi.until(h.id, "the liar is on stage", func(v session.View) bool { return len(v.Stage) == 2 })
	n := 1000
	eventually(t, "on stage it is heard", func() bool {
		l.speak(n, n+20, true, nil, h.ana, h.budi)
		n += 20
		a, _, _ := heardOf(h.listens, 1000, 9000)
		b, _, _ := heardOf(h.speaks, 1000, 9000)
		return a > 0 && b > 0
	})
	h.heardAllTheTime(since)
}

// Trust test 39: while muted not one frame of the microphone leaves the daemon, whatever is connected again and asked for;
// the program in the browser's place talks all the time.
func TestMuted(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	tap := newLiar(t, h.ana.link(h.id, "listener"), h.ana)
	var quiets int
	flows := func() {
		t.Helper()
		now := time.Now()
		eventually(t, "frames leave", func() bool { return len(tap.tapped(h.ana, media.Frame, now)) > 20 })
	}
	// quiet counts from a moment after the answer, in which what was sent before it arrives.
	quiet := func(what string, do func()) {
		t.Helper()
		time.Sleep(500 * time.Millisecond)
		since := time.Now()
		do()
		pause(t, 1500*time.Millisecond)
		if n := len(tap.tapped(h.ana, media.Frame, since)); n > 0 {
			t.Errorf("%s: %d frames left while muted", what, n)
		}
		if len(tap.tapped(h.ana, media.Record, since)) == 0 {
			t.Errorf("%s: the tap is dead", what)
		}
		quiets++
	}
	nothing := func() {}
	flows()
	h.ana.mute(h.id, true)
	quiet("muted", nothing)
	quiet("frames are asked for again", func() {
		all := tap.tapped(h.ana, media.Frame, time.Now().Add(-5*time.Second))
		tap.ask(h.ana, all[len(all)-1].Source, all[len(all)-1].Ctr)
	})
	quiet("the link is opened again", func() { tap.call(h.ana) })
	quiet("the leg is gone", h.speaks.hangUp)
	h.speaks = attach(h.ana, h.id, "ana")
	quiet("a new leg", nothing)
	h.ana.mute(h.id, false)
	flows()
	other := attach(h.ana, h.id, "ana2") // over the first one, which was on
	quiet("a second leg in place of one that was on", nothing)
	if v, err := h.ana.Room(t.Context(), h.id); err != nil || !v.Me.Muted {
		t.Errorf("a new leg does not mute: %+v, %v", v.Me, err)
	}
	h.ana.mute(h.id, false)
	flows()
	for range 5 {
		h.ana.mute(h.id, false)
		time.Sleep(100 * time.Millisecond)
		h.ana.mute(h.id, true)
	}
	quiet("on and off", nothing)
	h.ana.mute(h.id, false)
	flows()
	other.hangUp()
	h.ana.mute(h.id, true)
	h.ana.mute(h.id, false) // without a leg; the next one mutes again
	attach(h.ana, h.id, "ana3")
	quiet("a leg after a switch without one", nothing)
	t.Logf("%d silences", quiets)
}
