package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// checkpointAppenders is how many append while checkpoints are written.
const checkpointAppenders = 64

// Checkpoint measures what appenders notice of checkpoints of mib MiB: first
// without any, then while one is written after the other, for a time each; on
// a slow machine for as long as it takes until one was written.
func Checkpoint(ctx context.Context, dir string, mib int, long time.Duration) ([]Figure, error) {
	dir, err := os.MkdirTemp(dir, "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := fill(ctx, dir, mib<<20); err != nil {
		return nil, err
	}
	quiet, _, err := underLoad(ctx, store.Config{Data: dir, CheckpointEvery: 1 << 60}, long, 0)
	if err != nil {
		return nil, err
	}
	busy, n, err := underLoad(ctx, store.Config{Data: dir, CheckpointEvery: 1}, long, 1)
	if err != nil {
		return nil, err
	}
	files, _ := filepath.Glob(filepath.Join(store.Dir(dir, 0), "ckpt-*"))
	if len(files) == 0 || n == 0 {
		return nil, fmt.Errorf("no checkpoint was written in %v", long)
	}
	st, err := os.Stat(files[len(files)-1])
	if err != nil {
		return nil, err
	}
	group := fmt.Sprintf("%d at once beside checkpoints of %d MiB", checkpointAppenders, st.Size()>>20)
	q, b := median(quiet.p99), median(busy.p99)
	return []Figure{
		{Group: group, Name: "checkpoints written", Value: float64(n), Unit: ""},
		{Group: group, Name: "p50 without", Value: micros(median(quiet.p50)), Unit: "µs"},
		{Group: group, Name: "p50 with", Value: micros(median(busy.p50)), Unit: "µs"},
		{Group: group, Name: "p99 without", Value: micros(q), Unit: "µs"},
		{Group: group, Name: "p99 with", Value: micros(b), Unit: "µs"},
		{Group: group, Name: "p99, with ÷ without", Value: float64(b) / float64(q), Unit: "×", Goal: 2, Most: true},
	}, nil
}

// fill makes a genome of that many genes.
func fill(ctx context.Context, dir string, genes int) error {
	a, err := store.Open(ctx, store.Config{Data: dir})
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for n := 0; n < genes && err == nil; n += genome.MaxRun {
		run := make([]byte, genome.MaxRun)
		for i := range run {
			run[i] = byte(rng.Uint32())
		}
		_, err = a.Insert(ctx, rng.IntN(n+1), run)
	}
	return errors.Join(err, a.Close())
}

// maxRounds bounds how often underLoad goes on.
const maxRounds = 20

// underLoad lets appenders work, and counts the checkpoints meanwhile, of which
// there must be some.
func underLoad(ctx context.Context, cfg store.Config, long time.Duration, least uint64) (*writer, uint64, error) {
	a, err := store.Open(ctx, cfg)
	if err != nil {
		return nil, 0, err
	}
	w := &writer{write: func(rng *rand.Rand) error { return insert(ctx, a, rng) }}
	n := uint64(0)
	for i := 0; err == nil && i < maxRounds && (i == 0 || n < least); i++ {
		err = w.round(ctx, checkpointAppenders, long)
		n = a.Stats().Live.Checkpoints
	}
	return w, n, errors.Join(err, a.Close())
}
