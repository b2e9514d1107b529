package api

import (
	"bytes"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

const (
	indexFile = "index.html"
	hashedDir = "assets/" // the build puts a hash of the content into the names there
)

// mediaTypes of the files that a page has. The system's own tables differ from one machine to the next.
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
	".css": "text/css; charset=utf-8", ".json": jsonType, ".map": jsonType, ".txt": "text/plain; charset=utf-8",
	".webmanifest": "application/manifest+json", ".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg",
	".webp": "image/webp", ".ico": "image/x-icon", ".woff2": "font/woff2", ".wasm": "application/wasm",
	".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".wav": "audio/wav",
}

// page serves the files of the page. They hold no secret, so it asks for no token.
type page struct{ files fs.FS }

func (p *page) serve(w http.ResponseWriter, r *http.Request) *Problem {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return wrongMethod(http.MethodGet, http.MethodHead)
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" {
		name = indexFile
	}
	data, ok := p.read(name)
	if !ok {
		return notFound()
	}
	mediaType, ok := mediaTypes[path.Ext(name)]
	if !ok {
		mediaType = "application/octet-stream"
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Cache-Control", caching(name))
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
	return nil
}

func (p *page) read(name string) ([]byte, bool) {
	if p.files == nil || !fs.ValidPath(name) {
		return nil, false
	}
	data, err := fs.ReadFile(p.files, name)
	return data, err == nil
}

// caching keeps what is named by its content and asks anew for the rest.
func caching(name string) string {
	switch {
	case name == indexFile:
		return "no-store"
	case strings.HasPrefix(name, hashedDir):
		return "public, max-age=31536000, immutable"
	}
	return "no-cache"
}
