package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"

	"balai/node/api"
)

// What is set is said on the command line alone: BALAI_NAME is the name of a person.
type roomSetCmd struct {
	inRoom
	Name         *string  `env:"-" help:"New name."`
	Topic        *string  `env:"-" help:"New topic; empty takes it away."`
	Language     *string  `env:"-" placeholder:"TAG" help:"Language spoken, such as id or en; empty: any."`
	Tag          []string `env:"-" help:"Words to find it by, in place of those it has."`
	NoTags       bool     `env:"-" help:"Take all tags away."`
	Visibility   string   `env:"-" enum:"open,unlisted,closed," default:"" placeholder:"KIND" help:"open: listed, anyone may listen, for good; unlisted: by link only; closed: by link, each is let in by name."`
	ConstantRate string   `env:"-" enum:"on,off," default:"" placeholder:"on|off" help:"on: who is on stage sends the same amount at all times, also in silence and muted."`
	Yes          bool     `env:"-" help:"Do not ask before the room is opened to everybody."`
}

func (roomSetCmd) Help() string {
	return `Only the host may. What is not named stays. All in the room see it at once, and it is written in the room's ledger.

An open room stays open: its listing tells everybody the room's secret name (R), by which it is found, and nobody can
unlearn that. So --visibility open asks first, or wants --yes. Links and bans hold on, but in an open room anyone can
come back with a new key.

--constant-rate hides from who watches the network, or relays the room, when somebody speaks and how: everybody on stage
sends one frame of one size each 20 ms. It costs bandwidth. Relays still learn who is the loudest, and everybody sees who
is on stage.

Examples:
  balai room set "Evening tea" --name "Morning tea" --topic "what we read"
  balai room set Planning --visibility closed
  balai room set "Evening tea" --visibility open --yes`
}

// Run changes the room.
func (r *roomSetCmd) Run(ctx context.Context, a *app) error {
	change := api.RoomChange{Name: r.Name, Topic: r.Topic, Language: r.Language}
	if len(r.Tag) > 0 || r.NoTags {
		tags := append([]string{}, r.Tag...)
		change.Tags = &tags
	}
	if r.Visibility != "" {
		change.Visibility = &r.Visibility
	}
	if r.ConstantRate != "" {
		on := r.ConstantRate == "on"
		change.ConstantRate = &on
	}
	if change.ConstantRate == nil && change.Name == nil && change.Topic == nil && change.Language == nil && change.Tags == nil && change.Visibility == nil {
		return usage("say what to change: --name, --topic, --language, --tag, --no-tags, --visibility or --constant-rate")
	}
	return r.with(ctx, a, func(c *api.Client, id string) error {
		v, err := c.Room(ctx, id)
		if err != nil {
			return err
		}
		if r.Visibility == "open" && v.Visibility != "open" && !r.Yes {
			if err := a.confirm("This opens the room to everybody, for good: it is listed, and its secret name is published. Type yes: "); err != nil {
				return err
			}
		}
		return say(ctx, a, c, http.MethodPatch, roomPath(id), change, "changed")
	})
}

// confirm asks on the terminal; without one it refuses.
func (a *app) confirm(question string) error {
	if !isTerminal(os.Stdin) {
		return usage("opening a room cannot be taken back and publishes its secret name: say --yes if that is meant")
	}
	fmt.Fprint(a.err, question)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err == nil && strings.TrimSpace(answer) != "yes" {
		err = usage("nothing was changed")
	}
	return err
}
