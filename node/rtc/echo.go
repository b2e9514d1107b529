package rtc

import (
	"context"
	"slices"
	"time"
)

const (
	// EchoDelay is how long Echo keeps what it hears before it plays it back.
	EchoDelay = time.Second
	echoMax   = 128 // frames kept, more than EchoDelay of any microphone that sends whole ticks
)

// Echo answers an offer with a leg that plays its own microphone back into slot 0 after EchoDelay: the sound check. The
// offer may have one receiving m-line. The leg is the engine's and ends as every leg does. Errors as Answer.
func (e *Engine) Echo(ctx context.Context, offer string) (*Leg, string, error) {
	in := make(chan echoed, echoMax)
	leg, answer, err := e.Answer(ctx, offer, LegConfig{Mixed: true, Up: func(f UpFrame) {
		f.Payload = slices.Clone(f.Payload)
		select {
		case in <- echoed{e.now().Add(EchoDelay), f}:
		default: // a flood; the rest is heard
		}
	}})
	if err != nil {
		return nil, "", err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, "", ErrClosed // Close ends the leg
	}
	e.wg.Go(func() { e.echo(leg, in) })
	return leg, answer, nil
}

type echoed struct {
	at time.Time
	UpFrame
}

// echo plays what was heard when its time has come, until the leg ends.
func (e *Engine) echo(leg *Leg, in <-chan echoed) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		var f echoed
		select {
		case <-leg.Done():
			return
		case f = <-in:
		}
		wait.Reset(f.at.Sub(e.now()))
		select {
		case <-leg.Done():
			return
		case <-wait.C:
		}
		_ = leg.Play(0, PlayFrame{
			Ctr: f.Ctr, Ticks: f.Ticks, Level: f.Level, Voice: f.Voice, Marker: f.Marker,
			Source: 1, Speaker: 1, Payload: f.Payload,
		})
	}
}
