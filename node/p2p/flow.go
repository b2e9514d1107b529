package p2p

import (
	"errors"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

// What one peer may pass on. A peer that spends its burst is held to a trickle until it has kept quiet
// for penaltyTime, so that a flood passes on no more than a burst at each hop.
const (
	flowRate    = 100 // messages a second
	flowBurst   = 300
	trickleRate = 5
	penaltyTime = 10 * time.Second
	bytesRate   = 256 << 10 // a second
	bytesBurst  = 2 << 20
)

var errOutsider = errors.New("p2p: not a member")

// flow is what is known of one gossip peer: a token bucket of messages and one of bytes.
type flow struct {
	heard   time.Time // last RPC
	at      time.Time // when the tokens were counted
	tokens  float64
	bytes   float64
	penalty time.Time // trickle until then

	deaf   patience // in no topic known here
	silent patience

	circuit patience // its stream is on a circuit though there is a direct connection
}

func newFlow(now time.Time) *flow {
	return &flow{heard: now, at: now, tokens: flowBurst, bytes: bytesBurst}
}

// take spends a token for a message of size bytes.
func (f *flow) take(size int, now time.Time) bool {
	if dt := now.Sub(f.at).Seconds(); dt > 0 {
		rate := float64(flowRate)
		if now.Before(f.penalty) {
			rate = trickleRate
		}
		f.tokens = min(f.tokens+dt*rate, flowBurst)
		f.bytes = min(f.bytes+dt*bytesRate, bytesBurst)
		f.at = now
	}
	if f.tokens < 1 || f.bytes < float64(size) {
		f.penalty = now.Add(penaltyTime)
		return false
	}
	f.tokens--
	f.bytes -= float64(size)
	return true
}

// inspect sees each RPC before pubsub acts on it: an outsider's is dropped whole, and of a flood only the
// first messages stay.
func (g *Gossip) inspect(from peer.ID, rpc *pubsub.RPC) error {
	now := g.h.cfg.Now()
	if g.gate != nil && !g.gate.has(from) {
		for _, o := range rpc.GetSubscriptions() {
			if o.GetSubscribe() {
				g.refuse(from, o.GetTopicid())
			} else {
				g.unrefuse(from, o.GetTopicid())
			}
		}
		return errOutsider
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.flows[from]
	if f == nil {
		f = newFlow(now)
		g.flows[from] = f
	}
	f.heard = now
	kept := rpc.Publish[:0]
	for _, m := range rpc.GetPublish() {
		if f.take(len(m.GetData()), now) {
			kept = append(kept, m)
		}
	}
	rpc.Publish = kept
	return nil
}
