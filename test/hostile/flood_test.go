package hostile_test

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
	"balai/test/hostile"
	"balai/test/stalls"
)

// TestJunkClaims is trust test 20: a thousand claims a second that are no proof, while strangers hold all the streams and
// handshakes that they may open, and say nothing more; an honest newcomer is let in all the same.
func TestJunkClaims(t *testing.T) {
	t.Parallel()
	host := startDaemon(t, "Host")
	r := host.open(t, "A", "unlisted")
	link := host.link(t, r.ID, api.InviteRequest{})
	f := mustParse(t, link)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	again := func(every time.Duration, do func()) {
		wg.Go(func() {
			for ctx.Err() == nil {
				do()
				select {
				case <-ctx.Done():
				case <-time.After(every):
				}
			}
		})
	}

	const mute, halfway, liars, eachSecond = 70, 40, 20, 1000
	hold := func(every time.Duration, streams int, first func(*hostile.Stream) error) {
		p := visit(t, host)
		again(every, func() {
			for range streams {
				if s, err := p.Open(ctx, host.key.ID(), hostile.Join); err == nil && first(s) == nil {
					stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
					wg.Go(func() { _ = s.Drain(); stop() })
				}
			}
		})
	}
	for range mute { // streams on which no record ends
		hold(2*time.Second, 16, func(s *hostile.Stream) error { return s.WriteRaw([]byte{0x80}) })
	}
	for range halfway { // handshakes that stop before the claim
		hold(2*time.Second, 4, func(s *hostile.Stream) error { return s.Write(hostile.Hello(f.Entry(""))) })
	}
	var junk atomic.Int64
	for range liars {
		p := visit(t, host)
		e := f.Entry(p.ID())
		e.Claim = func([]byte, peer.ID) []byte {
			sig := make([]byte, 64)
			_, _ = rand.Read(sig) // never fails
			junk.Add(1)
			return sig
		}
		for range 4 {
			again(time.Second*liars*4/eachSecond, func() {
				if m, err := p.Join(ctx, host.key.ID(), e); err == nil {
					t.Errorf("junk lets %s in", m.Via)
				}
			})
		}
	}

	eventually(t, "the flood is in full swing", func() bool { return junk.Load() > 500 })
	before, at := junk.Load(), time.Now()
	var worst time.Duration
	for n, tries := 0, 0; n < 5; n++ {
		p, began := visit(t, host), time.Now()
		_, err := tryJoin(t, p, host, f.Entry(p.ID()))
		if stood := stalls.Stood(began, time.Now()); err != nil && stood > stalls.Much && tries < 3 { // a person would try again
			t.Logf("once more: the machine stood still for %v: %v", stood, err)
			n, tries = n-1, tries+1
			continue
		}
		if err != nil {
			t.Errorf("an honest newcomer: %v", err)
		}
		worst = max(worst, time.Since(began))
	}
	guest := startDaemon(t, "Guest")
	began := time.Now()
	guest.enter(t, link)
	t.Logf("%.0f junk claims a second; an honest newcomer is in after %v at most, a daemon after %v",
		float64(junk.Load()-before)/time.Since(at).Seconds(), worst.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if junk.Load() == before { // it ended before anybody came
		t.Error("there was no flood")
	}
}
