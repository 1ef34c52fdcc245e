package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
	"crdt-genome/store/signed"
)

// A Source says where received ops come from.
type Source struct {
	Via   Via
	From  genome.ActorID
	Known bool   // From says something
	Peer  uint64 // whose account parked ops go on; the number means nothing else

	// Trusted says that the ops come from an actor of this process, which has
	// checked their signatures.
	Trusted bool
}

// A Receipt says what became of received ops. The counts are unit events.
type Receipt struct {
	Applied   int // new here, ops included that had been parked before
	Duplicate int // known already
	Pending   int // parked: not held, to be sent again after what is Missing
	Missing   []genome.Missing
	Refused   []*genome.OpError // ops that were refused; the others were taken nevertheless
	SelfAhead bool              // the ops show that this actor's log was rolled back; see Fenced
}

// Receive takes in the ops of b, which may come in any order and any number of
// times. b.Heads, where given, are compared first: of a replica whose history
// has forked, no op is taken. The genes of the ops are copied.
//
// When Receive returns nil, everything that the receipt counts as applied or
// duplicate is durable, here and now. If it returns ctx.Err(), anything may
// have been taken; receiving it again settles it. Otherwise nothing was, and
// the error is [ErrFull], [ErrClosed] or why the actor has failed.
//
// With [Config.Sign] nothing new is taken but what one of points covers, which
// must be signed points by ascending replica: the rest is refused with
// [CodeSignatureRequired], [CodeSignatureInvalid] or [CodeNotInRoster]. Without it they say nothing.
func (a *Actor) Receive(ctx context.Context, src Source, b genome.Block, points ...signed.Point) (Receipt, error) {
	if a.sign != nil {
		return a.receiveSigned(ctx, src, signed.Batch{Block: b, Points: points})
	}
	size, genes := sizeOf(b.Ops)
	var rec Receipt
	if err := a.submit(ctx, len(b.Ops), size, func() { rec = a.receive(src, b, genes) }); err != nil {
		return Receipt{}, err
	}
	return rec, nil
}

// sizeOf returns what ops are counted as, and their genes.
func sizeOf(ops []genome.Op) (size, genes int) {
	for i := range ops {
		genes += len(ops[i].Genes)
	}
	return opBytes*len(ops) + genes, genes
}

// receive does the work of Receive in the writer.
func (a *Actor) receive(src Source, b genome.Block, genes int) Receipt {
	rc := &receiver{a: a, genes: make([]byte, 0, genes), src: src, prov: prov{ms: a.cfg.Now().UnixMilli(), via: src.Via, known: src.Known, from: src.From}}
	forked := a.forks(b, rc)
	for i := range b.Ops {
		rc.cur = b.Ops[i] // the caller's stays as it is
		if len(forked) > 0 && slices.Contains(forked, rc.cur.Dot.Replica) {
			continue
		}
		rc.op(&rc.cur)
	}
	return rc.finish()
}

// forks compares chains and returns the replicas whose ops must be left out.
func (a *Actor) forks(b genome.Block, rc *receiver) (forked []genome.ReplicaID) {
	for _, e := range a.g.CheckHeads(b) {
		forked = append(forked, e.Dot.Replica)
		rc.refuse(e)
		if e.Dot.Replica == a.g.Self() {
			rc.rec.SelfAhead = true
			a.rotate(fmt.Sprintf("%s holds another history of it", rc.src), genome.Head{}, 0)
		}
	}
	return forked
}

func (s Source) String() string {
	if s.Known {
		return fmt.Sprintf("actor %d", s.From)
	}
	return "a peer"
}

// A receiver works through one request.
type receiver struct {
	a      *Actor
	src    Source
	prov   prov
	rec    Receipt
	parked []genome.Op
	genes  []byte        // copies of what the caller's buffer holds
	cur    genome.Op     // the op at hand,
	res    genome.Result // and what became of it
}

