package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"crdt-genome/genome"
)

// progressEvery is how many events pass between two calls of Config.Progress.
const progressEvery = 1 << 16

// withPath fills in the path of an error that says what is wrong with a log.
func withPath(err error, path string) error {
	switch e := err.(type) {
	case *CorruptError:
		if e.Path == "" {
			e.Path = path
		}
	case *FormatError:
		e.Path = path
	case *NotLogError:
		e.Path = path
	}
	return err
}

// A replayer rebuilds genome and index from a log, one segment after the other,
// and believes nothing: every value must follow the one before without a gap,
// every op must be applicable as it stands, and every chain must come out as
// the value says.
type replayer struct {
	ctx      context.Context
	meta     *meta
	g        *genome.Genome
	x        *index
	progress func(done, total uint64)
	told     uint64
	first    prov // of the first op
	last     prov // of the last op

	from uint64 // position of the checkpoint that g comes from; 0 if none
	at   uint64 // events up to here are in g; at first those of a checkpoint
	upTo uint64 // the last event to replay; it ends a segment or the log

	partial bool // the log goes on after upTo

	// byApply is set for a verification: it applies the ops as they were applied
	// when they came, rather than as a start does.
	byApply bool

	// marks are positions at which the digest is wanted, which is then put
	// there; looked up only.
	marks map[uint64]genome.Digest
}

// replay reads the whole log of d. lookup is for later, see genome.Config. The
// error is one of the package's own, without Path, or comes from the disk.
func replay(ctx context.Context, d disk, lookup func(genome.Dot) (genome.Op, bool), progress func(done, total uint64)) (*replayer, error) {
	m, err := readMeta(d)
	if err != nil {
		return nil, err
	}
	r := newReplayer(ctx, m, lookup)
	r.progress = progress
	return r, r.run(d)
}

func newReplayer(ctx context.Context, m *meta, lookup func(genome.Dot) (genome.Op, bool)) *replayer {
	return &replayer{
		ctx: ctx, meta: m, x: newIndex(), upTo: m.last,
		g: genome.NewFromConfig(genome.Config{NoHistory: true, Lookup: lookup}),
	}
}

// run replays what is not in r yet.
func (r *replayer) run(d disk) error {
	if err := r.values(d); err != nil {
		return err
	}
	if end := r.x.end(); end != r.upTo {
		return &CorruptError{LSN: min(end, r.upTo) + 1, Detail: fmt.Sprintf("the records end at op %d, but %d were stored", end, r.upTo)}
	}
	if r.at > r.upTo {
		return &CorruptError{LSN: r.upTo + 1, Detail: fmt.Sprintf("a checkpoint is from op %d, beyond the end of the log", r.at)}
	}
	if err := r.checkHeads(); err != nil {
		return err
	}
	if !r.partial {
		if err := r.checkActors(d); err != nil {
			return err
		}
	}
	if r.progress != nil {
		r.progress(r.x.end(), r.meta.last)
	}
	return nil
}

// values replays the records from the end of the index on. While one segment
// is applied, the next ones are decoded on other cores.
func (r *replayer) values(d disk) error {
	ahead := startDecoding(d, r.x.end()+1, r.upTo, 1)
	defer ahead.stop()
	for s := range ahead.slots {
		<-s.done
		if s.err != nil {
			return s.err
		}
		if err := r.value(s); err != nil {
			return err
		}
		if s.bucket == bucketSeg { // the index keeps the ops of the tail
			ahead.done(s)
		}
	}
	return ahead.err
}

// value applies one decoded segment, or value of the tail.
func (r *replayer) value(s *slot) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	v := s.value
	if next := r.x.end() + 1; v.lsn != next {
		return &CorruptError{LSN: next, Detail: fmt.Sprintf("it is missing: after op %d comes op %d", next-1, v.lsn)}
	}
	if r.x.end() == 0 {
		r.first = v.provs[0].prov
	}
	r.last = v.provs[len(v.provs)-1].prov
	if err := r.apply(v); err != nil {
		return err
	}
	var err error
	if s.bucket == bucketSeg {
		err = r.x.addSegment(v)
	} else {
		err = r.x.addTail(v, s.key)
	}
	if err != nil {
		return &CorruptError{LSN: v.lsn, Detail: err.Error()}
	}
	if end := r.x.end(); r.progress != nil && end-r.told >= progressEvery {
		r.told = end
		r.progress(end, r.meta.last)
	}
	return nil
}

