package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"balai/identity"
	"balai/room"
	"balai/room/session"
)

// limit bounds what a test waits for; a pass never depends on how long it took.
const limit = 60 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		var err error
		for end := time.Now().Add(limit); time.Now().Before(end); {
			if err = goleak.Find(); err == nil { // it tries for half a second, too little on a busy machine
				os.Exit(0)
			}
		}
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const testToken = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"

// fakeRoom records what it is told to do. It answers err where that is set.
type fakeRoom struct {
	id room.ID

	mu       sync.Mutex
	err      error
	done     []string
	view     session.View
	watchers map[int]func(session.Event)
	watches  int
	invites  []session.InviteView
	members  []session.MemberView
}

func (f *fakeRoom) did(what string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.done = append(f.done, fmt.Sprintf(what, args...))
	}
	return f.err
}

func (f *fakeRoom) told() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.done...)
}

func (f *fakeRoom) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeRoom) View() session.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

func (f *fakeRoom) Watch(fn func(session.Event)) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.watches
	f.watches++
	f.watchers[n] = fn
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, n)
	}
}

func (f *fakeRoom) watching() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watchers)
}

func (f *fakeRoom) emit(e session.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fn := range f.watchers {
		fn(e)
	}
}

func (f *fakeRoom) Act(_ context.Context, kind room.Kind, target peer.ID, reason string) error {
	return f.did("%v %v %s", kind, target, reason)
}

func (f *fakeRoom) Change(_ context.Context, edit func(*room.Policy) error) error {
	p := room.Policy{Visibility: room.Unlisted, Name: "old", Topic: "old", Language: "old", Tags: []string{"old"}}
	if err := edit(&p); err != nil {
		return err
	}
	return f.did("change %s %s %s %s %q %t", p.Name, p.Topic, p.Language, p.Visibility, p.Tags, p.ConstantRate)
}

func (f *fakeRoom) RaiseHand(_ context.Context, raised bool) error { return f.did("hand %v", raised) }

func (f *fakeRoom) Mute(_ context.Context, muted bool) error { return f.did("muted %v", muted) }
func (f *fakeRoom) Leave(context.Context) error              { return f.did("leave") }
func (f *fakeRoom) React(_ context.Context, kind int) error  { return f.did("react %d", kind) }

func (f *fakeRoom) Invite(_ context.Context, t session.InviteTerms) (session.InviteView, error) {
	return session.InviteView{ID: f.id.String(), Link: "balai:join#abc", Role: t.Role.String()}, f.did("invite %v %d %v", t.Role, t.Uses, t.ExpiresIn)
}

func (f *fakeRoom) Invites(context.Context) ([]session.InviteView, error) { return f.invites, f.err }

func (f *fakeRoom) Revoke(_ context.Context, id room.InviteID, branch bool) error {
	return f.did("revoke %v %v", id, branch)
}

func (f *fakeRoom) Say(_ context.Context, text string) (session.Line, error) {
	return session.Line{ID: "1", Text: text}, f.did("say %s", text)
}

func (f *fakeRoom) Lines(context.Context) ([]session.Line, error) { return nil, f.err }

func (f *fakeRoom) Members(_ context.Context, after string) ([]session.MemberView, error) {
	return f.members, f.did("members %s", after)
}

func (f *fakeRoom) Removed(_ context.Context, after string) ([]session.RemovedView, error) {
	return nil, f.did("removed %s", after)
}

func (f *fakeRoom) Ledger(context.Context) ([]session.Decision, error) {
	return []session.Decision{{ID: "x"}}, f.err
}

// fakeNode is a backend with rooms that do nothing.
type fakeNode struct {
	fakeRoom // its record of what was done

	roomsMu sync.Mutex
	rooms   []*fakeRoom
	profile Profile
	changed map[int]func(string)
	nextFn  int
}

func newFakeNode(rooms ...*fakeRoom) *fakeNode {
	return &fakeNode{rooms: rooms, changed: map[int]func(string){}}
}

func newFakeRoom(n byte) *fakeRoom {
	id := room.ID{n}
	return &fakeRoom{
		id: id, watchers: map[int]func(session.Event){},
		view: session.View{ID: id.String(), Name: fmt.Sprint("room ", n), State: session.Live, Stage: []session.OnStage{{Name: "Ani"}}},
	}
}

func (f *fakeNode) Node() Node { return Node{PeerID: testPeer, APIVersion: Version} }
func (f *fakeNode) Doctor(_ context.Context, lang string) []Finding {
	if lang == "" {
		return nil
	}
	return []Finding{{Check: "language", Status: "ok", Title: lang}}
}
func (f *fakeNode) Hallway() []Listing  { return nil }
func (f *fakeNode) Stats(room.ID) Stats { return Stats{} }
func (f *fakeNode) Communities() []Community {
	return []Community{{PeerID: testPeer}, {PeerID: testNode}}
}

// Reach reaches all but /dns/nobody.
func (f *fakeNode) Reach(_ context.Context, addr string) error {
	if strings.HasPrefix(addr, "/dns/nobody/") {
		return fmt.Errorf("%s: %w", addr, ErrUnanswered)
	}
	return f.did("reach %s", addr)
}

func (f *fakeNode) Profile() Profile {
	f.roomsMu.Lock()
	defer f.roomsMu.Unlock()
	return f.profile
}

