// Package rtc owns the browser leg: one WebRTC connection between this daemon and a browser (or any WHIP sender or WHEP
// player) on the same machine, that carries Opus frames up and three fixed slots down.
// It does not own who is in which slot, encryption between people, or mixing: it neither opens nor makes a frame.
package rtc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

const (
	// Slots is the number of tracks a leg plays: the three loudest speakers.
	Slots = 3
	// MaxPayload is the largest Opus packet carried, in bytes.
	MaxPayload = 1000
	// MaxOffer is the largest offer read, in bytes.
	MaxOffer = 64 << 10
	// MaxLegs is how many legs one Engine holds at a time.
	MaxLegs = 64
	// TickSamples is one tick, 20 ms, in RTP timestamp units (Opus always counts 48 kHz, RFC 7587 section 4.1).
	TickSamples = 960
	// Tick is the unit of every ctr.
	Tick = 20 * time.Millisecond
)

// Refusals of an offer and of a frame; compare with errors.Is.
var (
	// ErrMalformed: the offer is not an SDP offer as RFC 8829 wants it.
	ErrMalformed = errors.New("malformed offer")
	// ErrUnsupported: a sound offer that asks for what this leg does not do; the text says what.
	ErrUnsupported = errors.New("unsupported offer")
	// ErrMixing: exactly one receiving m-line, and the caller did not say that it mixes.
	ErrMixing = errors.New("one receiving track: needs mixing")
	// ErrBusy: MaxLegs legs are open.
	ErrBusy = errors.New("too many legs")
	// ErrClosed: the engine or the leg has ended.
	ErrClosed = errors.New("closed")
	// ErrSlot: the other side has no such slot.
	ErrSlot = errors.New("no such slot")
	// ErrFrame: Ticks or Payload out of bounds.
	ErrFrame = errors.New("not a frame")
	// ErrLate: an old frame whose place in the sequence is unknown or taken.
	ErrLate = errors.New("too late")
	// ErrNotConnected: the leg has no connection yet, or lost it; the frame is not kept.
	ErrNotConnected = errors.New("not connected")
)

// Config is what an Engine needs.
type Config struct {
	Log *slog.Logger     // nil: slog.Default
	Now func() time.Time // nil: time.Now
	// Listen is where the socket binds. The zero value means all own addresses and a free port. Whatever it says, only
	// packets from this machine's own addresses are read, and nothing is sent to any other.
	Listen netip.AddrPort
}

// Engine holds the one UDP socket and all legs that speak through it.
type Engine struct {
	log *slog.Logger
	now func() time.Time
	mux *mux

	mu     sync.Mutex
	closed bool
	legs   map[string]*Leg
	wg     sync.WaitGroup // one per leg
}

// New opens the socket. The caller must Close the engine.
func New(cfg Config) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m, err := listen(cfg.Listen, cfg.Now)
	if err != nil {
		return nil, fmt.Errorf("browser leg: %w", err)
	}
	return &Engine{log: cfg.Log, now: cfg.Now, mux: m, legs: map[string]*Leg{}}, nil
}

// Close ends every leg, waits for them and closes the socket. A second Close does nothing.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		e.wg.Wait()
		return nil
	}
	e.closed = true
	legs := make([]*Leg, 0, len(e.legs))
	for _, l := range e.legs {
		legs = append(legs, l)
	}
	e.mu.Unlock()
	for _, l := range legs {
		l.end()
	}
	e.wg.Wait()
	return e.mux.close()
}

// LegConfig is what the owner of a leg hears of it. Neither function may block, nor call Close of this leg.
type LegConfig struct {
	// Up is called for every frame of the microphone, in order, from one goroutine; Payload is valid during the call only.
	Up func(UpFrame)
	// State is called on every change, from one goroutine; the last call is Closed.
	State func(State)
	// Mixed says that the caller mixes: exactly one receiving m-line is accepted and is slot 0.
	Mixed bool
	// ConstantRate asks the microphone's encoder for packets of one size, in silence too.
	ConstantRate bool
}

// UpFrame is one Opus packet of the microphone.
type UpFrame struct {
	Ctr      uint32 // 20 ms ticks since the leg's first packet; at least the previous frame's Ctr + Ticks
	Ticks    uint8  // duration, 1..6
	Level    uint8  // -dBov, 0 loudest, 127 silence (RFC 6464); meaningless without HasLevel
	HasLevel bool
	Voice    bool // RFC 6464 V bit
	Marker   bool // first of a talkspurt (RFC 7587 section 4.1)
	Payload  []byte
}

// PlayFrame is one Opus packet for a slot.
type PlayFrame struct {
	Ctr     uint32 // ticks of the source's clock
	Ticks   uint8  // duration, 1..6
	Level   uint8  // -dBov, as in UpFrame
	Voice   bool
	Marker  bool
	Lost    uint16 // frames known to be lost (or late) just before this one; 0: the gap, if any, was silence
	Speaker uint32 // CSRC; 0: none
	Source  uint32 // whose clock Ctr is; a change is a source switch
	Payload []byte
}

// State is how a leg is connected.
type State uint8

// The states of a leg. Disconnected is not an end: a leg flaps under loss.
const (
	Connecting   State = 1
	Connected    State = 2
	Disconnected State = 3
	Closed       State = 4
)

// String names the state.
func (s State) String() string {
	switch s {
	case Connecting:
		return "connecting"
	case Connected:
		return "connected"
	case Disconnected:
		return "disconnected"
	case Closed:
		return "closed"
	}
	return "unknown"
}

// Answer takes an SDP offer and returns the leg with the complete SDP answer. There is no trickle and no renegotiation.
// The leg lives until Close, Engine.Close, or 30 s without connectivity. ctx bounds the gathering of addresses only.
// Errors: ErrMalformed, ErrUnsupported, ErrMixing, ErrBusy, ErrClosed.
func (e *Engine) Answer(ctx context.Context, offer string, cfg LegConfig) (*Leg, string, error) {
	p, err := plan(offer, cfg.Mixed)
	if err != nil {
		return nil, "", err
	}
	l, err := e.newLeg(p, cfg)
	if err != nil {
		return nil, "", err
	}
	answer, err := l.open(ctx)
	if err != nil {
		l.abandon()
		return nil, "", err
	}
	return l, answer, nil
}

// Leg returns the open leg of that id, nil without one.
func (e *Engine) Leg(id string) *Leg {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.legs[id]
}
