package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"balai/room/session"
)

// reader is an open event stream.
type reader struct {
	t     *testing.T
	lines *bufio.Scanner
	conn  net.Conn
	last  int
}

func (d *daemon) follow() *reader {
	d.t.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * limit))
	_, err = fmt.Fprintf(c, "GET %s/events HTTP/1.0\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", base, d.addr, testToken)
	if err != nil {
		d.t.Fatal(err)
	}
	r := &reader{t: d.t, lines: bufio.NewScanner(c), conn: c}
	r.lines.Buffer(nil, 1<<20)
	head := ""
	for r.lines.Scan() && r.lines.Text() != "" {
		head += r.lines.Text() + "\n"
	}
	if !strings.Contains(head, " 200 ") || !strings.Contains(head, "Content-Type: text/event-stream") || !strings.Contains(head, "Cache-Control: no-store") {
		d.t.Fatal(head)
	}
	return r
}

// next is one event; its id has to follow the last one's.
func (r *reader) next() (name, data string) {
	r.t.Helper()
	id := 0
	for r.lines.Scan() {
		if strings.HasPrefix(r.lines.Text(), ":") {
			r.lines.Scan() // a comment, and the end of its block
			continue
		}
		field, value, _ := strings.Cut(r.lines.Text(), ": ")
		switch field {
		case "id":
			_, _ = fmt.Sscan(value, &id)
		case "event":
			name = value
		case "data":
			data = value
		case "":
			if id != r.last+1 || !json.Valid([]byte(data)) {
				r.t.Fatalf("id %d after %d, data %.60q", id, r.last, data)
			}
			r.last = id
			return name, data
		}
	}
	r.t.Fatal("the stream ended:", r.lines.Err())
	return "", ""
}

func (r *reader) want(name string, parts ...string) {
	r.t.Helper()
	got, data := r.next()
	if got != name {
		r.t.Fatalf("%s %.200s, want %s", got, data, name)
	}
	for _, p := range parts {
		if !strings.Contains(data, p) {
			r.t.Errorf("%s has no %s: %s", name, p, data)
		}
	}
}

func TestEventsBeginWithTheWhole(t *testing.T) {
	d := start(t)
	d.room.invites = []session.InviteView{{ID: "i", Link: "balai:join#abc"}}
	r := d.follow()
	r.want("view", `"node":{"peer_id":"`+testPeer, `"hallway":[]`, `"rooms":[{"id":"`+d.room.id.String(), `"invites":{"`+d.room.id.String()+`":[{"id":"i"`, `"qr":"\u003csvg`)

	view := d.room.View()
	d.room.emit(session.Event{Kind: session.EventRoom, Room: &view})
	r.want("room", `"name":"room 1"`, `"tags":[]`)
	d.room.emit(session.Event{Kind: session.EventMember, Member: &session.MemberView{Name: "Budi"}})
	r.want("member", `"room":"`+d.room.id.String(), `"name":"Budi"`)
	d.room.emit(session.Event{Kind: session.EventMessage, Line: &session.Line{Text: "hai"}})
	r.want("message", `"room":"`+d.room.id.String(), `"text":"hai"`)
	d.room.emit(session.Event{Kind: session.EventHand, Hand: &session.HandEvent{Raised: true, Position: 1}})
	r.want("hand", `"raised":true,"position":1`)
	d.room.emit(session.Event{Kind: session.EventReaction, Reaction: &session.ReactionEvent{Kind: 3}})
	r.want("reaction", `"kind":3`)
	d.room.emit(session.Event{Kind: session.EventInvite, Invite: &session.InviteView{ID: "j", Link: "x"}})
	r.want("invite", `"room":"`+d.room.id.String(), `"id":"j"`, `"qr":"\u003csvg`)
	for _, what := range []string{ChangedNode, ChangedProfile, ChangedHallway, ChangedDoctor} {
		d.node.tell(what)
		r.want(what)
	}
}

