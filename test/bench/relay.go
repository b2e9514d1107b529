package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"
)

const (
	relayRounds = 5
	warmTicks   = 10
	arriveTicks = 50
	relayTicks  = 75 // of 20 ms, in one turn of one forwarder
)

// When within the tick each speaker speaks. People are not in step: each has a moment of her own.
var (
	apart  = []time.Duration{0, 7 * time.Millisecond, 13 * time.Millisecond}
	inStep = []time.Duration{0, 0, 0}
	alone  = []time.Duration{0}
)

// relay lets 3 speakers be heard by 100 children by three forwarders in turn, each in a process of its own: a community
// node that carries a room, as it is shipped; the least UDP forwarder; and the least forwarder of pion's. The cost is the
// CPU time of the forwarder's process for each speaker-frame that arrived.
func relay(ctx context.Context, l *lab) (_ []figure, err error) {
	f := &relayLab{}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.start(ctx, l); err != nil {
		return nil, err
	}
	joins, err := f.join(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.stage.speakers[0].downlink(ctx, f.children); err != nil {
		return nil, err
	}
	all := []figure{plain("relay: link opened to first frame, 100 children, 95 %", quantile(joins, 0.95)/1e3, "s").gate(1, 0.3)}
	arms := map[string]*relayArm{
		"relay":          {pid: f.node.cmd.Process.Pid, at: apart, say: f.sayLinks},
		"relay, in step": {pid: f.node.cmd.Process.Pid, at: inStep, say: f.sayLinks},
		"relay, one":     {pid: f.node.cmd.Process.Pid, at: alone, say: f.sayLinks},
		"relay, silent":  {pid: f.node.cmd.Process.Pid, at: alone},
		"no relay":       {pid: os.Getpid(), at: alone, say: f.sayDirect},
		"UDP":            {pid: f.udp.cmd.Process.Pid, at: apart, say: f.sayUDP},
		"UDP, one":       {pid: f.udp.cmd.Process.Pid, at: alone, say: f.sayUDP},
		"pion":           {pid: f.pion.cmd.Process.Pid, at: apart, say: f.sayRTP},
	}
	names := slices.Sorted(maps.Keys(arms))
	for range relayRounds {
		for _, name := range names {
			if err := f.turn(ctx, arms[name]); err != nil {
				return all, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	memory, err := f.memory()
	return append(append(all, relayFigures(arms)...), memory...), err
}

func relayFigures(arms map[string]*relayArm) []figure {
	for name, a := range arms {
		if a.say == nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: by %s: CPU per speaker-frame %.2f to %.2f µs, one way %.2f to %.2f ms, %.1f to %.1f %% of a core, %d lost\n", name,
			quantile(a.cost, 0), quantile(a.cost, 1), quantile(a.late, 0), quantile(a.late, 1), 100*quantile(a.share, 0), 100*quantile(a.share, 1), a.lost)
	}
	relay, inStep, one, udp, udpOne, pion := arms["relay"], arms["relay, in step"], arms["relay, one"], arms["UDP"], arms["UDP, one"], arms["pion"]
	added := make([]float64, len(one.late)) // by the hop: the speaker's own 100 links against its one to the relay and the relay's 100
	for i, direct := range arms["no relay"].late {
		added[i] = one.late[i] - direct
	}
	return []figure{
		against("relay to 100 children, CPU per speaker-frame delivered, vs. plain UDP, a datagram each", relay.cost, udp.cost, "µs").gate(3, 0.5),
		against("relay to 100 children, CPU per speaker-frame delivered, vs. a pion forwarder", relay.cost, pion.cost, "µs").gate(1.3, 0.2),
		against("relay to 100 children, speakers in step, CPU, vs. plain UDP", inStep.cost, udp.cost, "µs"),
		against("relay to 100 children, one speaker, CPU, vs. plain UDP", one.cost, udpOne.cost, "µs"),
		plain("relay to 100 children, nobody speaks, share of a core", 100*median(arms["relay, silent"].share), "%"),
		plain("relay to 100 children, 3 speakers, share of a core", 100*median(relay.share), "%"),
		plain("added by one hop by a relay of 100, one speaker, one way, median", median(added), "ms").gate(2, 1.5*median(udpOne.late)),
		against("speaker to child by a relay of 100, one speaker, one way, vs. by links of its own", one.late, arms["no relay"].late, "ms"),
		against("speaker to child by a relay of 100, one speaker, one way, vs. by a UDP forwarder", one.late, udpOne.late, "ms"),
		against("speaker to child by a relay of 100, 3 speakers, one way, vs. by a UDP forwarder", relay.late, udp.late, "ms"),
		against("speaker to child by a relay of 100, 3 speakers, one way, vs. by a pion forwarder", relay.late, pion.late, "ms"),
	}
}

// relayLab is all processes and speakers.
type relayLab struct {
	crowd, udp, pion *worker
	node             *communityNode
	stage            *stage
	children         [][]string // addresses of each
	passes           [][]byte
	began            time.Time
	before           footprint // of the node without children

	out    *net.UDPConn // speakers' end of plain UDP
	rtp    [speakers]*webrtc.TrackLocalStaticRTP
	packet rtp.Packet
	pcs    []*webrtc.PeerConnection
}

func (f *relayLab) start(ctx context.Context, l *lab) (err error) {
	f.began = time.Now()
	if f.crowd, err = startWorker(ctx, "crowd"); err != nil {
		return err
	}
	all, err := f.crowd.ask(order{Verb: "gather", Count: children})
	if err != nil {
		return err
	}
	f.children = all.Addrs
	if f.udp, err = startWorker(ctx, "udp-forwarder"); err != nil {
		return err
	}
	a, err := f.udp.ask(order{Verb: "forward", To: all.UDP})
	if err != nil {
		return err
	}
	if f.out, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(a.UDP[0])); err != nil {
		return err
	}
	if err := f.startPion(ctx); err != nil {
		return fmt.Errorf("pion: %w", err)
	}
	if f.node, err = l.communityNode(ctx); err != nil {
		return err
	}
	if f.stage, err = newStage(ctx); err != nil {
		return err
	}
	for _, p := range all.Peers {
		pass, err := f.stage.pass(p)
		if err != nil {
			return err
		}
		f.passes = append(f.passes, pass)
	}
	if err := f.stage.engage(ctx, f.node.info); err != nil {
		return err
	}
	return f.stage.uplink(ctx, f.node.info)
}

// startPion connects three speakers and all children to the forwarder.
func (f *relayLab) startPion(ctx context.Context) (err error) {
	if f.pion, err = startWorker(ctx, "pion-forwarder"); err != nil {
		return err
	}
	pion, err := newPion()
	if err != nil {
		return err
	}
	for i := range f.rtp {
		if f.rtp[i], err = webrtc.NewTrackLocalStaticRTP(opusCodec, "audio", "speaker"); err != nil {
			return err
		}
		c, err := pion.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			return err
		}
		f.pcs = append(f.pcs, c)
		if _, err := c.AddTransceiverFromTrack(f.rtp[i], webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
			return err
		}
		offer, err := offerOf(c)
		if err != nil {
			return err
		}
		a, err := f.pion.ask(order{Verb: "publish", Child: i, SDP: offer})
		if err != nil {
			return err
		}
		if err := c.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: a.SDP}); err != nil {
			return err
		}
	}
	for i := range children {
		offer, err := f.pion.ask(order{Verb: "subscribe"})
		if err != nil {
			return err
		}
		a, err := f.crowd.ask(order{Verb: "answer", SDP: offer.SDP})
		if err != nil {
			return err
		}
		if _, err := f.pion.ask(order{Verb: "answered", Child: i, SDP: a.SDP}); err != nil {
			return err
		}
	}
	if _, err := f.pion.ask(order{Verb: "up"}); err != nil {
		return err
	}
	_, err = f.crowd.ask(order{Verb: "up"})
	return err
}

