package store

import (
	"context"
	"slices"
	"sort"

	"crdt-genome/genome"
	"crdt-genome/store/signed"
)

// SignedSince is [Actor.Since] with the signed points of what it returns. The
// answer then ends at a cut, if there is one within the limits or within the
// largest that Since has: the caller can check all of it. Ops of whom no point
// is known come without. An actor that does not sign has no points.
func (a *Actor) SignedSince(ctx context.Context, v genome.Version, maxOps, maxBytes int) (b signed.Batch, more bool, err error) {
	c, s, err := a.since(ctx, v, maxOps, a.mostBytes(maxBytes))
	if err == nil && a.wantsCut(c, s, anyCut) {
		c, s, err = a.since(ctx, v, cutOps, cutBytes)
	}
	if err != nil {
		return b, false, err
	}
	b, err = a.batchOf(ctx, c, s, anyCut)
	return b, c.full, err
}

// SignedOwn returns ops of this actor, under whichever of its epochs, from behind
// the position afterLSN on, in the order of the log: the outbox. If skip is
// given, it is asked with the last dot of an op whether to leave it out. next
// is the position to go on from; it is afterLSN only if nothing has come since.
// The limits are those of [Actor.Since], the points as with [Actor.SignedSince].
func (a *Actor) SignedOwn(ctx context.Context, afterLSN uint64, skip func(genome.Dot) bool, maxOps, maxBytes int) (b signed.Batch, next uint64, err error) {
	ends := func(p *point) bool { return p.Replica.Actor() == a.cfg.Actor }
	return a.signedOutbox(ctx, ends, func(maxOps, maxBytes int) (*collector, *snapshot, error) {
		return a.own(ctx, afterLSN, skip, maxOps, maxBytes)
	}, maxOps, maxBytes)
}

// SignedNews returns ops from behind the position afterLSN on, whoever minted
// them, in the order of the log, in which they can be applied. What held covers
// is left out, without reading segments that have nothing else; and so is, if
// want is given, an op that it refuses. The rest is as with [Actor.SignedOwn].
func (a *Actor) SignedNews(ctx context.Context, afterLSN uint64, held genome.Version, want func(Arrival) bool, maxOps, maxBytes int) (b signed.Batch, next uint64, err error) {
	return a.signedOutbox(ctx, anyCut, func(maxOps, maxBytes int) (*collector, *snapshot, error) {
		return a.news(ctx, afterLSN, held, want, maxOps, maxBytes)
	}, maxOps, maxBytes)
}

func (a *Actor) signedOutbox(ctx context.Context, ends func(*point) bool, read func(maxOps, maxBytes int) (*collector, *snapshot, error), maxOps, maxBytes int) (b signed.Batch, next uint64, err error) {
	c, s, err := read(maxOps, a.mostBytes(maxBytes))
	if err == nil && a.wantsCut(c, s, ends) {
		c, s, err = read(cutOps, cutBytes)
	}
	if err != nil {
		return b, c.next, err
	}
	b, err = a.batchOf(ctx, c, s, ends)
	return b, c.next, err
}

// mostBytes is a limit of bytes: what is signed must not be more than is taken at once.
func (a *Actor) mostBytes(n int) int {
	if a.sign != nil && (n <= 0 || n > cutBytes) {
		return cutBytes
	}
	return n
}

func anyCut(p *point) bool { return p.cut }

// pointsOf returns the points of s from the first op that c has collected to the
// next that it has not, by position.
func (a *Actor) pointsOf(c *collector, s *snapshot) (points []point, err error) {
	if a.sign == nil || len(c.ops) == 0 {
		return nil, nil
	}
	sealed := uint64(0)
	if n := len(s.segs); n > 0 {
		sealed = s.segs[n-1].last()
	}
	last := s.end
	if c.full {
		last = c.stop - 1
	}
	if c.first <= sealed {
		if err := a.pointsFrom(c.first, min(last, sealed), func(p point) { points = append(points, p) }); err != nil {
			return nil, err
		}
	}
	at := func(lsn uint64) int {
		return sort.Search(len(s.points), func(i int) bool { return s.points[i].lsn >= lsn })
	}
	return append(points, s.points[at(c.first):at(last+1)]...), nil
}

// wantsCut reports whether c ends before the first good end, and not because
// there is no more to collect.
func (a *Actor) wantsCut(c *collector, s *snapshot, ends func(*point) bool) bool {
	if a.sign == nil || !c.full {
		return false
	}
	points, err := a.pointsOf(c, s)
	return err == nil && !slices.ContainsFunc(points, func(p point) bool { return ends(&p) })
}

// batchOf returns what c has collected up to the last good end, with the last
// point of each author before that, and sets c.next and c.full to fit.
func (a *Actor) batchOf(ctx context.Context, c *collector, s *snapshot, ends func(*point) bool) (b signed.Batch, err error) {
	points, err := a.pointsOf(c, s)
	if err != nil {
		return b, err
	}
	for len(points) > 0 && !ends(&points[len(points)-1]) {
		points = points[:len(points)-1]
	}
	if n := len(points); n > 0 {
		if c.cutAt(points[n-1].lsn) {
			c.full, c.next = true, points[n-1].lsn
		}
		met := make(map[genome.ReplicaID]bool) // looked up only
		for i := range c.ops {
			met[c.ops[i].Dot.Replica] = true
		}
		for _, p := range lastPoints(points) {
			if met[p.Replica] {
				b.Points = append(b.Points, p.Point)
			}
		}
		signed.SortPoints(b.Points)
	}
	b.Block, err = a.blockOf(ctx, c)
	return b, err
}

// cutAt drops what lies behind lsn, and reports whether that was anything.
func (c *collector) cutAt(lsn uint64) bool {
	n := sort.Search(len(c.ends), func(i int) bool { return c.ends[i] > lsn })
	dropped := n < len(c.ops)
	c.ops, c.ends = c.ops[:n], c.ends[:n]
	return dropped
}
