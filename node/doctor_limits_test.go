package node

import (
	"os"
	"runtime"
	"testing"
)

func TestFilesFinding(t *testing.T) {
	for _, c := range []struct {
		open, limit uint64
		status      string
	}{{10, 64, "ok"}, {48, 64, "ok"}, {49, 64, "warn"}, {64, 64, "warn"}, {65, 64, "warn"}, {800, 1024, "ok"}, {1000, 1024, "warn"}, {3, 1 << 20, "ok"}} {
		if f, ok := filesFinding(c.open, c.limit); !ok || f.Status != c.status || f.Check != "limits" {
			t.Errorf("%d of %d: %+v", c.open, c.limit, f)
		}
	}
	if _, ok := filesFinding(0, 0); ok {
		t.Error("a finding about nothing")
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
