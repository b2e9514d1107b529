package node

import (
	"strconv"

	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/message/catalog"
)

// wording says a sentence in a person's language. The key is the English format; what a language lacks is said in English.
type wording func(key message.Reference, args ...any) string

// wordsIn are the words of a language: en, id or zh, and English for any other. For one goroutine, as a Printer is.
func wordsIn(lang string) wording {
	tag := language.English
	switch lang {
	case "id":
		tag = language.Indonesian
	case "zh":
		tag = language.Chinese
	}
	return message.NewPrinter(tag, message.Catalog(doctorTexts)).Sprintf
}

// doctorTexts has no English but the singulars, as English is what the keys are.
var doctorTexts = func() catalog.Catalog {
	b := catalog.NewBuilder(catalog.Fallback(language.English))
	must := func(err error) {
		if err != nil {
			panic(err) // a text above is not well formed: no test passes
		}
	}
	for key, forms := range englishPlurals {
		must(b.Set(language.English, key, forms))
	}
	for key, text := range indonesian {
		must(b.SetString(language.Indonesian, key, text))
	}
	for key, text := range chinese {
		must(b.SetString(language.Chinese, key, text))
	}
	return b
}()

// sentences puts whole sentences one after the other; empty ones are left out.
func (say wording) sentences(all ...string) string {
	return fold(all, func(a, b string) string { return say("%s %s", a, b) })
}

// both is all of some names.
func (say wording) both(names []string) string {
	return fold(names, func(a, b string) string { return say("%s and %s", a, b) })
}

// list is a list of some names.
func (say wording) list(names []string) string {
	return fold(names, func(a, b string) string { return say("%s, %s", a, b) })
}

func fold(all []string, join func(a, b string) string) (out string) {
	for _, s := range all {
		switch {
		case out == "":
			out = s
		case s != "":
			out = join(out, s)
		}
	}
	return out
}

// plain is a number without the separators that a wording would put between its thousands.
func plain(n uint64) string { return strconv.FormatUint(n, 10) }
