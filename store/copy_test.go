package store

import (
	"os"
	"sync/atomic"
	"testing"
)

// TestOpenCopy copies a log that is written to all the time. Every copy must
// be what the log was at one moment.
func TestOpenCopy(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", t.TempDir())
	a := mustOpen(t, dir, 1, nil)
	bulk(t, a, rngOf(1), 50)
	var stop atomic.Bool
	ended := make(chan error)
	go func() {
		rng := rngOf(2)
		var err error
		for !stop.Load() && err == nil {
			_, err = edit(a, rng)
		}
		ended <- err
	}()
	good, low := 0, uint64(50)
	for try := 0; good < 10 && try < 500; try++ {
		l, err := OpenCopy(ctx, Dir(dir, 1))
		if err != nil {
			continue // too busy; it says so
		}
		v, err := l.Verify(ctx)
		if err != nil || !v.OK() || v.Ops < low {
			t.Fatalf("a copy of %d ops: %v, %q", v.Ops, err, v.Problems)
		}
		low = v.Ops
		good++
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if good == 0 {
		t.Error("no copy succeeded")
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
