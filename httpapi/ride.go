package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"

	"crdt-genome/store"
)

// In rings nobody asks everybody: that would be a question for each pair of
// members. What a member holds rides along instead, on every request and
// answer between neighbours, as the hash of its vector and its digest there.
// Where that equals ours, no question is asked; where it differs, or nothing
// came along lately, the neighbour is asked as in a mesh. As every member
// does that and the rings connect all, all are equal if all neighbours are.

// rideFresh is how old the state that rides may be: making it costs a look at
// every gene.
const rideFresh = time.Second

// A ride is the state that rides along.
type ride struct {
	mu   sync.Mutex
	text string
	at   time.Time
}

// ride puts our state into h, in rings.
func (n *Node) ride(h http.Header) {
	if n.group.list != nil && n.relaying() {
		if text := n.rideText(); text != "" {
			h.Set(headerState, text)
		}
	}
}

func (n *Node) rideText() string {
	r := &n.riding
	r.mu.Lock()
	text, at := r.text, r.at
	r.mu.Unlock()
	if time.Since(at) < rideFresh {
		return text
	}
	ctx, cancel := context.WithTimeout(n.ctx, askTimeout)
	defer cancel()
	st, err := n.actor.State(ctx)
	if err != nil {
		return text
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text, r.at = stateText(st), time.Now()
	return r.text
}

// stateText is st as it rides along.
func stateText(st *store.State) string { return hash16(st.VVHash) + "-" + st.Digest.String() }

// noteRide notes the state that came along with an answer of p's, or with a
// request: anybody can send one in p's name, so that is only believed to say
// that p no longer holds what it did.
func (p *peer) noteRide(h http.Header, answer bool) {
	text := h.Get(headerState)
	if text == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case answer:
		p.rode, p.rodeAt = text, time.Now()
	case p.rode != text:
		p.rode = ""
	}
}

// rides reports whether p has lately said that it holds st, which is what we
// hold, and has failed at nothing since.
func (p *peer) rides(st *store.State) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rode != stateText(st) || time.Since(p.rodeAt) >= p.n.cfg.VerifyInterval || p.failures > 0 {
		return false
	}
	p.verdict = StateEqual
	return true
}

// mates is how many actors of p's process hold what p does.
func (p *peer) mates() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.same, 1)
}
