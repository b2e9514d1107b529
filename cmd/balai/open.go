package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"time"

	"balai/room/invite"
)

type openCmd struct {
	Link     string `arg:"" optional:"" help:"An invite link to hand to the page; you decide there."`
	Register bool   `help:"Let balai: links open in Balai (Linux desktops)."`
	Print    bool   `help:"Print the address instead of opening a browser. It is good once and for a minute."`
}

func (openCmd) Help() string {
	return `Opens the page of the running daemon with a fresh one-time code. A link is shown there with its room, host
and role; joining takes a click.

Examples:
  balai open
  balai open 'balai:join#AQ…'
  balai open --print                 for another browser or a screen reader's own window
  balai open --register              once: from then on balai: links open by themselves`
}

type openShape struct {
	URL    string `json:"url"`
	Opened bool   `json:"opened"`
}

// Run opens the page, or registers the scheme.
func (c *openCmd) Run(ctx context.Context, a *app) error {
	if c.Register {
		if c.Link != "" {
			return usage("--register takes no link")
		}
		return a.register(ctx)
	}
	token := ""
	if c.Link != "" {
		inv, err := invite.ParseLink(c.Link)
		if err != nil {
			return usage("this is not an invite link that Balai reads: %w", err)
		}
		token = inv.Token()
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	page, err := client.PageURL(ctx)
	if err != nil {
		return err
	}
	if token != "" {
		page += "&join=" + token
	}
	return a.openPage(page, c.Print)
}

// openPage opens the page in a browser, or prints its address where it shall or must.
func (a *app) openPage(page string, printOnly bool) error {
	opened := !printOnly && openBrowser(page) == nil
	return a.show(openShape{URL: page, Opened: opened}, func(w io.Writer) {
		switch {
		case opened:
			fmt.Fprintln(w, "the page opens in your browser")
		case printOnly:
			fmt.Fprintln(w, page)
		default:
			fmt.Fprintf(w, "no browser could be started; open this address within a minute:\n%s\n", page)
		}
	})
}

// openerLimit is how long the system's opener is given to fail; one that still runs then is the browser itself.
const openerLimit = 2 * time.Second

// openBrowser asks the system to show url. It does not wait for the browser to end.
func openBrowser(url string) error {
	name, args := "xdg-open", []string{url}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", url}
	default:
		if !hasDisplay() {
			return errors.New("no graphical session")
		}
	}
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(openerLimit):
		return nil
	}
}
