package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// spoilt is the data directory of actor 3 with a damaged log of which nothing
// is lost, and what it holds.
func spoilt(t *testing.T) (data string, want *State) {
	t.Helper()
	data = t.TempDir()
	a, err := Open(ctx, Config{Data: data, Actor: 3, sealOps: 16})
	must(t, err)
	p := newPast(6)
	for range 4 {
		mustReceive(t, a, p.ops(t, 12))
	}
	mustInsert(t, a, 1, 'x')
	want = mustState(t, a)
	mustClose(t, a)
	change(t, data, 3, func(d disk) []write {
		k, v := entry2(t, d, bucketSeg)
		v[len(v)/2] ^= 8
		return []write{{bucketSeg, k, v}}
	})
	return data, want
}

// linkless are names on a file system that has no second ones.
type linkless struct{ names }

func (linkless) link(string, string) error { return errors.ErrUnsupported }

// TestRepairInterrupted stops a repair before every step that concerns a name,
// with and without links; what was not synced is taken back. The next start
// finds the old log or the new one, and nothing is lost.
func TestRepairInterrupted(t *testing.T) {
	for _, links := range []bool{true, false} {
		stops := 0
		for stop := 1; stop < 40; stop++ {
			data, want := spoilt(t)
			n := newLazyNames(t)
			n.stopAt = stop
			var on names = n
			if !links {
				on = linkless{n}
			}
			before, err := os.ReadFile(filepath.Join(Dir(data, 3), logName))
			must(t, err)
			what := fmt.Sprintf("links %v, stopped before step %d", links, stop)
			a, err := openNamed(on, data)
			if err == nil {
				kill(a)
			} else if !errors.Is(err, errCrash) {
				t.Fatalf("%s: %v", what, err)
			} else {
				stops++
			}
			n.crash(rngOf(uint64(stop)))
			b, again := openNamed(on, data)
			if again != nil {
				t.Fatalf("%s: then %v", what, again)
			}
			if st := mustState(t, b); st.Digest != want.Digest || !st.Version.Equal(want.Version) {
				t.Fatalf("%s: then %v", what, st.Version)
			}
			mustInsert(t, b, 0, 7)
			mustClose(t, b)
			kept, _ := filepath.Glob(filepath.Join(Dir(data, 3), damagedPrefix+"*"))
			if len(kept) == 0 {
				t.Fatalf("%s: the damaged log is not kept", what)
			}
			if got, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(got, before) {
				t.Fatalf("%s: what is kept is not the damaged log (%v)", what, err)
			}
			if err == nil {
				break
			}
		}
		if stops < 5 {
			t.Errorf("links %v: stopped %d times only", links, stops)
		}
	}
}

// TestRepairRunsFull: a repair that is given up or cannot write leaves the
// damaged log as it was.
func TestRepairRunsFull(t *testing.T) {
	data, _ := spoilt(t)
	path := filepath.Join(Dir(data, 3), logName)
	before, err := os.ReadFile(path)
	must(t, err)
	f := newOSFolder(filepath.Dir(path))
	cfg, err := Config{Data: data, Actor: 3}.withDefaults()
	must(t, err)
	cause := errors.New("damaged")
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	if _, err := repair(given, cfg, f, cause); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	tmp := filepath.Join(filepath.Dir(path), tempPrefix+logName)
	must(t, os.Mkdir(tmp, dirMode)) // nothing can be written under this name
	if _, err := repair(ctx, cfg, f, cause); err == nil {
		t.Error("repaired into a folder")
	}
	must(t, os.RemoveAll(tmp))
	cfg.Rand = strings.NewReader("") // no uuid can be drawn
	if _, err := repair(ctx, cfg, f, cause); err == nil {
		t.Error("repaired without a uuid")
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the log was changed: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), tempPrefix+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	f = newOSFolder(filepath.Join(data, "gone"))
	if _, err := repair(ctx, cfg, f, cause); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
}

// TestBackupRefused: a backup of what has ended, or for somebody who has gone.
func TestBackupRefused(t *testing.T) {
	a := mustOpen(t, t.TempDir(), 1, nil)
	mustInsert(t, a, 0, 1, 2, 3)
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	var out bytes.Buffer
	if err := a.Backup(given, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	sim := mustOpenOn(t, newSimFolder(), 1)
	if err := sim.Backup(ctx, &out); err == nil {
		t.Error("a disk without a file was copied")
	}
	kill(a)
	if err := a.Backup(ctx, &out); !errors.Is(err, errCrash) {
		t.Errorf("of an actor that has failed: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(a.folder.path()), tempPrefix+"*")); len(left) > 0 || out.Len() > 0 {
		t.Errorf("left behind: %v, %d bytes", left, out.Len())
	}
}