// apply applies the ops of v that are not in the genome yet. Whatever the
// genome may do with ops that no genome made, it ends in an error here.
func (r *replayer) apply(v *value) (err error) {
	lsn := v.lsn
	defer func() {
		if p := recover(); p != nil {
			err = &CorruptError{LSN: lsn, Detail: fmt.Sprintf("applying it panics: %v", p)}
		}
	}()
	if v.last() <= r.at {
		return nil
	}
	for ops := v.block.Ops; len(ops) > 0; {
		n, end := r.stretch(ops, lsn)
		if lsn > r.at {
			done, err := r.replayOps(ops[:n])
			if err != nil {
				return &CorruptError{LSN: lsn + eventsOf(ops[:done]), Detail: err.Error()}
			}
			r.at = end
			if _, ok := r.marks[end]; ok {
				r.marks[end] = r.g.Digest()
			}
		}
		ops, lsn = ops[n:], end+1
	}
	if v.last() != r.at {
		return &CorruptError{LSN: v.lsn, Detail: fmt.Sprintf("an op crosses the checkpoint's position %d", r.at)}
	}
	for _, h := range v.block.Heads {
		if got := r.g.Head(h.Replica); got != h {
			return &CorruptError{LSN: v.lsn, Detail: fmt.Sprintf("chain of %v at %d is %v, computed %d %v", h.Replica, h.Seq, h.Chain, got.Seq, got.Chain)}
		}
	}
	return nil
}

// replayOps applies ops and returns how many were applied before an error.
func (r *replayer) replayOps(ops []genome.Op) (done int, err error) {
	if !r.byApply {
		return r.g.Replay(ops)
	}
	for i := range ops {
		if err := applyNext(r.g, &ops[i]); err != nil {
			return i, err
		}
	}
	return len(ops), nil
}

// stretch returns how many of ops, the first of which is at lsn, are to be
// replayed or passed over in one go, and where they end: at a mark, at r.at, or
// all of them.
func (r *replayer) stretch(ops []genome.Op, lsn uint64) (n int, end uint64) {
	all := lsn + eventsOf(ops) - 1
	if lsn > r.at && len(r.marks) == 0 {
		return len(ops), all
	}
	for end = lsn - 1; n < len(ops); {
		end += uint64(ops[n].Len())
		n++
		if _, ok := r.marks[end]; ok || end == r.at {
			break
		}
	}
	return n, end
}

// eventsOf counts the unit events of ops.
func eventsOf(ops []genome.Op) (n uint64) {
	for i := range ops {
		n += uint64(ops[i].Len())
	}
	return n
}

// applyNext applies an op that must be applicable as it stands.
func applyNext(g *genome.Genome, op *genome.Op) error {
	res, err := g.Apply(*op)
	if err == nil && (len(res.Applied) != 1 || res.Applied[0].Len() != op.Len()) {
		err = errors.New("it does not follow from what comes before")
	}
	return err
}

// checkHeads compares the two counts of what was replayed.
func (r *replayer) checkHeads() error {
	for _, h := range r.g.Heads() {
		if got := r.x.head(h.Replica); got != h {
			return &CorruptError{LSN: r.at, Detail: fmt.Sprintf("the records show %v up to %d %v, the genome has %d %v", h.Replica, got.Seq, got.Chain, h.Seq, h.Chain)}
		}
	}
	return nil
}

// checkActors compares the actors bucket with the replicas met.
func (r *replayer) checkActors(d disk) error {
	n := 0
	err := d.ascend(bucketActors, func(k, v []byte) error {
		if n < len(r.x.actors) {
			if w := putActor(n, r.x.actors[n], r.x.firstBy[n]); bytes.Equal(w.key, k) && bytes.Equal(w.value, v) {
				n++
				return nil
			}
		}
		return &CorruptError{Detail: fmt.Sprintf("entry %x of the table of actors is damaged", k)}
	})
	if err == nil && n != len(r.x.actors) {
		err = &CorruptError{Detail: fmt.Sprintf("the table of actors has %d of %d entries", n, len(r.x.actors))}
	}
	r.x.stored = n
	return err
}

// lastLSN returns the position of the last event that the records of d show.
func lastLSN(d disk) (uint64, error) {
	for _, b := range []bucket{bucketTail, bucketSeg} {
		k, v, err := d.floor(b, bytes.Repeat([]byte{0xff}, 8))
		if err != nil {
			return 0, err
		}
		if len(k) == 8 && len(v) >= valueHeaderLen {
			return binary.BigEndian.Uint64(k) + valueSpan(v) - 1, nil
		}
	}
	return 0, nil
}
