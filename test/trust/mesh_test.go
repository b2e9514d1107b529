package trust

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/media"
	"balai/room/session"
	"balai/room/sframe"
	"balai/room/wire"
	"balai/test/hostile"
	"balai/test/stalls"
)

// hall is a room with a host who speaks and a listener, each with a leg.
type hall struct {
	ana, budi *daemon
	id        string
	speaks    *leg // of ana, the host
	listens   *leg // of budi
}

func newHall(t *testing.T) *hall {
	t.Helper()
	h := &hall{ana: start(t, "Ana"), budi: start(t, "Budi")}
	h.id = h.ana.open("unlisted")
	h.budi.enter(h.ana.link(h.id, "listener"))
	h.speaks, h.listens = attach(h.ana, h.id, "ana"), attach(h.budi, h.id, "budi")
	h.ana.mute(h.id, false)
	h.listens.hears("ana")
	return h
}

// frames counts how many different words the sealed frames hold that an opener can read.
func frames(list []entry, o *sframe.Opener, opened func(entry, []byte)) (n int) {
	for _, e := range list {
		if plain, err := o.Open(nil, e.Head, e.Body, e.at); err == nil {
			n++
			opened(e, plain)
		}
	}
	return n
}

// kickLimit is after what time who was kicked can decode nothing any more.
const kickLimit = 5 * time.Second

// Trust test 34: who is kicked can decode nothing that is said 5 seconds later, and is cut off within one. The kicked are an
// honest daemon and a hostile peer that ignores the kick; another member taps what is said after it.
func TestKicked(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	kicked := newLiar(t, h.ana.link(h.id, "listener"), h.ana, h.budi)
	stays := newLiar(t, h.ana.link(h.id, "listener"), h.ana, h.budi)
	owner := kicked.sourceOf(h.ana)
	eventually(t, "both tap", func() bool {
		return len(kicked.tapped(h.ana, media.Frame, kicked.at)) > 50 && len(stays.tapped(h.ana, media.Frame, stays.at)) > 50
	})
	stays.follow(h.ana)
	lastKey := stays.key() // all that the kicked one may still have

	at := time.Now()
	h.ana.act(h.id, kicked.ID().String(), "kick")
	h.ana.act(h.id, h.budi.id, "kick")
	done := time.Now()
	for _, d := range []*daemon{h.ana, h.budi} {
		select {
		case cut := <-kicked.linkWith(d).over:
			t.Logf("the kicked peer's link with %s was cut %v after the kick", d.name, cut.Sub(at))
			if stalls.Ran(done, cut) > kickLimit {
				t.Errorf("%s cut the link of a kicked peer only %v after the kick", d.name, cut.Sub(at))
			}
		case <-time.After(patience):
			t.Errorf("%s keeps the link of a kicked peer", d.name)
		}
	}
	v := h.budi.until(h.id, "the kick is told", func(v session.View) bool { return v.State.Over() })
	if v.State != session.Refused || v.Reason != room.Removed.String() {
		t.Errorf("the kicked daemon is %s, %s", v.State, v.Reason)
	}
	if kicked.tryCall(h.ana) == nil {
		t.Error("a kicked peer opens a new link")
	}
	eventually(t, "it is long after the kick, and talk went on", func() bool {
		return stalls.Took(done) > kickLimit+4*time.Second && len(stays.tapped(h.ana, media.Frame, done.Add(kickLimit))) > 150
	})

	if x := kicked.Tapped(); len(x) == 0 || stalls.Ran(done, x[len(x)-1].At) > kickLimit {
		t.Errorf("%d datagrams reached the kicked peer, the last after the cut", len(x))
	} else {
		t.Logf("the last datagram reached the kicked peer %v after the kick", x[len(x)-1].At.Sub(at))
	}
	if w := h.listens.words("ana", done); len(w) > 0 && stalls.Ran(done, w[len(w)-1].at) > kickLimit {
		t.Errorf("the kicked person still heard words %v later", w[len(w)-1].at.Sub(done))
	}
	after := stays.tapped(h.ana, media.Frame, done)
	old, latest := opener(owner, lastKey), time.Time{}
	n := frames(after, old, func(e entry, _ []byte) { latest = e.at })
	t.Logf("of %d frames after the kick the kicked peer's key opens %d, the last %v after it", len(after), n, latest.Sub(at))
	if n > 0 && stalls.Ran(done, latest) > kickLimit {
		t.Error("the kicked peer can decode what was said more than 5 s later")
	}
	theNewEpoch(t, h, stays, kicked, owner, after, done)
}

