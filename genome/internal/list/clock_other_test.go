//go:build !linux

package list_test

import "time"

var start = time.Now()

// threadTime stands in for the CPU time of this thread.
func threadTime() time.Duration { return time.Since(start) }
