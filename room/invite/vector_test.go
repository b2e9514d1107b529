package invite

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/room"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/*.txt anew")

// vectors are the cases of testdata, one file each. A file has a line for each field: comment; expect (ok, or
// the reason of the refusal); now (RFC 3339); token; and where they matter: appoint (hex id of the op under
// which the issuer is a moderator), join (the room that the invite is shown to, when it is not its own)
// and newcomer (peer id). A token that can be read also has room and invite, its ids, role, and public
// (hex of what travels in HELLO).
func vectors(t *testing.T) map[string]map[string]string {
	out := map[string]map[string]string{}
	add := func(name, comment, expect, token string, more ...string) {
		f := map[string]string{"comment": comment, "expect": expect, "now": now.Format(time.RFC3339), "token": token}
		for i := 0; i < len(more); i += 2 {
			f[more[i]] = more[i+1]
		}
		if v, err := ParseLink(token); err == nil {
			f["room"], f["invite"], f["role"] = v.Room().String(), v.ID().String(), v.Grant().Role.String()
			f["public"] = hex.EncodeToString(v.Public())
		}
		out[name] = f
	}
	changed := func(change func(*Terms)) *Invite {
		terms := deep()
		change(&terms)
		return mustIssue(t, host, terms)
	}
	goodVectors(t, add)
	one := mustIssue(t, host, plain())
	add("expired", "one second more than the skew after its expiry", "expired", one.Token(), "now", now.Add(day+Skew+time.Second).Format(time.RFC3339))
	add("skew", "within the skew after its expiry", "ok", one.Token(), "now", now.Add(day+Skew).Format(time.RFC3339))
	add("not_yet", "one second more than the skew before its time", "not_yet", one.Token(), "now", now.Add(-time.Hour-Skew-time.Second).Format(time.RFC3339))
	add("wrong_room", "shown to a room of the same host with another R", "wrong_room", one.Token(), "join", room.IDOf(host.Public(), room.Secret{}.Nonce()).String())
	forged := mustIssue(t, host, plain())
	forged.Blocks[0].Uses = 0
	add("bad_signature", "unlimited uses written over 20", "bad_signature", forged.Token())
	add("no_moderator", "issued by somebody who is neither host nor moderator", "bad_signature", mustIssue(t, mod, plain()).Token())
	add("role", "a block that makes a moderator", "malformed", resign(changeBlock(changed(func(*Terms) {}), func(b *Block) { b.Role = room.Moderator }), host).Token())
	add("too_deep", "a first block of depth 3", "depth", resign(changeBlock(changed(func(*Terms) {}), func(b *Block) { b.Depth = 3 }), host).Token())
	add("depth", "given on from a block of depth 0", "depth", forge(one, one.Grant(), seedOf(17)).Token())
	for name, c := range map[string]func(*Block){
		"role": func(b *Block) { b.Role = room.Speaker }, "uses": func(b *Block) { b.Uses = 0 },
		"knock": func(b *Block) { b.Knock = false }, "strict": func(b *Block) { b.Strict = false },
		"audience": func(b *Block) { b.Audience = nil }, "expiry": func(b *Block) { b.Expiry = b.Expiry.Add(time.Second) },
	} {
		v := changed(func(t *Terms) { t.Knock, t.Strict, t.Audience = true, true, guest.ID() })
		b := v.Grant()
		b.Depth--
		c(&b)
		add("widened_"+name, "a delegated block, well signed, that grants more than its parent: "+name, "widened", forge(v, b, seedOf(17)).Token())
	}
	aud := changed(func(t *Terms) { t.Audience = guest.ID() }).Token()
	add("audience", "for one person, used by her", "ok", aud, "newcomer", guest.ID().String())
	add("wrong_audience", "for one person, used by another", "wrong_audience", aud, "newcomer", other.ID().String())
	malformedVectors(t, add)
	return out
}

type adder func(name, comment, expect, token string, more ...string)

func goodVectors(t *testing.T, add adder) {
	terms := plain()
	terms.Hints = []Hint{hintAt(host, "203.0.113.7", HintMember), hintAt(other, "203.0.113.8", HintBoth)}
	add("host", "issued by the host, with the hints of host and community node", "ok", mustIssue(t, host, terms).Token())
	terms = deep()
	terms.Role, terms.Knock = room.Speaker, true
	terms.Hints = []Hint{hintAt(mod, "2001:db8::7", HintMember), hintAt(other, "node.example", HintRendezvous)}
	v := mustIssue(t, mod, terms)
	op := hex.EncodeToString(appoint[:])
	add("moderator", "issued by a moderator", "ok", v.Token(), "appoint", op)
	d := mustDelegate(t, v, Terms{Role: room.Listener, Depth: 1, Uses: 5})
	e := mustDelegate(t, d, Terms{Audience: guest.ID(), Expiry: now.Add(time.Hour)})
	add("chain", "three blocks", "ok", e.Token(), "appoint", op, "newcomer", guest.ID().String())
	op = strings.Repeat("00", 32)
	add("reappointed", "the moderator was appointed by another op since", "bad_signature", v.Token(), "appoint", op)
}

