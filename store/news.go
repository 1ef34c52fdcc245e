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

func (a *Actor) news(ctx context.Context, afterLSN uint64, held genome.Version, want func(Arrival) bool, maxOps, maxBytes int) (*collector, *snapshot, error) {
	return a.outbox(ctx, afterLSN, func(r genome.ReplicaID, last uint64) bool { return last > held.Get(r) }, func(e *entry) bool {
		return want == nil || want(Arrival{LSN: e.last(), Last: genome.Dot{Replica: e.op.Dot.Replica, Seq: e.op.Last()},
			Via: e.prov.via, From: e.prov.from, Known: e.prov.known})
	}, maxOps, maxBytes)
}

// outbox reads the log from behind afterLSN on: ops that author takes by their
// replica and last seq, as far as want takes them. A segment of which author
// takes no replica's last event is not read.
func (a *Actor) outbox(ctx context.Context, afterLSN uint64, author func(r genome.ReplicaID, last uint64) bool, want func(*entry) bool, maxOps, maxBytes int) (*collector, *snapshot, error) {
	c := newCollector(maxOps, maxBytes)
	c.next = afterLSN
	s, err := a.snap(func(s *snapshot) {
		s.first = segmentAt(s.segs, afterLSN+1)
		s.recent = s.recent[sort.Search(len(s.recent), func(i int) bool { return s.recent[i].last() > afterLSN }):]
	})
	if err != nil {
		return c, nil, err
	}
	err = a.scan(ctx, s, func(seg *segment) bool {
		return slices.ContainsFunc(seg.authors, func(p segmentAuthor) bool { return author(p.replica, p.last) })
	}, func(e *entry) bool {
		if e.last() <= afterLSN || !author(e.op.Dot.Replica, e.op.Last()) || !want(e) {
			return true
		}
		op, lsn := e.op, e.lsn
		if lsn <= afterLSN {
			op, lsn = op.TrimHead(int(afterLSN-lsn+1)), afterLSN+1
		}
		return c.add(op, lsn)
	})
	if err != nil {
		return c, nil, err
	}
	c.next = max(afterLSN, s.end)
	if c.full {
		c.next = c.last
	}
	return c, s, nil
}
