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
)

// rekey lets room/session ban one of 200 people in the middle of a talk, and takes what its test logs: sessions, records
// and frames are real, the network and its time are simulated. Nothing here depends on the machine but the order in which
// goroutines wake at one moment, which moves the figures a little.
func rekey(ctx context.Context, l *lab) ([]figure, error) {
	const pkg, test = "room/session", "TestRekeyTwoHundred"
	binary, err := suite{lab: l}.compiled(ctx, pkg)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^"+test+"$", "-test.v")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = filepath.Join(l.root, pkg), append(os.Environ(), "BALAI_SOAK=1"), &out, &out
	failed := cmd.Run() // the figures are there all the same
	if failed != nil {
		failed = fmt.Errorf("%w: %s", failed, out.String())
	}
	all, err := parseLogged(out.String(), "a new key for 200, simulated: ")
	for i, f := range all {
		switch {
		case strings.Contains(f.Name, "frames"):
			all[i] = f.gate(0, 0)
		case strings.HasSuffix(f.Name, "all hold it"):
			all[i] = f.gate(3, 1) // the stage changes to it after 3 s
		}
	}
	return all, errors.Join(failed, err)
}

// parseLogged reads the figures that a test logs: the word figure, name, value and unit between tabs.
func parseLogged(out, prefix string) (all []figure, err error) {
	for line := range strings.Lines(out) {
		_, logged, is := strings.Cut(strings.TrimSuffix(line, "\n"), ": figure\t")
		if !is {
			continue
		}
		words := strings.Split(logged, "\t")
		if len(words) != 3 {
			return nil, fmt.Errorf("not a figure: %q", line)
		}
		v, err := strconv.ParseFloat(words[1], 64)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		all = append(all, plain(prefix+words[0], v, words[2]))
	}
	if len(all) == 0 {
		return nil, errors.New("the test logged no figure")
	}
	return all, nil
}
