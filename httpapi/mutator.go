package httpapi

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// A mutator changes the genome by itself: after a random pause it inserts a
// random gene at a random index, or deletes one, with equal chance; a genome
// shorter than minLen genes always grows.
type mutator struct {
	cfg MutateConfig
	rng *rand.Rand // only in its own goroutine and in the Edit it waits for

	mu      sync.Mutex
	stopped bool
	resume  chan struct{} // closed when stopped becomes false
}

// retryMint is the pause after an edit that the store would not take.
const retryMint = 250 * time.Millisecond

func newMutator(cfg MutateConfig, actor genome.ActorID) *mutator {
	seed := cfg.Seed
	if !cfg.Seeded {
		var b [8]byte
		_, _ = crand.Read(b[:]) // never fails: see crypto/rand
		seed = binary.LittleEndian.Uint64(b[:])
	}
	// The actor is the second word: actors of one seed make different choices.
	m := &mutator{cfg: cfg, rng: rand.New(rand.NewPCG(seed, uint64(actor))), resume: make(chan struct{})}
	close(m.resume)
	m.pause(cfg.Off)
	return m
}

// pause stops or resumes the mutations; the pause before the next one counts on.
func (m *mutator) pause(stop bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case stop && !m.stopped:
		m.resume = make(chan struct{})
	case !stop && m.stopped:
		close(m.resume)
	}
	m.stopped = stop
}

func (m *mutator) paused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopped
}

// running returns a channel that is closed while mutations go on.
func (m *mutator) running() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.resume
}

// wait returns the pause before the next mutation.
func (m *mutator) wait() time.Duration {
	if m.cfg.Max == m.cfg.Min {
		return m.cfg.Min
	}
	return m.cfg.Min + time.Duration(m.rng.Int64N(int64(m.cfg.Max-m.cfg.Min)))
}

// choose draws the next edit of a genome of length n. It draws the same number
// of values whatever n is, so that a seed repeats its choices.
func (m *mutator) choose(n int) store.Edit {
	insert, where, gene := m.rng.Uint64()&1 == 0, m.rng.Float64(), byte(m.rng.Uint64())
	if insert || n < m.cfg.MinLen || n == 0 {
		return store.Edit{At: int(where * float64(n+1)), Genes: []byte{gene}}
	}
	return store.Edit{Delete: true, At: int(where * float64(n)), N: 1}
}

// mutateLoop mutates until ctx ends or the number asked for is made.
func (n *Node) mutateLoop(ctx context.Context) {
	m := n.mutator
	for made := 0; m.cfg.Ops == 0 || made < m.cfg.Ops; made++ {
		if !sleep(ctx, m.wait()) {
			return
		}
		for { // until this one is made
			select {
			case <-m.running():
			case <-ctx.Done():
				return
			}
			err := n.mutate(ctx)
			if err == nil {
				break
			}
			n.log.Debug().Err(err).Msg("mutation put off")
			pause := retryMint
			if n.fencedBy() != "" {
				pause = rivalEvery
			}
			if errors.Is(err, store.ErrClosed) || !sleep(ctx, pause) {
				return
			}
		}
	}
	n.log.Info().Int("ops", m.cfg.Ops).Msg("mutations done")
}

// mutate makes one mutation. Index and gene are chosen in the writer, on the
// list that the edit then meets.
func (n *Node) mutate(ctx context.Context) error {
	if err := n.mayMint(ctx); err != nil {
		return err
	}
	ops, err := n.actor.Edit(ctx, func(g *genome.Genome) (store.Edit, error) {
		return n.mutator.choose(g.Len()), nil
	})
	if err == nil && len(ops) > 0 {
		n.log.Debug().Stringer("op", ops[0].Dot).Stringer("kind", ops[0].Kind).Msg("mutated")
	}
	return err
}
