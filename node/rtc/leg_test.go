package rtc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v3"
)

func TestSpeechGoesUpUnaltered(t *testing.T) {
	e, c, packets := newEngine(t), newClient(t, true, Slots), speech(t)
	up := make(chan UpFrame, len(packets))
	leg := c.connect(e, LegConfig{Up: func(f UpFrame) {
		f.Payload = slices.Clone(f.Payload)
		up <- f
	}})
	const first, gap = 65500, 25 // the sequence number wraps; 25 ticks of silence in the middle
	stamp := uint32(1<<32 - 20*TickSamples)
	for i, p := range packets {
		if i == 100 {
			stamp += gap * TickSamples
		}
		c.send(uint16(first+i), stamp, i&0xff, p)
		stamp += TickSamples
		f := <-up
		want := uint32(i)
		if i >= 100 {
			want += gap
		}
		if f.Ctr != want || f.Ticks != 1 {
			t.Fatalf("packet %d: ctr %d ticks %d, want ctr %d", i, f.Ctr, f.Ticks, want)
		}
		if !f.HasLevel || f.Level != uint8(i)&0x7f || f.Voice != (i&0x80 != 0) {
			t.Fatalf("packet %d: level %d voice %v has %v", i, f.Level, f.Voice, f.HasLevel)
		}
		if !bytes.Equal(f.Payload, p) {
			t.Fatalf("packet %d is altered", i)
		}
	}
	c.send(uint16(first+len(packets)), stamp, -1, packets[0])
	if f := <-up; f.HasLevel {
		t.Fatal("a packet without a level has one")
	}
	s := leg.Stats()
	if s.Up != uint64(len(packets)+1) || s.State != Connected {
		t.Fatalf("%+v", s)
	}
}

func TestSpeechGoesDownUnaltered(t *testing.T) {
	e, c, packets := newEngine(t), newClient(t, true, Slots), speech(t)
	leg := c.connect(e, LegConfig{})
	if leg.Plays() != Slots || !leg.Sends() {
		t.Fatalf("plays %d sends %v", leg.Plays(), leg.Sends())
	}
	seq, ssrc := map[string]uint16{}, map[string]uint32{}
	for i, p := range packets {
		for s := range Slots {
			f := PlayFrame{Ctr: uint32(i), Ticks: 1, Level: 30, Voice: true, Speaker: uint32(100 + s), Source: uint32(s), Payload: p}
			if err := leg.Play(s, f); err != nil {
				t.Fatal(err)
			}
		}
		for range Slots {
			h := c.hear()
			if !bytes.Equal(h.Payload, p) {
				t.Fatalf("packet %d on %s is altered", i, h.track)
			}
			if i > 0 && (h.SequenceNumber != seq[h.track]+1 || h.SSRC != ssrc[h.track]) {
				t.Fatalf("packet %d on %s: sequence %d after %d", i, h.track, h.SequenceNumber, seq[h.track])
			}
			seq[h.track], ssrc[h.track] = h.SequenceNumber, h.SSRC
			if want := fmt.Sprintf("slot-%d", h.CSRC[0]-100); h.track != want {
				t.Fatalf("speaker %d heard on %s", h.CSRC[0], h.track)
			}
			if level := h.GetExtension(c.levelID); len(level) != 1 || level[0] != 0x80|30 {
				t.Fatalf("level %v", level)
			}
		}
	}
	if err := leg.Play(Slots, PlayFrame{Ticks: 1, Payload: packets[0]}); !errors.Is(err, ErrSlot) {
		t.Fatal(err)
	}
	if err := leg.Play(0, PlayFrame{Ticks: 7, Payload: packets[0]}); !errors.Is(err, ErrFrame) {
		t.Fatal(err)
	}
}