func (rc *receiver) op(op *genome.Op) {
	a, res, gene := rc.a, &rc.res, op.Gene
	err := a.g.ApplyTo(res, rc.src.Peer, op)
	if e, ok := errors.AsType[*genome.OpError](err); ok && e.Code == genome.CodeSelfAhead {
		rc.selfAhead(op)
		op.Gene = gene // ApplyTo may have filled it in
		err = a.g.ApplyTo(res, rc.src.Peer, op)
	}
	if err != nil {
		e, ok := errors.AsType[*genome.OpError](err)
		if !ok {
			e = &genome.OpError{Code: genome.CodeOpInvalid, Dot: op.Dot, Detail: err.Error()}
		}
		rc.refuse(e)
		return
	}
	for _, e := range res.Refused {
		if slices.ContainsFunc(rc.parked, func(p genome.Op) bool { return p.Dot == e.Dot }) {
			rc.refuse(e)
			continue
		}
		// It was parked by another request: this one's sender has nothing to
		// do with it, and what anybody sent ahead of time must not make true
		// ops look like a fork.
		a.events = append(a.events, func(log *zerolog.Logger) {
			log.Debug().Stringer("op", e.Dot).Str("code", string(e.Code)).Err(e).Msg("parked op dropped")
		})
	}
	if res.Parked {
		rc.parked = append(rc.parked, *op)
		rc.rec.Missing = append(rc.rec.Missing, res.Missing...)
		return
	}
	fresh := 0
	for i := range res.Applied {
		got := &res.Applied[i]
		rc.rec.Applied += got.Len()
		if i == 0 && !res.Duplicate {
			fresh = got.Len() // the op itself comes first, without a head that was known
		}
		got.Genes = rc.keep(got.Genes)
		a.append(got, rc.prov)
	}
	rc.rec.Duplicate += op.Len() - fresh
	a.counts.duplicates += uint64(op.Len() - fresh)
}

// keep copies genes, which are part of the caller's buffer.
func (rc *receiver) keep(genes []byte) []byte {
	if len(genes) > cap(rc.genes)-len(rc.genes) { // of an op that had been parked
		return slices.Clone(genes)
	}
	n := len(rc.genes)
	rc.genes = append(rc.genes, genes...)
	return rc.genes[n:len(rc.genes):len(rc.genes)]
}

// selfAhead rotates because op shows own events that are not held.
func (rc *receiver) selfAhead(op *genome.Op) {
	self := rc.a.g.Self()
	rc.rec.SelfAhead = true
	until, genes := genome.Head{Replica: self}, uint64(0)
	if op.Dot.Replica == self {
		until.Seq = op.Last()
	}
	if op.Ref.Replica == self {
		genes = op.Ref.Gene + max(op.Count, 1)
	}
	rc.a.rotate(fmt.Sprintf("%s holds more of it", rc.src), until, genes)
}

func (rc *receiver) refuse(e *genome.OpError) {
	a := rc.a
	if a.sign != nil {
		e = unproven(e)
	}
	rc.rec.Refused = append(rc.rec.Refused, e)
	if e.Code != genome.CodeDotConflict {
		return
	}
	a.counts.conflicts++
	if a.warned[e.Dot.Replica] {
		return
	}
	a.warned[e.Dot.Replica] = true
	src := rc.src
	a.events = append(a.events, func(log *zerolog.Logger) {
		log.Warn().Stringer("replica", e.Dot.Replica).Stringer("op", e.Dot).Str("code", string(e.Code)).
			Str("ours", e.Ours).Str("theirs", e.Theirs).Stringer("from", src).Msg("fork refused")
	})
}

// finish drops what came true meanwhile from what is missing.
func (rc *receiver) finish() Receipt {
	g := rc.a.g
	for i := range rc.parked {
		op := &rc.parked[i]
		if held := g.Head(op.Dot.Replica).Seq; held < op.Last() {
			rc.rec.Pending += op.Len()
		}
	}
	var missing []genome.Missing
	for _, m := range rc.rec.Missing {
		held := g.Head(m.Replica).Seq >= m.To
		if m.HasGene {
			held = g.Genes(m.Replica) > m.Gene
		}
		if !held && !slices.Contains(missing, m) {
			missing = append(missing, m)
		}
	}
	rc.rec.Missing = missing
	return rc.rec
}

// FenceTimeout bounds how long edits wait for own ops that a peer showed. Ids
// are safe from the rotation on; the wait only keeps an actor from editing a
// state older than one that it has itself shown to others.
const FenceTimeout = 30 * time.Second

// A fence holds edits back until the old replica's events are here again.
type fence struct {
	until  genome.Head // Replica up to Seq
	genes  uint64      // and this many of its genes
	end    time.Time
	reason string
	lifted bool
}

// Fenced reports whether edits are refused with [ErrFenced], and why.
func (a *Actor) Fenced() (reason string, fenced bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fencedLocked()
}

func (a *Actor) fencedLocked() (string, bool) {
	f := a.fence
	if f == nil || f.lifted {
		return "", false
	}
	held := a.g.Head(f.until.Replica).Seq
	if held >= f.until.Seq && a.g.Genes(f.until.Replica) >= f.genes || !a.cfg.Now().Before(f.end) {
		f.lifted = true
		return "", false
	}
	return f.reason, true
}

