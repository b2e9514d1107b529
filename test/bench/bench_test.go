package main

import (
	"math"
	"testing"
)

// A train that is heard late, softer and with chirps missing gives the delay back.
func TestDelays(t *testing.T) {
	wav := trainWAV()[44:]
	sent := make([]float32, 6*rate)
	for i := range sent {
		sent[i] = float32(int16(uint16(wav[2*i])|uint16(wav[2*i+1])<<8)) / 32768
	}
	const late = 0.125
	heard := make([]float32, len(sent))
	for i, v := range sent {
		if j := i + int(late*rate); j < len(heard) && (i < 2*rate || i > 3*rate) {
			heard[j] = -v / 5
		}
	}
	all := onsets(sent)
	if len(all) < 12 {
		t.Fatalf("%d chirps in 6 s", len(all))
	}
	lost := 0
	for i, d := range delays(all, onsets(heard)) {
		switch {
		case !math.IsNaN(d) && math.Abs(d-late*1000) > 0.1:
			t.Errorf("chirp %d: %v ms", i, d)
		case math.IsNaN(d) && (all[i] < 1.9 || all[i] > 3) && all[i] < 5.8:
			t.Errorf("chirp %d at %v s was not found", i, all[i])
		case math.IsNaN(d):
			lost++
		}
	}
	if lost < 2 {
		t.Errorf("%d chirps are missing", lost)
	}
}

func TestParseBenchmarks(t *testing.T) {
	all, err := parseBenchmarks("goos: linux\nBenchmarkX/y-2   \t 1\t 1500 ns/op\t 821.5 heapB/op\t 16 B/op\t 3 allocs/op\nPASS\n")
	if err != nil || len(all["BenchmarkX/y"]) != 1 {
		t.Fatal(all, err)
	}
	if c := all["BenchmarkX/y"][0]; c.seconds != 1.5e-6 || c.allocs != 3 || c.extra["heapB/op"] != 821.5 {
		t.Errorf("%+v", c)
	}
	for _, bad := range []string{"", "PASS\n", "BenchmarkX-2 1 many ns/op\n"} {
		if _, err := parseBenchmarks(bad); err == nil {
			t.Errorf("%q gave no error", bad)
		}
	}
}

func TestParseLogged(t *testing.T) {
	all, err := parseLogged("=== RUN   TestX\n    x_test.go:9: figure\ttill dawn\t1.5\ts\n    x_test.go:9: figure\towls\t3\t\n--- PASS\n", "night: ")
	if err != nil || len(all) != 2 || all[0] != plain("night: till dawn", 1.5, "s") || all[1] != plain("night: owls", 3, "") {
		t.Error(all, err)
	}
	for _, bad := range []string{"", "PASS\n", "x_test.go:9: figure\towls\tmany\t\n", "x_test.go:9: figure\towls\n"} {
		if _, err := parseLogged(bad, ""); err == nil {
			t.Errorf("%q gave no error", bad)
		}
	}
}

func TestFigures(t *testing.T) {
	f := against("x", []float64{6, 2, 40}, []float64{2, 1, 10}, "µs").gate(3, 1)
	if f.Value != 6 || *f.Baseline != 2 || *f.Ratio != 3 || !*f.OK {
		t.Errorf("%+v", f)
	}
	if f := plain("x", 4, "s").gate(3, 1); *f.OK {
		t.Errorf("%+v", f)
	}
	if v := quantile([]float64{4, 1, 3, 2}, 0.95); math.Abs(v-3.85) > 1e-9 {
		t.Error(v)
	}
}
