package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
)

// submit hands run to the writer and waits until all that it did and saw is
// durable.
func (a *Actor) submit(ctx context.Context, ops, size int, run func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{ops: ops, bytes: size, run: run, done: make(chan struct{})}
	if err := a.queue.put(r); err != nil {
		if failed := a.Err(); failed != nil {
			return failed
		}
		return err
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write is the writer: the only goroutine that changes the genome and the disk.
func (a *Actor) write() {
	defer close(a.stopped)
	debug.SetPanicOnFault(true) // of bbolt's map, should the file be cut short
	for a.queue.wait() {
		var batch []*request
		if err := a.round(&batch); err != nil {
			a.fail(err)
			a.log.Error().Err(err).Msg("log failed")
			answer(append(batch, a.queue.refuse()...), err)
			return
		}
		answer(batch, nil)
		a.wantAdoption()
	}
}

func answer(batch []*request, err error) {
	for _, r := range batch {
		r.err = err
		close(r.done)
	}
}

// round does what waits in one commit. Each step relies on all steps above it.
// Any error is final: nothing of the batch may be acknowledged then, nothing
// is tried again, and nobody is shown anything that came with it.
func (a *Actor) round(batch *[]*request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the writer panicked: %v\n%s", p, debug.Stack())
		}
	}()
	if err := a.gather(batch); err != nil { // 1. change the genome; nobody is told yet
		return err
	}
	job := a.takeStock()
	if job.any {
		start := time.Now()
		writes, segs, err := job.encode(a.encoding) // 2. what is to be written, checked
		if err != nil {
			return err
		}
		if err := a.disk.commit(writes); err != nil { // 3. on the disk and synced
			return err
		}
		took := time.Since(start)
		a.reveal(job, segs, took) // 4. readers may see it
		if a.cfg.Committed != nil {
			a.cfg.Committed(took)
		}
	}
	for _, event := range job.events {
		event(&a.log)
	}
	return nil // 5. write answers the callers
}

// gather runs requests until nobody has anything to add, or the commit is full.
// Between two looks at the queue it lets others run: those who were answered by
// the last commit come back in time for this one, which nearly doubles what a
// commit carries, and the first are worked on while the others come. A timer
// instead would only add its own latency.
//
// What is in batch has been run, or was about to be when gather failed.
// Requests that the disk has no room for are answered here.
func (a *Actor) gather(batch *[]*request) error {
	ops, bytes := maxBatchOps, maxBatchSize // for which there is room
	for {
		reqs := a.queue.take(ops, bytes, len(*batch) == 0)
		if len(reqs) == 0 {
			return nil
		}
		fit, rest, full := a.makeRoom(*batch, reqs)
		if full != nil && len(*batch) > 0 {
			a.queue.back(reqs) // after what has been run
			return nil
		}
		a.queue.back(rest)
		if full != nil { // nothing was done for them
			answer(fit, full)
			continue
		}
		*batch = append(*batch, fit...)
		if err := a.run(fit); err != nil || len(rest) > 0 {
			return err
		}
		for _, r := range fit {
			ops, bytes = ops-r.ops, bytes-r.bytes
		}
		runtime.Gosched()
	}
}

// run runs requests.
func (a *Actor) run(reqs []*request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return a.err
	}
	for _, r := range reqs {
		r.run()
	}
	if a.dirtyLocked() {
		a.applied++ // whoever looks from here on waits for this
	}
	return a.x.err
}

// dirtyLocked reports whether there is something that is not on the disk.
func (a *Actor) dirtyLocked() bool {
	return a.x.durable < len(a.x.recent) || a.rotated || len(a.also) > 0
}

// A job is what a batch has to write.
type job struct {
	any     bool
	entries []entry // new ones, or, to be sealed, all recent ones
	seal    bool
	size    int                // ops in a value, at most
	tail    []uint64           // keys to delete
	actors  []genome.ReplicaID // to be entered, numbered from
	firstBy []uint64
	from    int
	last    uint64
	epochs  []genome.Epoch // nil if unchanged
	self    genome.ReplicaID
	also    []write
	events  []func(*zerolog.Logger)
}