// rotate goes on under a new epoch and, if until or genes says that there is
// something to come back, raises a fence. It runs in the writer.
func (a *Actor) rotate(why string, until genome.Head, genes uint64) {
	old := a.g.Self()
	e, err := a.drawEpoch()
	if err != nil {
		a.x.err = err
		return
	}
	a.meta.epochs = append(slices.Clip(a.meta.epochs), e)
	a.rotated = true
	if err := a.g.SetSelf(genome.NewReplicaID(a.meta.self, e)); err != nil {
		a.x.err = err
		return
	}
	held := a.g.Head(old).Seq
	if until.Seq > held || genes > a.g.Genes(old) {
		a.fence = &fence{until: until, genes: genes, end: a.cfg.Now().Add(FenceTimeout),
			reason: fmt.Sprintf("this log ends at %v but %s", genome.Dot{Replica: old, Seq: held}, why)}
	}
	a.events = append(a.events, func(log *zerolog.Logger) {
		log.Warn().Stringer("old", old).Uint64("held", held).Uint64("known", until.Seq).Stringer("epoch", e).
			Str("reason", why).Msg("continuing under a new epoch")
	})
}

// Rotate goes on under a new epoch, durably when it returns nil. Later edits
// come from another replica of the same actor.
func (a *Actor) Rotate(ctx context.Context, reason string) error {
	return a.submit(ctx, 1, opBytes, func() { a.rotate(reason, genome.Head{}, 0) })
}

// NotePeer looks at what a peer holds. If it is more of this actor's own
// replica than is held here, or another history of it, this log was rolled
// back or copied: the actor goes on under a new epoch at once, and edits are
// fenced until the old one's ops are back or [FenceTimeout] is over. fenced
// reports whether they are. Call it before the first edit.
func (a *Actor) NotePeer(ctx context.Context, heads []genome.Head) (fenced bool, err error) {
	for _, h := range heads {
		if h.Replica.Actor() != a.cfg.Actor {
			continue
		}
		if err := a.noteOwn(ctx, h); err != nil {
			return false, err
		}
	}
	_, fenced = a.Fenced()
	return fenced, nil
}

// noteOwn looks at a peer's head of one of this actor's replicas.
func (a *Actor) noteOwn(ctx context.Context, h genome.Head) error {
	chain, held, err := a.ChainAt(ctx, genome.Dot{Replica: h.Replica, Seq: h.Seq})
	if err != nil || h.Seq == 0 {
		return err
	}
	if held && chain == h.Chain {
		if a.aheadOf.Load() == 0 {
			return nil
		}
		return a.submit(ctx, 1, opBytes, func() { a.noteBack(h) })
	}
	forked := held
	return a.submit(ctx, 1, opBytes, func() {
		mine := a.g.Head(h.Replica).Seq
		if !forked && mine >= h.Seq {
			return // it came meanwhile
		}
		lost, told := a.ahead[h.Replica]
		if !told {
			lost.held = mine
		}
		lost.known = max(lost.known, h.Seq)
		a.ahead[h.Replica] = lost
		if !told {
			a.aheadOf.Store(int32(len(a.ahead)))
			a.events = append(a.events, func(log *zerolog.Logger) {
				log.Warn().Stringer("replica", h.Replica).Uint64("held", mine).Uint64("known", h.Seq).Bool("forked", forked).
					Msg("this log ends before what a peer has by this actor: restored from a backup?")
			})
		}
		switch {
		case h.Replica != a.g.Self():
		case forked:
			a.rotate("a peer holds another history of it", genome.Head{}, 0)
		default:
			a.rotate("a peer holds more of it", h, 0)
		}
	})
}

// lostOwn is an own epoch whose end is not here: events that were held when
// that was noticed, and that a peer knows.
type lostOwn struct{ held, known uint64 }

// noteBack tells, once, that own events that only a peer held are here again.
// It runs in the writer.
func (a *Actor) noteBack(h genome.Head) {
	lost, told := a.ahead[h.Replica]
	here := a.g.Head(h.Replica).Seq
	if !told || here < lost.known {
		return // another peer knows still more
	}
	delete(a.ahead, h.Replica)
	a.aheadOf.Store(int32(len(a.ahead)))
	fetched, epoch := here-min(lost.held, here), a.g.Self().Epoch()
	a.events = append(a.events, func(log *zerolog.Logger) {
		log.Info().Stringer("replica", h.Replica).Uint64("fetched", fetched).Stringer("epoch", epoch).Msg("own ops fetched back")
	})
}
