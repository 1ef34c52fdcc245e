package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"crdt-genome/cmd/internal/fleet"
)

// A lossyLink stands between one actor and all others. Of the POSTs to it some
// are lost, some answers are lost after the POST was done, some POSTs arrive
// twice, and some late, so that later ones overtake them. GETs pass.
type lossyLink struct {
	target func() string

	mu                            sync.Mutex
	rng                           *rand.Rand
	lost, unheard, repeated, late int
}

func (l *lossyLink) draw() (fate float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.Float64()
}

func (l *lossyLink) count(n *int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*n++
}

func (l *lossyLink) least() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return min(l.lost, l.unheard, l.repeated, l.late)
}

func (l *lossyLink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	fate := 1.0
	if r.Method == http.MethodPost && r.URL.Path == "/genome" {
		fate = l.draw()
	}
	switch {
	case fate < 0.3:
		l.count(&l.lost)
		panic(http.ErrAbortHandler) // the connection breaks
	case fate < 0.4:
		l.forward(r, body)
		l.count(&l.unheard)
		panic(http.ErrAbortHandler)
	case fate < 0.6:
		l.forward(r, body)
		l.count(&l.repeated)
	case fate < 0.8:
		l.count(&l.late)
		time.Sleep(100 * time.Millisecond)
	}
	resp, answer := l.forward(r, body)
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(answer) // who asked may be gone
}

// forward sends the request on. The actor itself is never away in this test.
func (l *lossyLink) forward(r *http.Request, body []byte) (*http.Response, []byte) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, l.target()+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	req.Header = r.Header.Clone()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return resp, answer
}

// TestLostPosts puts every actor behind a bad link, and goes on until each of
// the four faults has happened on each link.
func TestLostPosts(t *testing.T) {
	t.Parallel()
	var known atomic.Pointer[fleet.Fleet] // the links are there before it
	links := make([]*lossyLink, 3)
	servers := make([]*httptest.Server, 3)
	for i := range links {
		links[i] = &lossyLink{target: func() string { return known.Load().Actor(i).URL() }, rng: rand.New(rand.NewPCG(7, uint64(i)))}
		servers[i] = httptest.NewServer(links[i])
		defer servers[i].Close()
	}
	f := newGroup(t, fleet.Config{Count: 3, Args: quick, Peers: func(_, to int) string { return servers[to].URL }})
	known.Store(f)
	start(t, f.Actors()...)
	for i, l := range links {
		if !poll(func() bool { return l.least() >= 3 }) {
			t.Fatalf("link %d: %d lost, %d unheard, %d repeated, %d late; want 3 of each", i, l.lost, l.unheard, l.repeated, l.late)
		}
	}
	settle(t, f)
}
