package bench

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// BatchOps is the size of the batches: what a peer that catches up sends.
const BatchOps = 10_000

const batchRuns = 24

// Batches measures one caller that hands over received batches of [BatchOps]
// ops: the whole call, and what of it goes into the log, encoded and synced.
// The raw writers write as many ops with two syncs.
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
	var whole, commit []float64
	raws := []*rawBatches{{data: make([]byte, BatchOps*opBytes)}, {data: make([]byte, BatchOps*leastPerOp)}}
	l := newLoad(false)
	for range batchRuns {
		ops, err := l.ops(BatchOps)
		if err != nil {
			return nil, errors.Join(err, two.close(), a.Close())
		}
		start := time.Now()
		_, err = a.Receive(ctx, store.Source{Via: store.ViaPull}, genome.Block{Ops: ops})
		whole = append(whole, millis(time.Since(start)))
		commit = append(commit, millis(time.Duration(took.Load())))
		for _, r := range raws {
			err = errors.Join(err, r.run(two, commit[len(commit)-1]))
		}
		if err != nil {
			return nil, errors.Join(err, two.close(), a.Close())
		}
	}
	if err := errors.Join(two.close(), a.Close()); err != nil {
		return nil, err
	}
	const group = "batch of 10,000"
	return []Figure{
		{Group: group, Name: "received, logged and applied", Value: BatchOps / median(whole) * 1e3, Unit: "ops/s"},
		{Group: group, Name: "of that, logged", Value: BatchOps / median(commit) * 1e3, Unit: "ops/s"},
		{Group: group, Name: "raw, two syncs", Value: BatchOps / median(raws[0].took) * 1e3, Unit: "ops/s"},
		{Group: group, Name: "logged ÷ raw, two syncs", Value: median(raws[0].ratio), Unit: "×", Goal: .8},
		{Group: group, Name: "logged ÷ raw, best of each", Value: slices.Min(raws[0].took) / slices.Min(commit), Unit: "×"},
		{Group: group, Name: "logged ÷ raw of 7 bytes an op", Value: median(raws[1].ratio), Unit: "×"},
	}, nil
}

// rawBatches is what the raw writer takes for batches of data, in turns with the
// log.
type rawBatches struct {
	data        []byte
	took, ratio []float64 // milliseconds; to what the log took just before
}

func (r *rawBatches) run(w *raw, log float64) error {
	start := time.Now()
	err := w.append(r.data)
	r.took = append(r.took, millis(time.Since(start)))
	r.ratio = append(r.ratio, r.took[len(r.took)-1]/log)
	return err
}
