package node

import (
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestFilesFinding(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		open, limit uint64
		status      string
	}{{10, 64, "ok"}, {48, 64, "ok"}, {49, 64, "warn"}, {64, 64, "warn"}, {65, 64, "warn"}, {800, 1024, "ok"}, {1000, 1024, "warn"}, {3, 1 << 20, "ok"}} {
		var fs files
		fs.look(c.open, c.limit, now, slog.New(slog.DiscardHandler))
		if f, ok := fs.finding(wordsIn(""), now); !ok || f.Status != c.status || f.Check != "limits" {
			t.Errorf("%d of %d: %+v", c.open, c.limit, f)
		}
	}
	var none files
	if _, ok := none.finding(wordsIn(""), now); ok {
		t.Error("a finding about nothing")
	}
}

// Who asks when it is over hears of it for a while, and the log has it once.
func TestFilesFindingLater(t *testing.T) {
	var fs files
	var log strings.Builder
	now := time.Now()
	for i, open := range []uint64{10, 64, 63, 10} {
		fs.look(open, 64, now.Add(time.Duration(i)*time.Second), slog.New(slog.NewTextHandler(&log, nil)))
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings: %s", n, &log)
	}
	if f, _ := fs.finding(wordsIn(""), now.Add(time.Minute)); f.Status != "warn" || !strings.Contains(f.Detail, "63 of 64 were in use") {
		t.Errorf("a minute later: %+v", f)
	}
	if f, _ := fs.finding(wordsIn(""), now.Add(time.Hour)); f.Status != "ok" {
		t.Errorf("an hour later: %+v", f)
	}
}

func TestOpenFiles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("known on Linux only")
	}
	before, limit := openFiles()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's
	if after, _ := openFiles(); before == 0 || limit == 0 || after <= before {
		t.Errorf("%d files open of %d, then %d", before, limit, after)
	}
}
