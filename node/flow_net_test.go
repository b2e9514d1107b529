package node

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"balai/identity"
	"balai/node/p2p"
	"balai/node/rtc"
	"balai/room/media"
	"balai/room/session"
	"balai/room/sframe"
)

var (
	_ mediaLink = (*p2p.Link)(nil)
	_ player    = (*rtc.Leg)(nil)
)

// Speech goes from microphone to player over a real link between two hosts on loopback.
func TestFlowOverRealLink(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := &world{t: t, epochs: []sframe.Epoch{sframe.NewEpoch(1)}}
	var hosts [2]*p2p.Host
	for i, name := range []string{"ana", "budi"} {
		k, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		if hosts[i], err = p2p.New(ctx, p2p.Config{Key: k.Private(), Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")}}); err != nil {
			t.Fatal(err)
		}
		defer hosts[i].Close()
		p := &person{w: w, name: name, key: k, send: true, allowed: true, ear: &ear{heard: map[uint32][]string{}, slots: map[uint32]int{}}}
		p.flow = newFlow(flowConfig{Sign: k.Sign, Report: p.take, Log: slog.New(slog.DiscardHandler)})
		defer p.flow.Close()
		p.leg = p.flow.Attach()
		p.leg.SetPlayer(p.ear)
		w.people = append(w.people, p)
	}
	a, b := w.people[0], w.people[1]
	config := func(f *flow) p2p.LinkConfig {
		return p2p.LinkConfig{
			Receive: func(l *p2p.Link, bundle []byte) { f.Receive(l, bundle) },
			Closed:  func(l *p2p.Link) { f.RemoveLink(l) },
		}
	}
	hosts[1].OnLink(func(l *p2p.Link) *p2p.LinkConfig {
		go b.flow.AddLink(l)
		c := config(b.flow)
		return &c
	})
	hosts[0].AllowPrivate(hosts[1].ID())
	if err := hosts[0].Connect(ctx, peer.AddrInfo{ID: hosts[1].ID(), Addrs: hosts[1].Addrs()}, true); err != nil {
		t.Fatal(err)
	}
	l, err := hosts[0].OpenLink(ctx, hosts[1].ID(), w.room, config(a.flow))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a.flow.AddLink(l)
	for _, p := range w.people {
		w.tell(p)
	}
	for range 100 { // until both heard something: then all that is said must be heard
		a.say()
		b.say()
		time.Sleep(media.Tick)
		if len(a.ear.of(b.id())) > 0 && len(b.ear.of(a.id())) > 0 {
			break
		}
	}
	a.said, b.said = nil, nil
	a.ear.forget()
	b.ear.forget()
	time.Sleep(5 * media.Tick)
	for i := range 100 {
		a.name, b.name = fmt.Sprint("a", i), fmt.Sprint("b", i)
		a.say()
		b.say()
		time.Sleep(media.Tick)
	}
	time.Sleep(500 * time.Millisecond)
	for i, p := range w.people {
		if got, said := len(p.ear.of(w.people[1-i].id())), len(w.people[1-i].said); got < said*9/10 {
			t.Errorf("heard %d of %d frames: %+v", got, said, p.report())
		}
		if r := p.report(); len(r.Links) != 1 || r.Links[0].RTT == 0 || r.Links[0].Degraded || anySilenced(r) {
			t.Errorf("%+v", r)
		}
	}
}

func anySilenced(r session.Report) bool {
	for _, s := range r.Sources {
		if s.Silenced {
			return true
		}
	}
	return false
}
