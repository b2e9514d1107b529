package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/alecthomas/kong"

	"balai/node/api"
	"balai/room/session"
)

type roomActCmd struct {
	inRoom
	Peer   string `arg:"" help:"Peer id or name."`
	Reason string `help:"Why; everybody can read it in the ledger."`
}

func (roomActCmd) Help() string {
	return `Hosts and moderators may; it is written in the room's ledger. Only the host may appoint and dismiss.

Examples:
  balai room stage "Evening tea" Budi
  balai room admit Planning Citra
  balai room mute "Evening tea" 12D3KooW…
  balai room kick "Evening tea" Dewi --reason "advertising"`
}

// Run decides about somebody. The name of the command is the action of the API.
func (r roomActCmd) Run(ctx context.Context, a *app, k *kong.Context) error {
	action := k.Selected().Name
	return r.with(ctx, a, func(c *api.Client, id string) error {
		peer, err := findPeer(ctx, c, id, r.Peer)
		if err != nil {
			return err
		}
		if err := c.Act(ctx, id, peer, action, r.Reason); err != nil {
			return err
		}
		return a.done("%s: %s", action, peer)
	})
}

type roomTransferCmd struct {
	inRoom
	Peer string `arg:"" help:"Peer id or name of the new host."`
}

func (roomTransferCmd) Help() string {
	return `Only the host may, and only to a moderator who is in the room: her daemon countersigns, without asking her. You stay,
and decide nothing any more; only the new host can hand the room back.

Examples:
  balai room appoint "Evening tea" Budi
  balai room transfer "Evening tea" Budi`
}

// Run hands the room over.
func (r roomTransferCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		peer, err := findPeer(ctx, c, id, r.Peer)
		if err != nil {
			return err
		}
		return say(ctx, a, c, http.MethodPost, roomPath(id, "transfer"), map[string]string{"peer": peer}, "the host is now: %s", peer)
	})
}

type roomHandCmd struct {
	inRoom
	Down bool `help:"Lower it."`
}

func (roomHandCmd) Help() string {
	return "Examples:\n  balai room hand \"Evening tea\"\n  balai room hand \"Evening tea\" --down"
}

// Run raises or lowers my hand.
func (r roomHandCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return say(ctx, a, c, http.MethodPut, roomPath(id, "hand"), map[string]bool{"raised": !r.Down}, "hand raised: %s", yesNo(!r.Down))
	})
}

type roomMicCmd struct {
	inRoom
	State string `arg:"" enum:"on,off" help:"on or off."`
}

func (roomMicCmd) Help() string {
	return `While it is off not one frame of your microphone leaves the daemon. The sound itself comes from the page or
another WebRTC program.

Examples:
  balai room mic "Evening tea" off`
}

// Run mutes or unmutes me.
func (r roomMicCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return say(ctx, a, c, http.MethodPut, roomPath(id, "microphone"), map[string]bool{"muted": r.State == "off"}, "microphone %s", r.State)
	})
}

type roomSayCmd struct {
	inRoom
	Text string `arg:"" help:"The line."`
}

func (roomSayCmd) Help() string {
	return "Examples:\n  balai room say \"Evening tea\" \"back in a minute\""
}

// Run writes in the chat.
func (r roomSayCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return call(ctx, a, c, http.MethodPost, roomPath(id, "messages"), map[string]string{"text": r.Text}, printLine)
	})
}

type chatLine struct {
	PeerID string    `json:"peer_id"`
	Name   string    `json:"name"`
	Text   string    `json:"text"`
	At     time.Time `json:"at"`
}

func printLine(w io.Writer, l chatLine) {
	fmt.Fprintf(w, "%s  %s: %s\n", l.At.Local().Format(time.TimeOnly), orDash(l.Name), clean(l.Text))
}

type roomChatCmd struct{ inRoom }

func (roomChatCmd) Help() string { return "Examples:\n  balai room chat \"Evening tea\"" }

// Run prints the chat.
func (r roomChatCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return call(ctx, a, c, http.MethodGet, roomPath(id, "messages"), nil, func(w io.Writer, lines []chatLine) {
			for _, l := range lines {
				printLine(w, l)
			}
		})
	})
}

type roomLedgerCmd struct{ inRoom }

func (roomLedgerCmd) Help() string {
	return "Examples:\n  balai room ledger \"Evening tea\"\n  balai room ledger \"Evening tea\" --json     the signed records too"
}

type decision struct {
	Name   string    `json:"author_name"`
	Words  string    `json:"words"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Void   bool      `json:"void"`
	Why    string    `json:"why"`
}

// Run prints the decisions.
func (r roomLedgerCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return call(ctx, a, c, http.MethodGet, roomPath(id, "ledger"), nil, func(w io.Writer, list []decision) {
			for _, d := range list {
				printDecision(w, d)
			}
		})
	})
}

func printDecision(w io.Writer, d decision) {
	more := ""
	if d.Reason != "" {
		more = ": “" + clean(d.Reason) + "”"
	}
	if d.Void {
		more += "  (void: " + clean(d.Why) + ")"
	}
	fmt.Fprintf(w, "%s  %s%s\n", d.At.Local().Format(time.DateTime), clean(d.Words), more)
}

// member is one member: whole for JSON, in part for text.
type member struct {
	person
	raw json.RawMessage
}

// UnmarshalJSON keeps what came.
func (m *member) UnmarshalJSON(data []byte) error {
	m.raw = append(m.raw[:0], data...)
	return json.Unmarshal(data, &m.person)
}

// MarshalJSON gives what came.
func (m member) MarshalJSON() ([]byte, error) { return m.raw, nil }

// allRemoved reads every page of those who were put out.
func allRemoved(ctx context.Context, c *api.Client, room string) ([]session.RemovedView, error) {
	return allPages(ctx, c, roomPath(room, "removed"), func(v session.RemovedView) string { return v.PeerID })
}

// allMembers reads every page of a room's members.
func allMembers(ctx context.Context, c *api.Client, room string) ([]member, error) {
	return allPages(ctx, c, roomPath(room, "members"), func(m member) string { return m.PeerID })
}

// allPages reads a list of people to its end; each page follows on the last id of the one before.
func allPages[T any](ctx context.Context, c *api.Client, path string, id func(T) string) ([]T, error) {
	all, after := []T{}, ""
	for {
		var page []T
		if err := c.Do(ctx, http.MethodGet, path+"?after="+url.QueryEscape(after), nil, &page); err != nil {
			return nil, err
		}
		if len(page) == 0 || id(page[len(page)-1]) == after {
			return all, nil
		}
		all, after = append(all, page...), id(page[len(page)-1])
	}
}
