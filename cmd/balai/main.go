// Command balai is voice rooms without anybody's server: the daemon, the community node, and the commands that talk to
// a running daemon. It owns the command line and what it prints; what a room is and does lies below.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"balai/node"
	"balai/node/api"
)

// Exit codes, a part of the stable command line.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// grammar is the whole command line.
type grammar struct {
	globals

	Run       runCmd       `cmd:"" help:"Start your daemon and open its page."`
	Bootstrap bootstrapCmd `cmd:"" help:"Run a community node: a meeting point for everybody's daemons."`
	Demo      demoCmd      `cmd:"" help:"Try it out: a community node and three people on this machine."`
	Open      openCmd      `cmd:"" help:"Open the page of the running daemon, or hand it an invite link."`
	Room      roomCmd      `cmd:"" help:"See, open, join and lead rooms."`
	Invite    inviteCmd    `cmd:"" help:"Make, read, list and revoke invite links."`
	Identity  identityCmd  `cmd:"" help:"Show, save and restore who you are."`
	Doctor    doctorCmd    `cmd:"" help:"Say in words what works and what does not."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
}

// globals are the flags that every command knows.
type globals struct {
	Data   string `placeholder:"DIR" help:"Folder of the key, the store and all else (default: this system's folder for program data)."`
	Config string `placeholder:"FILE" help:"Settings in TOML (default: DIR/config.toml with --data, else in this system's folder for settings)."`
	JSON   bool   `name:"json" help:"Print JSON instead of text."`
	Log    string `enum:"debug,info,warn,error" default:"info" placeholder:"LEVEL" help:"What the log on stderr tells: debug, info, warn or error."`
}

// app is what a command works with beside its own flags.
type app struct {
	*globals
	out, err io.Writer
}

const description = `Voice rooms without anybody's server. Your daemon runs on this machine, its web page is the app.

  balai run                       start, and open the page
  balai room create "Evening tea" open a room
  balai invite create ROOM        get a link to send to a friend
  balai open 'balai:join#…'       open a link that a friend sent

Settings: flags, then the environment (BALAI_NAME=Ana), then config.toml, then defaults.`

func main() { os.Exit(realMain()) }

// realMain is main with an exit code, for the tests too.
func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// execute runs one command line.
func execute(ctx context.Context, args []string, out, errw io.Writer) int {
	var g grammar
	a := &app{globals: &g.globals, out: out, err: errw}
	settings, err := readSettings(args)
	if err != nil {
		return a.fail(err)
	}
	parser, err := kong.New(&g,
		kong.Name("balai"), kong.Description(description), kong.Writers(out, errw),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, FlagsLast: true, WrapUpperBound: 100}),
		kong.DefaultEnvars(envPrefix), kong.Resolvers(settings), kong.Bind(a),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		panic("impossible: the grammar is a constant: " + err.Error())
	}
	command, err := parser.Parse(args)
	if err != nil {
		return a.fail(usageError{fmt.Errorf("%w (balai --help tells more)", err)})
	}
	return a.fail(command.Run())
}

// usageError is the caller's mistake on the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// fail prints an error, nil prints nothing, and gives the exit code.
func (a *app) fail(err error) int {
	var u usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &u), errors.Is(err, node.ErrUsage):
		a.printError(err)
		return exitUsage
	}
	a.printError(err)
	return exitFailed
}

func (a *app) printError(err error) {
	if !a.JSON {
		fmt.Fprintln(a.err, "balai:", err)
		return
	}
	shape := struct {
		Error  string `json:"error"`
		Reason string `json:"reason,omitempty"`
	}{Error: err.Error()}
	var p *api.Problem
	if errors.As(err, &p) {
		shape.Reason = p.Reason
	}
	_ = json.NewEncoder(a.err).Encode(shape)
}
