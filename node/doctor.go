package node

import (
	"context"
	"errors"
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
func (d *daemon) Doctor(ctx context.Context, lang string) []api.Finding {
	d.lookAtFiles()
	return d.findings(ctx, wordsIn(lang))
}

func (d *daemon) lookAtFiles() {
	open, limit := openFiles()
	d.files.look(open, limit, time.Now(), d.log)
}

// findings are what is known of the daemon's health.
func (d *daemon) findings(ctx context.Context, say wording) []api.Finding {
	out := []api.Finding{
		d.checkPeers(say), d.checkCommunity(say), d.checkReach(say), d.checkRelay(say), d.checkClock(say), d.checkStore(say), keyFinding(say, d.cfg.Data),
	}
	out = append(out, d.checkDamage(ctx, say)...)
	for _, j := range d.allRooms() {
		if v := j.s.View(); v.State == session.Live {
			out = append(out, pathFinding(say, v, j.lastReport()), j.checkMicrophone(say, v))
			if f, ok := hostFinding(say, v, time.Now()); ok {
				out = append(out, f)
			}
			if f, ok := ledgerFinding(say, v); ok {
				out = append(out, f)
			}
		}
	}
	if f, ok := d.files.finding(say, time.Now()); ok {
		out = append(out, f)
	}
	return out
}

// watchHealth tells the watchers when a finding has changed, until ctx ends.
func (d *daemon) watchHealth(ctx context.Context) {
	t := time.NewTicker(doctorLook)
	defer t.Stop()
	say := wordsIn("") // any language has the same news
	last := headlines(d.findings(ctx, say))
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		d.lookAtFiles()
		if now := headlines(d.findings(ctx, say)); !slices.Equal(last, now) {
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

func finding(check, status, title, detail, action string) api.Finding {
	return api.Finding{Check: check, Status: status, Title: title, Detail: detail, Action: action}
}

func (d *daemon) checkPeers(say wording) api.Finding {
	n := d.host.Peers()
	if n == 0 {
		return finding("peers", "warn", say("No other peer is connected"),
			say("This daemon is up, but it reaches nobody."), say("Open an invite link, or start with --bootstrap and the address of a community node."))
	}
	return finding("peers", "ok", say("%d peers are connected", n), say("This daemon reaches others."), "")
}

func (d *daemon) checkCommunity(say wording) api.Finding {
	n := len(d.host.CommunityNodes())
	switch {
	case n > 0:
		return finding("community", "ok", say("%d community nodes answer", n), say("Rooms can be found and people can meet through them."), "")
	case len(d.boot) > 0:
		return finding("community", "warn", say("No community node answers"),
			say("The addresses given with --bootstrap are tried again and again."), say("Check the address, and that UDP or TCP to it is not blocked."))
	}
	return finding("community", "warn", say("No community node is known"),
		say("Rooms on the local network and invite links with an address work; the hallway stays empty."), say("Start with --bootstrap and a community's address."))
}

func (d *daemon) checkReach(say wording) api.Finding {
	switch r := d.host.Reachability(); r {
	case "public":
		return finding("reachability", "ok", say("Others can reach this daemon"), say("It has a public address."), "")
	case "private":
		return finding("reachability", "warn", say("Others cannot reach this daemon first"),
			say("It is behind a router. Calls from here work; others need a community node to find the way."), say("Nothing to do; a community node helps."))
	default:
		return finding("reachability", "ok", say("Whether others can reach this daemon is not known yet"),
			say("Nobody on the public internet has tried. On a local network this stays so."), "")
	}
}

func (d *daemon) checkClock(say wording) api.Finding {
	skew := d.hall.skew()
	if skew.Abs() <= maxGoodSkew {
		return finding("clock", "ok", say("The clock agrees with the others"), "", "")
	}
	seconds := int(skew.Abs().Round(time.Second).Seconds())
	off := say("%d min %d s", seconds/60, seconds%60)
	detail := say("It is %s behind the others. Invites look expired and others do not see you.", off)
	if skew < 0 {
		detail = say("It is %s ahead of the others. Invites look expired and others do not see you.", off)
	}
	return finding("clock", "fail", say("The clock of this computer is wrong"),
		detail, say("Switch on automatic time in the system's settings."))
}

// checkStore tells whether the last write went well.
func (d *daemon) checkStore(say wording) api.Finding {
	d.mu.Lock()
	err := d.unstored
	d.mu.Unlock()
	if err != nil {
		return finding("storage", "fail", say("Nothing can be stored"),
			say("The last try: %s. You can go on talking; what is decided now may be forgotten at the next start.", err),
			say("Make space on the disk, or let this user write to %s.", d.cfg.Data))
	}
	return finding("storage", "ok", say("What is decided is stored"), "", "")
}

// KeyFinding tells in English whether the key in a data folder can be used, and what a thief of the disk would get.
func KeyFinding(dir string) api.Finding { return keyFinding(wordsIn(""), dir) }

func keyFinding(say wording, dir string) api.Finding {
	_, sealed, err := identity.Inspect(filepath.Join(dir, KeyFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return finding("identity", "warn", say("There is no key file"), say("%s. At the next start a new one is made: a new identity.", err),
			say("Had you one, bring it back, or restore a copy: balai identity import FILE"))
	case err != nil:
		return finding("identity", "warn", say("The key cannot be used"), err.Error(), "")
	case sealed:
		return finding("identity", "ok", say("A passphrase protects the key"), say("Who takes the disk does not have it."), "")
	}
	return finding("identity", "ok", say("The key is there and private; no passphrase protects it"), say("Who takes the disk is you."), say("To put one on it: balai identity protect"))
}

// checkDamage tells what of the store was damaged, and which rooms suffer from it.
func (d *daemon) checkDamage(ctx context.Context, say wording) (out []api.Finding) {
	notes, err := d.store.Damage(ctx)
	if err != nil {
		out = append(out, finding("damage", "fail", say("The data folder cannot be read"), err.Error(), say("Check the disk and the folder's owner.")))
	}
	if len(notes) > 0 {
		out = append(out, finding("damage", "warn", say("%d stored values were damaged", len(notes)),
			say("They were put aside; your identity is safe."), say("Check the disk.")))
	}
	for _, n := range notes {
		if id, ok := d.lostRoom(ctx, n.Key); ok {
			out = append(out, finding("damage", "fail", say("The record of a room is lost"), say("What was stored about room %s was damaged.", id),
				say("Open its invite link again; if the room was yours and nobody else is in it, open a new one.")))
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
func (j *joined) checkMicrophone(say wording, v session.View) api.Finding {
	r := j.lastReport()
	switch {
	case !v.Me.OnStage:
		return finding("microphone", "ok", say("Microphone in “%s”: you are in the audience", v.Name), say("Listeners are not heard."), say("Raise your hand to be invited to the stage."))
	case v.Me.Muted:
		return finding("microphone", "ok", say("Microphone in “%s”: off", v.Name), say("Not one frame of it leaves this daemon."), "")
	case !r.Leg:
		return finding("microphone", "warn", say("Microphone in “%s”: no page is connected", v.Name), say("It is on, but no browser sends sound."), say("Open the room's page."))
	}
	return finding("microphone", "ok", say("Microphone in “%s”: on", v.Name), say("Frames sent: %s, dropped: %s.", plain(r.Up), plain(r.Dropped)), "")
}
