package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const rounds = 3 // of everything that is measured in turn

// benchmark names one of the benchmarks that live beside the code. Its cost is the CPU time that n operations take more
// than one does, the garbage collector's included: what others do on the machine does not count. Where an operation is
// long and getting ready for it longer (wall), it is the benchmark's own clock.
type benchmark struct {
	pkg, pattern string
	n            int
	wall         bool
}

// cost is what one operation takes.
type cost struct {
	seconds, allocs float64
	extra           map[string]float64 // other units, as reported
}

// packages runs the benchmarks beside the code.
func packages(ctx context.Context, l *lab) (all []figure, err error) {
	s := suite{lab: l}
	frame, faults := s.take(ctx, benchmark{pkg: "room/sframe", pattern: "BenchmarkSealOpen$", n: 1_000_000})
	if faults == nil {
		all = append(all, micros("seal+open a frame, CPU", frame[0]).gate(1.5, 0.6), allocs("seal+open a frame, allocations", frame[0]).gate(0, 0))
	}
	bundle, err := s.take(ctx, benchmark{pkg: "room/media", pattern: "BenchmarkBundle$", n: 1_000_000})
	faults = errors.Join(faults, err)
	if err == nil {
		all = append(all, micros("encode+parse a bundle of 3 speakers, CPU", bundle[0]), allocs("encode+parse a bundle, allocations", bundle[0]))
	}
	flow, err := s.take(ctx, benchmark{pkg: "node", pattern: "BenchmarkFlow$", n: 100_000})
	faults = errors.Join(faults, err)
	if err == nil {
		all = append(all, micros("a frame through two flows, microphone to player, CPU", flow[0]), allocs("a frame through two flows, allocations", flow[0]))
	}
	for _, c := range []struct {
		name, unit     string
		scale          float64
		ours, baseline benchmark
	}{
		{
			"play a frame to the browser, CPU, vs. bare pion", "µs", 1e6,
			benchmark{pkg: "node/rtc", pattern: "BenchmarkPlay$", n: 100_000},
			benchmark{pkg: "node/rtc", pattern: "BenchmarkPion$", n: 100_000},
		},
		{
			"verify an invite of 1 block, CPU, vs. bare Ed25519", "µs", 1e6,
			benchmark{pkg: "room/invite", pattern: "BenchmarkVerify$/^blocks=1$", n: 5000},
			benchmark{pkg: "room/invite", pattern: "BenchmarkVerify$/^baseline=ed25519$", n: 5000},
		},
		{
			"replay 10,000 ops, vs. their bare signature checks", "ms", 1e3,
			benchmark{pkg: "room/ledger", pattern: "BenchmarkReplay$/^replay$", n: 1, wall: true},
			benchmark{pkg: "room/ledger", pattern: "BenchmarkReplay$/^verify$", n: 1, wall: true},
		},
	} {
		got, err := s.take(ctx, c.ours, c.baseline)
		if err != nil {
			faults = errors.Join(faults, err)
			continue
		}
		all = append(all, against(c.name, times(got[0], c.scale), times(got[1], c.scale), c.unit))
	}
	memory, err := s.once(ctx, benchmark{pkg: "room/ledger", pattern: "BenchmarkReplay$/^memory$", n: 1, wall: true})
	if err == nil {
		all = append(all, plain("ledger memory per op", memory.extra["heapB/op"], "B"))
	}
	return all, errors.Join(faults, err)
}

func micros(name string, c []cost) figure { return plain(name, median(times(c, 1e6)), "µs") }

func allocs(name string, c []cost) figure {
	var v []float64
	for _, c := range c {
		v = append(v, c.allocs)
	}
	return plain(name, median(v), "")
}

func times(c []cost, scale float64) (v []float64) {
	for _, c := range c {
		v = append(v, c.seconds*scale)
	}
	return v
}

type suite struct{ *lab }

// take measures benchmarks in turn, rounds times; the answer is in the order of the arguments.
func (s suite) take(ctx context.Context, list ...benchmark) ([][]cost, error) {
	out := make([][]cost, len(list))
	for range rounds {
		for i, b := range list {
			c, err := s.once(ctx, b)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", b.pkg, b.pattern, err)
			}
			out[i] = append(out[i], c)
		}
	}
	return out, nil
}

func (s suite) once(ctx context.Context, b benchmark) (cost, error) {
	binary, err := s.compiled(ctx, b.pkg)
	if err != nil {
		return cost{}, err
	}
	var before time.Duration
	if !b.wall {
		if before, _, err = s.operate(ctx, binary, b, 1); err != nil {
			return cost{}, err
		}
	}
	after, c, err := s.operate(ctx, binary, b, b.n)
	if err != nil {
		return cost{}, err
	}
	if !b.wall {
		c.seconds = (after - before).Seconds() / float64(b.n-1)
	}
	return c, nil
}

// compiled is the test binary of a package, made on the first call.
func (s suite) compiled(ctx context.Context, pkg string) (string, error) {
	binary := filepath.Join(s.dir, strings.ReplaceAll(pkg, "/", "-")+".test")
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./"+pkg)
	cmd.Dir, cmd.Stderr = s.root, os.Stderr
	return binary, cmd.Run()
}

// operate runs a benchmark n times over and gives the CPU time of the whole process, and what the benchmark said.
func (s suite) operate(ctx context.Context, binary string, b benchmark, n int) (time.Duration, cost, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^$", "-test.bench", "^"+b.pattern, "-test.benchtime", strconv.Itoa(n)+"x")
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(s.root, b.pkg), &out, &out
	if err := cmd.Run(); err != nil {
		return 0, cost{}, fmt.Errorf("%w: %s", err, out.String())
	}
	c, err := parseBenchmark(out.String())
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), c, err
}

// parseBenchmark reads the last line of results in the format of package testing.
func parseBenchmark(out string) (c cost, err error) {
	err = errors.New("no result of a benchmark")
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") {
			continue
		}
		c, err = cost{extra: map[string]float64{}}, nil
		for i := 2; i+1 < len(words); i += 2 {
			v, bad := strconv.ParseFloat(words[i], 64)
			switch unit := words[i+1]; {
			case bad != nil:
				err = fmt.Errorf("%q: %w", line, bad)
			case unit == "ns/op":
				c.seconds = v / 1e9
			case unit == "allocs/op":
				c.allocs = v
			default:
				c.extra[unit] = v
			}
		}
	}
	return c, err
}
