package node

import (
	"golang.org/x/text/feature/plural"
	"golang.org/x/text/message/catalog"
)

// englishPlurals are the keys whose words depend on a number; Indonesian and Chinese have one form for all.
// A form that leaves the number out names its other arguments by their places.
var englishPlurals = map[string]catalog.Message{
	"%d peers are connected":                      oneOf(1, "One peer is connected", "%d peers are connected"),
	"%d community nodes answer":                   oneOf(1, "One community node answers", "%d community nodes answer"),
	"%d stored values were damaged":               oneOf(1, "One stored value was damaged", "%d stored values were damaged"),
	"This machine carries %d rooms for others":    oneOf(1, "This machine carries one room for others", "This machine carries %d rooms for others"),
	"The host of “%s” was last heard %d days ago": oneOf(2, "The host of “%[1]s” was last heard a day ago", "The host of “%s” was last heard %d days ago"),
	"Audio of “%s”: %d direct links":              oneOf(2, "Audio of “%[1]s”: a direct link to one person", "Audio of “%s”: %d direct links"),
	"Audio of “%s”: %d direct links, more than is good": oneOf(2, "Audio of “%[1]s”: a direct link to one person, more than is good",
		"Audio of “%s”: %d direct links, more than is good"),
	"Your machine passes the room on to %d people at %s.": oneOf(1, "Your machine passes the room on to one person at %[2]s.",
		"Your machine passes the room on to %d people at %s."),
}

// oneOf chooses by the argument in place arg, counted from 1.
func oneOf(arg int, one, other string) catalog.Message {
	return plural.Selectf(arg, "%d", plural.One, one, plural.Other, other)
}
