package node

import (
	"log/slog"
	"sync"
	"time"

	"balai/node/api"
)

// A file is a connection, too: when none is left, nobody new can be reached, and the system says so to nobody.
const (
	filesSpare = 16 // fewer than so many left is bad
	filesPart  = 8  // and so is less than one part in this of what is allowed
	filesNews  = 10 * time.Minute
)

// files remembers when hardly any file was left, for whoever asks when it is over. Safe for concurrent use.
type files struct {
	mu          sync.Mutex
	open, limit uint64    // when it was last so
	at          time.Time // zero: never
	short       bool      // it is so now
}

// look takes the numbers of now, and writes to the log when a shortage begins.
func (f *files) look(open, limit uint64, now time.Time, log *slog.Logger) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.short
	left := limit - min(open, limit)
	if f.short = limit > 0 && (left < filesSpare || left < limit/filesPart); f.short {
		f.open, f.at = min(open, limit), now
	}
	f.limit = limit
	if f.short && !was {
		log.Warn("hardly any file may be opened any more", "open", f.open, "limit", limit)
	}
}

// finding tells how near the process is, or was lately, to the most files it may have open; false: not known here.
func (f *files) finding(say wording, now time.Time) (api.Finding, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.limit == 0 {
		return api.Finding{}, false
	}
	if f.at.IsZero() || now.Sub(f.at) > filesNews {
		return finding("limits", "ok", say("Open files and connections are within what the system allows"), "", ""), true
	}
	title := say("Hardly any file may be opened any more")
	detail := say("%s of %s are in use. Each connection over TCP is one: new people may not get through, and pages may not open.", plain(f.open), plain(f.limit))
	if !f.short {
		title = say("Lately hardly any file could be opened")
		detail = say("%s of %s were in use. Each connection over TCP is one: new people may not get through, and pages may not open.", plain(f.open), plain(f.limit))
	}
	return finding("limits", "warn", title, detail,
		say("Allow more, such as with “ulimit -n 4096” before the start, or LimitNOFILE= in the service; or close what is not needed.")), true
}
