package overlay

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
)

func shortOf(p peer.ID) Short { return identity.ShortID(p) }

// pulse is what the media path saw of a peer.
func (o *Overlay) pulse(e *Pulse) {
	if k := o.kids[e.Peer]; k != nil && e.Last.After(k.last) {
		k.last = e.Last
	}
	if q := o.peers[e.Peer]; q != nil && e.Last.After(q.last) {
		q.last = e.Last
	}
	p := o.parents[e.Peer]
	if p == nil || !p.held {
		return
	}
	if e.Last.After(p.last) {
		p.last = e.Last
	}
	if e.Tick != p.tick {
		if e.Tick > p.tick {
			p.ticked = o.now
		}
		p.tick = e.Tick
	}
	if e.Ahead >= aheadLimit {
		if p.ahead.IsZero() {
			p.ahead = o.now
		}
	} else {
		p.ahead = time.Time{}
	}
	if len(e.Path) == 0 {
		return
	}
	path, ok := readPath(e.Path, e.Peer)
	if !ok || slices.Contains(path, o.short) || e.Level+1 >= maxPath {
		o.bye(e.Peer, leaveChild, 0)
		o.drop(e.Peer, false)
		o.failure(e.Peer).next = o.now.Add(retryMax)
		return
	}
	if e.Level != p.level || !slices.Equal(path, p.path) {
		p.level, p.path = e.Level, path
		o.rebase()
	}
}

// health doubts parents that fall silent or behind, pings them, and gives up those that do not answer. A doubt only
// widens what flows: balance lets another parent send at once.
func (o *Overlay) health() {
	slow := o.patience()
	for _, id := range sorted(o.parents) {
		p := o.parents[id]
		if !p.held {
			continue
		}
		if o.outrun(id, p) {
			if p.behind.IsZero() {
				p.behind = o.now
			}
		} else {
			p.behind = time.Time{}
		}
		if !p.lied.IsZero() && o.now.Sub(p.lied) >= demoteAfter {
			p.lied, o.plan = time.Time{}, nil
		}
		silent := o.now.Sub(p.last)
		switch {
		case silent >= slow*silenceLimit,
			o.now.Sub(p.ticked) >= slow*tickStands && o.now.Sub(p.since) >= slow*tickStands,
			!p.behind.IsZero() && o.now.Sub(p.behind) >= slow*silenceLimit,
			!p.doubt.IsZero() && p.last.Before(p.doubt) && o.now.Sub(p.doubt) >= slow*pongTime:
			o.bye(id, leaveChild, 0)
			o.drop(id, true)
			o.gaveUp(id)
		case silent >= missedBeats*heartbeat || !p.behind.IsZero():
			o.suspect(id, p)
		case !p.doubt.IsZero():
			p.doubt, p.pings, o.plan = time.Time{}, 0, nil
		}
	}
}

// patience is how many times longer than usual a parent may be silent before it is given up: twice as long for each that was
// given up lately, one that was so again and again counting once. Where machines or lines are so slow that parents fall silent
// one after the other, none is better than the last, and to go from one to the next is work that makes all of them slower. A
// doubt comes as early as ever.
func (o *Overlay) patience() time.Duration {
	if o.now.Sub(o.lostAt) >= calmAfter {
		clear(o.given)
	}
	return 1 << min(len(o.given), maxLosses)
}

// gaveUp notes a loss; several at one moment are one.
func (o *Overlay) gaveUp(id peer.ID) {
	if o.now.After(o.lostAt) && !o.given[id] {
		o.given[id], o.lostAt = true, o.now
	}
}

// forgive takes a time in which I stood still myself for one in which nobody was to be heard, but not for ever.
func (o *Overlay) forgive(stood time.Duration) {
	if stood < stoodStill {
		o.stood = 0
		return
	}
	if o.stood++; o.stood > maxStood {
		return
	}
	shift := func(t *time.Time) {
		if !t.IsZero() {
			*t = t.Add(min(stood, o.now.Sub(*t)))
		}
	}
	for _, p := range o.parents {
		for _, t := range []*time.Time{&p.began, &p.asked, &p.ticked, &p.last, &p.ahead, &p.behind, &p.doubt} {
			shift(t)
		}
	}
	for _, q := range o.peers {
		shift(&q.last)
		shift(&q.missed)
	}
	for _, k := range o.kids {
		shift(&k.last)
	}
}

// lied leaves a liar, in every role in which it brings frames. Of one that may be none it only lets another send.
func (o *Overlay) lied(e *Lied) {
	p := o.parents[e.Peer]
	switch {
	case e.Proven:
	case p != nil && p.held:
		p.lied, o.plan = o.now, nil
		return
	default:
		return
	}
	if len(o.liars) >= maxKnown {
		clear(o.liars)
	}
	o.liars[e.Peer], o.plan = o.now.Add(liarFor), nil
	delete(o.helpers, e.Peer)
	if p != nil {
		o.bye(e.Peer, leaveChild, 0)
		o.drop(e.Peer, true)
	} else if o.peers[e.Peer] != nil {
		o.out = append(o.out, Dead{e.Peer})
	}
}

// liar tells whether p was proved one lately.
func (o *Overlay) liar(p peer.ID) bool { return o.now.Before(o.liars[p]) }

// outrun tells whether another parent holds newer frames than I got, so that p, whose frames should flow, is late.
func (o *Overlay) outrun(id peer.ID, p *parent) bool {
	if !p.mode.active() || o.now.Sub(p.active) < aheadLimit+heartbeat {
		return false
	}
	for other, q := range o.parents {
		if other != id && q.held && !q.ahead.IsZero() {
			return true
		}
	}
	return false
}

// suspect doubts p and pings it twice.
func (o *Overlay) suspect(id peer.ID, p *parent) {
	if p.doubt.IsZero() {
		p.doubt, p.pings, o.plan = o.now, 0, nil
	}
	if p.pings == 0 || p.pings == 1 && o.now.Sub(p.doubt) >= pongTime/2 {
		p.pings++
		o.out = append(o.out, Ping{id})
	}
}