func malformedVectors(t *testing.T, add adder) {
	terms := plain()
	terms.Hints = []Hint{hintAt(host, "203.0.113.7", HintMember)}
	v := mustIssue(t, host, terms)
	raw := rawOf(t, v.Token())
	at := len(raw) - 4 - 7 // the hint's type byte
	with := func(i int, b byte) string {
		m := append([]byte(nil), raw...)
		m[i] = b
		return retoken(m)
	}
	more := func(b ...byte) string { return retoken(append(append(raw[:len(raw)-4:len(raw)-4], b...), 0, 0, 0, 0)) }
	add("checksum", "the last bit of the checksum flipped", "malformed", tokenText.EncodeToString(append(raw[:len(raw)-1:len(raw)-1], raw[len(raw)-1]^1)))
	add("version", "version 2", "malformed", with(0, 2))
	add("no_block", "no block at all", "malformed", with(1, 0x01))
	add("trailing", "a byte after the last hint", "malformed", more(0))
	add("short", "fewer hints than counted", "malformed", with(1, 0x12))
	add("five_hints", "five hints", "malformed", with(1, 0x15))
	add("flag", "an unknown flag", "malformed", with(67, 0x80|0x08))
	add("padding", "base64 with padding", "malformed", v.Token()+"=")
	add("hint_zero", "the zero bit of a hint set", "malformed", with(at, raw[at]|0x40))
	add("hint_address", "an address type of 3", "malformed", with(at, raw[at]|0x03))
	add("hint_carrier", "a hint with neither QUIC nor TCP", "malformed", with(at, raw[at]&^0x0c))
	add("hint_own_circuit", "a circuit through the issuer herself", "malformed", with(at, raw[at]|0x20))
	add("hint_port", "port 0", "malformed", retoken(append(append(raw[:len(raw)-6:len(raw)-6], 0, 0), 0, 0, 0, 0)))
	long := append(append([]byte(nil), raw[:at]...), 0x88|hintDNS, maxDNS+1)
	long = append(append(long, strings.Repeat("a", maxDNS+1)...), 0x0f, 0xa1, 0, 0, 0, 0)
	add("hint_name", "a host name of 41 bytes", "malformed", retoken(long))
	twice := append(append([]byte(nil), raw[:67]...), raw[67]&^0x80)
	twice = append(append(append(twice, raw[68:78]...), v.Host...), raw[78:]...)
	add("issuer_twice", "the host's key written out where the flag stands for it", "malformed", retoken(twice))
	e := mustDelegate(t, mustDelegate(t, mustIssue(t, host, deep()), Terms{Depth: 1}), Terms{})
	add("four_blocks", "a chain of four", "malformed", forge(e, e.Grant(), seedOf(65)).Token())
	backwards := mustIssue(t, host, plain())
	backwards.Blocks[0].Expiry = backwards.Blocks[0].NotBefore
	add("backwards", "an expiry that is not after the beginning", "malformed", resign(backwards, host).Token())
}

func changeBlock(v *Invite, change func(*Block)) *Invite {
	change(&v.Blocks[0])
	return v
}

var fields = []string{"comment", "expect", "now", "appoint", "join", "newcomer", "room", "invite", "role", "public", "token"}

func format(f map[string]string) string {
	var b strings.Builder
	for _, name := range fields {
		if f[name] != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, f[name])
		}
	}
	return b.String()
}

func parseVector(t *testing.T, text string) map[string]string {
	f := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok {
			t.Fatalf("line %.60q", line)
		}
		f[name] = value
	}
	return f
}

// TestVectors reads testdata as another program would, and then looks whether the files are the ones that
// this code writes.
func TestVectors(t *testing.T) {
	made := vectors(t)
	if *rewrite {
		for name, f := range made {
			if err := os.WriteFile(filepath.Join("testdata", name+".txt"), []byte(format(f)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) != len(made) {
		t.Fatalf("%d files for %d vectors (%v): run with -rewrite", len(files), len(made), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		if got := format(made[name]); got != string(text) {
			t.Errorf("%s is not what is written now:\n%s", file, got)
		}
		checkVector(t, name, parseVector(t, string(text)))
	}
}

func checkVector(t *testing.T, name string, f map[string]string) {
	at, err := time.Parse(time.RFC3339, f["now"])
	if err != nil {
		t.Fatal(name, err)
	}
	got := "ok"
	if err := judge(t, f, at); err != nil {
		var why room.Reason
		if !errors.As(err, &why) {
			t.Fatalf("%s: no reason in %v", name, err)
		}
		got = why.String()
	}
	if got != f["expect"] {
		t.Errorf("%s: %s, want %s", name, got, f["expect"])
	}
}

func judge(t *testing.T, f map[string]string, at time.Time) error {
	v, err := ParseLink(f["token"])
	if err != nil {
		return err
	}
	if v.Room().String() != f["room"] || v.ID().String() != f["invite"] || hex.EncodeToString(v.Public()) != f["public"] || v.Grant().Role.String() != f["role"] {
		t.Errorf("%s: not as the vector says", f["comment"])
	}
	want := v.Room()
	if f["join"] != "" {
		if want, err = room.ParseID(f["join"]); err != nil {
			t.Fatal(err)
		}
	}
	err = v.Verify(want, at, func(ed25519.PublicKey) (room.OpID, bool) {
		b, err := hex.DecodeString(f["appoint"])
		return room.OpID(append(b, make([]byte, 32)...)[:32]), err == nil && len(b) == 32
	})
	if err != nil || f["newcomer"] == "" {
		return err
	}
	who, err := peer.Decode(f["newcomer"])
	if err != nil {
		t.Fatal(err)
	}
	return v.Admits(who, host.ID())
}
