package rtc

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxSections = 8
	maxFormats  = 64 // payload types of one m-line
	maxToken    = 64 // bytes of a mid
)

const (
	uriLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level" // RFC 6464
	uriMid   = "urn:ietf:params:rtp-hdrext:sdes:mid"         // RFC 9143
)

// offer is all that this leg takes from an SDP offer. pion never sees the foreign text.
type offer struct {
	sections []section
	bundle   []string // mids
	transport
}

// transport is how the other side is reached: of the bundle's first section, or of the session.
type transport struct {
	ufrag, pwd string
	setup      string
	hash       string // of the certificate: algorithm
	print      string // and value
	mux        bool   // RTP and RTCP on one port
	lite       bool
}

// section is one m-line.
type section struct {
	transport
	media, proto, format string // format is the first payload type, echoed when the section is refused
	port                 int
	bundleOnly           bool
	mid                  string
	direction            string // as offered
	opus                 uint8  // payload type, 0: none
	levelID, midID       uint8  // header extensions, 0: not offered
	ssrc                 uint32 // first one declared, 0: none

	formats []string
	slot    int  // the slot it plays, -1: none
	up      bool // it carries the microphone
}

func (s *section) refused() bool { return s.port == 0 && !s.bundleOnly }
func (s *section) sends() bool   { return s.direction == "sendrecv" || s.direction == "sendonly" }
func (s *section) plays() bool   { return s.direction == "sendrecv" || s.direction == "recvonly" }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

func unsupported(what string) error { return fmt.Errorf("%w: %s", ErrUnsupported, what) }

// plan reads an offer and decides what each m-line does: the first that sends is the microphone, the first three that
// receive are the slots, all others stay inactive. Errors: ErrMalformed, ErrUnsupported, ErrMixing.
func plan(text string, mixed bool) (*offer, error) {
	o, err := parseOffer(text)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	slots, up := 0, false
	for i := range o.sections {
		s := &o.sections[i]
		if s.slot = -1; s.refused() {
			continue
		}
		if s.sends() && !up {
			s.up, up = true, true
		}
		if s.plays() {
			if slots < Slots {
				s.slot = slots
			}
			slots++
		}
	}
	switch {
	case slots == 0 && !up:
		return nil, malformed("nothing is sent or received")
	case slots == 1 && !mixed:
		return nil, ErrMixing
	}
	return o, nil
}

// check refuses what this leg cannot do, and settles the one transport that all sections share.
func (o *offer) check() error {
	mids := map[string]bool{}
	active := 0
	var tagged *section
	for i := range o.sections {
		s := &o.sections[i]
		if s.refused() {
			continue
		}
		active++
		if s.mid != "" && mids[s.mid] {
			return malformed("two sections are called %q", s.mid)
		}
		mids[s.mid] = true
		if err := s.check(); err != nil {
			return err
		}
		if tagged == nil && (len(o.bundle) == 0 || s.mid == o.bundle[0]) {
			tagged = s
		}
	}
	if tagged == nil {
		return malformed("no section to answer")
	}
	for i := range o.sections {
		s := &o.sections[i]
		if active > 1 && !s.refused() && !slices.Contains(o.bundle, s.mid) {
			return unsupported("sections that are not bundled")
		}
	}
	for _, mid := range o.bundle {
		if !mids[mid] {
			return malformed("bundle of an unknown section")
		}
	}
	o.transport = tagged.over(o.transport)
	return o.transport.check()
}

func (s *section) check() error {
	switch {
	case s.media == "video":
		return unsupported("video")
	case s.media == "application":
		return unsupported("data channels")
	case s.media != "audio":
		return unsupported("a section that is not audio")
	case s.proto != "UDP/TLS/RTP/SAVPF" && s.proto != "UDP/TLS/RTP/SAVP":
		return unsupported("a transport that is not DTLS-SRTP")
	case s.opus == 0:
		return unsupported("audio without Opus")
	}
	return nil
}

// over fills what the section does not say from the session.
func (t transport) over(session transport) transport {
	pick := func(a, b string) string {
		if a != "" {
			return a
		}
		return b
	}
	return transport{
		ufrag: pick(t.ufrag, session.ufrag), pwd: pick(t.pwd, session.pwd), setup: pick(t.setup, session.setup),
		hash: pick(t.hash, session.hash), print: pick(t.print, session.print), mux: t.mux, lite: session.lite,
	}
}

func (t *transport) check() error {
	switch {
	case t.ufrag == "" || t.pwd == "":
		return malformed("no ICE credentials")
	case t.print == "":
		return malformed("no fingerprint")
	case t.setup == "":
		return malformed("no setup role")
	case !t.mux:
		return unsupported("RTCP on a port of its own")
	case t.lite:
		return unsupported("ICE lite: it would never look for us")
	}
	return nil
}

// parseOffer reads the lines it knows and skips all others (RFC 8866, RFC 8829 section 5.8).
func parseOffer(text string) (*offer, error) {
	if len(text) > MaxOffer {
		return nil, malformed("larger than %d bytes", MaxOffer)
	}
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return nil, malformed("not text")
	}
	o := &offer{}
	direction := "sendrecv"
	n := 0
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		if n++; n == 1 && line != "v=0" {
			return nil, malformed("it does not begin with v=0")
		}
		if len(line) < 2 || line[1] != '=' || line[0] < 'a' || line[0] > 'z' {
			return nil, malformed("line %d", n)
		}
		var err error
		switch {
		case line[0] == 'm':
			err = o.section(line[2:], direction)
		case line[0] == 'a' && len(o.sections) == 0:
			err = o.attribute(line[2:], &direction)
		case line[0] == 'a':
			err = o.sections[len(o.sections)-1].attribute(line[2:])
		}
		if err != nil {
			return nil, err
		}
	}
	if len(o.sections) == 0 {
		return nil, malformed("no m-line")
	}
	return o, nil
}

