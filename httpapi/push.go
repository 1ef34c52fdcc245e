package httpapi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi/internal/timing"
	"crdt-genome/httpapi/rings"
	"crdt-genome/store"
	"crdt-genome/store/signed"
)

// A pusher brings our own ops to one peer. The log is the outbox: all that it
// keeps is a cursor into it, so a peer that is away for a day costs nothing.
//
//	            what the peer holds is asked
//	               v
//	cursor -> next own ops it lacks -> POST /genome -> 2xx: cursor moves
//	   ^  none: wait for a commit        |             4xx for the ops: moves too (retrying cannot mend it)
//	   |                                 v
//	   +------- pause, full jitter <- anything else: stays
//
// Push is for latency only. What it gives up on, pull brings.
type pusher struct {
	*peer
	link   rings.Link
	cursor uint64 // position in our log up to which all is delivered
	first  uint64 // position from which on what others minted is passed on
	boot   bootID // the process that was asked what it holds
	pauses int    // since the last success

	idle  bool      // nothing was left to send
	since time.Time // when the oldest op that is not sent yet was seen in our log
	again bool      // the last batch was parked although the peer had been asked just before
}

// errStillParked makes a sender rest. The peer has our ops only in parking,
// since it lacks, or refused, earlier ones of ours: sending all again at once
// would not help it the second time either.
var errStillParked = errors.New("the peer still lacks earlier ops")

func (p *peer) pushLoop(ctx context.Context) {
	s := &pusher{peer: p, since: time.Now(), link: rings.Link{ProbeAfter: probeAfter}}
	for ctx.Err() == nil {
		changed := p.n.actor.Changed() // before looking, so that no commit is missed
		if p.n.cfg.Bus != nil {
			changed = nil // the bus brings it; the peer is only asked what it holds
		}
		more, err := s.step(ctx)
		switch {
		case err != nil:
			s.rest(ctx, err)
		case !more:
			select {
			case <-changed:
			case <-p.wakePush:
			case <-ctx.Done():
			}
		}
	}
}

// step sends one batch, if there is one; more says that there may be another.
// package rings has the order: probe, ask, wait for the pace, post.
func (s *pusher) step(ctx context.Context) (more bool, err error) {
	s.look()
	do, _ := s.link.Next(time.Now(), true)
	switch do {
	case rings.Probe:
		if err := s.Live(ctx); err != nil {
			s.trouble(ctx, err)
			return false, err
		}
		if s.link.Answered() {
			return true, s.sync(ctx) // an answer to this counts as a sign of life
		}
		s.answeredNow()
		return true, nil
	case rings.Ask:
		return true, s.sync(ctx)
	}
	if s.n.cfg.Bus != nil {
		return false, nil
	}
	block, next, err := s.outgoing(ctx)
	if err != nil {
		return false, fmt.Errorf("read ops after %d: %w", s.cursor, err)
	}
	if len(block.Ops) == 0 {
		more = next > s.cursor && next < s.n.actor.LSN()
		s.moveTo(max(s.cursor, next))
		s.idle = !more
		return more, nil
	}
	if s.idle {
		s.idle, s.since = false, time.Now()
	}
	if do, until := s.link.Next(time.Now(), true); do == rings.Wait {
		if !sleep(ctx, time.Until(until)) {
			return false, ctx.Err()
		}
		if s.n.relaying() { // much may have come meanwhile
			return true, nil
		}
	}
	s.link.Posting(time.Now())
	if err := s.send(ctx, block); err != nil {
		return false, err
	}
	s.moveTo(next)
	return true, nil
}

// look tells the link what is known of the peer.
func (s *pusher) look() {
	s.mu.Lock()
	boot, failures := s.peerState.boot, s.failures
	s.mu.Unlock()
	s.link.Saw(failures)
	relay := s.n.relaying()
	s.link.Pace, s.link.ProbeAfter = s.n.pace(), rings.Probes(relay)
	if relay {
		s.link.Pace = rings.Spread(s.link.Pace, uint64(s.n.cfg.actors.First()), uint64(s.actor))
	}
	if boot != s.boot {
		s.link.Restarted()
	}
}

// outgoing reads what the peer is to be sent next: what this process minted,
// and in rings what others brought.
func (s *pusher) outgoing(ctx context.Context) (signed.Batch, uint64, error) {
	vv := s.version()
	if !s.n.relaying() && s.n.proc == nil {
		known := func(d genome.Dot) bool { return vv.Includes(d) }
		return s.n.actor.SignedOwn(ctx, s.cursor, known, maxBatchOps, maxPushBytes)
	}
	relay, to := s.n.relaying(), uint64(s.actor)
	return s.n.actor.SignedNews(ctx, s.cursor, vv, func(a store.Arrival) bool {
		ours := s.n.ours(a.Last.Replica.Actor())
		return rings.Carries(relay && a.LSN > s.first, ours, uint64(a.From), a.Known, to)
	}, maxBatchOps, maxPushBytes)
}