func TestShapes(t *testing.T) {
	for _, c := range []struct {
		send           bool
		receive, plays int
		want           error
	}{
		{true, 3, 3, nil},
		{true, 0, 0, nil},
		{false, 3, 3, nil},
		{false, 2, 2, nil},
		{true, 5, 3, nil},
		{false, 1, 0, ErrMixing},
		{true, 1, 0, ErrMixing},
	} {
		t.Run(fmt.Sprintf("send %v receive %d", c.send, c.receive), func(t *testing.T) {
			e, cl := newEngine(t), newClient(t, c.send, c.receive)
			if c.want != nil {
				if _, _, err := e.Answer(t.Context(), cl.offer(), LegConfig{}); !errors.Is(err, c.want) {
					t.Fatal(err)
				}
				return
			}
			up := make(chan UpFrame, 1)
			leg := cl.connect(e, LegConfig{Up: func(f UpFrame) { up <- f }})
			if leg.Plays() != c.plays || leg.Sends() != c.send {
				t.Fatalf("plays %d sends %v", leg.Plays(), leg.Sends())
			}
			p := []byte{0xfc, 1, 2, 3}
			if c.send {
				cl.send(1, 1, -1, p)
				<-up
			}
			for s := range c.plays {
				if err := leg.Play(s, PlayFrame{Ticks: 1, Payload: p}); err != nil {
					t.Fatal(err)
				}
				if h := cl.hear(); h.track != fmt.Sprintf("slot-%d", s) {
					t.Fatal(h.track)
				}
			}
		})
	}
}

// One receiving m-line is accepted from a caller that mixes.
func TestMixed(t *testing.T) {
	e, c := newEngine(t), newClient(t, false, 1)
	leg := c.connect(e, LegConfig{Mixed: true})
	if err := leg.Play(0, PlayFrame{Ticks: 1, Payload: []byte{0xfc}}); err != nil {
		t.Fatal(err)
	}
	c.hear()
}

func TestUndeclaredStreamIsHeard(t *testing.T) {
	e, c := newEngine(t), newClient(t, true, Slots)
	var kept []string
	for _, l := range strings.SplitAfter(c.offer(), "\n") {
		if !strings.HasPrefix(l, "a=ssrc") {
			kept = append(kept, l)
		}
	}
	up := make(chan UpFrame, 100)
	_, answer, err := e.Answer(t.Context(), strings.Join(kept, ""), LegConfig{Up: func(f UpFrame) { up <- f }})
	if err != nil {
		t.Fatal(err)
	}
	c.accept(answer)
	deadline := time.After(patience)
	for i := 0; ; i++ {
		c.send(uint16(i), uint32(i)*TickSamples, 10, []byte{0xfc, 1})
		select {
		case <-up:
			return
		case <-deadline:
			t.Fatal("nothing came up")
		case <-time.After(Tick):
		}
	}
}

func TestLegEnds(t *testing.T) {
	t.Run("page closed", func(t *testing.T) {
		e, c := newEngine(t), newClient(t, true, Slots)
		var states []State
		leg := c.connect(e, LegConfig{State: func(s State) { states = append(states, s) }})
		if e.Leg(leg.ID()) != leg {
			t.Fatal("the engine does not know its leg")
		}
		c.close()
		select {
		case <-leg.Done():
		case <-time.After(patience):
			t.Fatal("the leg stays")
		}
		if want := []State{Connecting, Connected, Closed}; !slices.Equal(states, want) {
			t.Fatalf("%v, want %v", states, want)
		}
		if e.Leg(leg.ID()) != nil {
			t.Fatal("the engine keeps an ended leg")
		}
		if err := leg.Play(0, PlayFrame{Ticks: 1, Payload: []byte{0xfc}}); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	})
	t.Run("engine closed", func(t *testing.T) {
		e, c := newEngine(t), newClient(t, true, Slots)
		leg := c.connect(e, LegConfig{})
		other, _, err := e.Answer(t.Context(), newClient(t, true, Slots).offer(), LegConfig{}) // never connects
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Play(0, PlayFrame{Ticks: 1, Payload: []byte{0xfc}}); !errors.Is(err, ErrNotConnected) {
			t.Fatal(err)
		}
		_ = e.Close()
		<-leg.Done()
		<-other.Done()
		if _, _, err := e.Answer(t.Context(), newClient(t, true, Slots).offer(), LegConfig{}); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	})
	t.Run("closed while connecting", func(t *testing.T) {
		for range 20 {
			e, c := newEngine(t), newClient(t, true, Slots)
			leg, answer, err := e.Answer(t.Context(), c.offer(), LegConfig{})
			if err != nil {
				t.Fatal(err)
			}
			c.accept(answer)
			leg.Close()
			c.close()
		}
	})
}

