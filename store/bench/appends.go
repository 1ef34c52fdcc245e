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

// appendRounds is how often each writer has its turn.
const appendRounds = 5

// What the raw writers write for an op: a record of fixed size (two ids of 16
// bytes, a gene, a kind), as a log has it that encodes nothing; or as few bytes
// as a gene at a random place takes in ours.
const (
	opBytes    = 34
	leastPerOp = 7
)

// A writer is one of those that are compared.
type writer struct {
	name  string
	write func(rng *rand.Rand) error // returns when one op is durable
	rates []float64                  // ops/s of each round
	p50   []time.Duration
	p99   []time.Duration
}

// goals of appends: ratios to the raw writers.
var appendGoals = map[int]struct{ one, two, calls float64 }{
	1:   {.45, .85, 2.5},
	64:  {.40, .85, 0},
	512: {.60, .85, 0},
}

// Appends measures n callers that each insert a gene, wait until it is durable,
// and insert the next; for how long each writer has altogether.
func Appends(ctx context.Context, dir string, n int, long time.Duration) ([]Figure, error) {
	dir, err := os.MkdirTemp(dir, "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	a, err := store.Open(ctx, store.Config{Data: dir})
	if err != nil {
		return nil, err
	}
	one, err := newRaw(dir, 1)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	two, err := newRaw(dir, 2)
	if err != nil {
		return nil, errors.Join(err, one.close(), a.Close())
	}
	op := make([]byte, opBytes)
	writers := []*writer{
		{name: "log", write: func(rng *rand.Rand) error { return insert(ctx, a, rng) }},
		{name: "raw, one sync", write: func(*rand.Rand) error { return one.append(op) }},
		{name: "raw, two syncs", write: func(*rand.Rand) error { return two.append(op) }},
	}
	for range appendRounds {
		for _, w := range writers {
			if err == nil {
				err = w.round(ctx, n, long/appendRounds)
			}
		}
	}
	if err = errors.Join(err, one.close(), two.close(), a.Close()); err != nil {
		return nil, err
	}
	return appendFigures(n, writers), nil
}

// insert inserts a gene at a random place.
func insert(ctx context.Context, a *store.Actor, rng *rand.Rand) error {
	_, err := a.Edit(ctx, func(g *genome.Genome) (store.Edit, error) {
		return store.Edit{At: rng.IntN(g.Len() + 1), Genes: []byte{byte(rng.Uint32())}}, nil
	})
	return err
}

// round lets n callers write for a time.
func (w *writer) round(ctx context.Context, n int, long time.Duration) error {
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
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return err
	}
	all := slices.Concat(times...)
	slices.Sort(all)
	w.rates = append(w.rates, float64(len(all))/took.Seconds())
	w.p50 = append(w.p50, quantile(all, .5))
	w.p99 = append(w.p99, quantile(all, .99))
	return nil
}

// ratio returns the median of the rounds' ratios: what is measured one after
// the other shares the disk's mood.
func (w *writer) ratio(to *writer) float64 {
	var r []float64
	for i := range w.rates {
		r = append(r, w.rates[i]/to.rates[i])
	}
	return median(r)
}

func appendFigures(n int, w []*writer) (out []Figure) {
	group := fmt.Sprintf("append, %d at once", n)
	if n == 1 {
		group = "append, alone"
	}
	for _, w := range w {
		out = append(out, Figure{Group: group, Name: w.name, Value: median(w.rates), Unit: "ops/s"})
	}
	goal := appendGoals[n]
	out = append(out,
		Figure{Group: group, Name: "log ÷ raw, one sync", Value: w[0].ratio(w[1]), Unit: "×", Goal: goal.one},
		Figure{Group: group, Name: "log ÷ raw, two syncs", Value: w[0].ratio(w[2]), Unit: "×", Goal: goal.two},
		Figure{Group: group, Name: "log ÷ raw, one sync, best of each", Value: slices.Max(w[0].rates) / slices.Max(w[1].rates), Unit: "×"},
		Figure{Group: group, Name: "log ÷ raw, two syncs, best of each", Value: slices.Max(w[0].rates) / slices.Max(w[2].rates), Unit: "×"},
		Figure{Group: group, Name: "log, p50", Value: micros(median(w[0].p50)), Unit: "µs"},
		Figure{Group: group, Name: "log, p99", Value: micros(median(w[0].p99)), Unit: "µs"})
	if n == 1 {
		var calls []float64
		for i := range w[0].p50 {
			calls = append(calls, float64(w[0].p50[i])/float64(w[1].p50[i]))
		}
		out = append(out, Figure{Group: group, Name: "log's p50 in syncs of the raw writer", Value: median(calls), Unit: "×", Goal: goal.calls, Most: true})
	}
	return out
}
