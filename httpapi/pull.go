package httpapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"crdt-genome/genome"
	"crdt-genome/httpapi/rings"
	"crdt-genome/store"
	"crdt-genome/store/signed"
)

// pullLoop fetches what p has and we lack, whenever it is woken: at the start,
// when p is back, when ops came that need others, when a verification shows
// that something is missing, and by pullTimer when nothing at all happens.
func (p *peer) pullLoop(ctx context.Context) {
	first := true
	for {
		select {
		case <-p.wakePull:
		case <-ctx.Done():
			return
		}
		for try := range pullRetries {
			err := p.pull(ctx, first)
			if err == nil {
				first = false
				p.n.pulled.Store(true)
				break
			}
			p.n.log.Debug().Uint32("peer", uint32(p.actor)).Err(err).Msg("pull failed")
			if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
				return
			}
			if p.isDown() || !sleep(ctx, rand.N(backoffFirst<<try)) {
				break // its next sign of life wakes us again
			}
		}
	}
}

func (p *peer) isDown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

// pull brings us what p has and we lack. It is done in passes: a second one
// only if other ops have come to p meanwhile. Whatever breaks off is gone on
// with where it was, since each pass begins with the vector that we have then.
// first says that nothing has been pulled from p before.
func (p *peer) pull(ctx context.Context, first bool) error {
	if err := p.ask(ctx); err != nil {
		return err
	}
	lacked := p.lacked()
	if lacked > 0 && !p.n.selfAhead() && !sleep(ctx, rings.Grace(first, lacked, p.n.cfg.tune.grace)) {
		return ctx.Err()
	}
	start, got := time.Now(), 0
	for p.lacked() > 0 {
		pass := pass{peer: p}
		err := pass.run(ctx)
		got += pass.applied
		if err != nil {
			return err
		}
		if pass.applied == 0 || len(pass.skip) > 0 {
			break // refused, or brought by somebody else meanwhile
		}
	}
	if got > 0 {
		p.n.log.Info().Uint32("from", uint32(p.actor)).Int("ops", got).Int64("took_ms", time.Since(start).Milliseconds()).Msg("caught up")
	}
	return nil
}

// lacked counts the events that p has and we lack, forked replicas left out.
func (p *peer) lacked() uint64 {
	return countOps(p.forked(p.n.actor.Version()).Lacks(p.version()))
}

// A pass fetches all that a peer has, chunk by chunk. The next chunk is on its
// way while one is written to the log:
//
//	ask with vector v0 -> chunk 1 -> ask with v0 + chunk 1 -> chunk 2 -> …
//	                         |                                   |
//	                         +-> validate, log, apply            +-> …
//
// So it does not end at a chunk of which we take nothing: what lies behind may
// be good. A replica of which an op was refused is left out from then on.
type pass struct {
	*peer
	applied int

	mu   sync.Mutex
	skip []genome.ReplicaID
}

