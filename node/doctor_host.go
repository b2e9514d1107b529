package node

import (
	"fmt"
	"time"

	"balai/node/api"
	"balai/room"
	"balai/room/session"
)

// hostFinding says what becomes of a room without its host: to her before it matters, to the others when she has long been silent.
func hostFinding(v session.View, now time.Time) (f api.Finding, ok bool) {
	const frozen = "Without the host's key nobody can appoint or dismiss moderators, hand the room over, or end it. Those who are moderators go on as they are."
	x, room := v.Succession, "“"+v.Name+"”"
	switch {
	case v.Me.Role == hostRole && x.Heir == "":
		return finding("host", "ok", room+" has no heir", frozen, "Keep a backup of your key (balai identity export). Appoint a moderator and hand the room over before you go for good."), true
	case v.Me.Role == hostRole:
		return finding("host", "ok", "The heir of "+room+" is "+x.HeirName, "If your key is lost she may take the room over, when most moderators agree. Without a moderator besides her she cannot.",
			"Appoint moderators who would notice that you are gone."), true
	case x.From == nil || now.Before(*x.From):
		return f, false
	}
	title := fmt.Sprintf("The host of %s was last heard %s ago", room, age(now.Sub(*x.HostHeardAt)))
	switch {
	case x.Heir == "":
		return finding("host", "warn", title, frozen+" The room has no heir.", "Open a new room if the host does not come back."), true
	case x.Heir == v.Me.PeerID:
		return finding("host", "warn", title, "You are the heir: you may ask the moderators for the room.", "Ask the host by another way first; then balai room succeed, or the button in the room."), true
	}
	return finding("host", "warn", title, frozen+" The heir is "+x.HeirName+", who may ask the moderators for the room.", "Tell the heir, if the host is lost."), true
}

// hostRole is the host's word in a view.
var hostRole = room.Host.String()

// age is a long time in words that do not change each minute.
func age(d time.Duration) string {
	if days := int(d.Hours()) / 24; days > 1 {
		return fmt.Sprintf("%d days", days)
	}
	return "a day"
}

// ledgerFinding tells that the host's checkpoint is of another state than this daemon's.
func ledgerFinding(v session.View) (f api.Finding, ok bool) {
	if !v.Differs {
		return f, false
	}
	return finding("ledger", "fail", "“"+v.Name+"” is another room here than at its host",
		"The host signed what follows from the decisions so far, and this program makes something else of the same ones: one of the two programs has a fault, or the host's is not honest. Who may do what can differ.",
		"Update Balai here and at the host. Compare balai room ledger with others."), true
}