// section begins an m-line: media port proto formats.
func (o *offer) section(value, direction string) error {
	f := strings.Fields(value)
	if len(o.sections) == maxSections {
		return malformed("more than %d m-lines", maxSections)
	}
	if len(f) < 4 || len(f) > 3+maxFormats {
		return malformed("m-line")
	}
	port, err := strconv.ParseUint(f[1], 10, 16)
	if err != nil {
		return malformed("port")
	}
	for _, t := range f {
		if !token(t) && t != f[2] {
			return malformed("m-line")
		}
	}
	if !token(strings.ReplaceAll(f[2], "/", "")) {
		return malformed("m-line")
	}
	o.sections = append(o.sections, section{
		media: f[0], port: int(port), proto: f[2], format: f[3], formats: f[3:], direction: direction,
	})
	return nil
}

// attribute reads one a= line of the session.
func (o *offer) attribute(line string, direction *string) error {
	key, value, _ := strings.Cut(line, ":")
	switch key {
	case "group":
		f := strings.Fields(value)
		if len(f) > 1+maxSections {
			return malformed("group")
		}
		if len(f) > 1 && f[0] == "BUNDLE" && o.bundle == nil {
			o.bundle = f[1:]
		}
	case "ice-lite":
		o.lite = true
	case "sendrecv", "sendonly", "recvonly", "inactive":
		*direction = key
	default:
		return o.transport.attribute(key, value)
	}
	return nil
}

// attribute reads one a= line of an m-line.
func (s *section) attribute(line string) error {
	key, value, _ := strings.Cut(line, ":")
	switch key {
	case "mid":
		if s.mid = value; !token(value) {
			return malformed("mid")
		}
	case "sendrecv", "sendonly", "recvonly", "inactive":
		s.direction = key
	case "bundle-only":
		s.bundleOnly = true
	case "rtpmap":
		return s.rtpmap(value)
	case "extmap":
		return s.extmap(value)
	case "ssrc":
		id, _, _ := strings.Cut(value, " ")
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return malformed("ssrc")
		}
		if s.ssrc == 0 {
			s.ssrc = uint32(n)
		}
	default:
		return s.transport.attribute(key, value)
	}
	return nil
}

// rtpmap keeps the payload type of Opus that the m-line names first (RFC 7587 section 7).
func (s *section) rtpmap(value string) error {
	pt, codec, ok := strings.Cut(value, " ")
	n, err := strconv.ParseUint(pt, 10, 7)
	if !ok || err != nil {
		return malformed("rtpmap")
	}
	if !strings.EqualFold(strings.TrimSpace(codec), "opus/48000/2") || n == 0 || n >= 64 && n < 96 {
		return nil // RTCP's place (RFC 5761 section 4)
	}
	for _, f := range s.formats {
		if f == pt || s.opus != 0 && f == strconv.Itoa(int(s.opus)) {
			if f == pt {
				s.opus = uint8(n)
			}
			return nil
		}
	}
	return nil
}

// extmap keeps the ids of the two extensions that we know. An id above 14 would need two-byte headers: not taken.
func (s *section) extmap(value string) error {
	id, uri, ok := strings.Cut(value, " ")
	id, _, _ = strings.Cut(id, "/")
	n, err := strconv.ParseUint(id, 10, 16)
	if !ok || err != nil || n == 0 {
		return malformed("extmap")
	}
	uri, _, _ = strings.Cut(uri, " ")
	if n > 14 || uint8(n) == s.levelID || uint8(n) == s.midID {
		return nil
	}
	switch uri {
	case uriLevel:
		s.levelID = uint8(n)
	case uriMid:
		s.midID = uint8(n)
	}
	return nil
}

// attribute reads what session and m-line have in common.
func (t *transport) attribute(key, value string) error {
	switch key {
	case "ice-ufrag":
		if t.ufrag = value; len(value) < 4 || len(value) > 256 || !iceChars(value) {
			return malformed("ice-ufrag")
		}
	case "ice-pwd":
		if t.pwd = value; len(value) < 22 || len(value) > 256 || !iceChars(value) {
			return malformed("ice-pwd")
		}
	case "setup":
		if t.setup = value; value != "actpass" && value != "active" && value != "passive" {
			return malformed("setup")
		}
	case "rtcp-mux":
		t.mux = true
	case "fingerprint":
		return t.fingerprint(value)
	}
	return nil
}

// fingerprint takes a hash that is not broken (RFC 8122 section 5); weaker ones beside it are skipped.
func (t *transport) fingerprint(value string) error {
	hash, print, ok := strings.Cut(value, " ")
	if !ok {
		return malformed("fingerprint")
	}
	size := map[string]int{"sha-256": 32, "sha-384": 48, "sha-512": 64}[strings.ToLower(hash)]
	if size == 0 {
		return nil
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(print, ":", ""))
	if err != nil || len(raw) != size || len(print) != 3*size-1 {
		return malformed("fingerprint")
	}
	if t.print == "" {
		t.hash, t.print = strings.ToLower(hash), strings.ToLower(print)
	}
	return nil
}

// token says whether v may be repeated in an answer (RFC 8866 token).
func token(v string) bool {
	if v == "" || len(v) > maxToken {
		return false
	}
	for _, c := range []byte(v) {
		if c <= ' ' || c > '~' || strings.IndexByte("\"(),/:;<=>?@[\\]", c) >= 0 {
			return false
		}
	}
	return true
}

func iceChars(v string) bool {
	for _, c := range []byte(v) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '/') {
			return false
		}
	}
	return true
}