// sync asks a peer that is new to us, or has started again, what it holds:
// only the rest is sent.
func (s *pusher) sync(ctx context.Context) error {
	held := s.n.actor.LSN() // before asking: what comes later is not in the answer
	if err := s.ask(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.boot = s.peerState.boot
	s.mu.Unlock()
	s.link.Asked()
	s.first = held // older ones of others are for it to pull
	if s.lacksOwn() {
		held = 0 // look for it from the beginning of the log
	}
	s.moveTo(held)
	return nil
}

// lacksOwn reports whether the peer lacks ops of this actor.
func (s *pusher) lacksOwn() bool {
	return s.n.ownIn(s.version().Lacks(s.n.actor.Version())) > 0
}

// send delivers one batch. An error means that it should be tried again.
func (s *pusher) send(ctx context.Context, block signed.Batch) error {
	data, err := signed.AppendBatch(nil, block)
	if err != nil {
		return fmt.Errorf("encode own ops: %w", err)
	}
	start := time.Now()
	s.flying(len(data))
	reply, err := s.postBlock(ctx, data, start.Sub(s.since))
	s.flying(0)
	if err != nil {
		return s.judge(ctx, block.Block, err)
	}
	s.since = start // what is sent next has come since
	s.count(true)
	s.answeredNow()
	if reply.Pending == 0 {
		s.again = false
		s.pauses = 0
		s.delivered(lasts(block.Block))
		return nil
	}
	lacks := false
	for r := range reply.Missing { // any one of ours: the peer has less than we thought
		if id, err := genome.ParseReplicaID(r); err == nil && s.n.ours(id.Actor()) {
			lacks = true
			s.link.Restarted()
		}
	}
	if !lacks { // it lacks ops of others, which are not ours to send
		s.again = false
		return nil
	}
	if s.again {
		return errStillParked
	}
	s.again = true
	return nil
}

// flying notes how many bytes are on their way.
func (s *pusher) flying(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight = bytes
}

// judge decides what becomes of a batch that was not taken. A peer that
// refuses ops for good is told no more of them: nil.
func (s *pusher) judge(ctx context.Context, block genome.Block, err error) error {
	if ctx.Err() == nil {
		s.count(false)
	}
	p, ok := errors.AsType[*Problem](err)
	if !ok || !refusesOps(p) {
		s.trouble(ctx, err)
		return err
	}
	s.answeredNow()
	s.pauses = 0
	s.mu.Lock()
	s.refused += uint64(refusedEvents(block, p))
	s.mu.Unlock()
	s.once("op "+p.Code, func() {
		s.n.log.Warn().Uint32("peer", uint32(s.actor)).Str("code", p.Code).Str("op", p.Op).Str("detail", p.Detail).
			Str("ours", p.Theirs).Str("theirs", p.Ours).Msg("peer refused ops")
	})
	return nil
}

// refusedEvents counts the events of b that p does not say were taken.
func refusedEvents(b genome.Block, p *Problem) int {
	n := 0
	for i := range b.Ops {
		n += b.Ops[i].Len()
	}
	if p.PostReply != nil {
		n -= p.Applied + p.Duplicate + p.Pending
	}
	return max(n, 0)
}

// refusesOps reports whether p is about the ops themselves, such that sending
// them again cannot help.
func refusesOps(p *Problem) bool {
	switch p.Code {
	case codeActorInUse, codeWrongCluster, string(genome.CodeWireVersion):
		return false
	case string(store.CodeSignatureRequired), string(store.CodeSignatureInvalid), string(store.CodeNotInRoster):
		return true // until it has another roster, and then it pulls
	}
	switch p.Status {
	case http.StatusBadRequest, http.StatusConflict, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// rest waits before the next try: for a pause of its own choice, or until the
// peer shows a sign of life.
func (s *pusher) rest(ctx context.Context, err error) {
	d := rings.Pause(s.pauses, rand.Float64())
	s.pauses++
	s.mu.Lock()
	s.nextTry = d
	s.mu.Unlock()
	s.n.log.Debug().Uint32("peer", uint32(s.actor)).Err(err).Int64("next_try_ms", d.Milliseconds()).Msg("push failed")
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.wakePush:
		s.pauses = 0
	case <-ctx.Done():
	}
}

func (s *pusher) count(ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ok {
		s.posts++
	} else {
		s.failed++
	}
}

// moveTo sets the cursor; flush watches it.
func (s *pusher) moveTo(lsn uint64) {
	s.cursor = lsn
	s.mu.Lock()
	s.pushedTo = lsn
	s.mu.Unlock()
}

// lasts returns the last seq of each author in b.
func lasts(b genome.Block) []genome.Head {
	var heads []genome.Head
	for i := range b.Ops {
		op := &b.Ops[i]
		if k := len(heads) - 1; k >= 0 && heads[k].Replica == op.Dot.Replica {
			heads[k].Seq = op.Last()
			continue
		}
		heads = append(heads, genome.Head{Replica: op.Dot.Replica, Seq: op.Last()})
	}
	return heads
}

// sleep waits; false if its context ended first.
var sleep = timing.Sleep

// flush waits until every peer that can be reached has been sent our ops, or
// ctx ends. It returns the number of our events that some peer is not known to
// have.
func (n *Node) flush(ctx context.Context) uint64 {
	target := n.actor.LSN()
	for {
		var unsent uint64
		waiting := n.cfg.Bus != nil && n.busTo.Load() < target
		mine := n.actor.Version()
		for _, p := range n.linked() {
			p.mu.Lock()
			vv, away, to := p.vv, !p.answered || p.failures > 0, p.pushedTo
			p.mu.Unlock()
			if away {
				continue
			}
			waiting = waiting || n.cfg.Bus == nil && to < target
			unsent = max(unsent, n.ownIn(vv.Lacks(mine)))
		}
		if !waiting || !sleep(ctx, 2*time.Millisecond) {
			return unsent
		}
	}
}

// ownIn counts the events of this process's actors in ranges.
func (n *Node) ownIn(ranges []genome.Range) (ops uint64) {
	for _, r := range ranges {
		if n.ours(r.Replica.Actor()) {
			ops += r.Len()
		}
	}
	return ops
}
