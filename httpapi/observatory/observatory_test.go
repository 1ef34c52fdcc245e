package observatory_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"crdt-genome/httpapi/observatory"
)

// TestAssets: the files are small, served as what they are, and ask nobody else.
func TestAssets(t *testing.T) {
	total := 0
	tags := map[string]bool{}
	for name, want := range map[string]string{"": "text/html", "app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"} {
		a, ok := observatory.Get(name)
		if !ok || !strings.HasPrefix(a.Type, want) {
			t.Fatalf("Get(%q) = %v of type %q, want %s", name, ok, a.Type, want)
		}
		total += len(a.Body)
		tags[a.ETag] = true
		z, err := gzip.NewReader(bytes.NewReader(a.Gzip))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := io.ReadAll(z); err != nil || !bytes.Equal(plain, a.Body) {
			t.Errorf("%q: the compressed file is not the file: %v", name, err)
		}
		text := strings.ReplaceAll(string(a.Body), "http://www.w3.org/2000/svg", "") // a name, not an address
		for _, never := range []string{"http:", "https:", "//cdn", "@import", " onclick=\"", " style=\""} {
			if strings.Contains(text, never) {
				t.Errorf("%q has %q in it", name, never)
			}
		}
	}
	if total > observatory.MaxBytes {
		t.Errorf("the page has %d bytes, at most %d are allowed", total, observatory.MaxBytes)
	}
	if len(tags) != 4 {
		t.Errorf("%d different ETags of 4 files", len(tags))
	}
	for _, name := range []string{"nope", "../observatory.go", "observatory.go"} {
		if _, ok := observatory.Get(name); ok {
			t.Errorf("Get(%q) finds something", name)
		}
	}
}
