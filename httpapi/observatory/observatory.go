// Package observatory is the page of a node: three files and an icon, embedded,
// with no build step and no request to any other origin.
//
// The page (app.js) loads GET /v1/elements once and follows GET /v1/changes.
// From the list with its tombstones and a version vector it works out the list
// of every actor and of every moment of the past by itself, so a browser asks
// only the node that it got the page from:
//
//	an element is in the list at vector V  <=>  its dot is in V, and
//	                                            no dot that deletes it is
//
// New ops are placed by the order of package genome (left children, gene, right
// children; siblings by replica and gene number), a second and independent
// reading of it. The page compares the number of genes that it shows with what
// each verdict event says, and loads the list again if they differ.
package observatory

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"path"
	"sync"
)

// MaxBytes bounds the files together, before compression.
const MaxBytes = 60_000

//go:embed index.html app.css app.js icon.svg
var files embed.FS

// An Asset is a file of the page.
type Asset struct {
	Type string // media type
	ETag string // of the content, with quotes
	Body []byte
	Gzip []byte
}

// types are the files that are served, by name.
var types = map[string]string{
	"index.html": "text/html; charset=utf-8",
	"app.css":    "text/css; charset=utf-8",
	"app.js":     "text/javascript; charset=utf-8",
	"icon.svg":   "image/svg+xml",
}

// assets are made at first use: most programs that embed a node never show it.
var assets = sync.OnceValue(func() map[string]Asset {
	all := make(map[string]Asset, len(types))
	for name, mediaType := range types {
		all[name] = newAsset(name, mediaType)
	}
	return all
})

// Get returns the file of the given name; "" is the page itself.
func Get(name string) (Asset, bool) {
	if name == "" {
		name = "index.html"
	}
	a, ok := assets()[path.Clean(name)]
	return a, ok
}

func newAsset(name, mediaType string) Asset {
	body, err := files.ReadFile(name)
	if err != nil {
		panic("observatory: " + err.Error()) // types names a file that is not embedded
	}
	sum := sha256.Sum256(body)
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		panic("observatory: " + err.Error()) // the level is a constant of that package
	}
	_, _ = z.Write(body) // a bytes.Buffer takes everything
	_ = z.Close()
	return Asset{Type: mediaType, ETag: `"` + hex.EncodeToString(sum[:8]) + `"`, Body: body, Gzip: b.Bytes()}
}
