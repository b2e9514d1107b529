package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"balai/node"
	"balai/node/api"
)

type doctorCmd struct{}

func (doctorCmd) Help() string {
	return `Exits 1 when a check fails. Without a running daemon only the key is looked at.

Examples:
  balai doctor
  balai doctor --json | jq '.[] | select(.status != "ok")'`
}

// errChecks tells that a check failed; the findings were printed.
var errChecks = errors.New("a check failed")

// Run asks the daemon, and looks by itself where none runs.
func (doctorCmd) Run(ctx context.Context, a *app) error {
	findings, err := a.findings(ctx)
	if err != nil {
		return err
	}
	failed := false
	for _, f := range findings {
		failed = failed || f.Status == "fail"
	}
	err = a.show(findings, func(w io.Writer) {
		for _, f := range findings {
			fmt.Fprintf(w, "%-4s  %s\n", f.Status, clean(f.Title))
			for _, line := range []string{f.Detail, f.Action} {
				if line != "" && f.Status != "ok" {
					fmt.Fprintf(w, "      %s\n", clean(line))
				}
			}
		}
	})
	if err == nil && failed {
		err = errChecks
	}
	return err
}

func (a *app) findings(ctx context.Context) ([]api.Finding, error) {
	client, err := a.client()
	if err == nil {
		defer client.Close()
		return client.Doctor(ctx)
	}
	if !errors.Is(err, api.ErrNotRunning) {
		return nil, err
	}
	findings := []api.Finding{{
		Check: "daemon", Status: "fail", Title: "No daemon runs with this data folder",
		Detail: err.Error(), Action: "Start it: balai run",
	}}
	dir, err := a.dataDir()
	if err != nil {
		return nil, err
	}
	return append(findings, node.KeyFinding(dir)), nil
}
