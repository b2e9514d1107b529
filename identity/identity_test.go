package identity

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// vector reads "name: value" lines up to the first empty line, and what follows it.
func vector(t *testing.T, path string) (map[string]string, []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(data), "\n\n")
	fields := map[string]string{}
	for _, line := range strings.Split(strings.TrimRight(head, "\n"), "\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("%s: bad line %q", path, line)
		}
		fields[name] = strings.TrimPrefix(value, " ")
	}
	return fields, []byte(rest)
}

func vectors(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no vectors for %s: %v", pattern, err)
	}
	return paths
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func generate(t *testing.T) *Key {
	t.Helper()
	k, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The vectors were made with OpenSSL and a few lines of Python, not with this package.
func TestVectors(t *testing.T) {
	for _, path := range vectors(t, "sign-*.txt") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			v, _ := vector(t, path)
			k, err := fromSeed(unhex(t, v["seed"]))
			if err != nil {
				t.Fatal(err)
			}
			body := unhex(t, v["body"])
			id := RecordID(v["domain"], body)
			short := ShortID(k.ID())
			for name, got := range map[string]string{
				"public":      hex.EncodeToString(k.Public()),
				"peer":        k.ID().String(),
				"short":       hex.EncodeToString(short[:]),
				"fingerprint": Fingerprint(k.ID()),
				"id":          hex.EncodeToString(id[:]),
				"signature":   hex.EncodeToString(k.Sign(v["domain"], body)),
				"words":       Words(v["domain"], body),
			} {
				if got != v[name] {
					t.Errorf("%s = %s, want %s", name, got, v[name])
				}
			}
			if !Verify(k.Public(), v["domain"], body, unhex(t, v["signature"])) {
				t.Error("the signature does not verify")
			}
		})
	}
}

func TestVerifyRefusesAnyChange(t *testing.T) {
	k := generate(t)
	body := []byte("hello")
	sig := k.Sign("balai-op/1", body)
	if !Verify(k.Public(), "balai-op/1", body, sig) {
		t.Fatal("own signature refused")
	}
	for i := range len(sig) * 8 {
		bad := bytes.Clone(sig)
		bad[i/8] ^= 1 << (i % 8)
		if Verify(k.Public(), "balai-op/1", body, bad) {
			t.Fatalf("accepted with bit %d of the signature turned", i)
		}
	}
	for name, ok := range map[string]bool{
		"domain":     Verify(k.Public(), "balai-ad/1", body, sig),
		"body":       Verify(k.Public(), "balai-op/1", []byte("hellp"), sig),
		"key":        Verify(generate(t).Public(), "balai-op/1", body, sig),
		"short key":  Verify(k.Public()[:31], "balai-op/1", body, sig),
		"no key":     Verify(nil, "balai-op/1", body, sig),
		"short sig":  Verify(k.Public(), "balai-op/1", body, sig[:63]),
		"no sig":     Verify(k.Public(), "balai-op/1", body, nil),
		"moved zero": Verify(k.Public(), "balai-op", append([]byte("/1\x00"), body...), sig),
	} {
		if ok {
			t.Errorf("accepted with another %s", name)
		}
	}
}

func TestPeerIDs(t *testing.T) {
	k := generate(t)
	id, err := PeerOf(k.Public())
	if err != nil || id != k.ID() {
		t.Fatalf("PeerOf = %s, %v; want %s", id, err, k.ID())
	}
	pub, err := PublicOf(id)
	if err != nil || !bytes.Equal(pub, k.Public()) {
		t.Fatalf("PublicOf = %x, %v", pub, err)
	}
	if _, err := PeerOf(pub[:31]); err == nil {
		t.Error("a public key of 31 bytes has a peer id")
	}
	_, secp, err := crypto.GenerateSecp256k1Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := peer.IDFromPublicKey(secp)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []peer.ID{other, "", "junk", id[:20]} {
		if _, err := PublicOf(p); !errors.Is(err, ErrNotEd25519) {
			t.Errorf("PublicOf(%x) = %v, want ErrNotEd25519", string(p), err)
		}
	}
	back, err := peer.IDFromPrivateKey(k.Private())
	if err != nil || back != id {
		t.Errorf("libp2p sees %s, %v", back, err)
	}
}

// Every way of printing a key shows its peer id and nothing of the seed.
func TestKeyNeverPrints(t *testing.T) {
	k := generate(t)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n", k)
		fmt.Fprintf(&out, verb+"\n", struct{ K *Key }{k})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", "key", k)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "key", k)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "in", struct{ K *Key }{k})
	if _, err := json.Marshal(k); err == nil {
		t.Error("a key can be marshalled")
	}
	if !strings.Contains(out.String(), k.ID().String()) {
		t.Error("the peer id is not shown")
	}
	seed := k.private.Seed()
	for _, form := range []string{string(seed[:8]), hex.EncodeToString(seed[:4]), strings.ToUpper(hex.EncodeToString(seed[:4])), fmt.Sprint(seed)[1:12]} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the output holds a part of the seed: %q", out.String())
		}
	}
}

func TestPublicIsACopy(t *testing.T) {
	k := generate(t)
	k.Public()[0] ^= 1
	if id, err := PeerOf(k.Public()); err != nil || id != k.ID() {
		t.Fatal("a caller changed the key")
	}
}
