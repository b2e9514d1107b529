package node

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room/wire"
)

const (
	registerPeriod  = time.Hour        // a registration lasts two
	registerRetry   = 30 * time.Second // after a refusal
	registerLook    = 2 * time.Second  // between looks for new points
	registerTimeout = 5 * time.Second
	forgetTimeout   = time.Second
)

// Listed is session.Ports.
func (j *joined) Listed(ad *wire.Signed, register bool) {
	j.mu.Lock()
	j.register = register
	j.mu.Unlock()
	if ad != nil {
		j.d.hall.publish(j.id, ad)
	}
}

// entryAt is one registration: a name at a community node.
type entryAt struct {
	point peer.ID
	name  string
}

// registrar holds a room's registrations. Only keepRegistered uses it.
type registrar struct {
	j    *joined
	next map[entryAt]time.Time // when to register (again)
	held map[entryAt]bool      // the point has said yes
	told []byte                // the record that was registered
}

// keepRegistered registers the room at every community node while the session wants it, and takes it out again.
func (j *joined) keepRegistered(ctx context.Context) {
	r := &registrar{j: j, next: map[entryAt]time.Time{}, held: map[entryAt]bool{}}
	t := time.NewTicker(registerLook)
	defer t.Stop()
	for ctx.Err() == nil {
		j.mu.Lock()
		want := j.register
		j.mu.Unlock()
		if want {
			r.refresh(ctx, time.Now())
		} else {
			r.withdraw()
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	r.withdraw()
}

// refresh registers what is due, at all points at once: a slow one delays no other.
func (r *registrar) refresh(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	names := r.j.pointNames(now)
	if record := r.j.Record(); !bytes.Equal(record, r.told) { // addresses come and go, circuits most of all
		r.told = record
		clear(r.next)
	}
	for _, point := range r.j.d.host.CommunityNodes() {
		for _, name := range names {
			at := entryAt{point, name}
			if now.Before(r.next[at]) {
				continue
			}
			wg.Go(func() {
				err := r.j.d.host.Rendezvous().Register(ctx, point, name)
				mu.Lock()
				defer mu.Unlock()
				r.next[at] = now.Add(registerPeriod)
				if err != nil {
					r.next[at] = now.Add(registerRetry)
					r.j.d.log.Debug("not registered", "point", point, "err", err)
					return
				}
				r.held[at] = true
			})
		}
	}
	wg.Wait()
}

// withdraw takes the room out wherever it was registered.
func (r *registrar) withdraw() {
	ctx, cancel := context.WithTimeout(r.j.d.ctx, forgetTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for at := range r.held {
		wg.Go(func() { _ = r.j.d.host.Rendezvous().Unregister(ctx, at.point, at.name) }) // what fails ends by itself
	}
	wg.Wait()
	clear(r.held)
	clear(r.next)
}
