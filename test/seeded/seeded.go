// Package seeded runs a randomised test once for each of many fixed seeds, so that a run that failed can be had again. It
// knows nothing of what is tested.
package seeded

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// How many seeds a cheap test takes: in every run, and with BALAI_SOAK=1.
const (
	Quick = 500
	Soak  = 10_000
)

// Count is quick, or soak with BALAI_SOAK=1.
func Count(quick, soak int) int {
	if os.Getenv("BALAI_SOAK") != "" {
		return soak
	}
	return quick
}

// Only is the one seed that BALAI_SEED names.
func Only() (seed uint64, ok bool) {
	seed, err := strconv.ParseUint(os.Getenv("BALAI_SEED"), 10, 64)
	return seed, err == nil
}

// Rand is the random source of a seed. All that chance decides in a test has to come from it.
func Rand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x62616c6169)) }

// Each calls f with the source of each seed from 1 to Count(Quick, Soak), and says which seed failed. The answer is false
// when that was less than all, because BALAI_SEED names one.
func Each(t *testing.T, f func(t *testing.T, r *rand.Rand)) (all bool) {
	t.Helper()
	return Some(t, Count(Quick, Soak), f)
}

// Some is Each for seeds 1 to n.
func Some(t *testing.T, n int, f func(t *testing.T, r *rand.Rand)) (all bool) {
	t.Helper()
	if seed, ok := Only(); ok {
		once(t, seed, f)
		return false
	}
	t.Logf("seeds 1 to %d", n)
	for seed := uint64(1); seed <= uint64(n); seed++ {
		once(t, seed, f)
		if t.Failed() {
			return false
		}
	}
	return true
}

func once(t *testing.T, seed uint64, f func(t *testing.T, r *rand.Rand)) {
	t.Helper()
	defer func() {
		t.Helper()
		if t.Failed() {
			t.Logf("seed %d; alone: BALAI_SEED=%d", seed, seed)
		}
	}()
	f(t, Rand(seed))
}
