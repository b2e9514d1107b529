package node

import (
	"time"

	"balai/node/api"
	"balai/room"
	"balai/room/session"
)

// hostFinding says what becomes of a room without its host: to her before it matters, to the others when she has long been silent.
func hostFinding(say wording, v session.View, now time.Time) (f api.Finding, ok bool) {
	x := v.Succession
	frozen := say("Without the host's key nobody can appoint or dismiss moderators, hand the room over, or end it. Those who are moderators go on as they are.")
	switch {
	case v.Me.Role == hostRole && x.Heir == "":
		return finding("host", "ok", say("“%s” has no heir", v.Name), frozen, say("Keep a backup of your key (balai identity export). Appoint a moderator and hand the room over before you go for good.")), true
	case v.Me.Role == hostRole:
		return finding("host", "ok", say("The heir of “%s” is %s", v.Name, x.HeirName), say("If your key is lost she may take the room over, when most moderators agree. Without a moderator besides her she cannot."),
			say("Appoint moderators who would notice that you are gone.")), true
	case x.From == nil || now.Before(*x.From):
		return f, false
	}
	title := say("The host of “%s” was last heard %d days ago", v.Name, max(1, int(now.Sub(*x.HostHeardAt).Hours())/24))
	switch {
	case x.Heir == "":
		return finding("host", "warn", title, say.sentences(frozen, say("The room has no heir.")), say("Open a new room if the host does not come back.")), true
	case x.Heir == v.Me.PeerID:
		return finding("host", "warn", title, say("You are the heir: you may ask the moderators for the room."), say("Ask the host by another way first; then balai room succeed, or the button in the room.")), true
	}
	return finding("host", "warn", title, say.sentences(frozen, say("The heir is %s, who may ask the moderators for the room.", x.HeirName)), say("Tell the heir, if the host is lost.")), true
}

// hostRole is the host's word in a view.
var hostRole = room.Host.String()

// ledgerFinding tells that the host's checkpoint is of another state than this daemon's.
func ledgerFinding(say wording, v session.View) (f api.Finding, ok bool) {
	if !v.Differs {
		return f, false
	}
	return finding("ledger", "fail", say("“%s” is another room here than at its host", v.Name),
		say("The host signed what follows from the decisions so far, and this program makes something else of the same ones: one of the two programs has a fault, or the host's is not honest. Who may do what can differ."),
		say("Update Balai here and at the host. Compare balai room ledger with others.")), true
}
