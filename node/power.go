package node

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// lowBattery is the charge in percent below which a machine on battery carries nobody's audio.
const lowBattery = 30

// onLowBattery tells whether this machine runs on a battery that is low, as far as Linux tells it below dir
// (/sys/class/power_supply). Elsewhere, and where nothing is told, it does not.
func onLowBattery(dir string) bool {
	supplies, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return false
	}
	for _, s := range supplies {
		if told(s, "type") != "Battery" || told(s, "status") != "Discharging" || told(s, "scope") == "Device" {
			continue
		}
		if n, err := strconv.Atoi(told(s, "capacity")); err == nil && n < lowBattery {
			return true
		}
	}
	return false
}

func told(supply, name string) string {
	b, err := os.ReadFile(filepath.Join(supply, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
