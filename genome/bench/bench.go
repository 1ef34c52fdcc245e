// Package bench measures the list: public editing traces, edits at random
// places, and the shapes of concurrency that hurt. The same cases run under
// go test -bench and from the command line. It is not part of the pure core:
// it reads traces and asks for the time.
//
// Every case checks its final bytes, so that a fast wrong answer fails. Times
// are CPU time of the thread, because the machines it runs on are shared; the
// figure to trust is the ratio to the rope, the same tree without a CRDT,
// measured in the same run and in turns with the cases that it is compared to.
package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

// A Kind says what is measured of a case.
type Kind uint8

const (
	Timed   Kind = iota // how long it takes
	Rope                // the same, of the rope that the others of the group are measured by
	Size                // how many bytes an encoding has
	Heap                // how many bytes of memory the outcome holds
	Control             // how long it takes, of what says something of the machine only
)

// A Case is one thing to measure.
type Case struct {
	Group string // the trace, or the kind of load
	Name  string
	Ops   int // edits, events or genes that one run handles
	Kind  Kind

	// Prepare makes the input of one run and returns the run, which is timed.
	// The run returns what it made; Check looks at it.
	Prepare func() (run func() any, err error)
	// Check returns an error if the run's outcome is wrong, else the bytes it
	// stands for: the length of its encoding, or of its memory; 0 if neither.
	Check func(outcome any) (bytes int, err error)
}

// A Figure is what was measured of a case. Times are absent from a size, and
// sizes from what has none.
type Figure struct {
	Group      string
	Name       string
	Ops        int
	Runs       int
	Baseline   bool      // a rope, or a control: what others are compared with
	Times      []float64 // ms of CPU time, of each run in order
	MinMS      float64
	MedianMS   float64
	MaxMS      float64
	NSPerOp    float64 // of the fastest run
	OpsPerS    float64 // of the fastest run
	Rope       float64 // fastest / the rope's fastest
	RopeMedian float64 // median / the rope's median
	Bytes      int     // of the encoding
	PerOp      float64 // Bytes / Ops
	HeapBytes  int
	PerGene    float64
	Allocs     float64   // per op, of the last run
	AllocBytes float64   // per op, of the last run
	Latency    *Latency  // of the run with the least p99.9
	Latencies  []Latency // of each run in order
}

// A Latency is how long single ops take, in nanoseconds.
type Latency struct {
	P50, P99, P999, Max int64
}

// latencyOf returns the percentiles of took, which it sorts.
func latencyOf(took []int64) *Latency {
	slices.Sort(took)
	at := func(permille int) int64 { return took[min(len(took)*permille/1000, len(took)-1)] }
	return &Latency{at(500), at(990), at(999), took[len(took)-1]}
}

// A sample is one run of a case.
type sample struct {
	took    time.Duration
	mallocs uint64
	malloc  uint64 // bytes
	bytes   int
	latency *Latency
}

// Measure runs each case the given number of times, in turns, after a first
// run of each that is not counted. ran, if not nil, is told of every run. If
// ctx ends, it returns ctx's error with the figures of what has been measured.
func Measure(ctx context.Context, cases []Case, runs int, ran func(Case)) ([]Figure, error) {
	samples := make([][]sample, len(cases))
	for round := range runs + 1 {
		for i, c := range cases {
			if err := ctx.Err(); err != nil {
				return figuresOf(cases, samples), err
			}
			s, err := c.run()
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", c.Group, c.Name, err)
			}
			if round > 0 {
				samples[i] = append(samples[i], s)
			}
			if ran != nil {
				ran(c)
			}
		}
	}
	return figuresOf(cases, samples), nil
}

// figuresOf sums up what has been measured, and compares it with the ropes.
func figuresOf(cases []Case, samples [][]sample) (figures []Figure) {
	ropes := map[string]Figure{}
	var timed []int // of figures
	for i, c := range cases {
		if len(samples[i]) == 0 {
			continue
		}
		f := c.figure(samples[i])
		switch c.Kind {
		case Rope:
			ropes[c.Group] = f
		case Timed:
			timed = append(timed, len(figures))
		}
		figures = append(figures, f)
	}
	for _, i := range timed {
		f := &figures[i]
		if rope, ok := ropes[f.Group]; ok {
			f.Rope, f.RopeMedian = f.MinMS/rope.MinMS, f.MedianMS/rope.MedianMS
		}
	}
	return figures
}

// run runs c once, with a collected heap and the collector at rest: what the
// list costs the collector is measured as memory, not as noise.
func (c Case) run() (sample, error) {
	run, err := c.Prepare()
	if err != nil {
		return sample{}, err
	}
	runtime.LockOSThread() // the clock is the thread's
	defer runtime.UnlockOSThread()
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := threadTime()
	outcome := run()
	took := threadTime() - start
	runtime.ReadMemStats(&after)
	s := sample{took: took, mallocs: after.Mallocs - before.Mallocs, malloc: after.TotalAlloc - before.TotalAlloc}
	if l, ok := outcome.(timedOps); ok {
		s.latency = latencyOf(l.took)
	}
	s.bytes, err = c.Check(outcome)
	return s, err
}

// figure sums up the runs of c.
func (c Case) figure(samples []sample) Figure {
	last := samples[len(samples)-1]
	f := Figure{Group: c.Group, Name: c.Name, Ops: c.Ops, Runs: len(samples), Baseline: c.Kind == Rope || c.Kind == Control}
	ops := float64(c.Ops)
	if c.Kind == Heap {
		f.HeapBytes, f.PerGene = last.bytes, float64(last.bytes)/ops
		return f
	}
	f.Bytes, f.PerOp = last.bytes, float64(last.bytes)/ops
	for _, s := range samples {
		if l := s.latency; l != nil {
			f.Latencies = append(f.Latencies, *l)
			if f.Latency == nil || l.P999 < f.Latency.P999 {
				f.Latency = l
			}
		}
	}
	if c.Kind == Size || f.Latency != nil { // then the clock is what takes the time
		return f
	}
	times := make([]float64, len(samples))
	for i, s := range samples {
		times[i] = float64(s.took.Nanoseconds()) / 1e6
	}
	f.Times = slices.Clone(times)
	slices.Sort(times)
	f.MinMS, f.MedianMS, f.MaxMS = times[0], times[len(times)/2], times[len(times)-1]
	f.NSPerOp, f.OpsPerS = f.MinMS*1e6/ops, ops*1e3/f.MinMS
	f.Allocs, f.AllocBytes = float64(last.mallocs)/ops, float64(last.malloc)/ops
	return f
}

// ErrWrong reports that a run ended with another text than it must.
var ErrWrong = errors.New("the final text is wrong")
