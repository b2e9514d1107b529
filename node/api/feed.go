package api

import (
	"sync"

	"balai/room/session"
)

// maxFeed bounds the changes that wait for one reader. One that is further behind gets the whole view instead.
const maxFeed = 256

// item is one change: by name only, or an event of a room.
type item struct {
	name  string
	key   string // items of one key replace each other; empty: each counts
	room  string
	event session.Event
}

// feed stands between those who tell of changes, who never wait, and one reader.
type feed struct {
	wake chan struct{} // has one element while there is something to take

	mu    sync.Mutex
	items []item
	at    map[string]int // of a key in items
	lost  bool
}

func newFeed() *feed { return &feed{wake: make(chan struct{}, 1), at: map[string]int{}} }

// of is what a session calls with its events.
func (f *feed) of(room string) func(session.Event) {
	return func(e session.Event) {
		it := item{room: room, event: e}
		if e.Room != nil {
			it.key = room
		}
		f.put(it)
	}
}

// put adds a change, in the place of an older one of its key that nobody has taken.
func (f *feed) put(it item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, waiting := f.at[it.key]
	switch {
	case f.lost:
	case it.key != "" && waiting:
		f.items[i] = it
	case len(f.items) == maxFeed:
		f.items, f.lost = nil, true
		clear(f.at)
	default:
		if it.key != "" {
			f.at[it.key] = len(f.items)
		}
		f.items = append(f.items, it)
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take empties the feed. lost: changes were dropped, the reader needs the whole.
func (f *feed) take() (items []item, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	items, lost = f.items, f.lost
	f.items, f.lost = nil, false
	clear(f.at)
	return items, lost
}
