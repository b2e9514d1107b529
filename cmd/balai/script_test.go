package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"balai": func() { os.Exit(realMain()) },
		// A stand-in for the desktop's tools: writes down how it was called.
		"xdg-mime": func() { os.Exit(note()) },
		"xdg-open": func() { os.Exit(note()) },
	})
}

// note writes its arguments to the file that NOTE names.
func note() int {
	f, err := os.OpenFile(os.Getenv("NOTE"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 1
	}
	_, err = f.WriteString(strings.Join(append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...), "\n") + "\n")
	if f.Close() != nil || err != nil {
		return 1
	}
	return 0
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup:         links,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await":    await,
			"exitcode": exitcode,
			"mode":     mode,
			"term":     sigterm,
		},
	})
}

// exitcode runs a command that must end with this very code.
func exitcode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode code command [args]")
	}
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

const awaitLimit = 60 * time.Second

// await waits until a file exists, or, negated, until it does not.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] await file")
	}
	path := ts.MkAbs(args[0])
	for end := time.Now().Add(awaitLimit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); (err == nil) != neg {
			return
		}
	}
	ts.Fatalf("%s: waited %s", args[0], awaitLimit)
}

// sigterm sends SIGTERM to the n-th command in the background.
func sigterm(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: term n")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(ts.BackgroundCmds()[n].Process.Signal(syscall.SIGTERM))
}

// mode checks the permissions of a file.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode octal file")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := info.Mode().Perm().String(); runtime.GOOS != "windows" && got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}
