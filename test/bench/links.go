package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"balai/identity"
	"balai/node/p2p"
	"balai/room/media"
)

const (
	sinkCommand = "sink" // this program's own second process
	children    = 100
	speakers    = 3
	armTicks    = 75 // of 20 ms, in one turn of one way to send
	sealTag     = 16 // bytes that sealing adds to a frame
	stampLength = 8  // bytes at the end of each datagram: when it was sent, Unix ns
)

// links sends what 3 speakers say to 100 children in another process, three ways in turn: over links, one bundle a
// tick; as plain UDP, a datagram a speaker-frame; and as plain UDP, the bundle as it is. The cost is the CPU time of
// this process for each speaker-frame that arrived.
func links(ctx context.Context, _ *lab) (_ []figure, err error) {
	f, err := newFan(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	var cost, late [3][]float64
	arms := []func() int{f.sendLinks, f.sendFrames, f.sendBundles}
	for range rounds {
		for i, arm := range arms {
			c, r, err := f.turn(ctx, arm)
			if err != nil {
				return nil, err
			}
			cost[i], late[i] = append(cost[i], c), append(late[i], r.P50/1e3)
		}
	}
	return []figure{
		against("send to 100 links, CPU per speaker-frame delivered, vs. plain UDP, a datagram each", cost[0], cost[1], "µs").gate(3, 0.5),
		against("send to 100 links, CPU per speaker-frame delivered, vs. plain UDP, the same bundles", cost[0], cost[2], "µs"),
		against("send to 100 links, one way, median, vs. plain UDP, the same bundles", late[0], late[2], "µs"),
		plain("memory per link of the side that opened it, heap and stack", f.memory/1e3, "kB").gate(200, 60),
	}, nil
}

// fan is the sending side.
type fan struct {
	host   *p2p.Host
	links  []*p2p.Link
	udp    *net.UDPConn
	to     []netip.AddrPort
	frames [speakers][]byte // entries
	build  media.Builder
	memory float64 // bytes a link

	cmd   *exec.Cmd
	stdin io.WriteCloser
	told  *bufio.Scanner
}

// sinkReady is the first line of a sink, sinkReport each one after.
type sinkReady struct {
	Peers [][]string // multiaddrs with /p2p/
	UDP   []netip.AddrPort
}

type sinkReport struct {
	Datagrams int
	P50       float64 // ns from sending to receiving
}

func newFan(ctx context.Context) (_ *fan, err error) {
	f := &fan{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	ready, err := f.startSink(ctx)
	if err != nil {
		return nil, err
	}
	f.to = ready.UDP
	if f.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		return nil, err
	}
	for i := range f.frames {
		h := media.Header{Kind: media.Frame, Ticks: 1, Source: uint32(i), Voice: true, Level: speechLevel}
		var head [media.HeaderLen]byte
		h.Put(&head)
		f.frames[i] = media.AppendEntry(nil, &head, make([]byte, frameLength+sealTag))
	}
	if f.host, err = newHost(ctx); err != nil {
		return nil, err
	}
	return f, f.openLinks(ctx, ready.Peers)
}

func (f *fan) startSink(ctx context.Context) (ready sinkReady, err error) {
	self, err := os.Executable()
	if err != nil {
		return ready, err
	}
	f.cmd = exec.CommandContext(ctx, self, sinkCommand, strconv.Itoa(children))
	f.cmd.Stderr = os.Stderr
	if f.stdin, err = f.cmd.StdinPipe(); err != nil {
		return ready, err
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return ready, err
	}
	f.told = bufio.NewScanner(out)
	f.told.Buffer(nil, 1<<20)
	if err := f.cmd.Start(); err != nil {
		return ready, err
	}
	return ready, f.hear(&ready)
}

func (f *fan) hear(v any) error {
	if !f.told.Scan() {
		return errors.New("the sink has gone")
	}
	return json.Unmarshal(f.told.Bytes(), v)
}

func (f *fan) openLinks(ctx context.Context, peers [][]string) error {
	before := inUse()
	for _, addrs := range peers {
		l, err := linkTo(ctx, f.host, addrs)
		if err != nil {
			return err
		}
		f.links = append(f.links, l)
	}
	f.memory = (inUse() - before) / float64(len(f.links))
	return nil
}

// linkTo opens a link for speech.
func linkTo(ctx context.Context, h *p2p.Host, addrs []string) (*p2p.Link, error) {
	info, err := infoOf(addrs)
	if err != nil {
		return nil, err
	}
	h.AllowPrivate(info.ID)
	if err := h.Connect(ctx, info, true); err != nil {
		return nil, err
	}
	l, err := h.OpenLink(ctx, info.ID, [32]byte{1}, p2p.LinkConfig{Receive: func(*p2p.Link, []byte) {}})
	if err == nil && l.Carrier() != p2p.Datagram {
		err = errors.New("a link without datagrams")
	}
	return l, err
}

// inUse is heap and stacks after a collection, in bytes.
func inUse() float64 {
	runtime.GC()
	runtime.GC() // what the first made ready to free
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

func (f *fan) close() (err error) {
	if f.host != nil {
		err = f.host.Close()
	}
	if f.udp != nil {
		err = errors.Join(err, f.udp.Close())
	}
	if f.stdin != nil && f.cmd.Process != nil {
		_ = f.stdin.Close()
		err = errors.Join(err, f.cmd.Wait())
	}
	return err
}

// turn sends one way for armTicks and gives the CPU time per speaker-frame that arrived, in µs.
func (f *fan) turn(ctx context.Context, send func() int) (float64, sinkReport, error) {
	if _, err := f.ask(); err != nil { // forget
		return 0, sinkReport{}, err
	}
	runtime.GC()
	before, clock := ownCPU(), time.NewTicker(media.Tick)
	defer clock.Stop()
	perDatagram := 0
	for range armTicks {
		select {
		case <-ctx.Done():
			return 0, sinkReport{}, ctx.Err()
		case <-clock.C:
		}
		perDatagram = send()
	}
	<-clock.C // what still waits in queues
	used := ownCPU() - before
	r, err := f.ask()
	if err == nil && r.Datagrams == 0 {
		err = errors.New("nothing arrived")
	}
	return float64(used.Nanoseconds()) / 1e3 / float64(r.Datagrams*perDatagram), r, err
}

func (f *fan) ask() (r sinkReport, err error) {
	if _, err := f.stdin.Write([]byte("\n")); err != nil {
		return r, err
	}
	return r, f.hear(&r)
}

// The ways to send each give how many speaker-frames are in a datagram.

func (f *fan) sendLinks() int {
	for _, l := range f.links {
		l.Send(f.bundle(l.Handle(), l.Seq()))
	}
	return speakers
}

func (f *fan) sendBundles() int {
	for i, to := range f.to {
		_, _ = f.udp.WriteToUDPAddrPort(f.bundle(300, uint16(i)), to) // what does not arrive is not counted
	}
	return speakers
}

func (f *fan) sendFrames() int {
	for _, to := range f.to {
		for _, b := range f.frames {
			stamp(b)
			_, _ = f.udp.WriteToUDPAddrPort(b, to)
		}
	}
	return 1
}

func (f *fan) bundle(handle uint32, seq uint16) []byte {
	f.build.Begin(media.Bundle{Handle: handle, Seq: seq}, media.MaxBundle)
	for _, e := range f.frames {
		f.build.Add(e)
	}
	b := f.build.Bytes()
	stamp(b)
	return b
}

func ownCPU() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic("impossible: " + err.Error())
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func newHost(ctx context.Context) (*p2p.Host, error) {
	_, h, err := keyAndHost(ctx)
	return h, err
}

func keyAndHost(ctx context.Context) (*identity.Key, *p2p.Host, error) {
	key, err := identity.Generate()
	if err != nil {
		return nil, nil, err
	}
	h, err := p2p.New(ctx, p2p.Config{Key: key.Private(), Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")}})
	return key, h, err
}

// arrivals counts what came, from any goroutine.
type arrivals struct {
	mu   sync.Mutex
	late []float64
}

func (a *arrivals) take(b []byte) {
	if len(b) < stampLength {
		return
	}
	ns := time.Now().UnixNano() - int64(binary.BigEndian.Uint64(b[len(b)-stampLength:]))
	a.mu.Lock()
	a.late = append(a.late, float64(ns))
	a.mu.Unlock()
}

func (a *arrivals) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.late)
}

// report tells and forgets.
func (a *arrivals) report() sinkReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := sinkReport{Datagrams: len(a.late)}
	if r.Datagrams > 0 {
		r.P50 = median(a.late)
	}
	a.late = a.late[:0]
	return r
}

// sink is the receiving side, in a process of its own: as many hosts and UDP sockets as it is told. Each line that it
// reads is answered with a report; it ends with its input.
func sink(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var ready sinkReady
	var got arrivals
	for range n {
		h, err := newHost(context.Background())
		if err != nil {
			return err
		}
		defer func() { _ = h.Close() }()
		h.OnLink(func(*p2p.Link) *p2p.LinkConfig {
			return &p2p.LinkConfig{Receive: func(_ *p2p.Link, b []byte) { got.take(b) }}
		})
		ready.Peers = append(ready.Peers, addrsOf(h))
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		var reading sync.WaitGroup
		reading.Go(func() {
			b := make([]byte, 1<<11)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				got.take(b[:n])
			}
		})
		defer func() {
			_ = c.Close()
			reading.Wait()
		}()
		ready.UDP = append(ready.UDP, c.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(ready); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := out.Encode(got.report()); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}