// takeStock returns what the requests that were run have left to write.
func (a *Actor) takeStock() job {
	a.mu.Lock()
	defer a.mu.Unlock()
	j := job{any: a.dirtyLocked(), events: a.events, also: a.also}
	a.events, a.also = nil, nil
	if !j.any {
		return j
	}
	j.size = a.cfg.sealOps
	j.seal = len(a.x.recent) >= j.size || a.x.bytes >= sealBytes
	j.entries = a.x.recent[a.x.durable:len(a.x.recent):len(a.x.recent)]
	if j.seal {
		j.entries, j.tail = a.x.recent[:len(a.x.recent):len(a.x.recent)], a.x.keys
	}
	j.from, j.actors, j.firstBy = a.x.stored, a.x.actors[a.x.stored:], a.x.firstBy[a.x.stored:]
	j.last, j.self = a.x.end(), a.g.Self()
	if a.rotated {
		j.epochs = a.meta.epochs
	}
	if a.sign != nil {
		j.also = append(j.also, a.sign.writes(j.seal, j.entries)...)
	}
	return j
}

// encode turns the job into writes, and into segments if it seals.
func (j *job) encode(c *encoding) (writes []write, segs []segment, err error) {
	var pieces []piece
	for rest := j.entries; len(rest) > 0; {
		n := chunk(rest, j.size)
		pieces = append(pieces, piece{entries: rest[:n]})
		rest = rest[n:]
	}
	if err := c.values(pieces, j.seal); err != nil {
		return nil, nil, err
	}
	for i := range pieces {
		p := &pieces[i]
		b := bucketTail
		if j.seal {
			b = bucketSeg
			segs = append(segs, p.seg)
		}
		writes = append(writes, write{b, lsnKey(p.entries[0].lsn), p.data})
	}
	for _, key := range j.tail {
		writes = append(writes, write{bucketTail, lsnKey(key), nil})
	}
	for i, r := range j.actors {
		writes = append(writes, putActor(j.from+i, r, j.firstBy[i]))
	}
	if j.epochs != nil {
		writes = append(writes, putMeta(metaEpochs, encodeEpochs(j.epochs)))
	}
	writes = append(writes, j.also...)
	writes = append(writes, putMeta(metaLast, binary.LittleEndian.AppendUint64(nil, j.last)))
	return writes, segs, nil
}

func sameOp(a, b *genome.Op) bool {
	return a.Kind == b.Kind && a.Side == b.Side && a.Reverse == b.Reverse && a.Dot == b.Dot && a.Gene == b.Gene &&
		a.Ref == b.Ref && a.Count == b.Count && bytes.Equal(a.Genes, b.Genes)
}

// reveal publishes a batch that is durable now.
func (a *Actor) reveal(j job, segs []segment, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sign != nil {
		a.sign.committed(j.seal)
	}
	if j.seal {
		a.x.seal(segs)
		a.counts.seals++
		select {
		case a.sealed <- struct{}{}:
		default: // it knows
		}
	} else if len(j.entries) > 0 {
		a.x.keys = append(a.x.keys, j.entries[0].lsn)
		for rest := j.entries[chunk(j.entries, j.size):]; len(rest) > 0; rest = rest[chunk(rest, j.size):] {
			a.x.keys = append(a.x.keys, rest[0].lsn)
		}
		a.x.durable += len(j.entries)
	}
	a.x.stored += len(j.actors)
	a.rotated = false
	a.self = j.self
	a.durable = a.applied
	clear(a.pending)
	a.pendingLast = 0
	a.counts.commits++
	a.counts.commitTime += took
	close(a.changed)
	a.changed = make(chan struct{})
}

