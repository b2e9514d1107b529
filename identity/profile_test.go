package identity

import (
	"errors"
	"strings"
	"testing"
)

func TestProfileValidate(t *testing.T) {
	png := []byte("\x89PNG\r\n\x1a\n....")
	good := []Profile{
		{},
		{Name: "Ana"},
		{Name: "Søren 🎙️", Headline: "ilmu & kopi", Bio: "first\nsecond", Languages: []string{"id", "en-GB", "zh-Hans-CN"}, Avatar: png},
		{Name: strings.Repeat("é", MaxNameRunes), Bio: strings.Repeat("好", MaxBioRunes)},
		{Name: "مريم"}, // a right-to-left script needs no override
		{Name: "नमस्ते\u200dक"},
		{Avatar: []byte("\xff\xd8\xff\xe0")},
		{Avatar: []byte("RIFF\x00\x00\x00\x00WEBPVP8 ")},
	}
	for _, p := range good {
		if err := p.Validate(); err != nil {
			t.Errorf("%+v refused: %v", p, err)
		}
	}
	for name, p := range map[string]Profile{
		"name":            {Name: strings.Repeat("a", MaxNameRunes+1)},
		"name bytes":      {Name: strings.Repeat("a", 1<<20)},
		"name utf8":       {Name: "a\xff"},
		"name nul":        {Name: "a\x00b"},
		"name line":       {Name: "a\nb"},
		"name esc":        {Name: "\x1b[31m"},
		"name c1":         {Name: "a\u0085b"},
		"name override":   {Name: "ana\u202e"},
		"name isolate":    {Name: "\u2066ana"},
		"name mark":       {Name: "\u200fana"},
		"name separator":  {Name: "a\u2028b"},
		"headline":        {Headline: strings.Repeat("a", MaxHeadlineRunes+1)},
		"headline line":   {Headline: "a\nb"},
		"bio":             {Bio: strings.Repeat("a", MaxBioRunes+1)},
		"bio tab":         {Bio: "a\tb"},
		"bio override":    {Bio: "x\u202dy"},
		"languages":       {Languages: make([]string, MaxLanguages+1)},
		"language empty":  {Languages: []string{""}},
		"language shape":  {Languages: []string{"english please"}},
		"language length": {Languages: []string{"en" + strings.Repeat("-aaaaaaaa", 4)}},
		"avatar size":     {Avatar: append([]byte("\xff\xd8\xff"), make([]byte, MaxAvatarBytes)...)},
		"avatar svg":      {Avatar: []byte("<svg xmlns='http://www.w3.org/2000/svg'><script>")},
	} {
		if err := p.Validate(); !errors.Is(err, ErrProfile) {
			t.Errorf("%s: %v, want ErrProfile", name, err)
		}
	}
}

func TestAvatarType(t *testing.T) {
	for want, avatar := range map[string]string{"image/png": "\x89PNG\r\n\x1a\n", "image/jpeg": "\xff\xd8\xff", "image/webp": "RIFF1234WEBP", "": "GIF89a"} {
		if got := (Profile{Avatar: []byte(avatar)}).AvatarType(); got != want {
			t.Errorf("%q: %q, want %q", avatar, got, want)
		}
	}
}
