package trust

import (
	"testing"
	"time"

	"balai/node/api"
	"balai/room/media"
	"balai/room/session"
	"balai/test/stalls"
)

// The words of each attack begin at a thousand of their own, honest ones at 10,000.
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

// honest speaks as a speaker should until it is heard.
func (l *liar) honest(t *testing.T, h *hall, to []*daemon) {
	t.Helper()
	l.talks++
	from := 10_000 * l.talks
	n := from
	eventually(t, "an honest word of the liar", func() bool {
		l.speak(n, n+20, true, nil, to...)
		n += 20
		got, _, _ := heardOf(h.listens, from, n)
		return got > 10
	})
}

// spoiled speaks frames that something is changed in until fifty of them were refused: a datagram may be lost.
func (l *liar) spoiled(t *testing.T, h *hall, what string, from int, spoil func([]byte) []byte, to []*daemon) {
	t.Helper()
	was, n := refused(h.budi, h.id, l.ID().String()), from
	eventually(t, what, func() bool {
		l.speak(n, n+50, true, spoil, to...)
		n = from + (n-from+50)%900
		return refused(h.budi, h.id, l.ID().String()) >= was+50
	})
}

// silenced lets the liar do 150 frames of something for which it has to be silenced after 0.6 s, and then be honest again. What is
// heard is counted in frames, which a slow machine does not move; one that stood still does: all that has waited before a
// daemon is heard at once. Then it is done once more.
func (l *liar) silenced(t *testing.T, h *hall, what string, from int, to []*daemon, attack func(from int)) {
	t.Helper()
	for try := 1; ; try++ {
		began := time.Now()
		attack(from)
		got, first, last := heardOf(h.listens, from, from+150)
		stood := stalls.Stood(began, time.Now())
		t.Logf("%s: %d of 150 frames were heard, for %v; the machine stood still for %v", what, got, last.Sub(first), stood)
		l.honest(t, h, to)
		if got <= 40 { // 0.6 s and a quarter
			return
		}
		if stood < stalls.Much || try == 3 {
			t.Errorf("%s: %d frames were heard", what, got)
			return
		}
		from += 150
	}
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

	l.honest(t, h, to)

	l.spoiled(t, h, "frames with a changed header are refused", 1000, func(e []byte) []byte { e[5] ^= 0x08; return e }, to) // the level
	l.spoiled(t, h, "frames with a changed ciphertext are refused", 2000, func(e []byte) []byte { e[len(e)-20] ^= 1; return e }, to)
	for _, from := range []int{1000, 2000} {
		if got, _, _ := heardOf(h.listens, from, from+1000); got > 0 {
			t.Errorf("%d forged frames were heard", got)
		}
	}
	l.silenced(t, h, "without blocks", 3000, to, func(from int) { l.speak(from, from+150, false, nil, to...) })
	l.silenced(t, h, "with blocks over other frames", 5000, to, func(from int) { l.badBlocks(from, to) })
	l.another(t, h)
	h.heardAllTheTime(since)
}

// badBlocks signs other frames than it sends: properly sealed twins that differ in what was said.
func (l *liar) badBlocks(from int, to []*daemon) {
	l.t.Helper()
	for n := from; n < from+150; {
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
}

// another sends what the honest speaker sent, changed and unchanged, and blocks of its own, in her source.
func (l *liar) another(t *testing.T, h *hall) {
	t.Helper()
	was, began := refused(h.budi, h.id, h.ana.id), time.Now()
	sent := 0
	eventually(t, "another's frames from the wrong hand are refused", func() bool {
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
		time.Sleep(30 * time.Millisecond)
		return sent >= 30 && time.Since(began) > 2*time.Second && refused(h.budi, h.id, h.ana.id) >= was+uint64(sent/2)
	})
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
	var hers []entry
	eventually(t, "enough of hers to replay", func() bool {
		hers = l.tapped(h.ana, media.Frame, since.at)
		hers = hers[max(0, len(hers)-50):]
		return len(hers) >= 50 && len(h.listens.words("ana", since.at)) >= 30
	})
	pause(t, 10*time.Second)
	at := time.Now()
	again := func() {
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
	}
	again()
	first := n
	eventually(t, "the words after", func() bool { // so that the link is known to have carried all of it
		l.speak(n, n+20, true, nil, h.budi)
		n += 20
		got, _, _ := heardOf(h.listens, first, n)
		return got > 10
	})
	var s api.Speaker
	eventually(t, "the frames that came again are counted", func() bool { // more of them: a datagram may be lost
		if s, _ = h.budi.stats(h.id, l.ID().String()); s.Frames >= uint64(n+100) {
			return true
		}
		again()
		return false
	})
	for _, w := range h.listens.words("liar", at) {
		if w.n < first {
			t.Fatalf("word %d is heard again", w.n)
		}
	}
	if t.Logf("%d frames said, %d came, %d opened, %d refused", n, s.Frames, s.Opened, s.Refused); s.Opened > uint64(n) {
		t.Error("frames are opened twice")
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
		k := 150
		eventually(t, d.name+" refuses frames of a listener", func() bool { // the counters are told once a second, and a datagram may be lost
			if refused(d, h.id, l.ID().String()) >= 100 {
				return true
			}
			l.speak(k, k+20, true, nil, d)
			k = 150 + (k-150+20)%800
			return false
		})
		if s, _ := d.stats(h.id, l.ID().String()); s.Opened > 0 || s.Slot != nil {
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
	// quiet counts from a moment after the answer, in which what was sent before it arrives: half a second in which no frame came
	// and at whose end a record did, so a machine that stands still does not make it.
	quiet := func(what string, do func()) {
		t.Helper()
		at := time.Now()
		eventually(t, what+": no frame leaves for half a second", func() bool {
			last := at
			if all := tap.tapped(h.ana, media.Frame, at); len(all) > 0 {
				last = all[len(all)-1].at
			}
			return len(tap.tapped(h.ana, media.Record, last.Add(500*time.Millisecond))) > 0
		})
		since := time.Now()
		do()
		pause(t, 1500*time.Millisecond)
		eventually(t, what+": the tap lives", func() bool { return len(tap.tapped(h.ana, media.Record, since.Add(1500*time.Millisecond))) > 0 })
		if n := len(tap.tapped(h.ana, media.Frame, since)); n > 0 {
			t.Errorf("%s: %d frames left while muted", what, n)
		}
		quiets++
	}
	nothing := func() {}
	began := time.Now()
	flows()
	h.ana.mute(h.id, true)
	quiet("muted", nothing)
	quiet("frames are asked for again", func() {
		all := tap.tapped(h.ana, media.Frame, began)
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