func (f *fakeNode) SetProfile(_ context.Context, p Profile) error {
	if err := (identity.Profile{Name: p.Name}).Validate(); err != nil {
		return err
	}
	f.roomsMu.Lock()
	f.profile = p
	f.roomsMu.Unlock()
	return f.did("profile %s", p.Name)
}

func (f *fakeNode) Watch(fn func(string)) func() {
	f.roomsMu.Lock()
	defer f.roomsMu.Unlock()
	n := f.nextFn
	f.nextFn++
	f.changed[n] = fn
	return func() {
		f.roomsMu.Lock()
		defer f.roomsMu.Unlock()
		delete(f.changed, n)
	}
}

func (f *fakeNode) tell(what string) {
	f.roomsMu.Lock()
	defer f.roomsMu.Unlock()
	for _, fn := range f.changed {
		fn(what)
	}
}

func (f *fakeNode) add(rm *fakeRoom) {
	f.roomsMu.Lock()
	defer f.roomsMu.Unlock()
	f.rooms = append(f.rooms, rm)
}

func (f *fakeNode) Create(_ context.Context, n NewRoom) (Room, error) {
	return f.rooms[0], f.did("create %s %s", n.Name, n.Visibility)
}

func (f *fakeNode) JoinLink(_ context.Context, link string, local bool) (Room, error) {
	return f.rooms[0], f.did("join %s %v", link, local)
}

func (f *fakeNode) JoinRoom(_ context.Context, id room.ID, local bool) (Room, error) {
	if _, ok := f.Room(id); !ok {
		return nil, session.ErrUnknown
	}
	return f.rooms[0], f.did("join room %v", local)
}

func (f *fakeNode) Room(id room.ID) (Room, bool) {
	f.roomsMu.Lock()
	defer f.roomsMu.Unlock()
	for _, r := range f.rooms {
		if r.id == id {
			return r, true
		}
	}
	return nil, false
}

func (f *fakeNode) Rooms() (list []Room) {
	f.roomsMu.Lock()
	defer f.roomsMu.Unlock()
	for _, r := range f.rooms {
		list = append(list, r)
	}
	return list
}

func (f *fakeNode) Answer(_ context.Context, _ room.ID, offer string) (string, string, error) {
	switch {
	case strings.Contains(offer, "one"):
		return "", "", ErrNoMix
	case !strings.HasPrefix(offer, "v=0"):
		return "", "", fmt.Errorf("line 1: %w", ErrOffer)
	}
	return "leg1", "v=0 answer", f.did("answer")
}

func (f *fakeNode) HangUp(_ context.Context, _ room.ID, leg string) error {
	if leg != "leg1" {
		return ErrNoLeg
	}
	return f.did("hang up")
}

func (f *fakeNode) Echo(ctx context.Context, offer string) (string, string, error) {
	return f.Answer(ctx, room.ID{}, offer)
}

func (f *fakeNode) EndEcho(ctx context.Context, leg string) error {
	return f.HangUp(ctx, room.ID{}, leg)
}

const (
	testPeer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
	testNode = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
)

var testPage = fstest.MapFS{
	"index.html":             {Data: []byte("<!doctype html>page")},
	"assets/app-12345678.js": {Data: []byte("1")},
	"icon.svg":               {Data: []byte("<svg/>")},
}

// daemon is a running API over a fake node.
type daemon struct {
	t    *testing.T
	addr string
	node *fakeNode
	room *fakeRoom
	stop func() error // ends Serve and waits; also done by the test's cleanup
}

func start(t *testing.T, change ...func(*Config)) *daemon {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rm := newFakeRoom(1)
	d := &daemon{t: t, addr: l.Addr().String(), node: newFakeNode(rm), room: rm}
	c := Config{Backend: d.node, Token: testToken, Web: testPage, Addr: d.addr, Version: "test"}
	for _, f := range change {
		f(&c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, New(c), slog.New(slog.DiscardHandler)) }()
	d.stop = sync.OnceValue(func() error { cancel(); return <-served })
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Error("Serve:", err)
		}
	})
	return d
}

// raw sends text as it is and gives the status and the header of the answer, status 0 for none.
func (d *daemon) raw(text string) (int, http.Header) {
	d.t.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, text); err != nil {
		d.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode, resp.Header
}

// do sends a request with the token; header is key, value, key, value.
func (d *daemon) do(method, path, body string, header ...string) (int, string, http.Header) {
	d.t.Helper()
	req, err := http.NewRequest(method, "http://"+d.addr+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	if body != "" {
		req.Header.Set("Content-Type", jsonType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i+1] == "" {
			req.Header.Del(header[i])
		}
	}
	resp, err := quick.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, string(data), resp.Header
}

// quick keeps no connection, follows no redirect.
var quick = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (d *daemon) inRoom(path string) string { return base + "/rooms/" + d.room.id.String() + path }

// concrete fills the variables of a pattern.
func (d *daemon) concrete(pattern string) string {
	return base + strings.NewReplacer("{id}", d.room.id.String(), "{peer}", testPeer, "{action}", "stage",
		"{invite}", room.ID{9}.String(), "{leg}", "leg1").Replace(pattern)
}

var _ Backend = (*fakeNode)(nil)
