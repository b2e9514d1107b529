package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"balai/node/api"
)

type roomCmd struct {
	List    roomListCmd    `cmd:"" default:"1" help:"The hallway: rooms heard of and my own."`
	Create  roomCreateCmd  `cmd:"" help:"Open a room."`
	Set     roomSetCmd     `cmd:"" help:"Change a room's name, topic, language, tags, who may come, or its rate of sound."`
	Join    roomJoinCmd    `cmd:"" help:"Join by an invite link, or an open room of the hallway."`
	Show    roomShowCmd    `cmd:"" help:"Who is in a room and how it goes."`
	Members roomMembersCmd `cmd:"" help:"Everybody in a room."`
	Removed roomRemovedCmd `cmd:"" aliases:"banned" help:"Who was kicked or banned, and not let in again."`
	Leave   roomLeaveCmd   `cmd:"" help:"Leave quietly."`
	End     roomEndCmd     `cmd:"" help:"End a room for all."`
	Lock    roomLockCmd    `cmd:"" help:"Let nobody in any more, or again with --off."`
	Hand    roomHandCmd    `cmd:"" help:"Raise your hand, or lower it with --down."`
	Mic     roomMicCmd     `cmd:"" help:"Mute or unmute your own microphone."`
	Say     roomSayCmd     `cmd:"" help:"Write a line in the chat."`
	Chat    roomChatCmd    `cmd:"" help:"Show the chat."`
	Ledger  roomLedgerCmd  `cmd:"" help:"What was decided, by whom."`
	Relays  roomRelaysCmd  `cmd:"" help:"By whom a room is carried, and who could carry it."`
	Vouch   roomVouchCmd   `cmd:"" help:"Let a community node carry the room."`
	Unvouch roomUnvouchCmd `cmd:"" help:"Take that back."`

	Stage    roomActCmd      `cmd:"" help:"Invite somebody to the stage."`
	Audience roomActCmd      `cmd:"" help:"Move somebody to the audience."`
	Mute     roomActCmd      `cmd:"" help:"Mute somebody."`
	Unmute   roomActCmd      `cmd:"" help:"Let somebody speak again."`
	Lower    roomActCmd      `cmd:"" help:"Lower somebody's hand."`
	Admit    roomActCmd      `cmd:"" help:"Let in somebody who knocks, or who was removed."`
	Decline  roomActCmd      `cmd:"" help:"Do not let in somebody who knocks."`
	Kick     roomActCmd      `cmd:"" help:"Remove somebody; the keys change."`
	Ban      roomActCmd      `cmd:"" help:"Remove somebody for good."`
	Unban    roomActCmd      `cmd:"" help:"Take a ban back; admit lets her in again."`
	Appoint  roomActCmd      `cmd:"" help:"Make somebody a moderator."`
	Dismiss  roomActCmd      `cmd:"" help:"Make a moderator a speaker again."`
	Transfer roomTransferCmd `cmd:"" help:"Hand the room to a moderator who is here."`
	Succeed  roomSucceedCmd  `cmd:"" help:"As the heir, ask the moderators for the room of a lost host."`
	Agree    roomAgreeCmd    `cmd:"" help:"As a moderator, let the heir have the room, or not with --no."`
}

func (roomCmd) Help() string {
	return `ROOM is an id, the begin of one, or a name; PEER is a peer id or a name. A name works if only one has it.

Examples:
  balai room
  balai room create "Evening tea" --topic "what we read" --language en
  balai room join 'balai:join#…'
  balai room set "Evening tea" --topic "what we read next"
  balai room stage "Evening tea" Budi
  balai room kick "Evening tea" 12D3KooW… --reason spam
  balai room vouch "Evening tea" /dns/balai.example.org/udp/4330/quic-v1/p2p/12D3KooW…`
}

// inRoom is the argument of every command about one room.
type inRoom struct {
	Room string `arg:"" help:"Id, begin of an id, or name."`
}

// with dials the daemon and finds the room.
func (r inRoom) with(ctx context.Context, a *app, do func(c *api.Client, id string) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	id, err := findRoom(ctx, c, r.Room)
	if err != nil {
		return err
	}
	return do(c, id)
}

