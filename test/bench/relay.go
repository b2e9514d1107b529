package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"
)

const (
	relayRounds = 5
	relayTicks  = 100 // of 20 ms, in one turn of one forwarder
)

// People do not speak in step: each of them has a moment of her own within the tick. In step they are as good as one.
var (
	apart  = [speakers]time.Duration{0, 7 * time.Millisecond, 13 * time.Millisecond}
	inStep = [speakers]time.Duration{}
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
	all := []figure{plain("relay: link opened to first frame, 100 children, 95 %", quantile(joins, 0.95)/1e3, "s").gate(1, 0.3)}
	arms := []relayArm{
		{"a relay", f.node.cmd.Process.Pid, apart, f.sayLinks},
		{"a relay, speakers in step", f.node.cmd.Process.Pid, inStep, f.sayLinks},
		{"UDP", f.udp.cmd.Process.Pid, apart, f.sayUDP},
		{"pion", f.pion.cmd.Process.Pid, apart, f.sayRTP},
	}
	cost, late := make([][]float64, len(arms)), make([][]float64, len(arms))
	for range relayRounds {
		for i, arm := range arms {
			c, d, err := f.turn(ctx, &arm)
			if err != nil {
				return all, fmt.Errorf("%s: %w", arm.name, err)
			}
			cost[i], late[i] = append(cost[i], c), append(late[i], d)
		}
	}
	memory, err := f.memory()
	return append(append(all, relayFigures(cost, late)...), memory...), err
}

func relayFigures(cost, late [][]float64) []figure {
	for i, name := range []string{"relay", "relay, in step", "UDP", "pion"} {
		fmt.Fprintf(os.Stderr, "bench: relay: %s: CPU per speaker-frame %.2f to %.2f µs, latency %.2f to %.2f ms\n", name,
			quantile(cost[i], 0), quantile(cost[i], 1), quantile(late[i], 0), quantile(late[i], 1))
	}
	return []figure{
		against("relay to 100 children, CPU per speaker-frame delivered, vs. plain UDP, a datagram each", cost[0], cost[2], "µs").gate(3, 0.5),
		against("relay to 100 children, CPU per speaker-frame delivered, vs. a pion forwarder", cost[0], cost[3], "µs").gate(1.3, 0.2),
		against("the same, speakers in step, vs. plain UDP", cost[1], cost[2], "µs"),
		plain("speaker to child by a relay of 100, one way, median", median(late[0]), "ms").gate(2, 2),
		against("the same, vs. by a UDP forwarder", late[0], late[2], "ms"),
		against("the same, vs. by a pion forwarder", late[0], late[3], "ms"),
	}
}

// relayLab is all processes and speakers.
type relayLab struct {
	crowd, udp, pion *worker
	node             *communityNode
	stage            *stage
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
	return a.Times, err
}

// relayArm is one forwarder.
type relayArm struct {
	name string
	pid  int
	at   [speakers]time.Duration
	say  func(speaker int, ctr uint32)
}

// turn speaks by one forwarder and gives its CPU time per speaker-frame that arrived, in µs, and the median of how long
// one was under way, in ms.
func (f *relayLab) turn(ctx context.Context, a *relayArm) (cost, late float64, err error) {
	if err := f.speak(ctx, 10, a.at, a.say); err != nil { // warm
		return 0, 0, err
	}
	if _, err := f.crowd.ask(order{Verb: "report"}); err != nil { // forget
		return 0, 0, err
	}
	before, err := cpuOf(a.pid)
	if err != nil {
		return 0, 0, err
	}
	if err := f.speak(ctx, relayTicks, a.at, a.say); err != nil {
		return 0, 0, err
	}
	after, err := cpuOf(a.pid)
	if err != nil {
		return 0, 0, err
	}
	r, err := f.crowd.ask(order{Verb: "report"})
	if err != nil {
		return 0, 0, err
	}
	if sent := relayTicks * speakers * children; r.Frames < sent*9/10 || r.Frames > sent {
		return 0, 0, fmt.Errorf("%d speaker-frames arrived of %d", r.Frames, sent)
	}
	return float64((after - before).Nanoseconds()) / 1e3 / float64(r.Frames), r.P50, nil
}

// speak lets each speaker speak at her moment of each tick.
func (f *relayLab) speak(ctx context.Context, ticks int, at [speakers]time.Duration, say func(speaker int, ctr uint32)) error {
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
	return wait(begin.Add(time.Duration(ticks+2) * tick)) // what still waits in queues
}

// The ways to speak.

func (f *relayLab) sayLinks(n int, ctr uint32) { f.stage.speakers[n].say(ctr) }

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
