package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
)

// Events calls fn with the name and the JSON of each event, the whole view first, until fn returns an error, which is
// then the answer, or ctx ends. io.ErrUnexpectedEOF: the daemon is gone; call again and begin with its new view.
func (c *Client) Events(ctx context.Context, fn func(name string, data []byte) error) error {
	resp, err := c.send(ctx, http.MethodGet, "/events", nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	err = readEvents(resp.Body, fn)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// readEvents reads an event stream as far as this API writes it: one data line an event, lines end in LF.
func readEvents(r io.Reader, fn func(name string, data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxAnswer)
	name, data := "", ""
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case field == "event":
			name = value
		case field == "data":
			data = value
		case lines.Text() == "" && data != "":
			if err := fn(name, []byte(data)); err != nil {
				return err
			}
			name, data = "", ""
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return io.ErrUnexpectedEOF
}
