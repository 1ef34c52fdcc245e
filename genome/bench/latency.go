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
// clock.
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
	return []Case{
		{group, "CPU time", more, Timed, prepare(threadTime), check},
		{group, "wall clock", more, Timed, prepare(func() time.Duration { return time.Since(wall) }), check},
	}
}

// insertTimed inserts genes one by one and times each, while the collector runs.
func insertTimed(l *list.List, ops []remoteInsert, clock func() time.Duration) timedOps {
	took := make([]int64, len(ops))
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
	for i := range ops {
		start := clock()
		insertRemote(l, ops[i:i+1])
		took[i] = int64(clock() - start)
	}
	close(stop)
	<-stopped
	return timedOps{l, took}
}
