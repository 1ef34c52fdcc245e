package bench

import (
	"fmt"
	"runtime"
	"time"

	"crdt-genome/genome/internal/list"
)

// timedOps is an outcome that has timed each of its ops itself, in nanoseconds.
type timedOps struct {
	made any
	took []int64
}

// LatencyCases returns how long a remote insert takes in a list of n random
// genes while the collector works without a break: in CPU time of the thread,
// which is what the list is to blame for, and on the wall's clock, which holds
// what the machine does besides. Both hold the 0.1 to 0.3 µs of a look at the
// clock. The last two cases time a computation of about the same length that
// touches no memory: what these show at p99.9 is the machine's, not the list's.
func LatencyCases(n int) []Case {
	const replicas = 16
	more := min(n/10, 100_000)
	group := fmt.Sprintf("one remote insert at %d random genes", n)
	e := &randomEdits{n: n + more, replicas: replicas}
	wall := time.Now()
	prepare := func(clock func() time.Duration) func() (func() any, error) {
		return func() (func() any, error) {
			e.make()
			l := list.New()
			e.register(l)
			insertRemote(l, e.ops[:n])
			return func() any { return insertTimed(l, e.ops[n:], clock) }, nil
		}
	}
	check := func(outcome any) (int, error) { return checkText(e.end)(outcome.(timedOps).made) }
	wallTime := func() time.Duration { return time.Since(wall) }
	control := func(clock func() time.Duration) func() (func() any, error) {
		return func() (func() any, error) {
			return func() any { return computeTimed(more, clock) }, nil
		}
	}
	computed := func(outcome any) (int, error) {
		if got := outcome.(timedOps).made.(uint64); got != powers(more) {
			return 0, fmt.Errorf("computed %d, want %d", got, powers(more))
		}
		return 0, nil
	}
	return []Case{
		{group, "CPU time", more, Timed, prepare(threadTime), check},
		{group, "wall clock", more, Timed, prepare(wallTime), check},
		{group, "CPU time of the control", more, Control, control(threadTime), computed},
		{group, "wall clock of the control", more, Control, control(wallTime), computed},
	}
}

// controlSteps makes a control op take about as long as an insert.
const controlSteps = 400

// power goes on with a computation of which each step waits for the one before.
func power(x uint64) uint64 {
	for range controlSteps {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

func powers(n int) (x uint64) {
	for range n {
		x = power(x)
	}
	return x
}

// computeTimed is insertTimed without a list.
func computeTimed(n int, clock func() time.Duration) timedOps {
	var x uint64
	took := timeEach(n, clock, func(int) { x = power(x) })
	return timedOps{x, took}
}

// insertTimed inserts genes one by one and times each.
func insertTimed(l *list.List, ops []remoteInsert, clock func() time.Duration) timedOps {
	return timedOps{l, timeEach(len(ops), clock, func(i int) { insertRemote(l, ops[i:i+1]) })}
}

// timeEach times n ops while the collector runs.
func timeEach(n int, clock func() time.Duration, op func(i int)) []int64 {
	took := make([]int64, n)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	for i := range n {
		start := clock()
		op(i)
		took[i] = int64(clock() - start)
	}
	close(stop)
	<-stopped
	return took
}
