package bench

import "runtime"

// heapOutcome is how much memory something holds, and the thing itself.
type heapOutcome struct {
	made  any
	bytes int
}

func heapOf(make func() any) heapOutcome {
	before := heapInUse()
	made := make()
	h := heapOutcome{made, int(heapInUse() - before)}
	runtime.KeepAlive(made)
	return h
}

// heapSize is the Check of a heapOutcome.
func heapSize(check func(any) (int, error)) func(any) (int, error) {
	return func(outcome any) (int, error) {
		h := outcome.(heapOutcome)
		_, err := check(h.made)
		return h.bytes, err
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
