package api

import (
	"context"
	"errors"
	"strings"
	"testing"

	"balai/room"
	"balai/room/session"
)

func (d *daemon) client() *Client {
	d.t.Helper()
	dir := d.t.TempDir()
	if err := WriteFile(dir, "http://"+d.addr, testToken); err != nil {
		d.t.Fatal(err)
	}
	c, err := Dial(dir)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)
	return c
}

func TestClient(t *testing.T) {
	d, ctx := start(t), context.Background()
	c, id := d.client(), d.room.id.String()
	n, err := c.Node(ctx)
	if err != nil || n.PeerID != testPeer {
		t.Error(n, err)
	}
	if err := c.SetProfile(ctx, Profile{Name: "Ani"}); err != nil {
		t.Error(err)
	}
	if p, err := c.Profile(ctx); err != nil || p.Name != "Ani" {
		t.Error(p, err)
	}
	if v, err := c.Create(ctx, NewRoom{Name: "a", Visibility: "closed"}); err != nil || v.ID != id {
		t.Error(v, err)
	}
	if v, err := c.Join(ctx, "link", "", true); err != nil || v.ID != id {
		t.Error(v, err)
	}
	if v, err := c.Room(ctx, id); err != nil || v.ID != id {
		t.Error(v, err)
	}
	if v, err := c.Invite(ctx, id, InviteRequest{Role: "listener", ExpiresIn: 60}); err != nil || !strings.HasPrefix(v.QR, "<svg") || v.Role != "listener" {
		t.Error(v, err)
	}
	for _, err := range []error{
		c.Act(ctx, id, testPeer, "kick", "noise"), c.Revoke(ctx, id, room.ID{9}.String(), true), c.End(ctx, id), c.Leave(ctx, id),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	_, err1 := c.Doctor(ctx)
	_, err2 := c.Hallway(ctx)
	_, err3 := c.Members(ctx, id, testPeer)
	_, err4 := c.Invites(ctx, id)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Error(err)
	}
	if url, err := c.PageURL(ctx); err != nil || !strings.HasPrefix(url, "http://"+d.addr+"/#code=") {
		t.Error(url, err)
	}
	if _, err := c.Inspect(ctx, "balai:join#nonsense"); !errors.Is(err, room.Malformed) {
		t.Error(err)
	}
	d.room.fail(session.ErrForbidden)
	if err := c.End(ctx, id); !errors.Is(err, session.ErrForbidden) || errors.Is(err, session.ErrUnknown) || errors.Is(err, room.Malformed) {
		t.Error(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Node(ctx); err == nil {
		t.Error("a daemon that is gone answers")
	}
}