func TestEventsOfARoomJoinedLater(t *testing.T) {
	d := start(t)
	r := d.follow()
	r.want("view")
	later := newFakeRoom(2)
	d.node.add(later)
	d.node.tell(ChangedRooms)
	r.want("room", `"name":"room 2"`)
	later.emit(session.Event{Kind: session.EventReaction, Reaction: &session.ReactionEvent{Kind: 1}})
	r.want("reaction", later.id.String())
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if d.room.watching()+later.watching()+len(d.node.changed) != 0 {
		t.Error("a watch outlives its stream")
	}
}

// TestASlowReaderHoldsNobodyUp: a reader that takes nothing. The session goes on at once, what waits is bounded, and
// when the reader reads again it gets the whole.
func TestASlowReaderHoldsNobodyUp(t *testing.T) {
	d := start(t)
	r := d.follow()
	r.want("view")
	text := strings.Repeat("x", 4096)
	const many = 20_000 // 80 MB: more than any socket buffer
	d.room.emit(session.Event{Kind: session.EventMessage, Line: &session.Line{ID: "first", Text: text}})
	r.want("message", "first") // before anything can be dropped, however busy the machine is
	for i := range many {
		d.room.emit(session.Event{Kind: session.EventMessage, Line: &session.Line{ID: fmt.Sprint(i), Text: text}})
		if i%100 == 0 {
			time.Sleep(time.Millisecond) // let the daemon write until the socket is full
		}
	}
	views, messages := 0, 1
	for views == 0 {
		switch name, _ := r.next(); name {
		case "view":
			views++
		case "message":
			messages++
		}
	}
	if messages > many {
		t.Errorf("%d of %d messages came before the whole", messages, many)
	}
	d.node.tell(ChangedNode)
	for name := ""; name != "node" && name != "view"; { // a view tells of the node too
		name, _ = r.next()
	}
}

func TestFeedKeepsTheNewestOfAKind(t *testing.T) {
	f := newFeed()
	put := f.of("r")
	for i := range 1000 {
		put(session.Event{Room: &session.View{Members: i}})
		f.put(item{name: ChangedNode, key: ChangedNode})
	}
	put(session.Event{Line: &session.Line{}})
	items, lost := f.take()
	if lost || len(items) != 3 || items[0].event.Room.Members != 999 || items[1].name != ChangedNode {
		t.Error(len(items), lost)
	}
	for range maxFeed + 1 {
		put(session.Event{Line: &session.Line{}})
	}
	if items, lost := f.take(); !lost || len(items) != 0 {
		t.Error(len(items), lost)
	}
	put(session.Event{Room: &session.View{Members: 7}})
	if items, lost := f.take(); lost || len(items) != 1 {
		t.Error("after the whole:", len(items), lost)
	}
}

func TestClientFollowsEvents(t *testing.T) {
	d := start(t)
	c := d.client()
	enough := errors.New("enough")
	var names []string
	err := c.Events(context.Background(), func(name string, data []byte) error {
		names = append(names, name)
		if name == "view" {
			d.node.tell(ChangedProfile)
			return nil
		}
		return enough
	})
	if !errors.Is(err, enough) || fmt.Sprint(names) != "[view profile]" {
		t.Error(names, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := c.Events(ctx, func(string, []byte) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// FuzzEvents: whatever a daemon, or who poses as one, streams, the client neither panics nor calls with nothing.
func FuzzEvents(f *testing.F) {
	f.Add("id: 1\nevent: view\ndata: {}\n\n: keep-alive\n\nid: 2\nevent: room\ndata: {\"a\":1}\n\n")
	f.Add("data\n\ndata:\n\n:\n\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		err := readEvents(strings.NewReader(text), func(_ string, data []byte) error {
			if len(data) == 0 || !strings.Contains(text, string(data)) {
				t.Fatalf("%q gave %q", text, data)
			}
			return nil
		})
		if err == nil {
			t.Fatal("a stream has no good end")
		}
	})
}
