package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxBody     = 64 << 10  // bytes, JSON and SDP alike
	maxUnread   = 256 << 10 // bytes of a refused body that are thrown away
	maxNesting  = 16
	bodyTimeout = 10 * time.Second
	unreadTime  = 500 * time.Millisecond // for maxUnread
	maxQuoted   = 40                     // bytes of a foreign name that a problem repeats

	jsonType    = "application/json"
	sdpType     = "application/sdp"
	problemType = "application/problem+json"
)

// readBody takes a body of the media type: a wrong type is 415, more than maxBody 413, without reading on. No body at
// all needs no type.
func readBody(w http.ResponseWriter, r *http.Request, mediaType string) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, tooLarge()
	}
	if r.ContentLength == 0 {
		return nil, nil
	}
	if !isType(r.Header["Content-Type"], mediaType) {
		return nil, refuse(http.StatusUnsupportedMediaType, reasonMediaType, "the body has to be %s", mediaType)
	}
	slow := http.NewResponseController(w)
	_ = slow.SetReadDeadline(time.Now().Add(bodyTimeout))                                        // an error: no connection but a test's recorder
	stop := context.AfterFunc(r.Context(), func() { _ = slow.SetReadDeadline(time.Unix(1, 0)) }) // the daemon stops, or lost patience
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if stop() {
		_ = slow.SetReadDeadline(time.Time{})
	}
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge()
	case err != nil:
		return nil, malformed("the body did not come whole")
	}
	return data, nil
}

func tooLarge() *Problem {
	return refuse(http.StatusRequestEntityTooLarge, reasonTooLarge, "a body holds at most %d bytes", maxBody)
}

// throwAway reads on for a little after the answer: who closes on bytes that were sent makes TCP take the answer back
// (RFC 9112, section 9.6).
func throwAway(w http.ResponseWriter, r *http.Request) {
	slow := http.NewResponseController(w)
	if slow.Flush() == nil && slow.SetReadDeadline(time.Now().Add(unreadTime)) == nil {
		_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxUnread))
	}
}

func isType(values []string, want string) bool {
	if len(values) != 1 {
		return false
	}
	got, params, err := mime.ParseMediaType(values[0])
	charset, named := params["charset"]
	return err == nil && got == want && (!named || strings.EqualFold(charset, "utf-8"))
}

// decode reads a JSON object into the struct that dst points to. Strict where encoding/json is lenient: bad UTF-8,
// lone surrogates, NUL, deep nesting, a field twice, in other case, unknown or null, a missing one (all without
// omitempty) and anything after the object are refused, as malformed. An empty body stands for {}.
func decode(data []byte, dst any) error {
	if len(data) == 0 {
		data = []byte("{}")
	}
	if !utf8.Valid(data) {
		return malformed("the body is not UTF-8")
	}
	if err := checkText(data); err != nil {
		return err
	}
	keys, err := checkSyntax(data)
	if err != nil {
		return err
	}
	if err := checkFields(keys, reflect.TypeOf(dst).Elem()); err != nil {
		return err
	}
	if err := json.Unmarshal(data, dst); err != nil {
		return malformed("the body does not have the right types: %.80s", err)
	}
	return nil
}

// checkText refuses NUL and halves of surrogate pairs, which encoding/json would replace.
func checkText(data []byte) error {
	high := false
	for i := 0; i < len(data); i++ {
		if data[i] == 0 {
			return malformed("the body holds NUL")
		}
		if data[i] != '\\' {
			if high {
				return malformed("the body holds half of a surrogate pair")
			}
			continue
		}
		i++
		r, isUnicode := escape(data[i:])
		isLow := r >= 0xdc00 && r <= 0xdfff
		if high != isLow || (isUnicode && r == 0) {
			return malformed("the body holds NUL or half of a surrogate pair")
		}
		if high = r >= 0xd800 && r <= 0xdbff; isUnicode {
			i += 4
		}
	}
	return nil
}

// escape reads uXXXX, what follows a backslash.
func escape(b []byte) (r rune, ok bool) {
	if len(b) < 5 || b[0] != 'u' {
		return -1, false
	}
	for _, c := range b[1:5] {
		n := strings.IndexByte("0123456789abcdef", c|0x20)
		if n < 0 {
			return -1, false
		}
		r = r<<4 | rune(n)
	}
	return r, true
}

// checkSyntax walks one JSON object and gives its own fields, each with whether it is null.
func checkSyntax(data []byte) (keys map[string]bool, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, malformed("the body is not a JSON object")
	}
	keys, err = walkObject(d, 1)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed("something follows the JSON object")
	}
	return keys, nil
}

func walkObject(d *json.Decoder, depth int) (map[string]bool, error) {
	keys := map[string]bool{}
	for {
		t, err := d.Token()
		if err != nil {
			return nil, malformed("the body is not JSON")
		}
		name, ok := t.(string)
		if !ok {
			return keys, nil // the closing brace: the decoder lets nothing else be a name
		}
		if _, twice := keys[name]; twice {
			return nil, malformed("the field %s is there twice", quoted(name))
		}
		if t, err = d.Token(); err != nil {
			return nil, malformed("the body is not JSON")
		}
		keys[name] = t == nil
		if err := walkValue(d, t, depth); err != nil {
			return nil, err
		}
	}
}

// walkValue walks the value that begins with t.
func walkValue(d *json.Decoder, t json.Token, depth int) error {
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth++; depth > maxNesting {
		return malformed("the body is nested too deeply")
	}
	if open == '{' {
		_, err := walkObject(d, depth)
		return err
	}
	for {
		t, err := d.Token()
		if err != nil {
			return malformed("the body is not JSON")
		}
		if t == json.Delim(']') {
			return nil
		}
		if t == nil {
			return malformed("the body holds null in a list")
		}
		if err := walkValue(d, t, depth); err != nil {
			return err
		}
	}
}

// checkFields compares the fields of an object with those of the struct t.
func checkFields(keys map[string]bool, t reflect.Type) error {
	known := map[string]bool{}
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		known[name] = true
		if _, there := keys[name]; !there && !strings.Contains(options, "omitempty") {
			return malformed("the field %q is missing", name)
		}
	}
	for k, null := range keys {
		if !known[k] {
			return malformed("the field %s is not known", quoted(k))
		}
		if null {
			return malformed("the field %q is null: leave it out", k)
		}
	}
	return nil
}

func quoted(s string) string { return fmt.Sprintf("%.*q", maxQuoted, s) }
