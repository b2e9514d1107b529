// Command bench measures what the project promises in figures, prints them as a table and writes bench.json. It owns
// how a figure is taken; it judges nothing but against its goal, and no test depends on it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// runLimit bounds the whole run.
const runLimit = 10 * time.Minute

// lab is what every measurement is given: where the repository and the binary are, and a folder to work in.
type lab struct {
	root, binary, dir string
}

// step measures some figures. What it returns beside an error is kept.
type step struct {
	name string
	run  func(context.Context, *lab) ([]figure, error)
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == sinkCommand {
		if err := sink(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench sink:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && workers[os.Args[1]] != nil {
		if err := work(workers[os.Args[1]]()); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	only := flag.String("only", "", "measure only the steps whose names begin so, separated by commas; bench.json is not written")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	if err := bench(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, only string) error {
	root, err := repository()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "balai-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l := &lab{root: root, binary: filepath.Join(root, "bin", "balai"), dir: dir}
	if b := os.Getenv("BALAI"); b != "" {
		l.binary = b
	}
	var all []figure
	var faults error
	for _, s := range []step{
		{"sizes", sizes},
		{"daemon", idle},
		{"start", coldStart},
		{"sound", mouthToEar},
		{"join", joins},
		{"links", links},
		{"relay", relay},
		{"rekey", rekey},
		{"packages", packages},
	} {
		if !chosen(s.name, only) {
			continue
		}
		begin := time.Now()
		fmt.Fprintln(os.Stderr, "bench:", s.name)
		got, err := s.run(ctx, l)
		if err != nil {
			faults = errors.Join(faults, fmt.Errorf("%s: %w", s.name, err))
		}
		all = append(all, got...)
		fmt.Fprintf(os.Stderr, "bench: %s took %.0f s\n", s.name, time.Since(begin).Seconds())
	}
	printTable(os.Stdout, all)
	if only == "" {
		faults = errors.Join(faults, writeJSON(filepath.Join(root, "bench.json"), all))
	}
	return faults
}

func chosen(name, only string) bool {
	if only == "" {
		return true
	}
	for o := range strings.SplitSeq(only, ",") {
		if strings.HasPrefix(name, o) {
			return true
		}
	}
	return false
}

// repository is the folder of go.mod.
func repository() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
