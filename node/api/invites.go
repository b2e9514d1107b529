package api

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"rsc.io/qr"

	"balai/room"
	"balai/room/invite"
	"balai/room/session"
)

const (
	quietZone = 4                           // modules around a QR code (ISO/IEC 18004, section 5.3.8)
	maxExpiry = int64(10 * 365 * 24 * 3600) // seconds
)

type inspectIn struct {
	Link string `json:"link"`
}

func (h *handler) inviteRoutes() []route {
	return []route{
		endpoint(http.MethodPost, "/invites/inspect", "What a link says, without asking the network.", http.StatusOK, h.inspect),
		get("/rooms/{id}/invites", "The invites that I issued, newest first.", h.invites),
		endpoint(http.MethodPost, "/rooms/{id}/invites", "Issues an invite, or delegates the one that I came by.", http.StatusCreated, h.invite),
		do(http.MethodDelete, "/rooms/{id}/invites/{invite}", "Closes an invite; with branch, all who came through it are out.", h.revoke).
			asking("branch").or(http.StatusBadRequest),
	}
}

func (h *handler) inspect(_ *call, in inspectIn) (invite.Inspection, error) {
	v, err := invite.ParseLink(in.Link)
	if err != nil {
		return invite.Inspection{}, err
	}
	return v.Inspect(h.now())
}

func (h *handler) invites(c *call, _ none) ([]Invite, error) {
	rm, err := h.room(c)
	if err != nil {
		return nil, err
	}
	views, err := rm.Invites(c.r.Context())
	return shown(h.backend.Communities(), views...), err
}

func (h *handler) invite(c *call, in InviteRequest) (Invite, error) {
	rm, err := h.room(c)
	if err != nil {
		return Invite{}, err
	}
	t, err := in.terms()
	if err != nil {
		return Invite{}, err
	}
	v, err := rm.Invite(c.r.Context(), t)
	return shown(h.backend.Communities(), v)[0], err
}

// terms checks the form of a request; whether I may grant it is the session's to say.
func (q InviteRequest) terms() (session.InviteTerms, error) {
	t := session.InviteTerms{Uses: q.Uses, Depth: q.Depth, Knock: q.Knock, Strict: q.Strict}
	var err error
	if t.Role, err = room.ParseRole(q.Role); err != nil || t.Role.Authority() {
		return t, malformed("an invite makes a listener or a speaker")
	}
	if q.Uses < 0 || q.Uses > math.MaxUint16 {
		return t, malformed("uses are 0, without limit, to %d", math.MaxUint16)
	}
	if q.ExpiresIn <= 0 || q.ExpiresIn > maxExpiry {
		return t, malformed("expires_in is 1 to %d seconds", maxExpiry)
	}
	t.ExpiresIn = time.Duration(q.ExpiresIn) * time.Second
	if q.Depth < 0 || q.Depth > invite.MaxDepth {
		return t, refuse(http.StatusBadRequest, room.Depth.String(), "depth is 0 to %d", invite.MaxDepth)
	}
	if q.NotBefore != nil {
		t.NotBefore = *q.NotBefore
	}
	if q.Audience != "" {
		var ok bool
		if t.Audience, ok = parsePeer(q.Audience); !ok {
			return t, malformed("the audience is not a peer id")
		}
	}
	return t, nil
}

func (h *handler) revoke(c *call, _ none) error {
	rm, err := h.room(c)
	if err != nil {
		return err
	}
	id, err := room.ParseID(c.vars["invite"]) // an invite id is written as a room id is
	if err != nil {
		return notFound()
	}
	branch, err := c.flag("branch")
	if err != nil {
		return err
	}
	return rm.Revoke(c.r.Context(), room.InviteID(id), branch)
}

// shown is invites as the API shows them: with a QR code, and the links over community nodes' pages.
func shown(nodes []Community, views ...session.InviteView) []Invite {
	list, hosts := make([]Invite, len(views)), webHosts(nodes)
	for i, v := range views {
		list[i] = Invite{InviteView: v, QR: qrOf(v.Link)}
		inv, err := invite.ParseLink(v.Link)
		for _, host := range hosts {
			if err != nil {
				break
			}
			if link, err := inv.WebLink(host); err == nil { // else it is not for a page
				list[i].Web = append(list[i].Web, link)
			}
		}
	}
	return list
}

// webHosts are the names of community nodes connected now. Whether one serves the page behind /j only its people know.
func webHosts(nodes []Community) (hosts []string) {
	for _, n := range nodes {
		for _, a := range n.Addrs {
			parts := strings.SplitN(a, "/", 4)
			if len(parts) == 4 && parts[0] == "" && slices.Contains([]string{"dns", "dns4", "dns6"}, parts[1]) && !slices.Contains(hosts, parts[2]) {
				hosts = append(hosts, parts[2])
			}
		}
	}
	return hosts
}

// qrOf draws a link as an SVG that scanners read on any background: black on white, level L, with its quiet zone. It
// is empty for a link that is not known, or too long to be drawn.
func qrOf(link string) string {
	if link == "" {
		return ""
	}
	code, err := qr.Encode(link, qr.L)
	if err != nil {
		return ""
	}
	var b strings.Builder
	side := code.Size + 2*quietZone
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" shape-rendering="crispEdges"><title>%s</title><path fill="#fff" d="M0 0h%dv%dH0z"/><path fill="#000" d="`,
		side, side, "QR code of the invite link", side, side)
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			run := 0
			for code.Black(x+run, y) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+quietZone, y+quietZone, run, run)
				x += run
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return b.String()
}
