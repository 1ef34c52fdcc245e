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

// Checkpoints are appenders beside checkpoints.
type Checkpoints struct {
	dir  string
	mib  int
	long time.Duration
}

// OpenCheckpoints prepares a log in dir whose checkpoints have mib MiB. A run
// measures what appenders notice of them: first without any, then while one is
// written after the other, for a time each; on a slow machine for as long as it
// takes until one was written.
func OpenCheckpoints(ctx context.Context, dir string, mib int, long time.Duration) (*Checkpoints, error) {
	dir, err := os.MkdirTemp(dir, "bench-")
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, dir, mib<<20); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Checkpoints{dir, mib, long}, nil
}

// Close removes all files.
func (c *Checkpoints) Close() error { return os.RemoveAll(c.dir) }

// Run measures once.
func (c *Checkpoints) Run(ctx context.Context) ([]Figure, error) {
	quiet, _, err := underLoad(ctx, store.Config{Data: c.dir, CheckpointEvery: 1 << 60}, c.long, 0)
	if err != nil {
		return nil, err
	}
	busy, n, err := underLoad(ctx, store.Config{Data: c.dir, CheckpointEvery: 1}, c.long, 1)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(store.Dir(c.dir, 0), "ckpt-*"))
	if err != nil || len(files) == 0 || n == 0 {
		return nil, errors.Join(err, fmt.Errorf("no checkpoint was written in %v", c.long))
	}
	group := fmt.Sprintf("%d at once beside checkpoints of %d MiB", checkpointAppenders, c.mib)
	return []Figure{
		{Group: group, Name: "checkpoints written", Value: float64(n), Unit: ""},
		{Group: group, Name: "p50 without", Value: micros(quiet.p50), Unit: "µs", Baseline: true},
		{Group: group, Name: "p50 with", Value: micros(busy.p50), Unit: "µs"},
		{Group: group, Name: "p99 without", Value: micros(quiet.p99), Unit: "µs", Baseline: true},
		{Group: group, Name: "p99 with", Value: micros(busy.p99), Unit: "µs"},
		{Group: group, Name: "p99, with ÷ without", Value: float64(busy.p99) / float64(quiet.p99), Unit: "×", Goal: 2, Most: true},
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
// there must be some. Then it checks the log. It returns the last round.
func underLoad(ctx context.Context, cfg store.Config, long time.Duration, least uint64) (last round, checkpoints uint64, err error) {
	a, err := store.Open(ctx, cfg)
	if err != nil {
		return round{}, 0, err
	}
	begin := a.LSN()
	w := &writer{write: func(rng *rand.Rand) error { return insert(ctx, a, rng) }}
	for i := 0; err == nil && i < maxRounds && (i == 0 || checkpoints < least); i++ {
		last, err = w.round(ctx, checkpointAppenders, long)
		checkpoints = a.Stats().Live.Checkpoints
	}
	return last, checkpoints, errors.Join(err, closeChecked(a, cfg, begin+w.done))
}
