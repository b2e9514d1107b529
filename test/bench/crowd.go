package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/pion/webrtc/v3"
	"google.golang.org/protobuf/proto"

	"balai/node/p2p"
	"balai/room/media"
	"balai/room/overlay"
	"balai/room/wire"
)

const (
	heartbeatPeriod = 200 * time.Millisecond // a speaker's, as a daemon's
	childPeriod     = 380 * time.Millisecond // a child's, which beats when something comes, as a daemon does
	joinersAtOnce   = 4
)

// crowd is the children of all forwarders: each has a UDP socket, a peer connection and a libp2p host. What they hear
// is counted in one place.
type crowd struct {
	got  arrivals
	udp  []*net.UDPConn
	pcs  []*webrtc.PeerConnection
	kids []*listener
	pion *webrtc.API
	up   sync.WaitGroup // until each peer connection is up
	wg   sync.WaitGroup
}

func (c *crowd) serve(o *order) (result, error) {
	switch o.Verb {
	case "gather":
		return c.gather(o.Count)
	case "answer": // a forwarder's offer
		return c.answer(o.SDP)
	case "up":
		return result{}, waitUp(&c.up)
	case "join":
		return c.join(o)
	case "count":
		return result{Frames: c.got.count()}, nil
	case "report": // and forget
		r := c.got.report()
		return result{Frames: r.Datagrams, P50: r.P50 / 1e6}, nil
	}
	return result{}, errVerb
}

func (c *crowd) close() {
	for _, u := range c.udp {
		_ = u.Close()
	}
	for _, p := range c.pcs {
		_ = p.Close()
	}
	for _, k := range c.kids {
		k.leave()
	}
	c.wg.Wait()
}

// gather makes the sockets and hosts.
func (c *crowd) gather(n int) (a result, err error) {
	if c.pion, err = newPion(); err != nil {
		return a, err
	}
	for range n {
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return a, err
		}
		c.udp = append(c.udp, u)
		c.wg.Go(func() {
			b := make([]byte, 1<<11)
			for {
				n, err := u.Read(b)
				if err != nil {
					return
				}
				c.got.take(b[:n])
			}
		})
		a.UDP = append(a.UDP, u.LocalAddr().(*net.UDPAddr).AddrPort())
		h, err := newHost(context.Background())
		if err != nil {
			return a, err
		}
		h.OnLink(func(*p2p.Link) *p2p.LinkConfig { // of a speaker without a relay
			e := newEar(&c.got)
			return &p2p.LinkConfig{Receive: func(l *p2p.Link, b []byte) { e.receive(l, b) }}
		})
		c.kids = append(c.kids, &listener{host: h, ear: newEar(&c.got)})
		a.Peers = append(a.Peers, []byte(h.ID()))
		a.Addrs = append(a.Addrs, addrsOf(h))
	}
	return a, nil
}

func (c *crowd) answer(offer string) (a result, err error) {
	pc, err := c.pion.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return a, err
	}
	c.pcs = append(c.pcs, pc)
	countUp(pc, &c.up)
	pc.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		c.wg.Go(func() {
			for {
				p, _, err := t.ReadRTP()
				if err != nil {
					return
				}
				c.got.take(p.Payload)
			}
		})
	})
	a.SDP, err = answerTo(pc, offer)
	return a, err
}

// join brings all children to a relay, a few at once, and tells how long each waited from the open link to the first
// frame.
func (c *crowd) join(o *order) (a result, err error) {
	relay, err := infoOf(o.Relay)
	if err != nil {
		return a, err
	}
	todo := make(chan *listener, len(c.kids))
	for i, k := range c.kids {
		if err := proto.Unmarshal(o.Passes[i], &k.pass); err != nil {
			return a, err
		}
		todo <- k
	}
	close(todo)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range joinersAtOnce {
		wg.Go(func() {
			for k := range todo {
				d, e := k.join(relay, [32]byte(o.Room))
				mu.Lock()
				a.Times, err = append(a.Times, float64(d.Microseconds())/1e3), errors.Join(err, e)
				failed := err != nil
				mu.Unlock()
				if failed {
					return
				}
			}
		})
	}
	wg.Wait()
	return a, err
}

