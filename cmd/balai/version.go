package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// release is the version of this source; the build adds which commit it was.
const release = "0.1.0-dev"

type versionCmd struct{}

func (versionCmd) Help() string {
	return "Examples:\n  balai version\n  balai version --json"
}

type versionShape struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// versionNow is what this binary is.
func versionNow() versionShape {
	v := versionShape{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// Run prints the version.
func (versionCmd) Run(a *app) error {
	v := versionNow()
	return a.show(v, func(w io.Writer) {
		commit := ""
		if len(v.Commit) >= 12 {
			commit = " " + v.Commit[:12]
		}
		fmt.Fprintf(w, "balai %s%s %s %s\n", v.Version, commit, v.Go, v.Platform)
	})
}
