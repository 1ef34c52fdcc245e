package store

import (
	"errors"
	"strings"
	"testing"

	"crdt-genome/genome"
)

// filledLog returns the data directory of a log of actor n that nobody holds,
// with sealed records and some that are not, and what is in it.
func filledLog(t *testing.T, n genome.ActorID) (data string, st State) {
	t.Helper()
	data = t.TempDir()
	a := mustOpen(t, data, n, nil)
	rng := rngOf(uint64(n))
	for range 40 {
		if _, err := edit(a, rng); err != nil {
			t.Fatal(err)
		}
	}
	st = *mustState(t, a)
	mustClose(t, a)
	return data, st
}

// TestInspectOfABadDisk: each read of a log fails once. That is an error or a
// finding, never a sound log.
func TestInspectOfABadDisk(t *testing.T) {
	data, st := filledLog(t, 3)
	l, err := OpenReadOnly(ctx, data)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sound := l.disk
	defer func() { l.disk = sound }()
	for name, read := range map[string]func() error{
		"Stats": func() error { _, err := l.Stats(ctx); return err },
		"Scan":  func() error { _, _, err := l.Scan(ctx); return err },
		"Verify": func() error {
			v, err := l.verify(ctx)
			if err == nil && !v.OK() {
				err = errors.New(v.Problems[0])
			}
			return err
		},
		"Records": func() error {
			var events uint64
			for r, err := range l.Records(ctx, 1) {
				if err != nil {
					return err
				}
				events += uint64(r.Op.Len())
			}
			if events != st.Ops {
				t.Errorf("%d records without an error, want %d", events, st.Ops)
			}
			return nil
		},
	} {
		n := 1
		for ; ; n++ {
			c := &countdown{left: n}
			l.disk = brittleDisk{sound, c}
			err := read()
			c.mu.Lock()
			what := c.what
			c.mu.Unlock()
			if what == "" {
				if err != nil {
					t.Errorf("%s of a sound log: %v", name, err)
				}
				break
			}
			if err == nil || !strings.Contains(err.Error(), errBrittle.Error()) {
				t.Errorf("%s, where call %d, %s, fails: %v", name, n, what, err)
			}
		}
		if n < 3 {
			t.Errorf("%s reads the disk %d times only", name, n-1)
		}
	}
}
