package session

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/ledger"
	"balai/room/wire"
)

// The host lets somebody in and is gone for good before anybody else hears of it. Those who are left come together: the newcomer
// shows how she came in, whether she has just come or comes back.
func TestTheHostIsGoneBeforeTheOthersHear(t *testing.T) {
	for name, after := range map[string]func(w *world, ana, ben *soul){
		"at once": func(w *world, ana, ben *soul) {
			w.within(5*time.Second, "they know each other, while each takes the other for here", func() bool { return ana.holds(ben) })
		},
		"she comes back":    func(_ *world, _, ben *soul) { ben.restart() },
		"after ten minutes": func(w *world, _, ben *soul) { ben.halt(); w.after(10 * time.Minute); ben.restart() },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, seeds, func(t *testing.T, w *world) {
				host, ana, ben := w.person("Host"), w.person("Ana"), w.person("Ben")
				host.open(room.Unlisted)
				link := host.invites(InviteTerms{Role: room.Speaker})
				ana.come(link)
				w.settle(host, ana)
				w.weather(1, 0)
				ben.come(link)
				w.kill(host)
				w.weather(0, 0)
				if ana.holds(ben) {
					t.Fatal("she heard of it")
				}
				after(w, ana, ben)
				w.settle(ana, ben)
				w.mutual(ana, ben)
			})
		})
	}
}

// A stranger who refuses everybody who asks is shown nothing, whether somebody comes back or is alone; a member is.
func TestAStrangerIsShownNothing(t *testing.T) {
	for name, member := range map[string]bool{"a stranger": false, "a member": true} {
		t.Run(name, func(t *testing.T) {
			simulate(t, seeds, func(t *testing.T, w *world) {
				host, ana, eve := w.person("Host"), w.person("Ana"), w.person("Eve")
				host.open(room.Unlisted)
				link := host.invites(InviteTerms{Role: room.Speaker})
				ana.come(link)
				if member {
					eve.come(link)
					w.settle(host, ana, eve)
				}
				var asked, shown atomic.Int32
				eve.serve = func(_ string, st *pipe) bool {
					var req wire.LedgerRequest
					if st.Read(&req) == nil {
						asked.Add(1)
						shown.Add(int32(len(req.Ops)))
						_ = st.Write(refuseLedger(room.NoAdmitter))
					}
					return true
				}
				ana.hints = []peer.ID{eve.id}
				w.kill(host)
				if member {
					eve.halt()
				}
				ana.restart()
				w.after(time.Minute)
				if asked.Load() == 0 || (shown.Load() > 0) != member {
					t.Errorf("asked %d times, shown %d decisions", asked.Load(), shown.Load())
				}
			})
		})
	}
}

// What a stranger shows counts as far as authorities signed it. She gets nothing by what others may not decide, nor by much of
// it, and strangers together have only so much looked at.
func TestAStrangerShowsDecisions(t *testing.T) {
	s, now := still(t), time.Now()
	mod, ben := mustKey(t), mustKey(t)
	s.letIn(t, mod.ID(), room.Speaker)
	s.write(t, room.Op{Kind: room.Appoint, Targets: []peer.ID{mod.ID()}})
	theirs, err := ledger.New(s.ledger.Genesis())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.ledger.All() {
		theirs.Add(e.Signed)
	}
	admit := func(by *identity.Key) *wire.Signed {
		op, err := theirs.Draft(mod, room.Op{Kind: room.Admit, Admissions: []room.Admission{{Peer: ben.ID(), Role: room.Listener, Name: "x"}}}, now)
		if err != nil {
			t.Fatal(err)
		}
		if by != mod {
			op = &wire.Signed{Key: by.Public(), Body: op.Body, Sig: by.Sign(wire.DomainOp, op.Body)}
		}
		return op
	}
	ask := func(at time.Time, ops ...*wire.Signed) room.Reason {
		return room.Reason(s.ledgerReply(ben.ID(), &wire.LedgerRequest{Room: s.cfg.Room[:], Ops: ops}, at).Refused)
	}
	good, forged := admit(mod), admit(mod)
	forged.Sig[0] ^= 1
	for name, ops := range map[string][]*wire.Signed{
		"nothing": nil, "her own word": {admit(ben)}, "a false signature": {forged}, "nil": {nil}, "no key": {{Body: good.Body, Sig: good.Sig}},
		"too much": append(make([]*wire.Signed, maxShown), good),
	} {
		if got := ask(now, ops...); got != room.NoAdmitter || len(s.pending) > 0 {
			t.Errorf("%s: %v, %d kept aside", name, got, len(s.pending))
		}
	}
	s.guest = true
	if got := ask(now, good); got != room.NoAdmitter {
		t.Errorf("at a guest's: %v", got)
	}
	s.guest = false
	for range 40 {
		ask(now, forged)
	}
	if got := ask(now, good); got != room.NoAdmitter {
		t.Errorf("after forty of others at once: %v", got)
	}
	if got := ask(now.Add(time.Second), good); got != 0 || s.state.Role(ben.ID()) != room.Listener {
		t.Errorf("by the moderator's decision, a second later: %v, %v", got, s.state.Role(ben.ID()))
	}
	s.write(t, room.Op{Kind: room.Kick, Targets: []peer.ID{ben.ID()}})
	if got := ask(now.Add(2*time.Second), good); got != room.Removed {
		t.Errorf("after she was put out: %v", got)
	}
}

// FuzzRequest feeds what a stranger may ask of a member. She gets no decision and no key, and nobody comes to be a member by her.
func FuzzRequest(f *testing.F) {
	s, stranger := still(f), mustKey(f)
	ops, _ := s.ledger.Since(nil, maxOps)
	own := wire.Sign(stranger, wire.DomainOp, &wire.Op{Room: s.cfg.Room[:], Seq: 1, Kind: uint32(room.Admit)})
	for _, req := range []*wire.LedgerRequest{
		{Room: s.cfg.Room[:], Heads: ledger.EncodeSeen(s.ledger.Locator()), Ops: append(ops, own), Leave: s.signSource(time.Now())},
		{Accept: ops[0].Body[:32], Succeed: make([]byte, 32), HandoutKey: s.signHandoutKey(time.Now()), Pass: own},
	} {
		b, _ := proto.Marshal(req)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req wire.LedgerRequest
		if proto.Unmarshal(b, &req) != nil {
			return
		}
		s.flood.buckets = nil // no limit hides a request from the test
		if rep := s.ledgerReply(stranger.ID(), &req, time.Now()); rep.Refused == 0 || len(rep.Ops) > 0 || len(rep.Keys) > 0 {
			t.Fatalf("answered: %v", rep)
		}
		if s.phase != Live || len(s.state.Members) != 1 || len(s.live) > 1 || len(s.pending) > 0 {
			t.Fatalf("%s with %d members, %d live, %d kept aside", s.phase, len(s.state.Members), len(s.live), len(s.pending))
		}
	})
}