// theNewEpoch shows that the frames are real: who stayed was handed the new key, and it opens the last of them; no
// handout was for who was kicked.
func theNewEpoch(t *testing.T, h *hall, stays, kicked *liar, owner sframe.Owner, after []entry, done time.Time) {
	t.Helper()
	var e sframe.Epoch
	for _, k := range handouts(stays, kicked.ID().String()) {
		if k.forKicked {
			t.Error("a handout is sealed for the kicked peer")
		}
		if k.step != nil {
			e = sframe.Epoch{N: k.step.N, ID: sframe.EpochID(k.step.Id), Step: k.step.Step, Secret: sframe.Secret(k.step.Secret)}
		}
	}
	if e.N < 2 {
		t.Fatal("who stayed was handed no new key")
	}
	late := 0
	frames(after, opener(owner, e), func(e entry, plain []byte) {
		if w, ok := parse(plain); ok && w.who == "ana" && e.at.After(done.Add(kickLimit)) {
			late++
		}
	})
	if late < 50 {
		t.Errorf("with the new key only %d late words open", late)
	}
	if v, err := h.ana.Room(t.Context(), h.id); err != nil || v.Epoch.N < 2 {
		t.Errorf("the room is at epoch %d, %v", v.Epoch.N, err)
	}
}

func opener(o sframe.Owner, e sframe.Epoch) *sframe.Opener {
	op := sframe.NewOpener(o, 0)
	op.Hold(e, time.Now())
	return op
}

type handout struct {
	step      *wire.KeyStep // nil: not for this peer
	forKicked bool
}

// handouts are those that a member has heard on the room's gossip.
func handouts(l *liar, kicked string) (out []handout) {
	name := l.m.Topic(hostile.OpsTopic)
	for _, rpc := range l.Heard(hostile.Members) {
		for _, p := range rpc.GetPublish() {
			if p.GetTopic() != name {
				continue
			}
			plain, err := l.m.Epoch.OpenGossip(l.m.Room, name, p.GetData())
			var m wire.OpsMessage
			if err != nil || proto.Unmarshal(plain, &m) != nil || m.Handout == nil {
				continue
			}
			var h handout
			for _, k := range m.Handout.Sealed {
				id := identity.ShortID(l.ID())
				h.forKicked = h.forKicked || shortOf(kicked) == string(k.Peer)
				if string(k.Peer) != string(id[:]) {
					continue
				}
				if b, err := l.m.Handout.Open(l.m.Room, sframe.EpochID(m.Handout.Id), k.Enc, k.Ct); err == nil {
					h.step = &wire.KeyStep{}
					if proto.Unmarshal(b, h.step) != nil {
						h.step = nil
					}
				}
			}
			out = append(out, h)
		}
	}
	return out
}

// slack is 10 s, and what a busy chair's clock may be late by.
const slack = 12 * time.Second

