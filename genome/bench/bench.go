// Package bench measures the list: public editing traces, edits at random
// places, and the shapes of concurrency that hurt. The same cases run under
// go test -bench and from the command line. It is not part of the pure core:
// it reads traces and asks for the time.
//
// Every case checks its final bytes, so that a fast wrong answer fails. Times
// are CPU time of the thread, because the machines it runs on are shared; the
// figure to trust is the ratio to the rope, the same tree without a CRDT,
// measured in the same run.
package bench

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

// A Case is one thing to measure.
type Case struct {
	Group string // the trace, or the kind of load
	Name  string
	Ops   int  // edits or events that one run handles
	Base  bool // the rope that the others of the group are measured by
	Timed bool // what is measured is time, not size

	// Prepare makes the input of one run and returns the run, which is timed.
	// The run returns what it made; Check looks at it.
	Prepare func() (run func() any, err error)
	// Check returns an error if the run's outcome is wrong, else the bytes it
	// stands for: the length of its encoding, or of its memory; 0 if neither.
	Check func(outcome any) (bytes int, err error)
}

// A Figure is what was measured of a case.
type Figure struct {
	Group    string  `json:"group"`
	Name     string  `json:"name"`
	Ops      int     `json:"ops"`
	Runs     int     `json:"runs"`
	MinMS    float64 `json:"min_ms"`
	MedianMS float64 `json:"median_ms"`
	MaxMS    float64 `json:"max_ms"`
	NSPerOp  float64 `json:"ns_per_op"`               // of the fastest run
	Bytes    int     `json:"bytes,omitempty"`         // of the encoding or memory
	PerOp    float64 `json:"bytes_per_op,omitempty"`  // Bytes / Ops
	Allocs   float64 `json:"allocs_per_op,omitempty"` // of the last run
	Rope     float64 `json:"rope,omitempty"`          // median / the median of the group's rope
}

// Measure runs c the given number of times after one run that is not counted.
func Measure(c Case, runs int) (Figure, error) {
	f := Figure{Group: c.Group, Name: c.Name, Ops: c.Ops, Runs: runs}
	times := make([]float64, 0, runs)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i := range runs + 1 {
		run, err := c.Prepare()
		if err != nil {
			return f, fmt.Errorf("%s %s: %w", c.Group, c.Name, err)
		}
		took, allocs, outcome := timed(run)
		bytes, err := c.Check(outcome)
		if err != nil {
			return f, fmt.Errorf("%s %s: %w", c.Group, c.Name, err)
		}
		if i > 0 {
			times = append(times, float64(took.Nanoseconds())/1e6)
		}
		f.Bytes, f.Allocs = bytes, float64(allocs)/float64(c.Ops)
	}
	slices.Sort(times)
	f.MinMS, f.MedianMS, f.MaxMS = times[0], times[len(times)/2], times[len(times)-1]
	f.NSPerOp = f.MinMS * 1e6 / float64(c.Ops)
	f.PerOp = float64(f.Bytes) / float64(c.Ops)
	return f, nil
}

// timed runs run with a collected heap and the collector at rest: what the
// list costs the collector is measured as memory, not as noise.
func timed(run func() any) (took time.Duration, allocs uint64, outcome any) {
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := threadTime()
	outcome = run()
	took = threadTime() - start
	runtime.ReadMemStats(&after)
	return took, after.Mallocs - before.Mallocs, outcome
}

var errWrong = errors.New("the final text is wrong")