func TestManyLegsOneSocket(t *testing.T) {
	e, c := newEngine(t), newClient(t, true, Slots)
	offer := c.offer()
	for range MaxLegs {
		if _, _, err := e.Answer(t.Context(), offer, LegConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := e.Answer(t.Context(), offer, LegConfig{}); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
}

func TestTwoPeopleOneSocket(t *testing.T) {
	e := newEngine(t)
	packets := speech(t)[:50]
	type person struct {
		c   *client
		leg *Leg
		up  chan UpFrame
	}
	var all []person
	for range 3 {
		p := person{c: newClient(t, true, Slots), up: make(chan UpFrame, 100)}
		p.leg = p.c.connect(e, LegConfig{Up: func(f UpFrame) { f.Payload = slices.Clone(f.Payload); p.up <- f }})
		all = append(all, p)
	}
	for i, b := range packets {
		for n, p := range all {
			p.c.send(uint16(i), uint32(i)*TickSamples, 10, append([]byte{b[0]}, byte(n), byte(i)))
		}
		for n, p := range all {
			if f := <-p.up; f.Payload[1] != byte(n) || f.Payload[2] != byte(i) {
				t.Fatalf("leg %d: %v", n, f.Payload)
			}
		}
	}
}

func TestEchoComesBackUnaltered(t *testing.T) {
	e, c, packets := newEngine(t), newClient(t, true, 1), speech(t)[:60]
	theirs := c.connected()
	leg, answer, err := e.Echo(t.Context(), c.offer())
	if err != nil {
		t.Fatal(err)
	}
	c.accept(answer)
	c.await(theirs)
	for deadline := time.Now().Add(patience); leg.Stats().State != Connected; time.Sleep(Tick) {
		if time.Now().After(deadline) {
			t.Fatal("not connected")
		}
	}
	start := time.Now()
	for i, p := range packets {
		c.send(uint16(i), uint32(i)*TickSamples, 10, p)
	}
	for i, p := range packets {
		h := c.hear()
		if i == 0 && time.Since(start) < EchoDelay {
			t.Fatal("the echo is early")
		}
		if !bytes.Equal(h.Payload, p) {
			t.Fatalf("packet %d is altered", i)
		}
	}
}

// What pion calls failed ends the leg; what it calls disconnected does not.
func TestIceStates(t *testing.T) {
	e, c := newEngine(t), newClient(t, true, Slots)
	states := make(chan State, 10)
	leg := c.connect(e, LegConfig{State: func(s State) { states <- s }})
	tell := func(s webrtc.ICETransportState) {
		leg.iceNow.Store(int32(s))
		leg.wake <- struct{}{}
	}
	for _, want := range []State{Connecting, Connected} {
		if s := <-states; s != want {
			t.Fatalf("%v, want %v", s, want)
		}
	}
	tell(webrtc.ICETransportStateDisconnected)
	if s := <-states; s != Disconnected {
		t.Fatal(s)
	}
	if err := leg.Play(0, PlayFrame{Ticks: 1, Payload: opus20}); err != nil {
		t.Fatal(err)
	}
	c.hear()
	tell(webrtc.ICETransportStateConnected)
	if s := <-states; s != Connected {
		t.Fatal(s)
	}
	tell(webrtc.ICETransportStateFailed)
	if s := <-states; s != Closed {
		t.Fatal(s)
	}
	<-leg.Done()
}

func TestAnswerGivesUp(t *testing.T) {
	e, c := newEngine(t), newClient(t, true, Slots)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	offer := c.offer()
	for range MaxLegs + 1 { // refused legs hold no place
		if leg, _, err := e.Answer(ctx, offer, LegConfig{}); err == nil {
			leg.Close()
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if _, _, err := e.Answer(t.Context(), "v=0", LegConfig{}); !errors.Is(err, ErrMalformed) {
		t.Fatal(err)
	}
}
