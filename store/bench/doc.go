// Package bench measures the store on this machine's disk: durable appends,
// batches, size, cold starts, and what a checkpoint costs those who append.
//
// A disk's own speed differs by a factor of a hundred from one machine to the
// next and by a tenth from one minute to the next. So each figure of appends
// stands beside that of two writers that do nothing but write, measured in
// turns with it: one that appends to a file that was laid out and zeroed
// before and syncs once a commit, which is the limit of the disk, and one that
// writes and syncs a second page for each commit, which is the limit of bbolt.
// The ratios are what to trust.
//
// Each thing to measure is opened once and run as often as wanted; a run gives
// one value for each figure. What the runs leave in the log is checked.
package bench

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// A Figure is one number.
type Figure struct {
	Group string  `json:"group"` // what was done
	Name  string  `json:"name"`  // what was measured of it
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Goal  float64 `json:"goal,omitempty"` // 0: none
	Most  bool    `json:"most,omitempty"` // the goal is not to be exceeded; else it is to be reached

	Baseline bool `json:"baseline,omitempty"` // of what only writes: to compare with
}

// ErrWrong reports that a run ended with another state than it must.
var ErrWrong = errors.New("the final state is wrong")

// Verdict returns "ok", "missed", or nothing where there is no goal.
func (f *Figure) Verdict() string {
	switch {
	case f.Goal == 0:
		return ""
	case f.Most && f.Value <= f.Goal, !f.Most && f.Value >= f.Goal:
		return "ok"
	}
	return "missed"
}

// String is the figure in one line.
func (f *Figure) String() string {
	return fmt.Sprintf("%s: %s = %.4g %s %s", f.Group, f.Name, f.Value, f.Unit, f.Verdict())
}

// quantile returns the q-quantile of sorted times.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
func millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