// wait returns when the first n batches are durable.
func (a *Actor) wait(ctx context.Context, n uint64) error {
	for {
		a.mu.Lock()
		durable, changed := a.durable, a.changed
		a.mu.Unlock()
		if durable >= n {
			return nil
		}
		select {
		case <-changed:
		case <-a.done:
			if a.durableBatches() >= n {
				return nil
			}
			return a.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *Actor) durableBatches() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.durable
}

// seenLocked is the number of the batch up to which a reader of the genome
// must wait before it may tell what it saw.
func (a *Actor) seenLocked() uint64 { return a.applied }

// append logs an op that was applied. It runs in the writer.
func (a *Actor) append(op *genome.Op, p prov) {
	if r := op.Dot.Replica; r != a.pendingLast {
		a.pendingLast = r
		if _, ok := a.pending[r]; !ok {
			a.pending[r] = a.x.head(r)
		}
	}
	if a.x.end() == 0 {
		a.times[0] = p
	}
	a.times[1] = p
	if a.sign != nil && p.via == ViaLocal {
		a.sign.before(1, opBytes+len(op.Genes))
	}
	a.x.add(op, p)
	if a.sign != nil {
		a.sign.add(op, p.via == ViaLocal, a.x.end())
	}
	a.counts.ops[p.via] += uint64(op.Len())
	if op.Kind == genome.Delete {
		a.counts.deletes[p.via] += uint64(op.Len())
	}
}

// An Edit is one change by index. Delete removes N genes from At on, otherwise
// Genes are inserted before the At-th.
type Edit struct {
	Delete bool
	At, N  int
	Genes  []byte
}

// Edit lets fn look at the genome, does the edit that it returns, and returns
// the ops that this made. fn sees all earlier edits, must only read, must be
// quick and must not call the actor; its error is returned as it is. For a
// large edit it may be called more than once.
//
// When Edit returns nil, the ops are durable and may be sent to others. If it
// returns ctx.Err(), they may or may not be, and nothing but the genome will
// tell. Otherwise nothing was changed, and the error is [ErrFenced],
// [ErrFull], [ErrClosed], a [*NotWritableError], one of package genome, or why
// the actor has failed.
func (a *Actor) Edit(ctx context.Context, fn func(g *genome.Genome) (Edit, error)) ([]genome.Op, error) {
	size := editBytes
	for {
		var ops []genome.Op
		var refused error
		err := a.submit(ctx, 1, size, func() { ops, refused = a.edit(fn, size) })
		if err != nil {
			return nil, err // the writer may be at it still: what it sets is not ours to read
		}
		if big, ok := errors.AsType[*editSizeError](refused); ok {
			size = 2 * big.size // fn may want more the next time it looks
			continue
		}
		if refused != nil {
			return nil, refused
		}
		return ops, nil
	}
}

// editBytes is what an edit is counted as before it is known. One that turns
// out larger is put off and comes again with its size, so that room on the
// disk and the bound of a batch hold for it too.
const editBytes = 1 << 10

// An editSizeError puts an edit off that is larger than it was counted as.
type editSizeError struct{ size int }

func (e *editSizeError) Error() string { return fmt.Sprintf("this edit takes %d bytes", e.size) }

func (e *Edit) bytes() int {
	if e.Delete {
		return opBytes * max(e.N, 1) // each gene may be a run of its own
	}
	return opBytes + len(e.Genes)
}

// edit does the work of Edit in the writer.
func (a *Actor) edit(fn func(g *genome.Genome) (Edit, error), size int) ([]genome.Op, error) {
	if reason, fenced := a.fencedLocked(); fenced {
		return nil, fmt.Errorf("%w: %s", ErrFenced, reason)
	}
	e, err := callEdit(fn, a.g)
	if err != nil {
		return nil, err
	}
	if n := e.bytes(); n > size {
		return nil, &editSizeError{n}
	}
	var ops []genome.Op
	if e.Delete {
		ops, err = a.g.Delete(e.At, e.N)
	} else {
		var op genome.Op
		op, err = a.g.Insert(e.At, e.Genes)
		ops = []genome.Op{op}
	}
	if err != nil {
		return nil, err
	}
	p := prov{ms: a.cfg.Now().UnixMilli(), via: ViaLocal}
	for i := range ops {
		a.append(&ops[i], p)
	}
	return ops, nil
}

// callEdit keeps a panic of a caller's function from ending the writer.
func callEdit(fn func(g *genome.Genome) (Edit, error), g *genome.Genome) (e Edit, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the edit's function panicked: %v", p)
		}
	}()
	return fn(g)
}

// Insert inserts genes before the index-th; see Edit.
func (a *Actor) Insert(ctx context.Context, index int, genes []byte) ([]genome.Op, error) {
	return a.Edit(ctx, func(*genome.Genome) (Edit, error) { return Edit{At: index, Genes: genes}, nil })
}

// Delete deletes n genes from the index-th on; see Edit.
func (a *Actor) Delete(ctx context.Context, index, n int) ([]genome.Op, error) {
	return a.Edit(ctx, func(*genome.Genome) (Edit, error) { return Edit{Delete: true, At: index, N: n}, nil })
}
