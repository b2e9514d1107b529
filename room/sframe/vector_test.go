package sframe

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/*.txt from the code")

// vector is one file of `name: value` lines; bytes are hex, counts decimal.
type vector map[string]string

func load(t *testing.T, name string) vector {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	v := vector{}
	for line := range strings.Lines(string(b)) {
		if k, val, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && !strings.HasPrefix(k, "#") {
			v[k] = strings.TrimSpace(val)
		}
	}
	return v
}

// check compares what the code makes with the file, or writes it into the file.
func (v vector) check(t *testing.T, file, key string, got []byte) {
	t.Helper()
	if *rewrite {
		v[key] = hex.EncodeToString(got)
		v.save(t, file)
		return
	}
	if !bytes.Equal(v.bytes(t, key), got) {
		t.Errorf("%s: %s\n got %x\nwant %s", file, key, got, v[key])
	}
}

func (v vector) save(t *testing.T, file string) {
	t.Helper()
	keys := make([]string, 0, len(v))
	for k := range v {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "%s: %s\n", k, v[k])
	}
	if err := os.WriteFile(filepath.Join("testdata", file), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (v vector) bytes(t *testing.T, key string) []byte {
	t.Helper()
	b, err := hex.DecodeString(v[key])
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return b
}

func (v vector) number(t *testing.T, key string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(v[key], 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return n
}

func (v vector) owner(t *testing.T) Owner {
	return Owner{[32]byte(v.bytes(t, "room")), string(v.bytes(t, "peer")), [8]byte(v.bytes(t, "salt"))}
}

// epoch is the file's epoch, ratcheted from step 0 to its step.
func (v vector) epoch(t *testing.T) Epoch {
	e := Epoch{N: v.number(t, "n"), Secret: Secret(v.bytes(t, "secret_step_0"))}
	e.ID = idOf(e.Secret)
	e, err := e.Advance(uint32(v.number(t, "step")))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestRatchetVector(t *testing.T) {
	v := load(t, "ratchet.txt")
	e := Epoch{Secret: Secret(v.bytes(t, "secret_step_0"))}
	e.ID = idOf(e.Secret)
	v.check(t, "ratchet.txt", "epoch_id", e.ID[:])
	for _, step := range []uint32{1, 2, 14, 360} {
		at, err := e.Advance(step)
		if err != nil {
			t.Fatal(err)
		}
		v.check(t, "ratchet.txt", fmt.Sprintf("secret_step_%d", step), at.Secret[:])
	}
}

func TestFrameVector(t *testing.T) {
	const file = "frame.txt"
	v := load(t, file)
	o, e := v.owner(t), v.epoch(t)
	k := o.key(e)
	source := o.Source()
	v.check(t, file, "source", []byte{byte(source >> 16), byte(source >> 8), byte(source)})
	v.check(t, file, "mask", k.mask[:])
	v.check(t, file, "key", expand(e.Secret, string(append(append(append(e.info("balai-frame-key/1", o.Room), byte(len(o.Peer))), o.Peer...), o.Salt[:]...)), keyLen))
	h := frameHeader(source, e, uint32(v.number(t, "ctr")), 3)
	h[5] = 0x80 | 42
	v.check(t, file, "header", h[:])
	s := NewSealer(o, 0)
	s.Rekey(e)
	body, err := s.Seal(nil, h[:], v.bytes(t, "payload"))
	if err != nil {
		t.Fatal(err)
	}
	v.check(t, file, "sealed", body)
	op := NewOpener(o, 0)
	op.Hold(e, time.Time{})
	plain, err := op.Open(nil, v.bytes(t, "header"), v.bytes(t, "sealed"), time.Time{})
	if err != nil || !bytes.Equal(plain, v.bytes(t, "payload")) {
		t.Errorf("open: %x %v", plain, err)
	}
}

func TestGossipVector(t *testing.T) {
	const file = "gossip.txt"
	v := load(t, file)
	room := [32]byte(v.bytes(t, "room"))
	e := v.epoch(t)
	topic := string(v.bytes(t, "topic"))
	v.check(t, file, "sealed", e.sealGossip(room, topic, [nonceLen]byte(v.bytes(t, "nonce")), v.bytes(t, "payload")))
	early := e
	early.Step, early.Secret = 0, Secret(v.bytes(t, "secret_step_0"))
	plain, err := early.OpenGossip(room, topic, v.bytes(t, "sealed"))
	if err != nil || !bytes.Equal(plain, v.bytes(t, "payload")) {
		t.Errorf("open: %x %v", plain, err)
	}
}

func TestHandoutVector(t *testing.T) {
	v := load(t, "handout.txt")
	priv, err := ecdh.X25519().NewPrivateKey(v.bytes(t, "private"))
	if err != nil {
		t.Fatal(err)
	}
	k := handoutKey(priv)
	room, id := [32]byte(v.bytes(t, "room")), EpochID(v.bytes(t, "epoch_id"))
	public := k.Public()
	v.check(t, "handout.txt", "public", public[:])
	if *rewrite {
		enc, ct, err := SealHandout(public[:], room, id, v.bytes(t, "payload"))
		if err != nil {
			t.Fatal(err)
		}
		v.check(t, "handout.txt", "enc", enc)
		v.check(t, "handout.txt", "ct", ct)
	}
	plain, err := k.Open(room, id, v.bytes(t, "enc"), v.bytes(t, "ct"))
	if err != nil || !bytes.Equal(plain, v.bytes(t, "payload")) {
		t.Errorf("open: %x %v", plain, err)
	}
}

func TestBlockVector(t *testing.T) {
	const file = "block.txt"
	v := load(t, file)
	o, e := v.owner(t), v.epoch(t)
	key := ed25519.NewKeyFromSeed(v.bytes(t, "sign_seed"))
	s := NewBlockSigner(o, signer(key))
	now := time.UnixMilli(int64(v.number(t, "wall_ms")))
	for i := range 3 {
		if err := s.Add(e.ID, v.bytes(t, fmt.Sprintf("entry_%d", i)), now); err != nil {
			t.Fatal(err)
		}
	}
	h, body, err := s.Block(nil, now)
	if err != nil {
		t.Fatal(err)
	}
	v.check(t, file, "header", h[:])
	v.check(t, file, "body", body)
	ver := NewBlockVerifier(o, key.Public().(ed25519.PublicKey))
	ver.Hold(e.N, e.ID)
	for i := range 3 {
		ver.Frame(v.bytes(t, fmt.Sprintf("entry_%d", i)), 1, true, now)
	}
	got, err := ver.Block(v.bytes(t, "header"), v.bytes(t, "body"), now)
	if err != nil || got.Verified != 3 || got.Bad != 0 {
		t.Errorf("verify: %+v %v", got, err)
	}
}

// signer signs as an identity key does.
func signer(key ed25519.PrivateKey) func(string, []byte) []byte {
	return func(domain string, body []byte) []byte {
		return ed25519.Sign(key, append(append([]byte(domain), 0), body...))
	}
}

func frameHeader(source uint32, e Epoch, ctr uint32, ticks byte) (h [HeaderLen]byte) {
	h[0] = ticks << 2
	h[1], h[2], h[3] = byte(source>>16), byte(source>>8), byte(source)
	h[4] = e.Nibbles()
	h[6], h[7], h[8] = byte(ctr>>16), byte(ctr>>8), byte(ctr)
	return h
}
