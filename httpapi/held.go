package httpapi

import (
	"context"
	"sync"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi/trust"
)

// heldTimeout bounds how long a start with a damaged log waits for its peers
// to say what they hold.
const heldTimeout = 3 * time.Second

// HeldBy asks peers, all at once, how far they hold each replica, and returns
// the actors that hold all of r, in the order of peers. Who does not answer
// within ctx holds nothing. t says how they know us; it may be nil.
func HeldBy(ctx context.Context, t *trust.Trust, peers []Peer, ranges []genome.Range) [][]genome.ActorID {
	heads := make([]HeadsReply, len(peers))
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() {
			h, err := NewTrustedClient(p.URL, t).Heads(ctx)
			if err == nil {
				heads[i] = h
			}
		})
	}
	all.Wait()
	held := make([][]genome.ActorID, len(ranges))
	for i, r := range ranges {
		for j, p := range peers {
			if heads[j][r.Replica].Seq >= r.To {
				held[i] = append(held[i], p.Actor)
			}
		}
	}
	return held
}

// held returns the question of a store with a damaged log: do the peers hold
// what it has lost?
func (c *Config) held() func(context.Context, []genome.Range) bool {
	var peers []Peer
	for _, p := range c.Peers {
		if p.Actor != c.Store.Actor {
			peers = append(peers, p)
		}
	}
	return func(ctx context.Context, lost []genome.Range) bool {
		ctx, cancel := context.WithTimeout(ctx, heldTimeout)
		defer cancel()
		for _, by := range HeldBy(ctx, c.Trust, peers, lost) {
			if len(by) == 0 {
				return false
			}
		}
		return true
	}
}