func (f *relayLab) close() (err error) {
	for _, w := range []*worker{f.crowd, f.pion, f.udp} {
		if w != nil {
			err = errors.Join(err, w.close())
		}
	}
	for _, c := range f.pcs {
		_ = c.Close()
	}
	if f.out != nil {
		_ = f.out.Close()
	}
	if f.stage != nil {
		f.stage.close()
	}
	if f.node != nil {
		f.node.close()
	}
	return err
}

// join brings the children to the relay while the speakers speak.
func (f *relayLab) join(ctx context.Context) (ms []float64, err error) {
	if f.before, err = f.node.footprint(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	talk := make(chan struct{})
	go func() {
		defer close(talk)
		_ = f.speak(ctx, 1<<20, apart, f.sayLinks) // ends with ctx
	}()
	a, err := f.crowd.ask(order{Verb: "join", Relay: f.node.addrs, Room: f.stage.id[:], Passes: f.passes})
	cancel()
	<-talk
	<-time.After(arriveTicks * tick)
	_, e := f.crowd.ask(order{Verb: "report"}) // forget
	return a.Times, errors.Join(err, e)
}

// relayArm is one forwarder with one way to speak.
type relayArm struct {
	pid   int
	at    []time.Duration
	say   func(speaker int, ctr uint32) // nil: nobody speaks
	cost  []float64                     // of each turn: CPU time per speaker-frame that arrived, µs
	late  []float64                     // of each turn: the median of how long one was under way, ms
	share []float64                     // of each turn: CPU time per time
	lost  int                           // speaker-frames, in all turns
}

func (f *relayLab) turn(ctx context.Context, a *relayArm) error {
	if _, err := f.through(ctx, a, warmTicks); err != nil {
		return err
	}
	before, err := cpuOf(a.pid)
	if err != nil {
		return err
	}
	began := time.Now()
	r, err := f.through(ctx, a, relayTicks)
	if err != nil {
		return err
	}
	after, err := cpuOf(a.pid)
	if err != nil {
		return err
	}
	a.share = append(a.share, float64(after-before)/float64(time.Since(began)))
	if a.say == nil {
		return nil
	}
	a.cost, a.late = append(a.cost, float64((after-before).Nanoseconds())/1e3/float64(r.Frames)), append(a.late, r.P50)
	a.lost += relayTicks*len(a.at)*children - r.Frames
	return nil
}

// through speaks by a forwarder, and tells what arrived.
func (f *relayLab) through(ctx context.Context, a *relayArm, ticks int) (r result, err error) {
	if a.say == nil {
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(time.Duration(ticks) * tick):
			return r, nil
		}
	}
	if err := f.speak(ctx, ticks, a.at, a.say); err != nil {
		return r, err
	}
	sent := ticks * len(a.at) * children
	if err := f.arrive(ctx, sent); err != nil {
		return r, err
	}
	r, err = f.crowd.ask(order{Verb: "report"})
	if err == nil && (r.Frames < sent/2 || r.Frames > sent) {
		err = fmt.Errorf("%d speaker-frames arrived of %d", r.Frames, sent)
	}
	return r, err
}

