package rtc

import "sync/atomic"

// Drop is why a packet of the other side went no further.
type Drop uint8

// The reasons. What is dropped below ICE (flood, control, stream) is counted per leg too.
const (
	DropMalformed Drop = iota // not an RTP packet
	DropPadding               // padding longer than the packet, or nothing but padding
	DropCodec                 // another payload type than the negotiated Opus
	DropDuration              // not 1 to 6 whole ticks (RFC 6716 section 3.1)
	DropSize                  // larger than MaxPayload
	DropOld                   // a duplicate, or older than what was handed up
	DropStream                // a second SSRC while the first speaks, or more SSRCs than are followed
	DropControl               // RTCP, which this leg does not need
	DropFlood                 // more packets than any microphone sends
	dropReasons
)

var dropNames = [dropReasons]string{
	"malformed", "padding", "codec", "duration", "size", "old", "stream", "control", "flood",
}

// String names the reason.
func (d Drop) String() string {
	if d < dropReasons {
		return dropNames[d]
	}
	return "unknown"
}

// Stats counts what one leg did since it opened.
type Stats struct {
	State   State
	Up      uint64 // frames handed up
	Down    uint64 // frames played
	Late    uint64 // frames refused by Play with ErrLate
	Dropped map[Drop]uint64
}

// counters are the live Stats; safe for concurrent use.
type counters struct {
	state    atomic.Uint32
	up, down atomic.Uint64
	late     atomic.Uint64
	dropped  [dropReasons]atomic.Uint64
}

func (c *counters) drop(d Drop) { c.dropped[d].Add(1) }

func (c *counters) stats() Stats {
	s := Stats{
		State: State(c.state.Load()), Up: c.up.Load(), Down: c.down.Load(), Late: c.late.Load(),
		Dropped: map[Drop]uint64{},
	}
	for d := range c.dropped {
		if n := c.dropped[d].Load(); n > 0 {
			s.Dropped[Drop(d)] = n
		}
	}
	return s
}