type roomListCmd struct{}

func (roomListCmd) Help() string { return "Examples:\n  balai room\n  balai room list --json" }

// Run prints the hallway.
func (roomListCmd) Run(ctx context.Context, a *app) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return call(ctx, a, c, http.MethodGet, "/rooms", nil, func(w io.Writer, rooms []api.Listing) {
		if len(rooms) == 0 {
			fmt.Fprintln(w, "the hallway is empty; open a room: balai room create NAME")
			return
		}
		fmt.Fprintln(w, "NAME\tHOST\tSTAGE\tAUDIENCE\tKIND\tFROM\tID")
		for _, r := range rooms {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n",
				orDash(r.Name), orDash(r.HostName), r.OnStage, r.Audience, clean(r.Visibility), clean(r.Source), r.ID)
		}
	})
}

type roomCreateCmd struct {
	Name         string   `arg:"" help:"Name of the room."`
	Topic        string   `help:"What it is about."`
	Visibility   string   `enum:"open,unlisted,closed" default:"open" help:"open: listed, anyone may listen; unlisted: by link only; closed: by link, each is let in by name."`
	Language     string   `placeholder:"TAG" help:"Language spoken, such as id or en."`
	Tag          []string `help:"Words to find it by."`
	Relay        []string `placeholder:"MULTIADDR" help:"Community nodes that may carry the room when it grows, with /p2p/ and the id at the end; like balai room vouch."`
	Heir         string   `placeholder:"PEER" help:"Who may take the room over, with most moderators, when your key is lost: a peer id, or the name of somebody in a room of yours. It cannot be changed later."`
	ConstantRate bool     `help:"Who is on stage sends the same amount at all times, also in silence and muted, so that sizes and times of packets tell nothing; about 100 kbit/s to each of those who get it directly."`
	Local        *bool    `negatable:"" help:"May this room use private addresses (default: if the daemon listens on private ones only)."`
}

func (roomCreateCmd) Help() string {
	return `You are its host and on stage; your microphone is off until you turn it on.

Examples:
  balai room create "Evening tea"
  balai room create Planning --visibility closed --topic "only us"
  balai room create "Kopi pagi" --language id --tag kopi --tag pagi
  balai room create "Book club" --heir Budi
  balai room create "Town hall" --relay /dns/balai.example.org/udp/4330/quic-v1/p2p/12D3KooW…`
}

// Run opens a room.
func (c *roomCreateCmd) Run(ctx context.Context, a *app) error {
	for _, r := range c.Relay {
		if _, addr, err := communityNode(r); err != nil {
			return err
		} else if addr == "" {
			return usage("--relay wants an address with /p2p/ and the id at the end; for a bare id use balai room vouch")
		}
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	heir, err := findHeir(ctx, client, c.Heir)
	if err != nil {
		return err
	}
	return call(ctx, a, client, http.MethodPost, "/rooms", api.NewRoom{
		Name: c.Name, Topic: c.Topic, Visibility: c.Visibility, Language: c.Language, Tags: c.Tag, Relays: c.Relay, Heir: heir, Local: c.Local, ConstantRate: c.ConstantRate,
	}, printRoom)
}

type roomJoinCmd struct {
	Room  string        `arg:"" help:"Invite link, or an open room of the hallway by id or name."`
	Local bool          `help:"Let private and loopback addresses be dialled for this room."`
	Wait  time.Duration `default:"20s" help:"How long to wait until you are in; 0 does not wait."`
}

func (roomJoinCmd) Help() string {
	return `Your microphone is off until you turn it on. See what a link says first: balai invite inspect LINK.

Examples:
  balai room join 'balai:join#…'
  balai room join "Evening tea"
  balai room join 'balai:join#…' --local     the host is on this local network`
}

// pollPeriod is how often join looks whether it is done; the API's event stream would tell no more.
const pollPeriod = 200 * time.Millisecond

// Run joins and waits until the room is live, refuses, or the door is knocked at.
func (c *roomJoinCmd) Run(ctx context.Context, a *app) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	link, id := c.Room, ""
	if !strings.Contains(link, "#") && len(link) < shortestToken {
		if id, err = findRoom(ctx, client, c.Room); err != nil {
			return err
		}
		link = ""
	}
	v, err := client.Join(ctx, link, id, c.Local)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(c.Wait)
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for v.State == "joining" && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if v, err = client.Room(ctx, v.ID); err != nil {
			return err
		}
	}
	if err := call(ctx, a, client, http.MethodGet, roomPath(v.ID), nil, printRoom); err != nil {
		return err
	}
	if v.State == "refused" {
		return &api.Problem{Detail: "not let in: " + whyRefused(v.Reason, v.ClockAheadMS, v.Clocks), Reason: v.Reason}
	}
	return nil
}

