package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"

	"balai/room/invite"
	"balai/room/session"
)

// ErrNotRunning is Dial's answer where no daemon has told its address.
var ErrNotRunning = errors.New("no daemon runs with this data folder: start it with `balai run`")

// maxAnswer bounds what the client reads of an answer, and of one event.
const maxAnswer = 16 << 20 // bytes

// Client talks to a running daemon. Its methods are safe from any goroutine; a refusal by the daemon is a *Problem.
type Client struct {
	base, token string
	http        *http.Client
}

// Dial reads api.json in the daemon's data folder and dials nothing yet. Errors: ErrNotRunning, ErrExposed, or that
// the file names no address on this machine.
func Dial(dataDir string) (*Client, error) {
	path := filepath.Join(dataDir, addressFile)
	data, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrNotRunning)
	}
	if err != nil {
		return nil, err
	}
	var a address
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("%s is damaged: start the daemon again, which writes it anew", path)
	}
	u, err := url.Parse(a.URL)
	if err != nil || u.Scheme != "http" || !isLoopback(u.Hostname()) {
		return nil, fmt.Errorf("%s names no address on this machine", path)
	}
	return &Client{
		base: strings.TrimSuffix(a.URL, "/"), token: a.Token,
		http: &http.Client{
			Transport:     &http.Transport{}, // no proxy, whatever the environment says
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.IsLoopback())
}

// Close lets the idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do sends in as JSON (nil: no body) to a path below /api/v1 and reads the answer into out (nil: not at all).
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if out == nil || len(data) == 0 {
		return nil
	}
	return json.Unmarshal(data, out)
}

// send gives an answer whose status is one of success.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader = http.NoBody
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if in != nil {
		req.Header.Set("Content-Type", jsonType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the daemon does not answer: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	p := &Problem{Title: resp.Status, Status: resp.StatusCode}
	if data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody)); err == nil {
		_ = json.Unmarshal(data, p) // a problem or, from whoever else listens there, not
	}
	return nil, p
}

// fetch is Do with a typed answer.
func fetch[Out any](ctx context.Context, c *Client, method, path string, in any) (out Out, err error) {
	err = c.Do(ctx, method, path, in, &out)
	return out, err
}

// Node is GET /node.
func (c *Client) Node(ctx context.Context) (Node, error) {
	return fetch[Node](ctx, c, http.MethodGet, "/node", nil)
}

// Profile is GET /profile.
func (c *Client) Profile(ctx context.Context) (Profile, error) {
	return fetch[Profile](ctx, c, http.MethodGet, "/profile", nil)
}

// SetProfile replaces the profile.
func (c *Client) SetProfile(ctx context.Context, p Profile) error {
	return c.Do(ctx, http.MethodPut, "/profile", profileIn(p), nil)
}

// Doctor is what the checks found.
func (c *Client) Doctor(ctx context.Context) ([]Finding, error) {
	return fetch[[]Finding](ctx, c, http.MethodGet, "/doctor", nil)
}

// PageURL mints a one-time code and gives the address that opens the page with it, within a minute.
func (c *Client) PageURL(ctx context.Context) (string, error) {
	out, err := fetch[codeOut](ctx, c, http.MethodPost, "/codes", nil)
	return out.URL, err
}

// Hallway lists the rooms heard of.
func (c *Client) Hallway(ctx context.Context) ([]Listing, error) {
	return fetch[[]Listing](ctx, c, http.MethodGet, "/rooms", nil)
}

// Create opens a room.
func (c *Client) Create(ctx context.Context, n NewRoom) (session.View, error) {
	return fetch[session.View](ctx, c, http.MethodPost, "/rooms", n)
}

// Join begins to join by a link or, without one, by a room id.
func (c *Client) Join(ctx context.Context, link, room string, local bool) (session.View, error) {
	return fetch[session.View](ctx, c, http.MethodPost, "/rooms/join", joinIn{Link: link, Room: room, Local: local})
}

// Room is a joined room as it is now.
func (c *Client) Room(ctx context.Context, id string) (session.View, error) {
	return fetch[session.View](ctx, c, http.MethodGet, inside(id), nil)
}

// Leave leaves a room.
func (c *Client) Leave(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodPost, inside(id, "leave"), nil, nil)
}

// End ends a room for all.
func (c *Client) End(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodPost, inside(id, "end"), nil, nil)
}

// Members is a page of members after the peer id given.
func (c *Client) Members(ctx context.Context, id, after string) ([]session.MemberView, error) {
	return fetch[[]session.MemberView](ctx, c, http.MethodGet, inside(id, "members")+"?after="+url.QueryEscape(after), nil)
}

// Act decides about a member: stage, audience, mute, unmute, lower, kick, ban, unban, appoint, dismiss, admit, decline.
func (c *Client) Act(ctx context.Context, id, peer, action, reason string) error {
	return c.Do(ctx, http.MethodPost, inside(id, "members", peer, action), actionIn{Reason: reason}, nil)
}

// Inspect tells what a link says; the network is not asked.
func (c *Client) Inspect(ctx context.Context, link string) (invite.Inspection, error) {
	return fetch[invite.Inspection](ctx, c, http.MethodPost, "/invites/inspect", inspectIn{Link: link})
}

// Invite issues an invite.
func (c *Client) Invite(ctx context.Context, id string, q InviteRequest) (Invite, error) {
	return fetch[Invite](ctx, c, http.MethodPost, inside(id, "invites"), q)
}

// Invites lists the invites that I issued.
func (c *Client) Invites(ctx context.Context, id string) ([]Invite, error) {
	return fetch[[]Invite](ctx, c, http.MethodGet, inside(id, "invites"), nil)
}

// Revoke closes an invite; with branch, all who came through it are out.
func (c *Client) Revoke(ctx context.Context, id, invite string, branch bool) error {
	return c.Do(ctx, http.MethodDelete, inside(id, "invites", invite)+fmt.Sprintf("?branch=%t", branch), nil, nil)
}

// inside is the path of something in a room.
func inside(id string, more ...string) string {
	path := "/rooms/" + url.PathEscape(id)
	for _, m := range more {
		path += "/" + url.PathEscape(m)
	}
	return path
}
