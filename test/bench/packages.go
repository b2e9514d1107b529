package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const rounds = 3 // of everything that is measured in turn

// benchmark names one of the benchmarks that live beside the code. Its cost is the CPU time that n operations take more
// than one does, the garbage collector's included: what others do on the machine does not count.
type benchmark struct {
	pkg, pattern string
	n            int
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
	} {
		got, err := s.take(ctx, c.ours, c.baseline)
		if err != nil {
			faults = errors.Join(faults, err)
			continue
		}
		all = append(all, against(c.name, times(got[0], c.scale), times(got[1], c.scale), c.unit))
	}
	ledger, err := s.replay(ctx)
	return append(all, ledger...), errors.Join(faults, err)
}

// replay has operations so long, and so much to make ready for them, that the benchmarks' own clock is taken: all in one
// process, each several times.
func (s suite) replay(ctx context.Context) ([]figure, error) {
	b := benchmark{pkg: "room/ledger", pattern: "BenchmarkReplay$/^(replay|verify|memory)$"}
	binary, err := s.compiled(ctx, b.pkg)
	if err != nil {
		return nil, err
	}
	var replay, verify, memory []float64
	for range rounds {
		_, all, err := s.operate(ctx, binary, b, "-test.benchtime", "1x", "-test.count", strconv.Itoa(rounds))
		if err != nil {
			return nil, err
		}
		replay = append(replay, median(times(all["BenchmarkReplay/replay"], 1e3)))
		verify = append(verify, median(times(all["BenchmarkReplay/verify"], 1e3)))
		for _, m := range all["BenchmarkReplay/memory"] {
			memory = append(memory, m.extra["heapB/op"])
		}
	}
	return []figure{
		against("replay 10,000 ops, vs. their bare signature checks", replay, verify, "ms").gate(1.3, 1.1),
		plain("ledger memory per op", median(memory), "B"),
	}, nil
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
	before, _, err := s.operate(ctx, binary, b, "-test.benchtime", "1x")
	if err != nil {
		return cost{}, err
	}
	after, all, err := s.operate(ctx, binary, b, "-test.benchtime", strconv.Itoa(b.n)+"x")
	if err != nil {
		return cost{}, err
	}
	for _, list := range all {
		if len(all) == 1 && len(list) == 1 {
			list[0].seconds = (after - before).Seconds() / float64(b.n-1)
			return list[0], nil
		}
	}
	return cost{}, fmt.Errorf("%d benchmarks answer to that name", len(all))
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

// operate runs benchmarks and gives the CPU time of the whole process, and what they said.
func (s suite) operate(ctx context.Context, binary string, b benchmark, flags ...string) (time.Duration, map[string][]cost, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, append([]string{"-test.run", "^$", "-test.bench", "^" + b.pattern}, flags...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(s.root, b.pkg), &out, &out
	if err := cmd.Run(); err != nil {
		return 0, nil, fmt.Errorf("%w: %s", err, out.String())
	}
	all, err := parseBenchmarks(out.String())
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), all, err
}

var processors = regexp.MustCompile(`-\d+$`)

// parseBenchmarks reads the results that package testing prints, by name without the number of processors.
func parseBenchmarks(out string) (map[string][]cost, error) {
	all := map[string][]cost{}
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") {
			continue
		}
		c := cost{extra: map[string]float64{}}
		for i := 2; i+1 < len(words); i += 2 {
			v, err := strconv.ParseFloat(words[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			switch unit := words[i+1]; unit {
			case "ns/op":
				c.seconds = v / 1e9
			case "allocs/op":
				c.allocs = v
			default:
				c.extra[unit] = v
			}
		}
		name := processors.ReplaceAllString(words[0], "")
		all[name] = append(all[name], c)
	}
	if len(all) == 0 {
		return nil, errors.New("no result of a benchmark")
	}
	return all, nil
}