// whyRefused is a reason, and of clocks that differ what to do.
func whyRefused(reason string, aheadMS int64, clocks int) string {
	if clocks == 0 {
		return reason
	}
	by, whose := (time.Duration(aheadMS) * time.Millisecond).Round(time.Second), "one of both is wrong"
	if clocks > 1 {
		whose = "yours is probably wrong"
	}
	word := "ahead of"
	if by < 0 {
		word = "behind"
	}
	return fmt.Sprintf("%s: of %d who let people in the clocks are %s %s yours; %s. Switch on automatic time in the system's settings", reason, clocks, by.Abs(), word, whose)
}

// shortestToken is below the length of any invite token and above that of any room id.
const shortestToken = 80

type roomShowCmd struct{ inRoom }

func (roomShowCmd) Help() string { return "Examples:\n  balai room show \"Evening tea\"" }

// Run prints a joined room.
func (r roomShowCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return call(ctx, a, c, http.MethodGet, roomPath(id), nil, printRoom)
	})
}

func printRoom(w io.Writer, v roomView) {
	fmt.Fprintf(w, "room\t%s\n", orDash(v.Name))
	if v.Topic != "" {
		fmt.Fprintf(w, "topic\t%s\n", clean(v.Topic))
	}
	state := v.State
	if v.Reason != "" {
		state += " (" + clean(v.Reason) + ")"
	}
	lock := ""
	if v.Locked {
		lock = ", locked"
	}
	if v.Steady {
		lock += ", constant rate"
	}
	fmt.Fprintf(w, "id\t%s\nhost\t%s %s\nstate\t%s, %s%s\n", v.ID, orDash(v.HostName), v.Host, clean(state), clean(v.Visibility), lock)
	mic := "microphone off"
	if !v.Me.Muted {
		mic = "microphone on"
	}
	fmt.Fprintf(w, "me\t%s, %s\n", orDash(v.Me.Role), mic)
	if v.Epoch.Words != "" {
		fmt.Fprintf(w, "key\t%s (%s)\n", clean(v.Epoch.Words), clean(v.Encryption))
	}
	fmt.Fprintf(w, "audio\t%s\n", carried(v))
	if v.Differs {
		fmt.Fprintln(w, "fault\tthe host's checkpoint is of another state than the same decisions make here; balai doctor tells more")
	}
	for _, line := range inheritance(v) {
		fmt.Fprintf(w, "heir\t%s\n", line)
	}
	for _, f := range v.Forked {
		fmt.Fprintf(w, "fork\t%s signed two different histories%s\t%s\n", orDash(f.Name), forkState(f), f.PeerID)
	}
	for _, list := range []struct {
		title  string
		people []person
	}{{"stage", v.Stage}, {"audience", v.AudienceList}, {"knocks", v.Knocks}, {"unconfirmed", v.Unconfirmed}} {
		for _, p := range list.people {
			fmt.Fprintf(w, "%s\t%s\t%s\n", list.title, describe(p), p.PeerID)
		}
	}
}

// forkState says what a fork means now.
func forkState(f fork) string {
	switch {
	case f.Settled:
		return "; it was decided which one counts"
	case f.Role == "host" || f.Role == "moderator":
		return ": what this " + f.Role + " decides does not count any more"
	}
	return "; no authority now"
}

