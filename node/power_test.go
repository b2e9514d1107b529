package node

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLowBattery(t *testing.T) {
	for what, c := range map[string]struct {
		kind, status, scope, charge string
		low                         bool
	}{
		"a full one":        {"Battery", "Discharging", "", "80", false},
		"a low one":         {"Battery", "Discharging", "", "12", true},
		"a low one, loaded": {"Battery", "Charging", "", "12", false},
		"of a mouse":        {"Battery", "Discharging", "Device", "12", false},
		"the mains":         {"Mains", "", "", "", false},
		"one that says not": {"Battery", "Discharging", "", "?", false},
	} {
		dir := t.TempDir()
		s := filepath.Join(dir, "BAT0")
		if err := os.Mkdir(s, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, v := range map[string]string{"type": c.kind, "status": c.status, "scope": c.scope, "capacity": c.charge} {
			if err := os.WriteFile(filepath.Join(s, name), []byte(v+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := onLowBattery(dir); got != c.low {
			t.Errorf("%s: %v", what, got)
		}
	}
	if onLowBattery(filepath.Join(t.TempDir(), "nothing")) {
		t.Error("no battery is a low battery")
	}
}
