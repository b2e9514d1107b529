package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/node/api"
	"balai/node/rtc"
	"balai/room"
	"balai/room/invite"
	"balai/room/ledger"
	"balai/room/session"
)

// Limits of what a room says of itself, in bytes: its ad has to fit one gossip message.
const (
	maxName  = 120
	maxTopic = 300
	maxTag   = 48
	maxTags  = 5
	maxLang  = 16
)

var _ api.Backend = (*daemon)(nil)

// Hallway is api.Backend.
func (d *daemon) Hallway() []api.Listing { return d.hall.listings() }

// Create is api.Backend.
func (d *daemon) Create(ctx context.Context, n api.NewRoom) (api.Room, error) {
	p, err := policyOf(n)
	if err != nil {
		return nil, err
	}
	heir, err := d.heirOf(n)
	if err != nil {
		return nil, err
	}
	secret := room.NewSecret()
	g, err := ledger.NewGenesis(d.key, secret, p, heir, time.Now())
	if err != nil {
		return nil, err
	}
	e := entry{id: room.IDOf(d.key.Public(), secret.Nonce()), secret: secret, local: d.local, genesis: g, fresh: true}
	if n.Local != nil {
		e.local = *n.Local
	}
	j, err := d.start(ctx, e)
	if err != nil {
		return nil, err
	}
	return j.api(), j.await(ctx, func(v session.View) bool { return v.State == session.Live })
}

// heirOf is the key of the heir that is named; nil: none.
func (d *daemon) heirOf(n api.NewRoom) (ed25519.PublicKey, error) {
	if n.Heir == "" {
		return nil, nil
	}
	p, err := peer.Decode(n.Heir)
	if err != nil || p == d.key.ID() {
		return nil, fmt.Errorf("the heir is another person's peer id: %w", room.Malformed)
	}
	key, err := identity.PublicOf(p)
	if err != nil {
		return nil, fmt.Errorf("the heir's peer id holds no key: %w", room.Malformed)
	}
	return key, nil
}

func policyOf(n api.NewRoom) (p room.Policy, err error) {
	if p.Visibility, err = room.ParseVisibility(n.Visibility); err != nil {
		return p, err
	}
	p.Name, p.Topic, p.Language, p.Tags = n.Name, n.Topic, n.Language, n.Tags
	p.ConstantRate = n.ConstantRate
	if n.StartsAt != nil {
		p.StartsAt = n.StartsAt.UTC().Truncate(time.Second)
	}
	return p, tidy(&p)
}

// tidy trims the texts of a policy and refuses those that no hallway would list.
func tidy(p *room.Policy) error {
	p.Name, p.Topic, p.Language = strings.TrimSpace(p.Name), strings.TrimSpace(p.Topic), strings.TrimSpace(p.Language)
	switch {
	case p.Name == "":
		return fmt.Errorf("a room needs a name: %w", room.Malformed)
	case len(p.Name) > maxName || len(p.Topic) > maxTopic || len(p.Language) > maxLang || len(p.Tags) > maxTags:
		return fmt.Errorf("a room's name has at most %d bytes, its topic %d, and at most %d tags: %w", maxName, maxTopic, maxTags, room.Malformed)
	}
	texts := []string{p.Name, p.Topic, p.Language}
	var tags []string // nil when there are none, as in a policy that came by the wire
	for _, t := range p.Tags {
		if t = strings.TrimSpace(t); t == "" || len(t) > maxTag {
			return fmt.Errorf("a tag has 1 to %d bytes: %w", maxTag, room.Malformed)
		}
		tags = append(tags, t)
	}
	p.Tags = tags
	for _, s := range append(texts, tags...) {
		if !identity.PlainLine(s) {
			return fmt.Errorf("the room's texts are single lines without control characters and changes of writing direction: %w", room.Malformed)
		}
	}
	return nil
}

