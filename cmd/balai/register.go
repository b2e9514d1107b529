package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	desktopFile = "balai.desktop"
	schemeType  = "x-scheme-handler/balai"
)

type registerShape struct {
	File    string `json:"file"`
	Default bool   `json:"default"` // the desktop was told
}

// hasDisplay tells whether a browser of this session could show something.
func hasDisplay() bool {
	return os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != ""
}

// register makes this binary the handler of balai: links for this person (Desktop Entry Specification 1.5, XDG MIME
// applications).
func (a *app) register(ctx context.Context) error {
	if runtime.GOOS != "linux" && !strings.HasSuffix(runtime.GOOS, "bsd") {
		return errors.New("registering the balai: scheme works on Linux and BSD desktops only; elsewhere paste links into the page")
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	dir := filepath.Join(dataHome(), "applications")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, desktopFile)
	if err := os.WriteFile(path, []byte(desktopEntry(binary, a.Data)), 0o644); err != nil {
		return err
	}
	told := tell(ctx, "xdg-mime", "default", desktopFile, schemeType)
	_ = tell(ctx, "update-desktop-database", dir) // some desktops have no such cache
	return a.show(registerShape{File: path, Default: told}, func(w io.Writer) {
		fmt.Fprintln(w, "written:", path)
		if !told {
			fmt.Fprintf(w, "xdg-mime is missing or failed; later: xdg-mime default %s %s\n", desktopFile, schemeType)
		}
	})
}

// dataHome is $XDG_DATA_HOME or what stands for it.
func dataHome() string {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	return inHome(".local", "share")
}

// tell runs a desktop tool that may not be there.
func tell(ctx context.Context, name string, args ...string) bool {
	return exec.CommandContext(ctx, name, args...).Run() == nil
}

// desktopEntry opens links with this binary; with a data folder of its own where one was named.
func desktopEntry(binary, data string) string {
	command := execQuote(binary) + " open "
	if data != "" {
		if abs, err := filepath.Abs(data); err == nil {
			data = abs
		}
		command += "--data " + execQuote(data) + " "
	}
	return `[Desktop Entry]
Type=Application
Name=Balai
Comment=Voice rooms without a server
Comment[id]=Ruang bicara tanpa server
Exec=` + command + `%u
Terminal=false
NoDisplay=true
MimeType=` + schemeType + `;
`
}

// execQuote quotes one argument of an Exec line: first its own rules, then those of a string value.
func execQuote(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`, `%`, `%%`).Replace(s)
	return `"` + strings.ReplaceAll(s, `\`, `\\`) + `"`
}
