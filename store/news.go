package store

import (
	"context"
	"slices"
	"sort"

	"crdt-genome/genome"
)

// An Arrival says how an op came into this log.
type Arrival struct {
	LSN   uint64     // position of its last event
	Last  genome.Dot // its last event
	Via   Via
	From  genome.ActorID
	Known bool // From says something
}

// News returns ops from behind the position afterLSN on, whoever minted them,
// in the order of the log, in which they can be applied. If want is given, an
// op that it refuses is left out. The rest is as with [Actor.Own].
func (a *Actor) News(ctx context.Context, afterLSN uint64, want func(Arrival) bool, maxOps, maxBytes int) (b genome.Block, next uint64, err error) {
	return a.outbox(ctx, afterLSN, func(genome.ReplicaID) bool { return true }, func(e *entry) bool {
		return want == nil || want(Arrival{LSN: e.last(), Last: genome.Dot{Replica: e.op.Dot.Replica, Seq: e.op.Last()},
			Via: e.prov.via, From: e.prov.from, Known: e.prov.known})
	}, maxOps, maxBytes)
}

// outbox reads the log from behind afterLSN on: ops of the replicas that author
// names, as far as want takes them.
func (a *Actor) outbox(ctx context.Context, afterLSN uint64, author func(genome.ReplicaID) bool, want func(*entry) bool, maxOps, maxBytes int) (b genome.Block, next uint64, err error) {
	s, err := a.snap(func(s *snapshot) {
		s.first = segmentAt(s.segs, afterLSN+1)
		s.recent = s.recent[sort.Search(len(s.recent), func(i int) bool { return s.recent[i].last() > afterLSN }):]
	})
	if err != nil {
		return genome.Block{}, afterLSN, err
	}
	c := newCollector(maxOps, maxBytes)
	err = a.scan(ctx, s, func(seg *segment) bool {
		return slices.ContainsFunc(seg.authors, func(p segmentAuthor) bool { return author(p.replica) })
	}, func(e *entry) bool {
		if e.last() <= afterLSN || !author(e.op.Dot.Replica) || !want(e) {
			return true
		}
		op, lsn := e.op, e.lsn
		if lsn <= afterLSN {
			op, lsn = op.TrimHead(int(afterLSN-lsn+1)), afterLSN+1
		}
		return c.add(op, lsn)
	})
	if err != nil {
		return genome.Block{}, afterLSN, err
	}
	next = max(afterLSN, s.end)
	if c.full {
		next = c.next
	}
	b.Ops = c.ops
	if b.Heads, err = a.headsOf(ctx, c.ops); err != nil {
		return genome.Block{}, afterLSN, err
	}
	return b, next, nil
}
