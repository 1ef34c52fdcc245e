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

// A replayer rebuilds genome and index from a log, one value after the other,
// and believes nothing: every value must follow the one before without a gap,
// every op must be applicable as it stands, and every chain must come out as
// the value says.
type replayer struct {
	ctx      context.Context
	meta     *meta
	g        *genome.Genome
	x        *index
	progress func(done, total uint64)
	total    uint64
	told     uint64
	first    prov // of the first op
	last     prov // of the last op
}

// replay reads the whole log of d. lookup is for later, see genome.Config. The
// error is one of the package's own, without Path, or comes from the disk.
func replay(ctx context.Context, d disk, lookup func(genome.Dot) (genome.Op, bool), progress func(done, total uint64)) (*replayer, error) {
	m, err := readMeta(d)
	if err != nil {
		return nil, err
	}
	r := &replayer{
		ctx: ctx, meta: m, x: newIndex(), progress: progress, total: m.last,
		g: genome.NewFromConfig(genome.Config{NoHistory: true, Lookup: lookup}),
	}
	for _, b := range []bucket{bucketSeg, bucketTail} {
		if err := d.ascend(b, func(k, v []byte) error { return r.value(b, k, v) }); err != nil {
			return nil, err
		}
	}
	if end := r.x.end(); end != m.last {
		return nil, &CorruptError{LSN: min(end, m.last) + 1, Detail: fmt.Sprintf("the records end at op %d, but %d were stored", end, m.last)}
	}
	if err := r.checkActors(d); err != nil {
		return nil, err
	}
	if r.progress != nil {
		r.progress(r.x.end(), r.total)
	}
	return r, nil
}

// value applies one value.
func (r *replayer) value(b bucket, k, data []byte) (err error) {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	key, err := keyLSN(k)
	if err != nil {
		return err
	}
	if next := r.x.end() + 1; key != next {
		return &CorruptError{LSN: next, Detail: fmt.Sprintf("it is missing: after op %d comes op %d", next-1, key)}
	}
	v, err := decodeValue(key, append([]byte{}, data...)) // the ops outlive the transaction
	if err != nil {
		return err
	}
	if err := r.apply(v); err != nil {
		return err
	}
	if b == bucketSeg {
		r.x.seal([]segment{newSegment(r.x.recent)})
	} else {
		r.x.durable = len(r.x.recent)
		r.x.keys = append(r.x.keys, key)
	}
	if end := r.x.end(); r.progress != nil && end-r.told >= progressEvery {
		r.told = end
		r.progress(end, r.total)
	}
	return nil
}

// apply applies the ops of v. Whatever the genome may do with ops that no
// genome made, it ends in an error here.
func (r *replayer) apply(v *value) (err error) {
	lsn := v.lsn
	defer func() {
		if p := recover(); p != nil {
			err = &CorruptError{LSN: lsn, Detail: fmt.Sprintf("applying it panics: %v", p)}
		}
	}()
	v.each(func(_ int, e entry) bool {
		lsn = e.lsn
		var res genome.Result
		if res, err = r.g.Apply(e.op); err == nil && (len(res.Applied) != 1 || res.Applied[0].Len() != e.op.Len()) {
			err = errors.New("it does not follow from what comes before")
		}
		if err != nil {
			err = &CorruptError{LSN: lsn, Detail: err.Error()}
			return false
		}
		if r.x.end() == 0 {
			r.first = e.prov
		}
		r.x.add(e.op, e.prov)
		r.last = e.prov
		return true
	})
	if err != nil {
		return err
	}
	for _, h := range v.block.Heads {
		if got := r.g.Head(h.Replica); got != h {
			return &CorruptError{LSN: v.lsn, Detail: fmt.Sprintf("chain of %v at %d is %v, computed %d %v", h.Replica, h.Seq, h.Chain, got.Seq, got.Chain)}
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
