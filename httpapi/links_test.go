package httpapi

import (
	"net/http"
	"testing"
)

// TestLinks: a link that one side cuts lets nothing through either way until
// it is healed; then what was made meanwhile arrives. Without Chaos nobody can
// cut one.
func TestLinks(t *testing.T) {
	l := newLab(t, 2, func(c *Config) { c.Chaos = true })
	l.start(0)
	l.start(1)
	a, b := NewClient(l.nodes[0].URL()), NewClient(l.nodes[1].URL())
	edit := func(c *Client, hex string) {
		t.Helper()
		if _, err := c.Edit(ctx, EditRequest{Insert: &InsertRequest{Hex: hex}}); err != nil {
			t.Fatal(err)
		}
	}
	link := func(i int) string { return l.nodes[i].peers()[0].status().Link }
	state := func(i int) string { return l.nodes[i].peers()[0].status().State }
	edit(a, "0a")
	l.waitEqual()
	for i := range 2 { // a peer that was never verified passes for unreachable
		eventually(t, func() bool { return state(i) == StateEqual }, why("the link was never up"))
	}
	if err := a.Link(ctx, 1, true); err != nil {
		t.Fatal(err)
	}
	edit(a, "aa")
	edit(b, "bb")
	for i := range 2 { // both sides notice, though one was told
		eventually(t, func() bool { return state(i) == StateUnreachable }, why("the link is not missed"))
	}
	if x, y := mustState(t, l.nodes[0]).Hex, mustState(t, l.nodes[1]).Hex; x != "aa0a" || y != "bb0a" {
		t.Errorf("over a cut link: %s and %s, want aa0a and bb0a", x, y)
	}
	if link(0) != LinkCut || link(1) != LinkUp {
		t.Errorf("links: %s and %s, want cut and up", link(0), link(1))
	}
	if err := a.Link(ctx, 1, false); err != nil {
		t.Fatal(err)
	}
	l.waitEqual()

	for _, c := range []struct {
		path, body string
		status     int
	}{{"/v1/links/7", `{"state":"cut"}`, 404}, {"/v1/links/x", `{"state":"cut"}`, 404}, {"/v1/links/1", `{"state":"gone"}`, 400}, {"/v1/links/1", `{`, 400}} {
		if got := ask(t, l.nodes[0], http.MethodPut, c.path, []byte(c.body)); got.status != c.status {
			t.Errorf("PUT %s %s: %d, want %d", c.path, c.body, got.status, c.status)
		}
	}
	n := alone(t, nil)
	if got := ask(t, n, http.MethodPut, "/v1/links/1", []byte(`{"state":"cut"}`)); got.status != 403 {
		t.Errorf("without chaos: %d, want 403", got.status)
	}
}
