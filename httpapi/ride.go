package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"
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
	r.text, r.at = hash16(st.VVHash)+"-"+st.Digest.String(), time.Now()
	return r.text
}

// noteRide looks at the state that came along with something of p's. Another
// state says little: it may be older than ours, or newer.
func (p *peer) noteRide(h http.Header) {
	text := h.Get(headerState)
	if text == "" {
		return
	}
	equal := text == p.n.rideText()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rode = (time.Time{}); equal {
		p.rode = time.Now()
	}
}

// rides reports whether p was lately seen to hold what we do.
func (p *peer) rides() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rode.IsZero() || time.Since(p.rode) >= p.n.cfg.VerifyInterval {
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
