package node

import "time"

const (
	quietLook  = 500 * time.Millisecond // how often the flow looks for quiet links
	quietAsk   = 3 * time.Second        // a link that has been quiet for so long is pinged
	quietDead  = 6 * time.Second        // and for so long is dead: heartbeats come each 200 ms, pongs whatever the plan
	quietSlept = 2 * time.Second        // the flow itself stood still
)

// bury pings the links on which nothing comes, and tells of those that stay quiet: the other side has closed them, or
// cannot be reached any more.
func (f *flow) bury(now time.Time) {
	since := now.Sub(f.buried)
	if since < quietLook {
		return
	}
	f.buried = now
	for _, l := range f.links {
		if since > quietSlept {
			l.alive = now // nobody is to blame for what was not heard here
		}
		switch quiet := now.Sub(l.alive); {
		case quiet >= quietDead:
			l.alive = now // tell again if it is still here after as long
			f.cfg.Dead(l.link)
		case quiet >= quietAsk && now.Sub(l.pinged) >= pingIn:
			l.ping(now)
			f.send(l, nil, nil, 0, now)
		}
	}
}
