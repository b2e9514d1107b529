package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"balai/node/p2p"
	"balai/room/session"
)

// counts are the daemon's own metrics.
type counts struct {
	frames   *prometheus.CounterVec
	messages *prometheus.CounterVec
}

// register makes the metrics; those of rooms and links are counted when asked for.
func (c *counts) register(r prometheus.Registerer, d *daemon) {
	c.frames = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "balai_frames_total", Help: "Audio frames of the own microphone sent (up), and of others received (down).",
	}, []string{"direction"})
	c.messages = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "balai_gossip_messages_total", Help: "Gossip messages by what was made of them.",
	}, []string{"verdict"})
	r.MustRegister(c.frames, c.messages,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "balai_rooms", Help: "Rooms that this daemon is in."}, d.liveRooms),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "balai_links", Help: "Media links that are open."}, d.openLinks),
	)
}

// gossip counts a message.
func (c *counts) gossip(v p2p.Verdict) p2p.Verdict {
	c.messages.WithLabelValues(map[p2p.Verdict]string{p2p.Accept: "accept", p2p.Ignore: "ignore", p2p.Reject: "reject"}[v]).Inc()
	return v
}

// media counts the frames of the time between two reports of one room.
func (c *counts) media(now, before session.Report) {
	heard := map[uint32]uint64{}
	for _, s := range before.Sources {
		heard[s.ID] = s.Frames
	}
	down := uint64(0)
	for _, s := range now.Sources {
		down += s.Frames - min(heard[s.ID], s.Frames)
	}
	c.frames.WithLabelValues("up").Add(float64(now.Up - min(before.Up, now.Up)))
	c.frames.WithLabelValues("down").Add(float64(down))
}

func (d *daemon) liveRooms() (n float64) {
	for _, j := range d.allRooms() {
		if j.s.View().State == session.Live {
			n++
		}
	}
	return n
}

func (d *daemon) openLinks() (n float64) {
	for _, j := range d.allRooms() {
		n += float64(j.links.count())
	}
	return n
}