// Trust test 35: a newcomer opens nothing that was said more than 10 s before its admission, with all keys that anybody
// gives it, on what another member has recorded. Half of the past is of an earlier epoch.
func TestNewcomer(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	noise := newLiar(t, h.ana.link(h.id, "listener"), h.ana)
	first := newLiar(t, h.ana.link(h.id, "listener"), h.ana)
	owner := first.sourceOf(h.ana)
	began := time.Now()
	pause(t, 5*time.Second)
	h.ana.act(h.id, noise.ID().String(), "kick")
	rekeyed := h.ana.until(h.id, "the next epoch", func(v session.View) bool { return v.Epoch.N == 2 })
	eventuallyWithin(t, 3*patience, "its key has moved on, and the past is long", func() bool {
		v, err := h.ana.Room(t.Context(), h.id)
		if err != nil {
			t.Fatal(err)
		}
		old := 0
		for _, e := range first.tapped(h.ana, media.Frame, began) {
			if time.Since(e.at) > slack {
				old++
			}
		}
		return v.Epoch.Step > rekeyed.Epoch.Step && old > 500
	})
	late := newLiar(t, h.ana.link(h.id, "listener"), h.ana)
	keys := append(allKeys(late, h.ana, first.m.Epoch.ID), allKeys(late, h.budi, first.m.Epoch.ID)...)
	keys = append(keys, late.m.Epoch)
	pause(t, 2*time.Second)

	all := first.tapped(h.ana, media.Frame, began)
	var before []entry
	for _, e := range all {
		if e.at.Before(late.at.Add(-slack)) {
			before = append(before, e)
		}
	}
	if n := frames(before, opener(owner, first.m.Epoch), func(entry, []byte) {}); n < 200 || len(before) < 500 {
		t.Errorf("the past has %d frames, of which its key opens %d", len(before), n)
	}
	opened, past, oldest := 0, 0, time.Time{}
	limit := late.at.Add(-slack - stalls.Stood(late.at.Add(-2*slack), late.at)) // the clock of the key stood still with the machine
	for _, e := range all {
		for _, k := range keys {
			if _, err := opener(owner, k).Open(nil, e.Head, e.Body, e.at); err != nil {
				continue
			}
			if opened++; oldest.IsZero() {
				oldest = e.at
			}
			if e.at.Before(limit) {
				past++
			}
			break
		}
	}
	t.Logf("%d frames, %d of them well older than 10 s at the admission; the newcomer's %d keys open %d, the oldest %v before it",
		len(all), len(before), len(keys), opened, late.at.Sub(oldest))
	if opened < 50 {
		t.Error("the newcomer opens nothing at all")
	}
	if past > 0 {
		t.Errorf("the newcomer opens %d frames of the past", past)
	}
}

// allKeys are those that a member gives to another that asks for an epoch.
func allKeys(l *liar, d *daemon, id sframe.EpochID) (out []sframe.Epoch) {
	l.t.Helper()
	l.connect(d)
	req := &wire.LedgerRequest{Room: l.m.Room[:]}
	var named []byte // by number 3, which once was for this: nothing is given for it
	for _, e := range []sframe.EpochID{id, sframe.EpochID(l.m.Epoch.ID)} {
		named = protowire.AppendBytes(protowire.AppendTag(named, 3, protowire.BytesType), e[:])
	}
	req.ProtoReflect().SetUnknown(named)
	rep, err := l.Fetch(l.ctx, idOf(d), req)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, k := range rep.Keys {
		out = append(out, sframe.Epoch{N: k.N, ID: sframe.EpochID(k.Id), Step: k.Step, Secret: sframe.Secret(k.Secret)})
	}
	return out
}

