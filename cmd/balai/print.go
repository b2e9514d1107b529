package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"balai/node/api"
)

// show prints v as JSON, or what text writes.
func (a *app) show(v any, text func(w io.Writer)) error {
	if a.JSON {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	text(w)
	return w.Flush()
}

// done prints a sentence, or an empty object.
func (a *app) done(format string, args ...any) error {
	return a.show(struct{}{}, func(w io.Writer) { fmt.Fprintf(w, format+"\n", args...) })
}

// client is the running daemon's API.
func (a *app) client() (*api.Client, error) {
	dir, err := a.dataDir()
	if err != nil {
		return nil, err
	}
	return api.Dial(dir)
}

// clean makes other people's words harmless to a terminal and to the columns.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || (r >= '\u202a' && r <= '\u202e') || (r >= '\u2066' && r <= '\u2069') {
			return '\ufffd'
		}
		return r
	}, s)
}

// orDash is s made clean, or a dash for nothing.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return clean(s)
}
