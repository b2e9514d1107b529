package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"balai/node/api"
	"balai/room/session"
)

// call asks the daemon and prints its answer: with --json as it came, so that no field is lost, else what text makes
// of it.
func call[T any](ctx context.Context, a *app, c *api.Client, method, path string, in any, text func(w io.Writer, v T)) error {
	var raw json.RawMessage
	if err := c.Do(ctx, method, path, in, &raw); err != nil {
		return err
	}
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	var v T
	if !a.JSON {
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("the daemon answered something else than expected: %w", err)
		}
	}
	return a.show(raw, func(w io.Writer) { text(w, v) })
}

// say is call for an answer without a body.
func say(ctx context.Context, a *app, c *api.Client, method, path string, in any, format string, args ...any) error {
	if err := c.Do(ctx, method, path, in, nil); err != nil {
		return err
	}
	return a.done(format, args...)
}

// The parts of the API's shapes that the commands print.
type (
	person struct {
		PeerID  string `json:"peer_id"`
		Name    string `json:"name"`
		Role    string `json:"role"`
		OnStage bool   `json:"on_stage"`
		Muted   bool   `json:"muted"`
		Live    bool   `json:"live"`
		Hand    *int   `json:"hand"`
		Since   string `json:"since"`
		CameBy  string `json:"came_by"`

		Unconfirmed *time.Time `json:"unconfirmed_until"`
	}
	fork struct {
		PeerID  string `json:"peer_id"`
		Name    string `json:"name"`
		Role    string `json:"role"`
		Settled bool   `json:"settled"`
	}
	roomView struct {
		ID           string   `json:"id"`
		Name         string   `json:"name"`
		Topic        string   `json:"topic"`
		Visibility   string   `json:"visibility"`
		HostName     string   `json:"host_name"`
		Host         string   `json:"host"`
		State        string   `json:"state"`
		Reason       string   `json:"reason"`
		Stage        []person `json:"stage"`
		AudienceList []person `json:"audience_list"`
		Knocks       []person `json:"knocks"`
		Unconfirmed  []person `json:"unconfirmed"`
		Audience     int      `json:"audience"`
		Encryption   string   `json:"encryption"`
		Carrier      string   `json:"carrier"`
		NoRelay      bool     `json:"no_relay"`

		Succession session.Succession `json:"succession"`
		Differs    bool               `json:"differs"`

		Relays []relayView `json:"relays"`
		Forked []fork      `json:"forked"`
		Locked bool        `json:"locked"`
		Steady bool        `json:"constant_rate"`
		Me     struct {
			Role    string `json:"role"`
			OnStage bool   `json:"on_stage"`
			Muted   bool   `json:"muted"`
			Hand    bool   `json:"hand"`
		} `json:"me"`
		Epoch struct {
			Words string `json:"words"`
		} `json:"epoch"`
	}
)

func roomPath(id string, more ...string) string {
	path := "/rooms/" + url.PathEscape(id)
	for _, m := range more {
		path += "/" + url.PathEscape(m)
	}
	return path
}

// findRoom is the id of the room that a person means: an id, the begin of one, or a name, if just one room fits.
func findRoom(ctx context.Context, c *api.Client, want string) (string, error) {
	rooms, err := c.Hallway(ctx)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, r := range rooms {
		if r.ID == want {
			return r.ID, nil
		}
		if strings.EqualFold(r.Name, want) || (len(want) >= 4 && strings.HasPrefix(r.ID, want)) {
			ids = append(ids, r.ID)
		}
	}
	switch len(ids) {
	case 0:
		return want, nil // a room of mine that is in no list; the daemon knows
	case 1:
		return ids[0], nil
	}
	return "", usage("%d rooms are called %q; name one by its id: %s", len(ids), clean(want), strings.Join(ids, ", "))
}

// findPeer is the peer id of the person in the room, before its door, or put out of it, whom a name or an id means. Names are nobody's
// alone, so a name that two have is refused.
func findPeer(ctx context.Context, c *api.Client, room, want string) (string, error) {
	people, err := everybody(ctx, c, room)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, p := range people {
		if p.PeerID == want {
			return want, nil
		}
		if strings.EqualFold(p.Name, want) && !slices.Contains(ids, p.PeerID) {
			ids = append(ids, p.PeerID)
		}
	}
	switch len(ids) {
	case 0:
		return want, nil // the daemon says whether it knows the id
	case 1:
		return ids[0], nil
	}
	return "", usage("%d people are called %q; name one by the peer id: %s", len(ids), clean(want), strings.Join(ids, ", "))
}

// everybody is the members of a room, those who knock and those who were put out.
func everybody(ctx context.Context, c *api.Client, room string) ([]person, error) {
	var v roomView
	if err := c.Do(ctx, http.MethodGet, roomPath(room), nil, &v); err != nil {
		return nil, err
	}
	people := v.Knocks
	members, err := allMembers(ctx, c, room)
	for _, m := range members {
		people = append(people, m.person)
	}
	if err != nil {
		return nil, err
	}
	removed, err := allRemoved(ctx, c, room)
	for _, v := range removed {
		people = append(people, person{PeerID: v.PeerID, Name: v.Name})
	}
	return people, err
}