func (s *pass) run(ctx context.Context) error {
	// One pass at a time, or several would fetch the same. But a slow peer
	// delays the others only so long.
	slow := time.NewTimer(slowPass)
	defer slow.Stop()
	select {
	case s.n.fetching <- struct{}{}:
		defer func() { <-s.n.fetching }()
	case <-slow.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.lacked() == 0 {
		return nil // somebody else brought it while we waited
	}
	g, ctx := errgroup.WithContext(ctx)
	chunks := make(chan signed.Batch)
	g.Go(func() error {
		defer close(chunks)
		return s.fetch(ctx, chunks)
	})
	g.Go(func() error { return s.take(ctx, chunks) })
	return g.Wait()
}

// fetch asks for one chunk after the other.
func (s *pass) fetch(ctx context.Context, chunks chan<- signed.Batch) error {
	seen := s.forked(s.n.actor.Version())
	for {
		block, more, err := s.since(ctx, seen, s.n.cfg.Store.Sign != nil)
		if err != nil {
			s.trouble(ctx, err)
			return err
		}
		before := seen.Ops()
		seen = raise(seen, lasts(block.Block))
		more = more && seen.Ops() > before // or it could keep us here for ever
		select {
		case chunks <- block:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !more {
			return nil
		}
		seen = s.without(seen)
	}
}

// without takes the replicas to be left out as held.
func (s *pass) without(seen genome.Version) genome.Version {
	theirs := s.version()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.skip {
		seen = seen.With(genome.Dot{Replica: r, Seq: theirs.Get(r)})
	}
	return seen
}

// take logs and applies the chunks.
func (s *pass) take(ctx context.Context, chunks <-chan signed.Batch) error {
	src := store.Source{Via: store.ViaPull, From: s.actor, Peer: account(s.actor), Known: true}
	for block := range chunks {
		rec, err := s.n.actor.Receive(ctx, src, block.Block, block.Points...)
		if errors.Is(err, store.ErrFull) { // others are writing: they come first
			if !sleep(ctx, backoffFirst) {
				return ctx.Err()
			}
			rec, err = s.n.actor.Receive(ctx, src, block.Block, block.Points...)
		}
		if err != nil {
			return err
		}
		s.applied += rec.Applied
		s.n.pending.note(rec.Pending > 0, time.Now())
		s.refusals(block.Block, rec.Refused)
		s.mu.Lock()
		for _, e := range rec.Refused {
			if !slices.Contains(s.skip, e.Dot.Replica) {
				s.skip = append(s.skip, e.Dot.Replica)
			}
		}
		s.mu.Unlock()
	}
	return nil
}

// refusals names what a pull brought that we do not take. A conflict is a fork.
func (p *peer) refusals(b genome.Block, refused []*genome.OpError) {
	for _, e := range refused {
		p.n.counts.reject(string(e.Code))
		if e.Code == genome.CodeDotConflict {
			p.addFork(p.forkOf(b, e))
			continue
		}
		p.once("pulled "+string(e.Code), func() {
			p.n.log.Warn().Uint32("peer", uint32(p.actor)).Str("code", string(e.Code)).Stringer("op", e.Dot).Str("detail", e.Error()).Msg("refused pulled ops")
		})
	}
}

// forkOf says what is known of the fork that e reports: our head of the
// replica and the one that came.
func (p *peer) forkOf(b genome.Block, e *genome.OpError) Fork {
	f := Fork{Replica: e.Dot.Replica, Seq: e.Dot.Seq}
	for _, h := range b.Heads {
		if h.Replica == f.Replica {
			f.Theirs = h.Chain
		}
	}
	for _, h := range p.n.actor.Heads() {
		if h.Replica == f.Replica {
			f.Ours = h.Chain
		}
	}
	return f
}

// selfAhead reports whether edits are fenced until our own ops are back.
func (n *Node) selfAhead() bool {
	_, fenced := n.actor.Fenced()
	return fenced
}

// wantPull asks for a pull from who sent ops that need others: it has them.
// From a stranger, any peer may.
func (n *Node) wantPull(src store.Source) {
	if p := n.peer(src.From); src.Known && p != nil && p.connected() {
		wake(p.wakePull)
		return
	}
	n.pullAny()
}

// pullAny wakes the pull loop of one random peer, of those reachable if any.
func (n *Node) pullAny() {
	var up []*peer
	linked := n.linked()
	for _, p := range linked {
		p.mu.Lock()
		if p.answered && p.failures == 0 {
			up = append(up, p)
		}
		p.mu.Unlock()
	}
	if len(up) == 0 {
		up = linked
	}
	if len(up) > 0 {
		wake(up[rand.N(len(up))].wakePull)
	}
}

// turn returns whom a round pulls from, nil if there is nobody: any peer, and
// every other time one that is known to live. Where most of a list do not, as
// they have died together or somebody has made them up, those who live would
// hardly ever meet.
func (n *Node) turn(round uint64) *peer {
	peers := n.peers()
	if round%2 == 0 {
		if alive := slices.DeleteFunc(slices.Clone(peers), func(p *peer) bool { return !p.lives() }); len(alive) > 0 {
			peers = alive
		}
	}
	if len(peers) == 0 {
		return nil
	}
	return peers[rand.N(len(peers))]
}

// lives reports whether p has been heard of and has failed at nothing since.
func (p *peer) lives() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failures == 0 && (p.answered || p.boot != "")
}

// pullTimer makes one random peer's turn come every PullInterval ± 25 %, also
// when nothing happens: who lost the last op of all has nothing to show it.
func (n *Node) pullTimer(ctx context.Context) {
	for {
		d := n.cfg.PullInterval
		if !sleep(ctx, d*3/4+rand.N(d/2+1)) {
			return
		}
		p := n.turn(n.counts.pullRounds.Add(1))
		if p == nil {
			continue
		}
		if p.connected() {
			wake(p.wakePull)
			continue
		}
		if err := p.pull(ctx, false); err == nil { // nobody else pulls from it
			n.pulled.Store(true)
		}
	}
}
