package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ds "github.com/ipfs/go-datastore"

	"balai/identity"
	"balai/node/api"
	"balai/node/store"
	"balai/room/session"
)

// maxGoodSkew is how far the clock may be off before the doctor speaks.
const maxGoodSkew = 90 * time.Second

// doctorLook is how often the doctor looks whether anything is different.
const doctorLook = 2 * time.Second

// Doctor is api.Backend.
func (d *daemon) Doctor(ctx context.Context) []api.Finding {
	d.lookAtFiles()
	return d.findings(ctx)
}

func (d *daemon) lookAtFiles() {
	open, limit := openFiles()
	d.files.look(open, limit, time.Now(), d.log)
}

// findings are what is known of the daemon's health.
func (d *daemon) findings(ctx context.Context) []api.Finding {
	out := []api.Finding{d.checkPeers(), d.checkCommunity(), d.checkReach(), d.checkRelay(), d.checkClock(), d.checkStore(), KeyFinding(d.cfg.Data)}
	out = append(out, d.checkDamage(ctx)...)
	for _, j := range d.allRooms() {
		if v := j.s.View(); v.State == session.Live {
			out = append(out, pathFinding(v, j.lastReport()), j.checkMicrophone(v))
			if f, ok := hostFinding(v, time.Now()); ok {
				out = append(out, f)
			}
			if f, ok := ledgerFinding(v); ok {
				out = append(out, f)
			}
		}
	}
	if f, ok := d.files.finding(time.Now()); ok {
		out = append(out, f)
	}
	return out
}

// watchHealth tells the watchers when a finding has changed, until ctx ends.
func (d *daemon) watchHealth(ctx context.Context) {
	t := time.NewTicker(doctorLook)
	defer t.Stop()
	last := headlines(d.findings(ctx))
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		d.lookAtFiles()
		if now := headlines(d.findings(ctx)); !slices.Equal(last, now) {
			last = now
			d.changed(api.ChangedDoctor)
		}
	}
}

// headlines are what of the findings a person would call news: not the numbers in the small print.
func headlines(all []api.Finding) []string {
	out := make([]string, 0, len(all))
	for _, f := range all {
		out = append(out, f.Check+"\x00"+f.Status+"\x00"+f.Title)
	}
	return out
}

