package httpapi

import (
	"net/http"
	"strconv"
	"strings"

	"crdt-genome/httpapi/observatory"
)

// getHome answers browsers with the page and everybody else with text.
func (n *Node) getHome(w http.ResponseWriter, r *http.Request) error {
	w.Header().Add("Vary", "Accept")
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		return n.getRoot(w, r)
	}
	return n.getAsset(w, r)
}

// getAsset answers a file of the page. A browser asks every time whether it
// has changed, so that a new program never meets an old page.
func (n *Node) getAsset(w http.ResponseWriter, r *http.Request) error {
	a, ok := observatory.Get(strings.TrimPrefix(r.URL.Path, "/"))
	if !ok {
		return problem(codeNotFound, "nothing at "+r.URL.Path, "GET / is the page")
	}
	h := w.Header()
	h.Set("ETag", a.ETag)
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept-Encoding")
	if etagMatches(r.Header.Get("If-None-Match"), a.ETag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	body := a.Body
	if acceptsGzip(r) {
		body = a.Gzip
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Type", a.Type)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, err := w.Write(body)
	return err
}