// arrive waits until all is there; what is lost is waited for a moment.
func (f *relayLab) arrive(ctx context.Context, sent int) error {
	clock := time.NewTicker(tick)
	defer clock.Stop()
	for range arriveTicks {
		a, err := f.crowd.ask(order{Verb: "count"})
		if err != nil || a.Frames >= sent {
			return err
		}
		select {
		case <-clock.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// speak lets each speaker speak at her moment of each tick.
func (f *relayLab) speak(ctx context.Context, ticks int, at []time.Duration, say func(speaker int, ctr uint32)) error {
	begin := time.Now().Add(tick)
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	wait := func(t time.Time) error {
		timer.Reset(time.Until(t))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		}
	}
	for i := range ticks {
		ctr := uint32((begin.Sub(f.began) + time.Duration(i)*tick) / tick)
		for n := range at {
			if err := wait(begin.Add(time.Duration(i)*tick + at[n])); err != nil {
				return err
			}
			say(n, ctr)
		}
	}
	return nil
}

// The ways to speak.

func (f *relayLab) sayLinks(n int, ctr uint32) { f.stage.speakers[n].say(ctr) }

func (f *relayLab) sayDirect(n int, ctr uint32) { f.stage.speakers[n].sayDirect(ctr) }

func (f *relayLab) sayUDP(n int, ctr uint32) {
	_, _ = f.out.Write(f.stage.speakers[n].frame(ctr)) // what does not arrive is not counted
}

func (f *relayLab) sayRTP(n int, ctr uint32) {
	s := f.stage.speakers[n]
	s.frame(ctr)
	f.packet = rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: uint16(ctr), Timestamp: ctr * tickSamples}, Payload: s.body}
	_ = f.rtp[n].WriteRTP(&f.packet) // what does not arrive is not counted
}

// footprint is the memory of a process, in bytes: what lives on the heap with the stacks, and what it holds of the
// machine's.
type footprint struct{ live, resident float64 }

func (f *relayLab) memory() ([]figure, error) {
	after, err := f.node.footprint(context.Background())
	if err != nil {
		return nil, err
	}
	return []figure{
		plain("relay: memory per child, heap and stack", (after.live-f.before.live)/children/1e3, "kB").gate(200, 60),
		plain("relay: memory per child, resident", (after.resident-f.before.resident)/children/1e3, "kB"),
	}, nil
}

// communityNode is a real one in a process of its own, on loopback.
type communityNode struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	addrs   []string
	info    peer.AddrInfo
	metrics string
}

func (l *lab) communityNode(ctx context.Context) (_ *communityNode, err error) {
	dir, err := os.MkdirTemp(l.dir, "community-")
	if err != nil {
		return nil, err
	}
	c := &communityNode{}
	if c.metrics, err = freePort(); err != nil {
		return nil, err
	}
	c.cmd = exec.Command(l.binary, "bootstrap", "--data", dir, "--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--metrics", c.metrics, "--until-eof", "--log", "error")
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	err = until(ctx, "the community node starts", func() (bool, error) {
		data, err := os.ReadFile(filepath.Join(dir, "addrs"))
		c.addrs = strings.Fields(string(data))
		return err == nil && len(c.addrs) > 0, nil
	})
	if err == nil {
		c.info, err = infoOf(c.addrs)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (c *communityNode) close() {
	_ = c.stdin.Close() // --until-eof
	_ = c.cmd.Wait()    // how it ended is of no interest here
}

// footprint reads the metrics. What lives is taken from the goal of the collector, which is twice that, the stacks and
// the globals counted half: the memory that waits to be collected is not in it.
func (c *communityNode) footprint(ctx context.Context) (f footprint, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.metrics+"/metrics", nil)
	if err != nil {
		return f, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return f, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return f, err
	}
	var next, stacks float64
	for line := range bytes.Lines(body) {
		for name, v := range map[string]*float64{
			"go_memstats_next_gc_bytes ": &next, "go_memstats_stack_inuse_bytes ": &stacks, "process_resident_memory_bytes ": &f.resident,
		} {
			if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
				if _, err := fmt.Sscan(string(rest), v); err != nil {
					return f, err
				}
			}
		}
	}
	if next == 0 || stacks == 0 || f.resident == 0 {
		return f, errors.New("metrics are missing")
	}
	f.live = (next-stacks)/2 + stacks
	return f, nil
}
