package list_test

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadTime returns the CPU time of this thread: other load on the machine and
// the collector's own threads do not count.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}
