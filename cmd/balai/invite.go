package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"balai/node/api"
	"balai/room/invite"
)

type inviteCmd struct {
	Create  inviteCreateCmd  `cmd:"" help:"Make an invite link for a room."`
	Inspect inviteInspectCmd `cmd:"" help:"Read a link without joining; touches no network."`
	List    inviteListCmd    `cmd:"" help:"The invites that you made for a room."`
	Revoke  inviteRevokeCmd  `cmd:"" help:"Close an invite, with --branch for all who came by it."`
}

func (inviteCmd) Help() string {
	return `Examples:
  balai invite create "Evening tea"
  balai invite create Planning --role speaker --uses 1 --expires 2h
  balai invite inspect 'balai:join#…'
  balai invite revoke Planning b4k7… --branch`
}

type inviteCreateCmd struct {
	inRoom
	Role    string        `enum:"listener,speaker" default:"listener" help:"What it makes people: ${enum}."`
	Uses    int           `default:"0" help:"How many may use it; 0 is any number."`
	Expires time.Duration `default:"24h" help:"How long it is good, such as 90m or 24h."`
	From    string        `name:"not-before" placeholder:"TIME" help:"Not good before then: 2006-01-02 15:04 of this machine's time, or RFC 3339. --expires counts from then."`
	For     string        `placeholder:"PEER-ID" help:"Only the person with this key may use it."`
	Depth   int           `default:"0" help:"How many times it may be passed on as an invite of its own."`
	Knock   bool          `help:"Somebody in the room must say yes to each."`
	Strict  bool          `help:"Only you let people in by it, so its uses are exact; nobody gets in while you are away."`
	Web     string        `placeholder:"HOST" help:"Make an https link through this community node's page. Its script could read the link: for open talk."`
}

func (inviteCreateCmd) Help() string {
	return `The link is a key: whoever has it can use it. Send it over a channel you trust.

Examples:
  balai invite create "Evening tea"
  balai invite create "Evening tea" --role speaker --uses 1 --expires 2h
  balai invite create Planning --for 12D3KooW…
  balai invite create "Evening tea" --not-before "2026-12-24 19:00" --expires 3h
  balai invite create "Evening tea" --web balai.example.org`
}

// Run issues an invite.
func (i *inviteCreateCmd) Run(ctx context.Context, a *app) error {
	if i.Uses < 0 || i.Depth < 0 || i.Expires < time.Second {
		return usage("--uses and --depth are 0 or more, --expires is a second or more")
	}
	q := api.InviteRequest{
		Role: i.Role, Uses: i.Uses, ExpiresIn: int64(i.Expires / time.Second), Audience: i.For, Depth: i.Depth, Knock: i.Knock, Strict: i.Strict,
	}
	if i.From != "" {
		from, err := moment(i.From)
		if err != nil {
			return err
		}
		q.NotBefore = &from
	}
	if i.Web != "" {
		return i.createWeb(ctx, a, q)
	}
	return i.with(ctx, a, func(c *api.Client, id string) error {
		return call(ctx, a, c, http.MethodPost, roomPath(id, "invites"), q, func(w io.Writer, made api.Invite) { fmt.Fprintln(w, made.Link) })
	})
}

// moment reads a time as a person writes it, with a zone or in that of this machine.
func moment(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage("%s is no time such as 2006-01-02 15:04 or 2006-01-02T15:04:00Z", clean(s))
}

// createWeb issues an invite whose link leads over the page of a community node.
func (i *inviteCreateCmd) createWeb(ctx context.Context, a *app, q api.InviteRequest) error {
	if i.Role != "listener" || i.Strict || i.For != "" {
		return usage("--web is for listeners only, and not with --strict or --for: the page's script could read the link")
	}
	host := strings.TrimSuffix(strings.TrimPrefix(i.Web, "https://"), "/")
	if u, err := url.Parse("https://" + host); err != nil || u.Host != host || u.Hostname() == "" {
		return usage("--web wants the name of a community node, such as balai.example.org")
	}
	return i.with(ctx, a, func(c *api.Client, id string) error {
		made, err := c.Invite(ctx, id, q)
		if err != nil {
			return err
		}
		inv, err := invite.ParseLink(made.Link)
		if err != nil {
			return err
		}
		if made.Link, err = inv.WebLink(host); err != nil {
			return err
		}
		made.QR = "" // it shows the other link
		return a.show(made, func(w io.Writer) { fmt.Fprintln(w, made.Link) })
	})
}

