package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/node/api"
	"balai/room/session"
)

type roomSucceedCmd struct{ inRoom }

func (roomSucceedCmd) Help() string {
	return `Only the heir may, whom the host named when the room was opened, and only when the host has not been heard for a day.
The moderators who are in the room are asked for an hour; when most of them agree the room is yours, and the old host
is a speaker. balai room show tells who agreed.

Examples:
  balai room succeed "Evening tea"
  balai room show "Evening tea"`
}

// Run asks the moderators for the room.
func (r roomSucceedCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return say(ctx, a, c, http.MethodPost, roomPath(id, "succession"), nil, "the moderators are asked; balai room show tells who agreed")
	})
}

type roomAgreeCmd struct {
	inRoom
	No bool `help:"Do not agree."`
}

func (roomAgreeCmd) Help() string {
	return `The heir of the room asks its moderators when the host seems lost. Ask the host by another way first: whoever agrees
cannot take it back, and with most moderators the heir is the host.

Examples:
  balai room agree "Evening tea"
  balai room agree "Evening tea" --no`
}

// Run answers the heir.
func (r roomAgreeCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return say(ctx, a, c, http.MethodPut, roomPath(id, "succession"), map[string]bool{"agree": !r.No}, "agreed: %s", yesNo(!r.No))
	})
}

// inheritance says who inherits a room and how far that is, a line each.
func inheritance(v roomView) (lines []string) {
	s := v.Succession
	if s.Heir == "" && s.HostHeardAt == nil {
		return nil
	}
	heir := "nobody: a lost host cannot be replaced"
	if s.Heir != "" {
		heir = orDash(s.HeirName) + " " + s.Heir
	}
	lines = append(lines, heir)
	if s.HostHeardAt != nil {
		lines = append(lines, "the host was last heard "+s.HostHeardAt.Local().Format(time.DateTime))
	}
	if s.Asking {
		lines = append(lines, fmt.Sprintf("asked the moderators: %d agreed of %d needed, %d do not", len(s.Agreed), s.Needed, len(s.Against)))
	}
	if s.Asked && s.Answer != "yes" {
		lines = append(lines, orDash(s.HeirName)+" asks you for the room; ask the host by another way first, then balai room agree")
	}
	return lines
}

// findHeir is the peer id that a person means: one, or a name that just one has in the rooms of this daemon.
func findHeir(ctx context.Context, c *api.Client, want string) (string, error) {
	if _, err := peer.Decode(want); err == nil || want == "" {
		return want, nil
	}
	rooms, err := c.Hallway(ctx)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, r := range rooms {
		if r.State != session.Live {
			continue
		}
		people, err := everybody(ctx, c, r.ID)
		if err != nil {
			return "", err
		}
		for _, p := range people {
			if strings.EqualFold(p.Name, want) && !slices.Contains(ids, p.PeerID) {
				ids = append(ids, p.PeerID)
			}
		}
	}
	switch len(ids) {
	case 0:
		return "", usage("nobody in your rooms is called %q; name the heir by the peer id", clean(want))
	case 1:
		return ids[0], nil
	}
	return "", usage("%d people are called %q; name the heir by the peer id: %s", len(ids), clean(want), strings.Join(ids, ", "))
}
