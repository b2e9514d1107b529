package election

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

var leaseErrors = map[string]error{
	"ok": nil, "older": ErrOlder, "not_chair": ErrNotChair, "term": ErrTerm, "reach": ErrReach, "widened": room.Widened,
	"banned": room.Banned, "removed": room.Removed, "no_relay": room.NoRelay, "ended": room.Ended,
}

// The decision table: testdata/lease has one case a file, in the letters of newPeople.
func TestLeaseTable(t *testing.T) {
	files, _ := filepath.Glob("testdata/lease/*.txt")
	if len(files) < 20 {
		t.Fatalf("%d cases", len(files))
	}
	p := newPeople(t)
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) { leaseCase(t, p, name) })
	}
}

func leaseCase(t *testing.T, p *people, name string) {
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	field := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		field[k] = strings.TrimSpace(v)
	}
	state := *p.state
	state.Policy.VouchedOnly, state.Ended = field["policy"] == "vouched_only", field["policy"] == "ended"
	now := start
	if s := field["after"]; s != "" {
		d, err := time.ParseDuration(s + "s")
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(d)
	}
	var f Force
	if have := p.parseLease(t, field["have"]); have != nil {
		if err := f.Take(have, p.state, p.ranked(), have.By, start); err != nil {
			t.Fatal(err)
		}
	}
	old := f.Lease()
	l := old
	if field["take"] != "same" {
		l = p.parseLease(t, field["take"])
	}
	var chair peer.ID
	if field["chair"] != "none" {
		chair = p.id(field["chair"])
	}
	want, known := leaseErrors[field["expect"]]
	if !known {
		t.Fatalf("expect %q", field["expect"])
	}
	if err := f.Take(l, &state, p.ranked(), chair, now); !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Fatalf("%v, want %v", err, want)
	}
	if inForce := f.Lease(); want == nil && inForce != l || want != nil && inForce != old {
		t.Errorf("in force: %v", inForce)
	}
}

func (p *people) parseLease(t *testing.T, s string) *Lease {
	if s == "none" {
		return nil
	}
	var by, core string
	var term, version uint64
	s = strings.ReplaceAll(s, "c= ", "c=- ")
	if _, err := fmt.Sscanf(s, "%1s c=%s term=%d version=%d", &by, &core, &term, &version); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return p.lease(by, strings.Trim(core, "-"), term, version)
}

func TestLeaseRoundTrip(t *testing.T) {
	p := newPeople(t)
	l := p.lease("h", "av", 3, 4)
	got, err := ParseLease(l.Signed, p.state.Room)
	if err != nil || got.By != p.id("h") || got.Term != 3 || got.Version != 4 || p.show(got.Ads) != "av" || !got.Issued.Equal(start) || got.TTL != LeaseTTL || got.ID != l.ID {
		t.Fatalf("%+v %v", got, err)
	}
	if a := got.Ads[1]; a.Flags != Community || a.Cap != 5000 || a.Slots != 40 || a.Reach != ReachPublic {
		t.Errorf("%+v", a)
	}
	for i := range len(l.Signed.Body) * 8 {
		bad := proto.CloneOf(l.Signed)
		bad.Body[i/8] ^= 1 << (i % 8)
		if _, err := ParseLease(bad, p.state.Room); err == nil {
			t.Fatalf("bit %d turned, and it passes", i)
		}
	}
	if _, err := ParseLease(l.Signed, room.ID{1}); !errors.Is(err, room.WrongRoom) {
		t.Errorf("another room: %v", err)
	}
	o := Objection{Room: p.state.Room, Lease: l.ID, Subject: p.id("a"), Reason: room.NoRelay, At: start}
	if back, err := ParseObjection(o.Sign(p.keys["s"]), p.state.Room); err != nil || back.Peer != p.id("s") || back.Subject != p.id("a") || back.Lease != l.ID {
		t.Errorf("%+v %v", back, err)
	}
}

// An ad that another signed, and a core without its ad, are malformed.
func TestLeaseNeedsEachAd(t *testing.T) {
	p := newPeople(t)
	w := &wire.CoreLease{Room: p.state.Room[:], Term: 1, Version: 1, Core: [][]byte{[]byte(p.id("a"))}, Ads: []*wire.Signed{p.ad("b").Signed}, IssuedMs: start.UnixMilli(), TtlS: 30}
	if _, err := ParseLease(wire.Sign(p.keys["h"], wire.DomainCoreLease, w), p.state.Room); !errors.Is(err, room.Malformed) {
		t.Errorf("another's ad: %v", err)
	}
	w.Ads = nil
	if _, err := ParseLease(wire.Sign(p.keys["h"], wire.DomainCoreLease, w), p.state.Room); !errors.Is(err, room.Malformed) {
		t.Errorf("no ad: %v", err)
	}
	w.Core = nil
	for range MaxCore + 1 {
		w.Core, w.Ads = append(w.Core, []byte(p.id("a"))), append(w.Ads, p.ad("a").Signed)
	}
	if _, err := ParseLease(wire.Sign(p.keys["h"], wire.DomainCoreLease, w), p.state.Room); !errors.Is(err, room.Malformed) {
		t.Errorf("nine: %v", err)
	}
}

func FuzzParseAd(f *testing.F)        { fuzzRecord(f, wire.DomainRelayAd) }
func FuzzParseLease(f *testing.F)     { fuzzRecord(f, wire.DomainCoreLease) }
func FuzzParseObjection(f *testing.F) { fuzzRecord(f, wire.DomainObjection) }

// fuzzRecord signs whatever body comes, so that the parser behind the signature is met.
func fuzzRecord(f *testing.F, domain string) {
	k, err := identity.Generate()
	if err != nil {
		f.Fatal(err)
	}
	a := Ad{Slots: 3, Prefix: "abc", Issued: start}.Sign(k)
	ad, err := ParseAd(a, room.ID{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.Body)
	f.Add(Lease{Term: 1, Version: 1, Ads: []*Ad{ad}, Issued: start, TTL: LeaseTTL}.Sign(k).Signed.Body)
	f.Add(Objection{Subject: k.ID(), Reason: 20, At: start}.Sign(k).Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		s := &wire.Signed{Body: body, Sig: k.Sign(domain, body), Key: k.Public()}
		switch domain {
		case wire.DomainRelayAd:
			if a, err := ParseAd(s, room.ID{}); err == nil && (a.Peer != k.ID() || len(a.Record) > maxRecord) {
				t.Fatalf("%+v", a)
			}
		case wire.DomainCoreLease:
			if l, err := ParseLease(s, room.ID{}); err == nil && (len(l.Ads) > MaxCore || l.Term == 0 || l.By != k.ID()) {
				t.Fatalf("%+v", l)
			}
		default:
			if o, err := ParseObjection(s, room.ID{}); err == nil && (o.Peer != k.ID() || o.Reason == 0) {
				t.Fatalf("%+v", o)
			}
		}
	})
}