type inviteInspectCmd struct {
	Link string `arg:"" help:"balai:join#…, https://…/j#… or the bare token."`
}

func (inviteInspectCmd) Help() string {
	return `Needs no daemon and no network, so it cannot know the room's name or how often the invite was used.
Compare the host's words with the host. Exits 1 if the link would be refused now.

Examples:
  balai invite inspect 'balai:join#…'
  balai invite inspect 'balai:join#…' --json`
}

// Run reads a link.
func (i *inviteInspectCmd) Run(a *app) error {
	inv, err := invite.ParseLink(i.Link)
	if err != nil {
		return fmt.Errorf("this is not an invite link that Balai reads: %w", err)
	}
	s, err := inv.Inspect(time.Now())
	if err != nil {
		return fmt.Errorf("do not trust this link: %w", err)
	}
	err = a.show(s, func(w io.Writer) { printInspection(w, s) })
	if err == nil && s.Refusal != 0 {
		err = fmt.Errorf("it would be refused now: %w", s.Refusal)
	}
	return err
}

func printInspection(w io.Writer, s invite.Inspection) {
	uses := "any number"
	if s.Uses > 0 {
		uses = fmt.Sprint(s.Uses)
	}
	fmt.Fprintf(w, "room\t%s\nhost\t%s\nhost's words\t%s\n", s.Room, s.Host, s.HostWords)
	fmt.Fprintf(w, "issued by\t%s\nmakes you\t%s\nuses\t%s\n", s.Issuer, s.Role, uses)
	pass := "may not be passed on"
	switch s.Depth {
	case 0:
	case 1:
		pass = "may be passed on one more time"
	default:
		pass = fmt.Sprintf("may be passed on %d more times", s.Depth)
	}
	fmt.Fprintf(w, "link\t%s\n", pass)
	fmt.Fprintf(w, "good from\t%s\ngood until\t%s\n", s.NotBefore.Local().Format(time.DateTime), s.Expiry.Local().Format(time.DateTime))
	var notes []string
	for note, on := range map[string]bool{
		"you knock, somebody lets you in": s.Knock, "only its issuer lets people in": s.Strict, "for one person: " + s.Audience: s.Audience != "",
	} {
		if on {
			notes = append(notes, note)
		}
	}
	if len(notes) > 0 {
		fmt.Fprintf(w, "note\t%s\n", strings.Join(notes, "; "))
	}
}

type inviteListCmd struct{ inRoom }

func (inviteListCmd) Help() string { return "Examples:\n  balai invite list \"Evening tea\"" }

// Run lists invites.
func (i inviteListCmd) Run(ctx context.Context, a *app) error {
	return i.with(ctx, a, func(c *api.Client, id string) error {
		return call(ctx, a, c, http.MethodGet, roomPath(id, "invites"), nil, func(w io.Writer, list []api.Invite) {
			fmt.Fprintln(w, "ID\tROLE\tUSED\tUNTIL\tSTATE")
			for _, v := range list {
				state, now := "good", time.Now()
				switch {
				case v.Revoked:
					state = "revoked"
				case now.After(v.ExpiresAt):
					state = "expired"
				case now.Before(v.NotBefore):
					state = "from " + v.NotBefore.Local().Format(time.DateTime)
				}
				used := fmt.Sprint(v.Used)
				if v.Uses > 0 {
					used += fmt.Sprintf(" of %d", v.Uses)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.ID, clean(v.Role), used, v.ExpiresAt.Local().Format(time.DateTime), state)
			}
		})
	})
}

type inviteRevokeCmd struct {
	inRoom
	Invite string `arg:"" help:"Id of the invite, as list shows it."`
	Branch bool   `help:"Also remove everybody who came by it."`
}

func (inviteRevokeCmd) Help() string {
	return "Examples:\n  balai invite revoke \"Evening tea\" b4k7…\n  balai invite revoke \"Evening tea\" b4k7… --branch"
}

// Run revokes an invite.
func (i inviteRevokeCmd) Run(ctx context.Context, a *app) error {
	return i.with(ctx, a, func(c *api.Client, id string) error {
		if err := c.Revoke(ctx, id, i.Invite, i.Branch); err != nil {
			return err
		}
		return a.done("revoked")
	})
}
