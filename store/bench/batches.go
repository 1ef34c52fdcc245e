package bench

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// BatchOps is the size of the batches: what a peer that catches up sends.
const BatchOps = 10_000

const batchRuns = 12

// Batches measures one caller that hands over received batches of [BatchOps]
// ops: the whole call, and what of it goes into the log, encoded and synced.
// The raw writer writes the same number of bytes with two syncs.
func Batches(ctx context.Context, dir string) ([]Figure, error) {
	dir, err := os.MkdirTemp(dir, "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var took atomic.Int64 // of the last commit, ns; set before the call returns, and by commits in the background
	a, err := store.Open(ctx, store.Config{Data: dir, Committed: func(d time.Duration) { took.Store(int64(d)) }})
	if err != nil {
		return nil, err
	}
	two, err := newRaw(dir, 2)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	var whole, commit, limit, relation []float64
	l, data := newLoad(false), make([]byte, BatchOps*opBytes)
	for range batchRuns {
		ops, err := l.ops(BatchOps)
		if err != nil {
			return nil, errors.Join(err, two.close(), a.Close())
		}
		start := time.Now()
		_, err = a.Receive(ctx, store.Source{Via: store.ViaPull}, genome.Block{Ops: ops})
		whole = append(whole, millis(time.Since(start)))
		commit = append(commit, millis(time.Duration(took.Load())))
		start = time.Now()
		if err = errors.Join(err, two.append(data)); err != nil {
			return nil, errors.Join(err, two.close(), a.Close())
		}
		limit = append(limit, millis(time.Since(start)))
		relation = append(relation, limit[len(limit)-1]/commit[len(commit)-1])
	}
	if err := errors.Join(two.close(), a.Close()); err != nil {
		return nil, err
	}
	const group = "batch of 10,000"
	return []Figure{
		{Group: group, Name: "received, logged and applied", Value: BatchOps / median(whole) * 1e3, Unit: "ops/s"},
		{Group: group, Name: "of that, logged", Value: BatchOps / median(commit) * 1e3, Unit: "ops/s"},
		{Group: group, Name: "raw, two syncs", Value: BatchOps / median(limit) * 1e3, Unit: "ops/s"},
		{Group: group, Name: "logged ÷ raw, two syncs", Value: median(relation), Unit: "×", Goal: .8},
	}, nil
}
