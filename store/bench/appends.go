package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// What the raw writers write for an op: a record of fixed size (two ids of 16
// bytes, a gene, a kind), as a log has it that encodes nothing; or as few bytes
// as a gene at a random place takes in ours.
const (
	opBytes    = 34
	leastPerOp = 7
)

// A writer is one of those that are compared.
type writer struct {
	write func(rng *rand.Rand) error // returns when one op is durable
	done  uint64                     // ops, in all rounds
}

// A round is what a writer did in one turn.
type round struct {
	rate     float64 // ops/s
	p50, p99 time.Duration
}

// goals of appends: ratios to the raw writers.
var appendGoals = map[int]struct{ one, two, calls float64 }{
	1:   {.45, .85, 2.5},
	64:  {.40, .85, 0},
	512: {.60, .85, 0},
}

// Appends are n callers that each insert a gene, wait until it is durable, and
// insert the next.
type Appends struct {
	cfg        store.Config
	n          int
	long       time.Duration
	actor      *store.Actor
	one, two   *raw
	log        *writer
	once, both *writer // raw, that sync once and twice a commit
}

// OpenAppends prepares a log, and raw writers that it is compared with, in
// dir. In each run each of them appends for a time, in turns.
func OpenAppends(ctx context.Context, dir string, n int, long time.Duration) (a *Appends, err error) {
	if dir, err = os.MkdirTemp(dir, "bench-"); err != nil {
		return nil, err
	}
	a = &Appends{cfg: store.Config{Data: dir}, n: n, long: long}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.remove())
		}
	}()
	if a.one, err = newRaw(dir, 1); err != nil {
		return nil, err
	}
	if a.two, err = newRaw(dir, 2); err != nil {
		return nil, err
	}
	if a.actor, err = store.Open(ctx, a.cfg); err != nil {
		return nil, err
	}
	op := make([]byte, opBytes)
	a.log = &writer{write: func(rng *rand.Rand) error { return insert(ctx, a.actor, rng) }}
	a.once = &writer{write: func(*rand.Rand) error { return a.one.append(op) }}
	a.both = &writer{write: func(*rand.Rand) error { return a.two.append(op) }}
	return a, nil
}

// Close checks the log and removes all files.
func (a *Appends) Close() error {
	return errors.Join(closeChecked(a.actor, a.cfg, a.log.done), a.remove())
}

func (a *Appends) remove() (err error) {
	for _, r := range []*raw{a.one, a.two} {
		if r != nil {
			err = errors.Join(err, r.close())
		}
	}
	return errors.Join(err, os.RemoveAll(a.cfg.Data))
}

// Run measures once.
func (a *Appends) Run(ctx context.Context) ([]Figure, error) {
	var rounds []round
	for _, w := range []*writer{a.log, a.once, a.both} {
		r, err := w.round(ctx, a.n, a.long)
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, r)
	}
	return a.figures(rounds[0], rounds[1], rounds[2]), nil
}

// insert inserts a gene at a random place.
func insert(ctx context.Context, a *store.Actor, rng *rand.Rand) error {
	_, err := a.Edit(ctx, func(g *genome.Genome) (store.Edit, error) {
		return store.Edit{At: rng.IntN(g.Len() + 1), Genes: []byte{byte(rng.Uint32())}}, nil
	})
	return err
}

// round lets n callers write for a time.
func (w *writer) round(ctx context.Context, n int, long time.Duration) (round, error) {
	var group sync.WaitGroup
	times := make([][]time.Duration, n)
	errs := make([]error, n)
	start := time.Now()
	for i := range n {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			for time.Since(start) < long && ctx.Err() == nil {
				began := time.Now()
				if errs[i] = w.write(rng); errs[i] != nil {
					return
				}
				times[i] = append(times[i], time.Since(began))
			}
		})
	}
	group.Wait()
	took := time.Since(start)
	all := slices.Concat(times...)
	w.done += uint64(len(all))
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return round{}, err
	}
	slices.Sort(all)
	return round{float64(len(all)) / took.Seconds(), quantile(all, .5), quantile(all, .99)}, nil
}

// figures sums up a run. What is measured one after the other shares the
// disk's mood: the ratios are those of this run.
func (a *Appends) figures(log, one, two round) []Figure {
	group := fmt.Sprintf("append, %d at once", a.n)
	if a.n == 1 {
		group = "append, alone"
	}
	goal := appendGoals[a.n]
	out := []Figure{
		{Group: group, Name: "log", Value: log.rate, Unit: "ops/s"},
		{Group: group, Name: "raw, one sync", Value: one.rate, Unit: "ops/s", Baseline: true},
		{Group: group, Name: "raw, two syncs", Value: two.rate, Unit: "ops/s", Baseline: true},
		{Group: group, Name: "log ÷ raw, one sync", Value: log.rate / one.rate, Unit: "×", Goal: goal.one},
		{Group: group, Name: "log ÷ raw, two syncs", Value: log.rate / two.rate, Unit: "×", Goal: goal.two},
		{Group: group, Name: "log, p50", Value: micros(log.p50), Unit: "µs"},
		{Group: group, Name: "raw, one sync, p50", Value: micros(one.p50), Unit: "µs", Baseline: true},
		{Group: group, Name: "log, p99", Value: micros(log.p99), Unit: "µs"},
		{Group: group, Name: "raw, one sync, p99", Value: micros(one.p99), Unit: "µs", Baseline: true},
	}
	if a.n == 1 {
		out = append(out, Figure{Group: group, Name: "log's p50 in syncs of the raw writer", Value: float64(log.p50) / float64(one.p50),
			Unit: "×", Goal: goal.calls, Most: true})
	}
	return out
}
