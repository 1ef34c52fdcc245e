package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// BatchOps is the size of the batches: what a peer that catches up sends.
const BatchOps = 10_000

// batchesPerRun is how many of them a run hands over.
const batchesPerRun = 5

// Batches is one caller that hands over received batches of [BatchOps] ops.
type Batches struct {
	cfg      store.Config
	actor    *store.Actor
	two      *raw
	load     *load
	received uint64
	took     atomic.Int64 // of the last commit, ns; set before the call returns, and by commits in the background
}

// OpenBatches prepares a log in dir. Measured is the whole call, and what of it
// goes into the log, encoded and synced. A raw writer writes as many ops with
// two syncs.
func OpenBatches(ctx context.Context, dir string) (b *Batches, err error) {
	if dir, err = os.MkdirTemp(dir, "bench-"); err != nil {
		return nil, err
	}
	b = &Batches{load: newLoad(false)}
	b.cfg = store.Config{Data: dir, Committed: func(d time.Duration) { b.took.Store(int64(d)) }}
	if b.two, err = newRaw(dir, 2); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if b.actor, err = store.Open(ctx, b.cfg); err != nil {
		return nil, errors.Join(err, b.two.close(), os.RemoveAll(dir))
	}
	return b, nil
}

// Close checks the log and removes all files.
func (b *Batches) Close() error {
	return errors.Join(closeChecked(b.actor, b.cfg, b.received), b.two.close(), os.RemoveAll(b.cfg.Data))
}

// Run measures once.
func (b *Batches) Run(ctx context.Context) ([]Figure, error) {
	var whole, commit, records, least time.Duration
	for range batchesPerRun {
		ops, err := b.load.ops(BatchOps)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		if _, err := b.actor.Receive(ctx, store.Source{Via: store.ViaPull}, genome.Block{Ops: ops}); err != nil {
			return nil, err
		}
		whole += time.Since(start)
		commit += time.Duration(b.took.Load())
		b.received += BatchOps
		for _, r := range []struct {
			took *time.Duration
			each int // bytes
		}{{&records, opBytes}, {&least, leastPerOp}} {
			start := time.Now()
			if err := b.two.append(make([]byte, BatchOps*r.each)); err != nil {
				return nil, err
			}
			*r.took += time.Since(start)
		}
	}
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	const group = "batch of 10,000"
	rate := func(d time.Duration) float64 { return BatchOps * batchesPerRun / d.Seconds() }
	return []Figure{
		{Group: group, Name: "received, logged and applied", Value: rate(whole), Unit: "ops/s"},
		{Group: group, Name: "of that, logged", Value: rate(commit), Unit: "ops/s"},
		{Group: group, Name: "raw, two syncs", Value: rate(records), Unit: "ops/s", Baseline: true},
		{Group: group, Name: "logged ÷ raw, two syncs", Value: float64(records) / float64(commit), Unit: "×", Goal: .8},
		{Group: group, Name: "logged ÷ raw of 7 bytes an op", Value: float64(least) / float64(commit), Unit: "×"},
	}, nil
}

// check compares what the actor holds with the genome that made the ops.
func (b *Batches) check(ctx context.Context) error {
	st, err := b.actor.State(ctx)
	if err == nil && st.Digest != b.load.g.Digest() {
		err = fmt.Errorf("%w: the receiver of %d ops differs from their maker", ErrWrong, b.received)
	}
	return err
}
