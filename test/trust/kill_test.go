package trust

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"balai/node/api"
	"balai/room/invite"
	"balai/room/session"
	"balai/test/hostile"
)

const (
	kills     = 100
	killHosts = 4                      // who are killed side by side
	killAfter = 300 * time.Millisecond // at most, from the first writes on
	acks      = 8                      // as many acknowledged writes a life waits for before that, in the mean
)

// Trust test 43 for the whole daemon: a host's daemon is killed a hundred times, at random moments while it writes
// decisions and invites as fast as it can, and started again each time. It is the same person in the same room, nothing is
// damaged, and all that the API said was done is there. BALAI_SEED tells the kills of an earlier run again, as far as a
// machine can.
func TestKilledWhileDeciding(t *testing.T) {
	t.Parallel()
	seed, err := strconv.ParseUint(os.Getenv("BALAI_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	began := time.Now()
	witness := start(t, "Witness")
	hosts := make([]*doomed, killHosts)
	t.Run("hosts", func(t *testing.T) {
		for i := range hosts {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				x := newDoomed(t, witness, rand.New(rand.NewPCG(seed, uint64(i))))
				hosts[i] = x
				for range kills / killHosts {
					x.life()
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	acts, invites := 0, 0
	for _, x := range hosts {
		acts, invites = acts+x.n, invites+len(x.invites)
	}
	t.Logf("%d kills in %v; %d decisions and %d invites were acknowledged, none is lost", kills, time.Since(began).Round(time.Second), acts, invites)
	if acts < 3*kills || invites < kills {
		t.Errorf("too little was written for that: %d decisions, %d invites", acts, invites)
	}
}

// doomed is a host who is killed, with what was acknowledged to her.
type doomed struct {
	t  *testing.T
	r  *rand.Rand
	d  *daemon
	id string // of the room

	mu      sync.Mutex // guards what follows, while it writes
	n       int        // decisions acknowledged
	acts    []string   // their reasons
	sent    int
	invites map[string]string // links by id
	fields  []*toggle
}

// toggle is something about a member that two decisions switch to and fro.
type toggle struct {
	who     string
	to, fro string // actions
	on      func(session.MemberView, bool) bool
	now     bool
	unsure  bool // the last one was not answered
}

// newDoomed opens a room with a daemon that stays and three members who have gone.
func newDoomed(t *testing.T, witness *daemon, r *rand.Rand) *doomed {
	t.Helper()
	x := &doomed{t: t, r: r, d: start(t, "Host"), invites: map[string]string{}}
	x.id = x.d.open("unlisted")
	link := x.d.link(x.id, "listener")
	if _, err := witness.Join(t.Context(), link, "", true); err != nil {
		t.Fatal(err)
	}
	x.d.until(x.id, "the witness", func(v session.View) bool { return v.Members == 2 })
	var gone []string
	for range 3 {
		gone = append(gone, x.guest(link))
	}
	x.fields = []*toggle{
		{who: gone[0], to: "appoint", fro: "dismiss", on: func(m session.MemberView, in bool) bool { return in && m.Role == "moderator" }},
		{who: gone[1], to: "mute", fro: "unmute", on: nil}, // a member who is not here is shown as muted
		{who: gone[2], to: "kick", fro: "admit", on: func(_ session.MemberView, in bool) bool { return !in }},
	}
	return x
}

// guest comes by the link and goes without a word; she stays a member.
func (x *doomed) guest(link string) string {
	x.t.Helper()
	p := newPeer(x.t)
	v, err := invite.ParseLink(link)
	if err != nil {
		x.t.Fatal(err)
	}
	if _, err := p.Connect(x.t.Context(), x.d.addrs[0]); err != nil {
		x.t.Fatal(err)
	}
	if _, err := p.Join(x.t.Context(), idOf(x.d), hostile.Honest(p, v)); err != nil {
		x.t.Fatal(err)
	}
	_ = p.Close() // once more at the end of the test
	return p.ID().String()
}

// life writes until the daemon is killed, starts it again and looks at what is left.
func (x *doomed) life() {
	eventually(x.t, "she is back in the room", func() bool {
		v, err := x.d.Room(x.t.Context(), x.id)
		return err == nil && v.State == session.Live
	})
	var wg sync.WaitGroup
	end := make(chan struct{})
	for _, f := range x.fields {
		wg.Go(func() { x.decide(f, end) })
	}
	wg.Go(func() { x.invite(end) })
	written := make(chan struct{})
	go func() { wg.Wait(); close(written) }() // who decides too much is refused, and ends
	x.mu.Lock()
	for enough := x.n + len(x.invites) + x.r.IntN(2*acks+1); x.n+len(x.invites) < enough; { // a slow machine writes as much as a fast one
		x.mu.Unlock()
		select {
		case <-written:
			enough = 0
		case <-time.After(2 * time.Millisecond):
		}
		x.mu.Lock()
	}
	x.mu.Unlock()
	time.Sleep(time.Duration(x.r.Int64N(int64(killAfter))))
	x.d.end(syscall.SIGKILL)
	close(end)
	wg.Wait()
	was := x.d.id
	x.d.run()
	if x.d.id != was {
		x.t.Errorf("after a kill she is %s, before %s", x.d.id, was)
	}
	x.check()
}

// over tells whether a life is: also when the daemon refuses, which it does to whoever decides too much.
func over(end chan struct{}, err error) bool {
	select {
	case <-end:
		return true
	default:
	}
	var p *api.Problem
	return errors.As(err, &p)
}

func (x *doomed) decide(f *toggle, end chan struct{}) {
	for {
		action := f.to
		if f.now {
			action = f.fro
		}
		x.mu.Lock()
		x.sent++
		reason := fmt.Sprint("decision ", x.sent)
		x.mu.Unlock()
		err := x.d.Act(x.t.Context(), x.id, f.who, action, reason)
		x.mu.Lock()
		if err == nil {
			x.n++
			f.now = !f.now
			if action != "admit" { // an admission has no reason
				x.acts = append(x.acts, reason)
			}
		}
		x.mu.Unlock()
		var p *api.Problem
		switch {
		case err == nil:
		case errors.As(err, &p) && p.Reason != "rate_limited":
			x.t.Errorf("%s: %v", action, err)
			return
		case over(end, err):
			f.unsure = p == nil
			return
		default:
			f.unsure = true
			return
		}
	}
}

func (x *doomed) invite(end chan struct{}) {
	for {
		v, err := x.d.Invite(x.t.Context(), x.id, api.InviteRequest{Role: "listener", ExpiresIn: 3600})
		if err != nil {
			if p := (*api.Problem)(nil); errors.As(err, &p) {
				x.t.Errorf("an invite: %v", err)
			}
			return
		}
		x.mu.Lock()
		x.invites[v.ID] = v.Link
		x.mu.Unlock()
		if over(end, nil) {
			return
		}
	}
}

// check looks at what is left after a start, as soon as there is anything to look at.
func (x *doomed) check() {
	x.t.Helper()
	d := x.d
	var ops []session.Decision
	if err := d.Do(x.t.Context(), "GET", "/rooms/"+x.id+"/ledger", nil, &ops); err != nil {
		x.t.Error(err)
		return
	}
	reasons, next := map[string]bool{}, uint64(1)
	for _, op := range ops {
		if op.Void {
			x.t.Errorf("a decision is void: %+v", op)
		}
		if op.Author == d.id {
			if op.Seq != next {
				x.t.Errorf("after decision %d comes %d", next-1, op.Seq)
			}
			next = op.Seq + 1
		}
		reasons[op.Reason] = true
	}
	if lost := slices.DeleteFunc(slices.Clone(x.acts), func(s string) bool { return reasons[s] }); len(lost) > 0 {
		x.t.Errorf("acknowledged and lost: %v", lost)
	}
	list, err := d.Invites(x.t.Context(), x.id)
	if err != nil {
		x.t.Error(err)
		return
	}
	held := map[string]string{}
	for _, v := range list {
		held[v.ID] = v.Link
	}
	for id, link := range x.invites {
		if held[id] != link {
			x.t.Errorf("the invite %s was acknowledged and is lost", id)
		}
	}
	x.checkFields()
	findings, err := d.Doctor(x.t.Context())
	if err != nil {
		x.t.Error(err)
	}
	for _, f := range findings {
		if f.Check == "damage" || f.Check == "storage" && f.Status != "ok" {
			x.t.Errorf("the doctor says %+v", f)
		}
	}
	if log := d.stderr.String(); strings.Contains(log, "cannot be read") || strings.Contains(log, "damaged") {
		x.t.Errorf("the log says\n%s", last(log, 2000))
	}
}

// checkFields compares what was decided about the members with what they are.
func (x *doomed) checkFields() {
	x.t.Helper()
	list, err := x.d.Members(x.t.Context(), x.id, "")
	if err != nil {
		x.t.Error(err)
		return
	}
	for _, f := range x.fields {
		if f.on == nil {
			f.now, f.unsure = f.now != f.unsure, false // either is as good
			continue
		}
		i := slices.IndexFunc(list, func(m session.MemberView) bool { return m.PeerID == f.who })
		var m session.MemberView
		if i >= 0 {
			m = list[i]
		}
		is := f.on(m, i >= 0)
		if is != f.now && !f.unsure {
			x.t.Errorf("of %s and %s the last one acknowledged does not hold", f.to, f.fro)
		}
		f.now, f.unsure = is, false
	}
}