func infoOf(addrs []string) (info peer.AddrInfo, err error) {
	var all []ma.Multiaddr
	for _, s := range addrs {
		m, err := ma.NewMultiaddr(s)
		if err != nil {
			return info, err
		}
		all = append(all, m)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(all...)
	if err != nil || len(infos) != 1 {
		return info, errors.Join(err, fmt.Errorf("%d peers in %v", len(infos), addrs))
	}
	return infos[0], nil
}

func addrsOf(h *p2p.Host) (all []string) {
	for _, a := range h.Addrs() {
		all = append(all, a.String())
	}
	return all
}

// listener is one child of a relay.
type listener struct {
	host *p2p.Host
	pass wire.Signed
	ear  *ear
}

// ear is what comes by one link. It is owned by the goroutine that reads the connection.
type ear struct {
	got     *arrivals
	joined  atomic.Bool // as a child
	beaten  time.Time
	entry   media.Entry
	windows map[uint32]*media.Window

	once  sync.Once
	first chan time.Time
}

func newEar(got *arrivals) *ear {
	return &ear{got: got, windows: map[uint32]*media.Window{}, first: make(chan time.Time, 1)}
}

// join opens a link, asks to be a child and waits for the first frame.
func (k *listener) join(relay peer.AddrInfo, id [32]byte) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	refused := make(chan error, 1)
	k.host.AllowPrivate(relay.ID)
	if err := k.host.Connect(ctx, relay, true); err != nil {
		return 0, err
	}
	l, err := k.host.OpenLink(ctx, relay.ID, id, p2p.LinkConfig{
		Receive: func(l *p2p.Link, b []byte) { k.ear.receive(l, b) },
		Record:  func(_ *p2p.Link, r *wire.LinkRecord) { refusal(r, refused) },
	})
	if err != nil {
		return 0, err
	}
	opened := time.Now()
	l.Tell(joinRecord(id, overlay.Single, &k.pass))
	k.ear.joined.Store(true)
	select {
	case at := <-k.ear.first:
		return at.Sub(opened), nil
	case err := <-refused:
		return 0, err
	case <-ctx.Done():
		return 0, errors.New("a child hears nothing")
	}
}

func (k *listener) leave() { _ = k.host.Close() }

// receive counts the first copy of each frame. A child answers pings and sends heartbeats as a daemon does.
func (r *ear) receive(l *p2p.Link, b []byte) {
	u, err := media.Parse(b)
	if err != nil {
		return
	}
	child := r.joined.Load()
	if now := time.Now(); child && now.Sub(r.beaten) >= childPeriod {
		r.beaten = now
		sendHeartbeat(l, now)
	}
	for u.Next(&r.entry) {
		switch e := &r.entry; e.Kind {
		case media.Frame:
			w := r.windows[e.Source]
			if w == nil {
				w = &media.Window{}
				r.windows[e.Source] = w
			}
			if w.Take(e.Ctr) {
				r.got.take(e.Body)
				r.once.Do(func() { r.first <- time.Now() })
			}
		case media.Record:
			if child {
				pong(l, e.Body)
			}
		}
	}
}

// refusal tells of a record that sends a child away.
func refusal(r *wire.LinkRecord, to chan error) {
	if r.GetRedirect() == nil && r.GetBusy() == nil && r.GetClose() == nil {
		return
	}
	select {
	case to <- fmt.Errorf("the relay says %v", r):
	default:
	}
}

func joinRecord(id [32]byte, m overlay.Mode, pass *wire.Signed) *wire.LinkRecord {
	return &wire.LinkRecord{Record: &wire.LinkRecord_Join{Join: &wire.Join{Room: id[:], Mode: uint32(m), Pass: pass}}}
}

// keepAlive sends heartbeats until stop.
func keepAlive(l *p2p.Link, stop chan struct{}) {
	clock := time.NewTicker(heartbeatPeriod)
	defer clock.Stop()
	for {
		select {
		case <-stop:
			return
		case now := <-clock.C:
			sendHeartbeat(l, now)
		}
	}
}

func sendHeartbeat(l *p2p.Link, now time.Time) {
	sendRecord(l, &wire.LinkRecord{Record: &wire.LinkRecord_Heartbeat{Heartbeat: &wire.LinkHeartbeat{Tick: uint64(now.UnixMilli() / media.Tick.Milliseconds())}}})
}

func pong(l *p2p.Link, body []byte) {
	var r wire.LinkRecord
	if proto.Unmarshal(body, &r) == nil && r.GetPing() != nil {
		sendRecord(l, &wire.LinkRecord{Record: &wire.LinkRecord_Pong{Pong: r.GetPing()}})
	}
}

// sendRecord sends a record in a bundle of its own.
func sendRecord(l *p2p.Link, r *wire.LinkRecord) {
	body, err := proto.Marshal(r)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	var head [media.HeaderLen]byte
	(&media.Header{Kind: media.Record}).Put(&head)
	sendEntries(l, media.AppendEntry(nil, &head, body))
}

// sendEntries sends a bundle.
func sendEntries(l *p2p.Link, entries ...[]byte) {
	var b media.Builder
	b.Begin(media.Bundle{Handle: l.Handle(), Seq: l.Seq(), SendMs: uint16(time.Now().UnixMilli())}, media.MaxBundle)
	for _, e := range entries {
		b.Add(e)
	}
	l.Send(b.Bytes())
}
