package wire_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"balai/identity"
	"balai/room/wire"
)

// An envelope that holds more than its three fields is none: nobody has signed the rest, and who keeps the record would keep it
// and give it on. In the signed body of a later version there may be more.
func TestAnEnvelopeHoldsNothingElse(t *testing.T) {
	k, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	more := []byte{0xf8, 0x07, 1} // field 127, varint 1
	s := wire.Sign(k, wire.DomainChat, &wire.Chat{Text: "x"})
	s.Body = append(s.Body, more...)
	s.Sig = k.Sign(wire.DomainChat, s.Body)
	var m wire.Chat
	if _, err := wire.Open(s, wire.DomainChat, &m); err != nil || m.Text != "x" {
		t.Fatalf("more in the body: %v", err)
	}
	b, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var fat wire.Signed
	if err := proto.Unmarshal(append(b, more...), &fat); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.Open(&fat, wire.DomainChat, &m); err == nil {
		t.Error("more in the envelope is taken")
	}
}