// carried says how the audio of a room goes.
func carried(v roomView) string {
	var names []string
	for _, r := range v.Relays {
		names = append(names, orDash(r.Name))
	}
	switch {
	case v.NoRelay:
		return "no relay: too many for direct links; add a community relay (balai room vouch --help)"
	case len(names) > 0:
		return "through " + strings.Join(names, ", ")
	}
	return "directly between all"
}

// describe is a person in a few words.
func describe(p person) string {
	words := []string{orDash(p.Name)}
	if p.Role != "" {
		words = append(words, clean(p.Role))
	}
	if p.Muted {
		words = append(words, "muted")
	}
	if p.Hand != nil {
		words = append(words, fmt.Sprintf("hand %d", *p.Hand))
	}
	return strings.Join(words, ", ")
}

type roomMembersCmd struct{ inRoom }

func (roomMembersCmd) Help() string {
	return "CAME BY is the id of an invite, as balai invite list shows it; hosts and moderators see it. NOTE tells them who was let in by\nsomebody who is no longer trusted: balai room admit confirms her, balai room kick puts her out.\n\nExamples:\n  balai room members \"Evening tea\"\n  balai room members \"Evening tea\" --json"
}

// Run prints all members.
func (r roomMembersCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		members, err := allMembers(ctx, c, id)
		if err != nil {
			return err
		}
		return a.show(members, func(w io.Writer) {
			fmt.Fprintln(w, "NAME\tROLE\tON STAGE\tHERE\tPEER\tCAME BY\tNOTE")
			for _, m := range members {
				note := "-"
				if m.Unconfirmed != nil {
					note = "let in by somebody no longer trusted: out at " + m.Unconfirmed.Local().Format(time.TimeOnly)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", orDash(m.Name), clean(m.Role), yesNo(m.OnStage), yesNo(m.Live), m.PeerID, orDash(m.CameBy), note)
			}
		})
	})
}

type roomRemovedCmd struct{ inRoom }

func (roomRemovedCmd) Help() string {
	return `Who was kicked stays out with that key until an authority lets her in again (balai room admit); a ban is lifted first
(balai room unban).

Examples:
  balai room banned "Evening tea"
  balai room banned "Evening tea" --json`
}

// Run prints who was put out.
func (r roomRemovedCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		removed, err := allRemoved(ctx, c, id)
		if err != nil {
			return err
		}
		return a.show(removed, func(w io.Writer) {
			if len(removed) == 0 {
				fmt.Fprintln(w, "nobody is out")
				return
			}
			fmt.Fprintln(w, "NAME\tBANNED\tBY\tWHEN\tREASON\tPEER")
			for _, v := range removed {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n",
					orDash(v.Name), yesNo(v.Banned), orDash(v.ByName), v.At.Local().Format(time.DateTime), orDash(v.Reason), v.PeerID)
			}
		})
	})
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

type roomLeaveCmd struct{ inRoom }

func (roomLeaveCmd) Help() string { return "Examples:\n  balai room leave \"Evening tea\"" }

// Run leaves a room.
func (r roomLeaveCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return say(ctx, a, c, http.MethodPost, roomPath(id, "leave"), nil, "left")
	})
}

type roomEndCmd struct{ inRoom }

func (roomEndCmd) Help() string {
	return "Only the host may.\n\nExamples:\n  balai room end \"Evening tea\""
}

// Run ends a room.
func (r roomEndCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return say(ctx, a, c, http.MethodPost, roomPath(id, "end"), nil, "ended for all")
	})
}

type roomLockCmd struct {
	inRoom
	Off bool `help:"Open the lock."`
}

func (roomLockCmd) Help() string {
	return "Examples:\n  balai room lock Planning\n  balai room lock Planning --off"
}

// Run locks or unlocks a room.
func (r roomLockCmd) Run(ctx context.Context, a *app) error {
	return r.with(ctx, a, func(c *api.Client, id string) error {
		return say(ctx, a, c, http.MethodPost, roomPath(id, "lock"), map[string]bool{"locked": !r.Off}, "locked: %s", yesNo(!r.Off))
	})
}
