package p2p

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	lobbyProtocol   protocol.ID = "/balai/lobby/1"
	membersProtocol protocol.ID = "/balai/members/1"
)

// Verdict is what a validator finds of a message.
type Verdict uint8

// Accept passes it on; Ignore drops what may not be known yet; Reject drops what is false for everybody
// for ever, and only that counts against the peer that passed it on.
const (
	Accept Verdict = 1
	Ignore Verdict = 2
	Reject Verdict = 3
)

// TopicConfig says who may take part in a topic and what is done with its messages. from is the peer that
// passed the message on, not its author: messages carry no author, records inside are signed. The
// functions run on several goroutines at once, must not block and must not close the topic.
type TopicConfig struct {
	Peers    func(peer.ID) bool                      // who may send and receive here; nil: everybody the gossip lets in
	Validate func(from peer.ID, data []byte) Verdict // nil: Accept
	Receive  func(from peer.ID, data []byte)         // once for each accepted message of others; nil: none
}

// Gossip is one pubsub instance under a protocol id of its own. Messages carry neither author nor
// signature; their id is the SHA-256 of topic and data, so the same bytes travel once in two minutes.
type Gossip struct {
	h     *Host
	ps    *pubsub.PubSub
	proto protocol.ID
	gate  *memberGate // nil: everybody

	mu       sync.Mutex // taken inside pubsub's own goroutine: never held while calling pubsub
	topics   map[string]*Topic
	flows    map[peer.ID]*flow
	early    map[peer.ID]map[string]struct{} // subscriptions let in to topics not joined here yet
	refused  map[peer.ID]map[string]struct{} // subscriptions that were not let in
	greeting map[peer.ID]struct{}            // being started over with
	scores   map[peer.ID]float64
}

// Topic is one topic joined.
type Topic struct {
	g    *Gossip
	name string
	cfg  TopicConfig
	t    *pubsub.Topic
	sub  *pubsub.Subscription
	stop context.CancelFunc
	done chan struct{}
	once sync.Once
}

// gossips is the two that a host takes part in.
type gossips struct{ lobby, members *Gossip }

// Lobby is the gossip of everybody, on which open rooms are listed.
func (g *gossips) Lobby() *Gossip { return g.lobby }

// Members is the gossip that only the members named by SetMembers see.
func (g *gossips) Members() *Gossip { return g.members }

func newGossip(h *Host, proto protocol.ID, gate *memberGate) (*Gossip, error) {
	g := &Gossip{
		h: h, proto: proto, gate: gate,
		topics: map[string]*Topic{}, flows: map[peer.ID]*flow{}, refused: map[peer.ID]map[string]struct{}{}, early: map[peer.ID]map[string]struct{}{}, greeting: map[peer.ID]struct{}{},
	}
	quiet := slog.New(slog.DiscardHandler)
	score, thresholds := scoring()
	opts := []pubsub.Option{
		pubsub.WithGossipSubProtocols([]protocol.ID{proto}, func(f pubsub.GossipSubFeature, p protocol.ID) bool {
			return p == proto && (f == pubsub.GossipSubFeatureMesh || f == pubsub.GossipSubFeatureIdontwant)
		}),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(messageID),
		pubsub.WithMaxMessageSize(h.cfg.gossipLimit),
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerExchange(false),
		pubsub.WithPeerScore(score, thresholds),
		pubsub.WithPeerScoreInspect(g.noteScores, time.Second),
		pubsub.WithAppSpecificRpcInspector(g.inspect),
		pubsub.WithSubscriptionFilter(subscriptions{g}),
		pubsub.WithPeerFilter(g.mayJoin),
		pubsub.WithValidateQueueSize(256),
		pubsub.WithLogger(quiet),
		pubsub.WithRPCLogger(quiet),
	}
	if gate != nil {
		opts = append(opts, pubsub.WithBlacklist(gate))
	} else {
		opts = append(opts, pubsub.WithBlacklist(openGate{}))
	}
	under := h.host
	if gate != nil {
		under = newMemberHost(h.host, gate)
	}
	ps, err := pubsub.NewGossipSub(h.ctx, under, opts...)
	if err != nil {
		return nil, fmt.Errorf("p2p: gossip %s: %w", proto, err)
	}
	g.ps = ps
	return g, nil
}

