//go:build linux

package lab

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"balai/node"
	"balai/test/stalls"
)

// within starts a daemon in this process, on loopback; it is stopped at the end of the test.
func within(t testing.TB, name, relay string) *person {
	t.Helper()
	d := &person{process: &process{t: t, name: name, dir: t.TempDir(), stderr: &tail{}}, http: &http.Client{Transport: &http.Transport{}, Timeout: patience}}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan node.Ready, 1), make(chan error, 1)
	go func() {
		ended <- node.Run(ctx, node.Config{
			Data: d.dir, API: "127.0.0.1:0", Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, NoMDNS: true, Name: name, Relay: relay,
			Log: slog.New(slog.NewTextHandler(d.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Ready: func(r node.Ready) { ready <- r },
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v", name, err)
		}
		d.http.CloseIdleConnections()
	})
	select {
	case r := <-ready:
		d.id, d.url = r.PeerID, r.URL
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	d.readToken()
	return d
}

// crowd is one room with a stage of three and many listeners.
type crowd struct {
	*meeting
	speaker, listener string // links
}

// newCrowd brings people together, four at a time: it is two cores that they share.
func newCrowd(t testing.TB, listeners int) *crowd {
	t.Helper()
	c := &crowd{meeting: &meeting{t: t}}
	host := within(t, "host", "auto")
	c.id = host.open("unlisted")
	c.speaker, c.listener = host.link(c.id, "speaker"), host.link(c.id, "listener")
	c.people = []*person{host}
	for i := range 2 {
		p := within(t, fmt.Sprint("speaker", i+1), "auto")
		p.enter(c.speaker)
		c.people = append(c.people, p)
	}
	c.talk(c.people...)
	c.allHear()
	if listeners > together {
		for _, l := range c.legs {
			l.pause.Store(slow)
		}
		c.turn(0)
	}
	c.join(listeners)
	return c
}

// together is how many listeners two cores carry while all three speak at once; before more of them they speak in turn, and
// as slowly as Opus does while somebody is silent: a frame after slow ticks without one.
const (
	together = 120
	slow     = 4
)

// turn lets one of the stage speak.
func (c *crowd) turn(who int) {
	c.t.Helper()
	for i, p := range c.people[:3] {
		p.mute(c.id, i != who)
	}
}

// join lets so many listeners in.
func (c *crowd) join(n int) {
	c.t.Helper()
	began, took := time.Now(), make([]time.Duration, n)
	all := make([]*person, n)
	next, slots := make(chan int), 4
	var wg sync.WaitGroup
	for range slots {
		wg.Go(func() {
			for i := range next {
				p := within(c.t, fmt.Sprint("l", i), "auto")
				at := time.Now()
				p.enter(c.listener)
				all[i], took[i] = p, time.Since(at)
				if took[i] > 5*time.Second {
					c.t.Logf("%s is in after %v", p.name, took[i].Round(time.Millisecond))
				}
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
		case <-time.After(2 * patience):
			c.t.Error("nobody gets in any more")
		}
		if c.t.Failed() {
			break
		}
	}
	close(next)
	wg.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
	c.people = append(c.people, all...)
	slices.Sort(took)
	c.t.Logf("%d are in after %v; one took %v, the slowest twentieth over %v, the slowest %v", n,
		time.Since(began).Round(time.Millisecond), took[n/2].Round(time.Millisecond), took[n*19/20].Round(time.Millisecond), took[n-1].Round(time.Millisecond))
}

// opened is how many frames of each speaker everybody has opened.
func (c *crowd) opened() map[*person][3]uint64 {
	out := map[*person][3]uint64{}
	for _, p := range c.people {
		s := p.stats(c.id)
		var n [3]uint64
		for i := range n {
			n[i] = of(s, c.people[i]).Opened
		}
		out[p] = n
	}
	return out
}

// shares looks for a while how much of each speaker every listener gets, and fails for those who get less than half.
// Of the stage, speakers are who speak. Where the machine stood still meanwhile it looks again.
func (c *crowd) shares(d time.Duration, speakers ...int) {
	c.t.Helper()
	for try := 1; ; try++ {
		began := time.Now()
		few := c.few(d, speakers...)
		stood := stalls.Stood(began, time.Now())
		if len(few) == 0 {
			return
		}
		if try == 3 || stood < stalls.Much {
			c.t.Error(strings.Join(few, "\n"))
			return
		}
		c.t.Logf("once more: the machine stood still for %v: %v", stood, few)
	}
}

// few are those who get less than half.
func (c *crowd) few(d time.Duration, speakers ...int) (few []string) {
	c.t.Helper()
	before, at, used := c.opened(), time.Now(), cpu()
	pause(c.t, d)
	after, took := c.opened(), time.Since(at)
	want := float64(took / (tick * time.Duration(1+c.legs[0].pause.Load())))
	var all []float64
	for i, p := range c.people {
		for _, s := range speakers {
			if i == s {
				continue
			}
			share := float64(after[p][s]-before[p][s]) / want
			all = append(all, share)
			if share < 0.5 {
				few = append(few, fmt.Sprintf("%s opens %.0f %% of the frames of %s: %+v", p.name, 100*share, c.people[s].name, p.view(c.id).Relays))
			}
		}
	}
	slices.Sort(all)
	c.t.Logf("of %d pairs in %v: the median opens %.0f %% of the frames, the lowest twentieth %.0f %%, the worst %.0f %%; %.2f cores in use",
		len(all), took.Round(time.Millisecond), 100*all[len(all)/2], 100*all[len(all)/20], 100*all[0], (cpu()-used).Seconds()/took.Seconds())
	return few
}

// cpu is the CPU time of this process so far.
func cpu() time.Duration {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	var user, system int64 // fields 14 and 15, in hundredths of a second
	_, _ = fmt.Sscanf(string(b[slices.Index(b, ')')+1:]), " %1s %d %d %d %d %d %d %d %d %d %d %d %d", new(string), new(int), new(int), new(int), new(int), new(int),
		new(int), new(int), new(int), new(int), new(int), &user, &system)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// TestTwoHundred is a talk of three before 200 listeners, or a tenth of that every day: everybody hears everybody on stage.
// Those beyond 64 members come with passes. BALAI_LAB_PEOPLE is another number of listeners. Nothing else of this package runs
// meanwhile.
func TestTwoHundred(t *testing.T) {
	n := 20
	if soak() {
		n = 200
	}
	if v, err := strconv.Atoi(os.Getenv("BALAI_LAB_PEOPLE")); err == nil {
		n = v
	}
	if n > 50 { // hundreds of heaps in one: what one daemon's collector hardly notices
		defer debug.SetGCPercent(debug.SetGCPercent(400))
	}
	c := newCrowd(t, n)
	host := c.people[0]
	v := host.view(c.id)
	t.Logf("the host knows %d members and an audience of %d; the core are %d", v.Members, v.Audience, len(v.Core))
	if want := n + 3; v.Members != want {
		t.Logf("of %d people the host knows %d so far", want, v.Members)
	}
	if n <= together {
		c.shares(10*time.Second, 0, 1, 2)
	} else {
		for who := range 3 {
			c.turn(who)
			pause(t, 3*time.Second)
			c.shares(10*time.Second, who)
		}
	}
	t.Logf("the host knows %d people by now", host.view(c.id).Members)
	var kids []int
	for _, p := range c.people {
		kids = append(kids, p.stats(c.id).Children)
	}
	slices.Sort(kids)
	t.Logf("children a daemon, the most first: %v", kids[max(0, len(kids)-10):])
}
