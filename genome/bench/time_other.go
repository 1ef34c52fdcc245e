//go:build !linux

package bench

import "time"

var start = time.Now()

// threadTime returns wall time where there is no clock for a thread.
func threadTime() time.Duration { return time.Since(start) }