// scoring makes the score of a peer fall on invalid messages, that is on Reject, and on abuse of the
// protocol itself; silence, lateness and shared addresses cost nothing.
func scoring() (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	score := &pubsub.PeerScoreParams{
		AppSpecificScore:          func(peer.ID) float64 { return 0 },
		BehaviourPenaltyWeight:    -1,
		BehaviourPenaltyThreshold: 20,
		BehaviourPenaltyDecay:     pubsub.ScoreParameterDecay(time.Minute),
		DecayInterval:             time.Second,
		DecayToZero:               0.01,
		RetainScore:               10 * time.Minute,
		Topics:                    map[string]*pubsub.TopicScoreParams{},
	}
	limits := &pubsub.PeerScoreThresholds{
		GossipThreshold:   -50,
		PublishThreshold:  -100,
		GraylistThreshold: -200,
	}
	return score, limits
}

// topicScoring counts only Reject: the square of the count, times ten, fading over ten minutes.
func topicScoring() *pubsub.TopicScoreParams {
	return &pubsub.TopicScoreParams{
		SkipAtomicValidation:           true,
		TopicWeight:                    1,
		InvalidMessageDeliveriesWeight: -10,
		InvalidMessageDeliveriesDecay:  pubsub.ScoreParameterDecay(10 * time.Minute),
		TimeInMeshQuantum:              time.Second,
	}
}

func messageID(m *pb.Message) string {
	h := sha256.New()
	h.Write([]byte(m.GetTopic()))
	h.Write([]byte{0})
	h.Write(m.GetData())
	return string(h.Sum(nil))
}

// Join takes part in a topic until Close. A topic can be joined once at a time.
func (g *Gossip) Join(topic string, cfg TopicConfig) (*Topic, error) {
	t := &Topic{g: g, name: topic, cfg: cfg, done: make(chan struct{})}
	g.mu.Lock()
	if g.topics[topic] != nil {
		g.mu.Unlock()
		return nil, fmt.Errorf("p2p: topic %q is joined already", topic)
	}
	g.topics[topic] = t
	g.mu.Unlock()
	g.recheck(topic)
	if err := t.start(); err != nil {
		g.forget(topic)
		return nil, fmt.Errorf("p2p: topic %q: %w", topic, err)
	}
	g.regreet()
	return t, nil
}

func (g *Gossip) forget(topic string) {
	g.mu.Lock()
	delete(g.topics, topic)
	g.mu.Unlock()
}

func (t *Topic) start() (err error) {
	ps := t.g.ps
	if err := ps.RegisterTopicValidator(t.name, t.validate, pubsub.WithValidatorInline(true)); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = ps.UnregisterTopicValidator(t.name) // it was registered above
		}
	}()
	if t.t, err = ps.Join(t.name); err != nil {
		return err
	}
	if err := t.t.SetScoreParams(topicScoring()); err != nil {
		return err
	}
	if t.sub, err = t.t.Subscribe(pubsub.WithBufferSize(256)); err != nil {
		return err
	}
	var ctx context.Context
	ctx, t.stop = context.WithCancel(t.g.h.ctx)
	if !t.g.h.enter() {
		t.stop()
		return ErrClosed
	}
	go func() {
		defer t.g.h.wg.Done()
		defer close(t.done)
		t.receive(ctx)
	}()
	return nil
}

func (t *Topic) receive(ctx context.Context) {
	for {
		m, err := t.sub.Next(ctx)
		if err != nil {
			return
		}
		if t.cfg.Receive != nil && m.ReceivedFrom != t.g.h.ID() {
			t.cfg.Receive(m.ReceivedFrom, m.Data)
		}
	}
}

func (t *Topic) validate(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	if from == t.g.h.ID() {
		return pubsub.ValidationAccept
	}
	if t.cfg.Peers != nil && !t.cfg.Peers(from) {
		return pubsub.ValidationIgnore
	}
	if t.cfg.Validate == nil {
		return pubsub.ValidationAccept
	}
	switch t.cfg.Validate(from, m.Data) {
	case Accept:
		return pubsub.ValidationAccept
	case Reject:
		return pubsub.ValidationReject
	default:
		return pubsub.ValidationIgnore
	}
}

