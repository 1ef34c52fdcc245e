package httpapi

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

// The document describes what the mux serves, no more and no less.
func TestOpenAPI(t *testing.T) {
	n := alone(t, nil)
	a := ask(t, n, "GET", "/v1/openapi.json", nil)
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			Summary   string                     `json:"summary"`
			Responses map[string]json.RawMessage `json:"responses"`
		} `json:"paths"`
	}
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || a.status != 200 || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatalf("%d %.200s: %v", a.status, a.body, err)
	}
	mux := n.srv.Handler.(*server).mux
	described := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			described++
			r, _ := http.NewRequest(strings.ToUpper(method), "http://x"+strings.NewReplacer("{", "", "}", "").Replace(path), nil)
			if _, pattern := mux.Handler(r); !strings.HasPrefix(pattern, r.Method+" ") {
				t.Errorf("%s %s is described and goes to %q", r.Method, path, pattern)
			}
			if op.Summary == "" || len(op.Responses) < 2 {
				t.Errorf("%s %s: too little is said: %+v", r.Method, path, op)
			}
		}
	}
	if described != len(n.routes()) {
		t.Errorf("%d operations are described, %d served", described, len(n.routes()))
	}
	if a := ask(t, n, "GET", "/v1/openapi.json", nil, "If-None-Match", a.header.Get("ETag")); a.status != 304 {
		t.Errorf("If-None-Match: %d, want 304", a.status)
	}
}

// The package comment is where a reader looks first.
func TestRoutesAreInPackageComment(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	n := alone(t, nil)
	var missing []string
	for _, r := range n.routes() {
		if _, path := r.split(); !strings.Contains(string(doc), path) {
			missing = append(missing, r.pattern)
		}
	}
	if slices.Sort(missing); missing != nil {
		t.Errorf("not in doc.go: %q", missing)
	}
}
