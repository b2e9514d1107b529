package invite

import (
	"crypto/ed25519"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
)

// sign is identity.Key.Sign for the key of an invite's holder, which is nobody's identity.
func sign(key ed25519.PrivateKey, domain string, body []byte) []byte {
	return ed25519.Sign(key, append(append([]byte(domain), 0), body...))
}

// peerOf is the peer id of a key that the parser gave, so of the right length.
func peerOf(pub ed25519.PublicKey) peer.ID {
	id, err := identity.PeerOf(pub)
	if err != nil {
		panic("impossible: a public key of 32 bytes: " + err.Error())
	}
	return id
}