// await waits until the room's view is as wanted, or the room is over, or ctx ends.
func (j *joined) await(ctx context.Context, ok func(session.View) bool) error {
	changed := make(chan struct{}, 1)
	stop := j.s.Watch(func(session.Event) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer stop()
	for {
		if v := j.s.View(); ok(v) || v.State.Over() {
			return nil
		}
		select {
		case <-changed:
		case <-j.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// JoinLink is api.Backend.
func (d *daemon) JoinLink(ctx context.Context, link string, local bool) (api.Room, error) {
	inv, err := invite.ParseLink(link)
	if err != nil {
		return nil, err
	}
	if _, err := inv.VerifyOffline(time.Now()); err != nil {
		return nil, err
	}
	e := entry{id: inv.Room(), secret: inv.Secret, local: local, invite: inv}
	if ad, ok := d.hall.find(e.id); ok {
		e.hints = ad.hints
	}
	return d.join(ctx, e)
}

// JoinRoom is api.Backend.
func (d *daemon) JoinRoom(ctx context.Context, id room.ID, local bool) (api.Room, error) {
	e, ok := d.storedRoom(ctx, id)
	ad, listed := d.hall.find(id)
	switch {
	case ok:
		e.local = e.local || local
		e.hints = ad.hints
	case listed:
		e = ad
		e.local = local
	default:
		return nil, session.ErrUnknown
	}
	return d.join(ctx, e)
}

func (d *daemon) join(ctx context.Context, e entry) (api.Room, error) {
	j, err := d.start(ctx, e)
	if err != nil {
		return nil, err
	}
	return j.api(), nil
}

// Room is api.Backend.
func (d *daemon) Room(id room.ID) (api.Room, bool) {
	j := d.joinedRoom(id)
	if j == nil {
		return nil, false
	}
	return j.api(), true
}

// Rooms is api.Backend.
func (d *daemon) Rooms() []api.Room {
	out := []api.Room{}
	for _, j := range d.allRooms() {
		out = append(out, j.api())
	}
	return out
}

// Answer is api.Backend.
func (d *daemon) Answer(ctx context.Context, id room.ID, offer string) (leg, answer string, err error) {
	j := d.joinedRoom(id)
	if j == nil {
		return "", "", session.ErrUnknown
	}
	leg, answer, err = j.answer(ctx, offer)
	return leg, answer, offerError(err)
}

// offerError is an error of the browser leg in the API's words.
func offerError(err error) error {
	switch {
	case errors.Is(err, rtc.ErrMixing):
		return fmt.Errorf("%w: %w", api.ErrNoMix, err)
	case errors.Is(err, rtc.ErrMalformed), errors.Is(err, rtc.ErrUnsupported):
		return fmt.Errorf("%w: %w", api.ErrOffer, err)
	case errors.Is(err, rtc.ErrBusy):
		return fmt.Errorf("%w: %w", room.Busy, err)
	}
	return err
}

// HangUp is api.Backend.
func (d *daemon) HangUp(_ context.Context, id room.ID, leg string) error {
	if j := d.joinedRoom(id); j == nil || !j.hangUp(leg) {
		return api.ErrNoLeg
	}
	return nil
}

// maxEchoes bounds the sound checks at a time.
const maxEchoes = 4

// Echo is api.Backend.
func (d *daemon) Echo(ctx context.Context, offer string) (leg, answer string, err error) {
	l, answer, err := d.rtc.Echo(ctx, offer)
	if err != nil {
		return "", "", offerError(err)
	}
	d.mu.Lock()
	for id, old := range d.echoes {
		select {
		case <-old.Done():
			delete(d.echoes, id)
		default:
		}
	}
	full := d.closing || len(d.echoes) >= maxEchoes
	if !full {
		d.echoes[l.ID()] = l
	}
	d.mu.Unlock()
	if full {
		l.Close()
		return "", "", fmt.Errorf("another sound check is running: %w", room.Busy)
	}
	return l.ID(), answer, nil
}

// EndEcho is api.Backend.
func (d *daemon) EndEcho(_ context.Context, leg string) error {
	d.mu.Lock()
	l := d.echoes[leg]
	delete(d.echoes, leg)
	d.mu.Unlock()
	if l == nil {
		return api.ErrNoLeg
	}
	l.Close()
	return nil
}

// Stats is api.Backend.
func (d *daemon) Stats(id room.ID) api.Stats {
	out := api.Stats{Parents: []api.Parent{}, Links: []api.Link{}, Speakers: []api.Speaker{}}
	j := d.joinedRoom(id)
	if j == nil {
		return out
	}
	v, r, heard := j.s.View(), j.lastReport(), map[peer.ID]int{}
	out.Parents, out.Children, out.Forwarded, out.UpKbps = parentStats(v.Relays), r.Children, r.Forwarded, r.UpKbps
	for _, p := range v.Stage {
		if q, err := peer.Decode(p.PeerID); err == nil {
			heard[q] = p.HeardBy
		}
	}
	var got, lost uint64
	for _, l := range r.Links {
		out.Links = append(out.Links, linkStats(l))
		out.DelayMS = max(out.DelayMS, float64(l.RTT.Microseconds())/2000)
	}
	for _, s := range r.Sources {
		got, lost = got+s.Frames, lost+s.Lost
		out.Speakers = append(out.Speakers, speakerStats(s, heard[s.Peer]))
	}
	if got+lost > 0 {
		out.Loss = float64(lost) / float64(got+lost)
	}
	out.Gaps = lost
	out.Uplink = api.Uplink{Frames: r.Up, Dropped: r.Dropped}
	if leg := j.leg(); leg != nil {
		out.Uplink.Reason = lastDrop(leg.Stats())
	}
	return out
}

// parentStats are those of the relays that I am a child of.
func parentStats(relays []session.RelayView) []api.Parent {
	states, out := map[string]string{"parent": "active", "warm": "warm", "suspect": "suspect"}, []api.Parent{}
	for _, r := range relays {
		if s, mine := states[r.Use]; mine {
			out = append(out, api.Parent{PeerID: r.PeerID, State: s})
		}
	}
	return out
}

func linkStats(l session.LinkReport) api.Link {
	carrier := "datagram"
	if l.Degraded {
		carrier = "stream"
	}
	return api.Link{PeerID: l.Peer.String(), Carrier: carrier, RTTMS: float64(l.RTT.Microseconds()) / 1000, InFrames: l.In, OutFrames: l.Out, Lost: l.Lost}
}

func speakerStats(s session.SourceReport, heardBy int) api.Speaker {
	out := api.Speaker{
		PeerID: s.Peer.String(), HeardBy: heardBy, Frames: s.Frames, Lost: s.Lost, Opened: s.Opened, Refused: s.Refused, Level: int(s.Level),
	}
	if s.Slot >= 0 {
		slot := s.Slot
		out.Slot = &slot
	}
	if !s.LastHeard.IsZero() {
		at := s.LastHeard.UTC()
		out.LastHeard = &at
	}
	return out
}

// lastDrop names the reason for which most of the microphone's packets were dropped.
func lastDrop(s rtc.Stats) string {
	name, most := "", uint64(0)
	for reason, n := range s.Dropped {
		if n > most {
			name, most = reason.String(), n
		}
	}
	return name
}

// here tells whether p is in the room now, as far as the session's view says.
func (j *joined) here(p peer.ID) bool {
	id := p.String()
	v := j.s.View()
	for _, q := range v.Stage {
		if q.PeerID == id {
			return true
		}
	}
	for _, q := range v.AudienceList {
		if q.PeerID == id {
			return true
		}
	}
	return false
}
