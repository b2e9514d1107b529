// Package web owns the page: its source in src, and what the build makes of it, embedded from dist.
// It does not serve HTTP; node/api does.
package web

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var dist embed.FS

//go:embed notice
var notice embed.FS

// FS returns the files of the built page, index.html at its root. In a tree where the page was not
// built it returns a page that says how to build it.
func FS() fs.FS {
	if _, err := fs.Stat(dist, "dist/index.html"); err != nil {
		return sub(notice, "notice")
	}
	return sub(dist, "dist")
}

// Built reports whether the page itself is in this binary.
func Built() bool {
	_, err := fs.Stat(dist, "dist/index.html")
	return err == nil
}

func sub(files embed.FS, dir string) fs.FS {
	s, err := fs.Sub(files, dir)
	if err != nil {
		panic("impossible: " + err.Error())
	}
	return s
}
