package httpapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
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
		grace := p.n.cfg.tune.grace
		if first {
			grace = 0 // nobody has pushed to us yet
		}
		for try := range pullRetries {
			err := p.pull(ctx, grace)
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

// pull brings us what p has and we lack. Each chunk is asked for with the
// vector that we have then, one chunk at a time over all peers, so that two
// pulls at once do not fetch the same ops, and one that breaks off goes on
// where it was.
func (p *peer) pull(ctx context.Context, grace time.Duration) error {
	if err := p.ask(ctx); err != nil {
		return err
	}
	if lag := p.lacked(); lag > 0 && lag <= smallGap && !p.n.selfAhead() {
		if !sleep(ctx, grace) { // push is probably bringing it
			return ctx.Err()
		}
	}
	start, got := time.Now(), 0
	for p.lacked() > 0 {
		applied, more, err := p.fetch(ctx)
		got += applied
		if err != nil {
			return err
		}
		if applied == 0 && !more {
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

// fetch gets one chunk.
func (p *peer) fetch(ctx context.Context) (applied int, more bool, err error) {
	select {
	case p.n.fetching <- struct{}{}:
		defer func() { <-p.n.fetching }()
	case <-ctx.Done():
		return 0, false, ctx.Err()
	}
	if p.lacked() == 0 {
		return 0, false, nil // somebody else brought it while we waited
	}
	block, more, err := p.Since(ctx, p.forked(p.n.actor.Version()))
	if err != nil {
		p.trouble(ctx, err)
		return 0, false, err
	}
	rec, err := p.n.actor.Receive(ctx, store.Source{Via: store.ViaPull, From: p.actor, Peer: account(p.actor), Known: true}, block)
	if err != nil {
		return 0, false, err
	}
	p.refusals(block, rec.Refused)
	return rec.Applied, more && rec.Applied > 0, nil
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
	if p := n.peer(src.From); src.Known && p != nil {
		wake(p.wakePull)
		return
	}
	n.pullAny()
}

// pullAny wakes the pull loop of one random peer, of those reachable if any.
func (n *Node) pullAny() {
	var up []*peer
	for _, p := range n.peers {
		p.mu.Lock()
		if p.answered && p.failures == 0 {
			up = append(up, p)
		}
		p.mu.Unlock()
	}
	if len(up) == 0 {
		up = n.peers
	}
	if len(up) > 0 {
		wake(up[rand.N(len(up))].wakePull)
	}
}

// pullTimer makes one random peer's turn come every PullInterval ± 25 %, also
// when nothing happens: who lost the last op of all has nothing to show it.
func (n *Node) pullTimer(ctx context.Context) {
	for {
		d := n.cfg.PullInterval
		if !sleep(ctx, d*3/4+rand.N(d/2+1)) {
			return
		}
		n.counts.pullRounds.Add(1)
		if len(n.peers) > 0 {
			wake(n.peers[rand.N(len(n.peers))].wakePull)
		}
	}
}