// Trust test 42: a speaker's daemon is killed and started again: no key and counter seals two different frames.
func TestRestartedSpeaker(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	tap := newLiar(t, h.ana.link(h.id, "listener"), h.ana)
	type place struct {
		source, ctr uint32
		key         byte // epoch and step
	}
	seen, lives, total := map[place]string{}, map[uint32]bool{}, 0
	for life := range 3 {
		since := time.Now()
		again := since.Add(10 * time.Second)
		eventually(t, "the tap hears", func() bool {
			if time.Now().After(again) { // it is a liar, which no daemon looks for
				again = again.Add(10 * time.Second)
				_ = tap.Drop(idOf(h.ana))
				if tap.tryConnect(h.ana) == nil {
					_ = tap.tryCall(h.ana)
				}
			}
			select {
			case <-tap.linkWith(h.ana).over: // a daemon that has just come back may not know it yet
				_ = tap.tryCall(h.ana) // again, if it was too soon
			default:
			}
			return len(tap.tapped(h.ana, media.Frame, since)) > 100
		})
		for _, e := range tap.tapped(h.ana, media.Frame, since) {
			at := place{e.Source, e.Ctr, e.Head[4]}
			if old, ok := seen[at]; ok && old != string(e.Raw) {
				t.Fatalf("life %d: counter %d of source %06x was used twice under one key", life, e.Ctr, e.Source)
			}
			seen[at], lives[e.Source] = string(e.Raw), true
			total++
		}
		if life == 2 {
			break
		}
		h.ana.end(syscall.SIGKILL)
		h.speaks.close()
		h.ana.run()
		h.ana.until(h.id, "the room is back", func(v session.View) bool { return v.State == session.Live && v.Encryption == "on" })
		h.speaks = attach(h.ana, h.id, "ana")
		h.ana.mute(h.id, false)
		if err := tap.Drop(idOf(h.ana)); err != nil {
			t.Fatal(err)
		}
		tap.connect(h.ana)
		tap.call(h.ana)
		h.listens.hears("ana")
	}
	if len(lives) != 3 { // a salt that comes back would be safe only as long as the key has moved on
		t.Errorf("%d sources in 3 lives", len(lives))
	}
	t.Logf("%d frames in 3 lives, of %d sources; %d different (key, counter)", total, len(lives), len(seen))
}

// Trust test 64: after 30 s in which the speaker's program sends not one packet, the first word is heard, and the player
// sees no hole.
func TestSpeechAfterLongSilence(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	citra := start(t, "Citra")
	citra.enter(h.ana.link(h.id, "listener"))
	third := attach(citra, h.id, "citra")
	third.hears("ana")
	for try := 1; ; try++ {
		stood, wrong := h.silence(t, h.listens, third)
		if len(wrong) == 0 {
			return
		}
		if stood < stalls.Much || try == 3 {
			t.Fatal(strings.Join(wrong, "\n"))
		}
		t.Logf("once more: the machine stood still for %v, and what waits too long is dropped: %s", stood, strings.Join(wrong, "; "))
	}
}

// silence lets the speaker be silent for 30 s, and tells what is wrong with what is heard then, and for how long the machine stood
// still while it was heard.
func (h *hall) silence(t *testing.T, ears ...*leg) (stood time.Duration, wrong []string) {
	t.Helper()
	fault := func(format string, a ...any) { wrong = append(wrong, fmt.Sprintf(format, a...)) }
	lastWord := h.speaks.hush(true)
	pause(t, 30*time.Second)
	since := time.Now()
	h.speaks.hush(false)
	for _, l := range ears {
		eventually(t, l.name+" hears words after the silence", func() bool { return len(l.words("ana", since)) >= 50 })
		all := l.words("ana", since)
		if all[0].n != lastWord+1 {
			fault("%s hears from word %d on, the first was %d", l.name, all[0].n, lastWord+1)
		}
		follow := 0
		for i, w := range all[1:] {
			if w.seq == all[i].seq+1 && w.n == all[i].n+1 && w.n <= lastWord+26 {
				follow++
			}
		}
		if follow < 20 {
			fault("%s: of the first 25 words only %d follow one another", l.name, follow)
		}
		before := l.words("ana", since.Add(-time.Minute))
		for i, w := range before {
			if w.n == all[0].n && i > 0 {
				b := before[i-1]
				t.Logf("%s: word %d follows word %d, sequence +%d, timestamp +%.2f s", l.name, w.n, b.n, w.seq-b.seq, float64(w.stamp-b.stamp)/48000)
				if w.seq != b.seq+1 {
					fault("%s: silence looks like loss: sequence +%d", l.name, w.seq-b.seq)
				}
			}
		}
	}
	return stalls.Stood(since.Add(-time.Second), time.Now()), wrong
}

func shortOf(id string) string {
	p, err := decode(id)
	if err != nil {
		panic(fmt.Sprint("impossible: ", err))
	}
	s := identity.ShortID(p)
	return string(s[:])
}