// Publish sends data to all peers in the topic. It reaches nobody, without an error, while no peer has
// joined; ErrTooLarge is over 15 KiB, which leaves room for the envelope.
func (t *Topic) Publish(ctx context.Context, data []byte) error {
	if len(data) > maxGossip-1<<10 {
		return ErrTooLarge
	}
	return t.t.Publish(ctx, data)
}

// Peers lists the peers known to be in the topic.
func (t *Topic) Peers() []peer.ID { return t.t.ListPeers() }

// Close leaves the topic and waits for the last Receive.
func (t *Topic) Close() error {
	var err error
	t.once.Do(func() {
		t.sub.Cancel()
		t.stop()
		<-t.done
		if t.g.h.ctx.Err() == nil {
			err = t.t.Close()
			if e := t.g.ps.UnregisterTopicValidator(t.name); err == nil {
				err = e
			}
		}
		t.g.forget(t.name)
	})
	return err
}

// mayJoin is the filter of each topic.
func (g *Gossip) mayJoin(p peer.ID, topic string) bool {
	if g.gate != nil && !g.gate.has(p) {
		return false
	}
	g.mu.Lock()
	t := g.topics[topic]
	g.mu.Unlock()
	return t != nil && (t.cfg.Peers == nil || t.cfg.Peers(p))
}

func (g *Gossip) noteScores(s map[peer.ID]float64) {
	g.mu.Lock()
	g.scores = s
	g.mu.Unlock()
}

// subscriptions lets a peer subscribe to topics joined here in which it may take part, and to a few that
// may be joined later; what is refused is remembered, and the peer greeted when that changes.
type subscriptions struct{ g *Gossip }

const (
	maxEarly         = 64  // subscriptions of one peer to topics not joined here
	maxSubscriptions = 256 // of one peer, remembered as refused
)

// CanSubscribe lets this host join anything.
func (s subscriptions) CanSubscribe(string) bool { return true }

// FilterIncomingSubscriptions keeps what is allowed.
func (s subscriptions) FilterIncomingSubscriptions(from peer.ID, subs []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	kept := subs[:0]
	for _, o := range subs {
		topic := o.GetTopicid()
		switch {
		case !o.GetSubscribe():
			s.g.unrefuse(from, topic)
			kept = append(kept, o)
		case s.g.mayJoin(from, topic) || s.g.letEarly(from, topic):
			kept = append(kept, o)
		default:
			s.g.refuse(from, topic)
		}
	}
	return kept, nil
}

// letEarly notes a subscription to a topic that is not joined here. (Outsiders do not get this far.)
func (g *Gossip) letEarly(p peer.ID, topic string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.topics[topic] == nil && note(g.early, p, topic, maxEarly)
}

// recheck applies the filter of a topic that is being joined to those who subscribed to it before: who may
// not take part is dropped and greeted anew.
func (g *Gossip) recheck(topic string) {
	var all []peer.ID
	g.mu.Lock()
	for p, topics := range g.early {
		if _, ok := topics[topic]; ok {
			all = append(all, p)
			strike(g.early, p, topic)
		}
	}
	g.mu.Unlock()
	for _, p := range all { // the filter is foreign code: not under the lock
		if !g.mayJoin(p, topic) {
			g.refuse(p, topic)
			g.drop(p)
			g.askGreeting(p)
		}
	}
}

func (g *Gossip) refuse(p peer.ID, topic string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	note(g.refused, p, topic, maxSubscriptions)
}

func (g *Gossip) unrefuse(p peer.ID, topic string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	strike(g.refused, p, topic)
	strike(g.early, p, topic)
}

// note enters topic under p, at most limit of them.
func note(m map[peer.ID]map[string]struct{}, p peer.ID, topic string, limit int) bool {
	set := m[p]
	if set == nil {
		set = map[string]struct{}{}
		m[p] = set
	}
	if _, ok := set[topic]; !ok && len(set) >= limit {
		return false
	}
	set[topic] = struct{}{}
	return true
}

func strike(m map[peer.ID]map[string]struct{}, p peer.ID, topic string) {
	if delete(m[p], topic); len(m[p]) == 0 {
		delete(m, p)
	}
}
