package invite

import (
	"fmt"
	"strings"

	"balai/room"
)

// linkPrefix begins a link for the desktop.
const linkPrefix = "balai:join#"

// maxLink bounds what ParseLink looks at: a token and the longest address of a community node before it.
const maxLink = MaxToken + 300

// Link is the link to hand out. It holds the seed: never log it.
func (v *Invite) Link() string { return linkPrefix + v.Token() }

// WebLink is a link through the page of a community node (host or host:port). That page's script could read
// the token: so it is only for listeners, and not for an invite that is strict or for one person; for
// those, and for a node that is no host name, the error is room.Malformed.
func (v *Invite) WebLink(node string) (string, error) {
	g := v.last()
	if g.Role != room.Listener || g.Strict || g.Audience != nil {
		return "", fmt.Errorf("this invite is not for a web page: %w", room.Malformed)
	}
	if node == "" || len(node) > 255 || strings.Trim(node, hostChars+":[]") != "" {
		return "", fmt.Errorf("node name %.40q: %w", node, room.Malformed)
	}
	return "https://" + node + "/j#" + v.Token(), nil
}

// ParseLink reads balai:join#…, https://…/j#… or the bare token; spaces around it do no harm. It checks no
// signature and no time (Verify does). The error is room.Malformed.
func ParseLink(s string) (*Invite, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxLink {
		return nil, fmt.Errorf("link of %d characters: %w", len(s), room.Malformed)
	}
	before, token, found := strings.Cut(s, "#")
	switch {
	case !found:
		token = s
	case before+"#" == linkPrefix:
	case strings.HasPrefix(before, "https://") && strings.HasSuffix(before, "/j"):
	default:
		return nil, fmt.Errorf("not a Balai link: %w", room.Malformed)
	}
	return parseToken(token)
}