// count is n things in words.
func count(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func finding(check, status, title, detail, action string) api.Finding {
	return api.Finding{Check: check, Status: status, Title: title, Detail: detail, Action: action}
}

func (d *daemon) checkPeers() api.Finding {
	n := d.host.Peers()
	if n == 0 {
		return finding("peers", "warn", "No other peer is connected",
			"This daemon is up, but it reaches nobody.", "Open an invite link, or start with --bootstrap and the address of a community node.")
	}
	return finding("peers", "ok", count(n, "One peer is connected", "peers are connected"), "This daemon reaches others.", "")
}

func (d *daemon) checkCommunity() api.Finding {
	n := len(d.host.CommunityNodes())
	switch {
	case n > 0:
		return finding("community", "ok", count(n, "One community node answers", "community nodes answer"), "Rooms can be found and people can meet through them.", "")
	case len(d.boot) > 0:
		return finding("community", "warn", "No community node answers",
			"The addresses given with --bootstrap are tried again and again.", "Check the address, and that UDP or TCP to it is not blocked.")
	}
	return finding("community", "warn", "No community node is known",
		"Rooms on the local network and invite links with an address work; the hallway stays empty.", "Start with --bootstrap and a community's address.")
}

func (d *daemon) checkReach() api.Finding {
	switch r := d.host.Reachability(); r {
	case "public":
		return finding("reachability", "ok", "Others can reach this daemon", "It has a public address.", "")
	case "private":
		return finding("reachability", "warn", "Others cannot reach this daemon first",
			"It is behind a router. Calls from here work; others need a community node to find the way.", "Nothing to do; a community node helps.")
	default:
		return finding("reachability", "ok", "Whether others can reach this daemon is not known yet",
			"Nobody on the public internet has tried. On a local network this stays so.", "")
	}
}

func (d *daemon) checkClock() api.Finding {
	skew := d.hall.skew()
	if skew.Abs() <= maxGoodSkew {
		return finding("clock", "ok", "The clock agrees with the others", "", "")
	}
	word := "behind"
	if skew < 0 {
		word = "ahead of"
	}
	return finding("clock", "fail", "The clock of this computer is wrong",
		fmt.Sprintf("It is %s %s the others. Invites look expired and others do not see you.", skew.Abs().Round(time.Second), word), "Switch on automatic time in the system's settings.")
}

// checkStore tells whether the last write went well.
func (d *daemon) checkStore() api.Finding {
	d.mu.Lock()
	err := d.unstored
	d.mu.Unlock()
	if err != nil {
		return finding("storage", "fail", "Nothing can be stored", "The last try: "+err.Error()+". You can go on talking; what is decided now may be forgotten at the next start.",
			"Make space on the disk, or let this user write to "+d.cfg.Data+".")
	}
	return finding("storage", "ok", "What is decided is stored", "", "")
}

// KeyFinding tells whether the key in a data folder can be used, and what a thief of the disk would get.
func KeyFinding(dir string) api.Finding {
	_, sealed, err := identity.Inspect(filepath.Join(dir, KeyFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return finding("identity", "warn", "There is no key file", err.Error()+". At the next start a new one is made: a new identity.",
			"Had you one, bring it back, or restore a copy: balai identity import FILE")
	case err != nil:
		return finding("identity", "warn", "The key cannot be used", err.Error(), "")
	case sealed:
		return finding("identity", "ok", "A passphrase protects the key", "Who takes the disk does not have it.", "")
	}
	return finding("identity", "ok", "The key is there and private; no passphrase protects it", "Who takes the disk is you.", "To put one on it: balai identity protect")
}

// checkDamage tells what of the store was damaged, and which rooms suffer from it.
func (d *daemon) checkDamage(ctx context.Context) (out []api.Finding) {
	notes, err := d.store.Damage(ctx)
	if err != nil {
		out = append(out, finding("damage", "fail", "The data folder cannot be read", err.Error(), "Check the disk and the folder's owner."))
	}
	if len(notes) > 0 {
		out = append(out, finding("damage", "warn", count(len(notes), "One stored value was damaged", "stored values were damaged"),
			"They were put aside; your identity is safe.", "Check the disk."))
	}
	for _, n := range notes {
		if id, ok := d.lostRoom(ctx, n.Key); ok {
			out = append(out, finding("damage", "fail", "The record of a room is lost", "What was stored about room "+id+" was damaged.",
				"Open its invite link again; if the room was yours and nobody else is in it, open a new one."))
		}
	}
	return out
}

// lostRoom is the room of a damaged value that it cannot be taken up without, if nothing has replaced the value.
func (d *daemon) lostRoom(ctx context.Context, key string) (id string, lost bool) {
	k := ds.RawKey("/" + strings.TrimPrefix(key, "/"))
	name := k.BaseNamespace()
	if !store.Rooms.IsAncestorOf(k) || name != "genesis" && name != "meta" {
		return "", false
	}
	_, err := d.store.Get(ctx, k)
	return k.Parent().BaseNamespace(), err != nil
}

// checkMicrophone says why nobody hears me, when that is so.
func (j *joined) checkMicrophone(v session.View) api.Finding {
	r := j.lastReport()
	title := "Microphone in “" + v.Name + "”"
	switch {
	case !v.Me.OnStage:
		return finding("microphone", "ok", title+": you are in the audience", "Listeners are not heard.", "Raise your hand to be invited to the stage.")
	case v.Me.Muted:
		return finding("microphone", "ok", title+": off", "Not one frame of it leaves this daemon.", "")
	case !r.Leg:
		return finding("microphone", "warn", title+": no page is connected", "It is on, but no browser sends sound.", "Open the room's page.")
	}
	return finding("microphone", "ok", title+": on", fmt.Sprintf("Frames sent: %d, dropped: %d.", r.Up, r.Dropped), "")
}
