package identity

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"unicode"
	"unicode/utf8"
)

// ErrProfile is wrapped by every refusal of Profile.Validate.
var ErrProfile = errors.New("identity: profile")

// The limits of a profile. Runes bound what is shown, bytes bound what travels.
const (
	MaxNameRunes     = 40
	MaxHeadlineRunes = 100
	MaxBioRunes      = 1000
	MaxLanguages     = 8
	MaxLanguageBytes = 35        // RFC 5646, section 4.4.1
	MaxAvatarBytes   = 24 * 1024 // fits a local API body of 64 KiB as a data URL

	maxBytesPerRune = utf8.UTFMax
)

// Profile is what a person says of herself. Nobody vouches for it: the fingerprint tells people apart, not the name.
type Profile struct {
	Name      string
	Headline  string
	Bio       string   // may hold line breaks
	Languages []string // BCP 47 tags
	Avatar    []byte   // PNG, JPEG or WebP, or empty
}

// Validate refuses a profile that is too long, is not UTF-8, holds control characters or changes of writing direction,
// or whose avatar is not an image. An empty name is allowed: it is shown as a part of the peer id. The error wraps
// ErrProfile and names the field.
func (p Profile) Validate() error {
	for _, f := range []struct {
		field, text string
		runes       int
		lines       bool
	}{
		{"name", p.Name, MaxNameRunes, false},
		{"headline", p.Headline, MaxHeadlineRunes, false},
		{"bio", p.Bio, MaxBioRunes, true},
	} {
		if err := checkText(f.text, f.runes, f.lines); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrProfile, f.field, err)
		}
	}
	if len(p.Languages) > MaxLanguages {
		return fmt.Errorf("%w: languages: more than %d", ErrProfile, MaxLanguages)
	}
	for _, tag := range p.Languages {
		if len(tag) > MaxLanguageBytes || !languageTag.MatchString(tag) {
			return fmt.Errorf("%w: languages: not a language tag", ErrProfile)
		}
	}
	if len(p.Avatar) > MaxAvatarBytes {
		return fmt.Errorf("%w: avatar: more than %d bytes", ErrProfile, MaxAvatarBytes)
	}
	if len(p.Avatar) > 0 && imageType(p.Avatar) == "" {
		return fmt.Errorf("%w: avatar: not a PNG, JPEG or WebP image", ErrProfile)
	}
	return nil
}

// AvatarType is the media type of the avatar, or "" when there is none.
func (p Profile) AvatarType() string { return imageType(p.Avatar) }

// languageTag is the outer shape of a BCP 47 tag; which tags exist is not checked.
var languageTag = regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$`)

// PlainLine tells whether s can be shown as one line of text, by the rules of a name: UTF-8, without control characters and
// changes of writing direction. Its length is the caller's to bound.
func PlainLine(s string) bool { return checkText(s, len(s), false) == nil }

// checkText refuses what a name tag must not hold. lines allows line feeds.
func checkText(s string, runes int, lines bool) error {
	switch {
	case len(s) > runes*maxBytesPerRune:
		return fmt.Errorf("more than %d characters", runes)
	case !utf8.ValidString(s):
		return errors.New("not UTF-8")
	case utf8.RuneCountInString(s) > runes:
		return fmt.Errorf("more than %d characters", runes)
	}
	for _, r := range s {
		if lines && r == '\n' {
			continue
		}
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || turnsDirection(r) {
			return fmt.Errorf("holds the character %U", r)
		}
	}
	return nil
}

// turnsDirection tells the characters of Unicode (UAX #9, section 2) that can make a text read as another one.
func turnsDirection(r rune) bool {
	return r == '\u061c' || r == '\u200e' || r == '\u200f' ||
		(r >= '\u202a' && r <= '\u202e') || (r >= '\u2066' && r <= '\u2069')
}

// imageType is the media type that the first bytes tell, of those that a browser shows and that run no script.
func imageType(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("\x89PNG\r\n\x1a\n")):
		return "image/png"
	case bytes.HasPrefix(b, []byte("\xff\xd8\xff")):
		return "image/jpeg"
	case len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP":
		return "image/webp"
	}
	return ""
}
