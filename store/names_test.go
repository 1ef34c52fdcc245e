package store

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"crdt-genome/genome"
)

// lazyNames are names on a disk that keeps a changed name only once its
// directory was synced: a crash takes back any part of what was not. The files
// themselves are real. It also stops the world before a chosen step.
type lazyNames struct {
	osNames
	attic    string // where removed files stay for a while
	attics   int
	unsynced []nameChange // oldest first
	steps    int
	stopAt   int // number of the first step that does not happen any more; 0: never
}

// A nameChange can be taken back until dir is synced.
type nameChange struct {
	dir  string
	undo func() error
}

func newLazyNames(t testing.TB) *lazyNames { return &lazyNames{attic: t.TempDir()} }

func (l *lazyNames) step() error {
	l.steps++
	if l.stopAt > 0 && l.steps >= l.stopAt {
		return errCrash
	}
	return nil
}

func (l *lazyNames) changed(path string, undo func() error) {
	l.unsynced = append(l.unsynced, nameChange{filepath.Dir(path), undo})
}

// keep links what is at path into the attic and returns the link, or "".
func (l *lazyNames) keep(path string) string {
	l.attics++
	kept := filepath.Join(l.attic, fmt.Sprint(l.attics))
	if os.Link(path, kept) != nil {
		return ""
	}
	return kept
}

func (l *lazyNames) mkdir(dir string) error {
	if err := l.step(); err != nil {
		return err
	}
	err := l.osNames.mkdir(dir)
	if err == nil {
		l.changed(dir, func() error { return os.RemoveAll(dir) })
	}
	return err
}

func (l *lazyNames) rename(from, to string) error {
	if err := l.step(); err != nil {
		return err
	}
	old := l.keep(to)
	err := l.osNames.rename(from, to)
	if err == nil {
		l.changed(to, func() error {
			err := os.Rename(to, from)
			if old != "" {
				err = errors.Join(err, os.Rename(old, to))
			}
			return err
		})
	}
	return err
}

func (l *lazyNames) remove(path string) error {
	if err := l.step(); err != nil {
		return err
	}
	old := l.keep(path)
	err := l.osNames.remove(path)
	if err == nil && old != "" {
		l.changed(path, func() error { return os.Rename(old, path) })
	}
	return err
}

func (l *lazyNames) made(path string) { l.changed(path, func() error { return os.Remove(path) }) }

func (l *lazyNames) sync(dir string) error {
	if err := l.step(); err != nil {
		return err
	}
	l.unsynced = slices.DeleteFunc(l.unsynced, func(c nameChange) bool { return c.dir == dir })
	return l.osNames.sync(dir)
}

// crash takes back a part of what was not synced, the newest first, and lets
// the next life begin.
func (l *lazyNames) crash(rng *rand.Rand) {
	for _, c := range slices.Backward(l.unsynced) {
		if rng.IntN(2) == 0 {
			_ = c.undo() // fails where its folder is gone already
		}
	}
	l.unsynced, l.steps, l.stopAt = nil, 0, 0
}

// kill ends an actor as kill -9 does: nothing is written any more.
func kill(a *Actor) {
	a.fail(errCrash)
	_ = a.Close()
}

// TestNamesSurviveCrash runs actors in real files under names that a crash
// takes back unless they were synced, and stops before every step that
// concerns one. What was acknowledged must be there afterwards, no dot may
// stand for two events, and a log that was stopped cleanly must not be taken
// for one that was not.
func TestNamesSurviveCrash(t *testing.T) {
	const steps = 14
	for stop := 1; stop <= steps; stop++ {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("stop=%d/%s", stop, seedName(seed)), func(t *testing.T) {
				rng, l, n := rngOf(seed), ledger{}, newLazyNames(t)
				data := filepath.Join(t.TempDir(), "not", "there", "yet")
				n.stopAt = stop
				for life := range 4 {
					namedLife(t, n, data, l, life%2 == 1)
					n.crash(rng)
					if life == 0 {
						n.stopAt = 1 + rng.IntN(steps)
					}
				}
				a, err := openNamed(n, data)
				if err != nil {
					t.Fatal(err)
				}
				l.covers(t, "the last life", a)
				mustClose(t, a)
			})
		}
	}
}

func openNamed(n names, data string) (*Actor, error) {
	cfg, err := Config{Data: data, Actor: 3}.withDefaults()
	if err != nil {
		return nil, err
	}
	return openIn(ctx, cfg, &osFolder{dir: Dir(data, 3), machine: "m", names: n})
}

func namedLife(t *testing.T, n names, data string, l ledger, clean bool) {
	a, err := openNamed(n, data)
	if err != nil {
		return
	}
	l.covers(t, "open", a)
	for i := range 2 {
		ops, err := a.Insert(ctx, 0, []byte{byte(len(l)), byte(i)})
		if err == nil {
			l.saw(t, "Insert", ops)
		}
	}
	if clean {
		_ = a.Close()
	} else {
		kill(a)
	}
}

// TestMakeDirs looks at the modes and at what cannot be made.
func TestMakeDirs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	mustClose(t, mustOpen(t, dir, 4, nil))
	for path, mode := range map[string]fs.FileMode{dir: dirMode, Dir(dir, 4): dirMode,
		filepath.Join(Dir(dir, 4), logName): fileMode, filepath.Join(Dir(dir, 4), lockName): fileMode, filepath.Join(Dir(dir, 4), guardName): fileMode} {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, want %v (%v)", path, st.Mode().Perm(), mode, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, Config{Data: file}); err == nil {
		t.Error("an actor opens below a file")
	}
	if _, err := Open(ctx, Config{Data: filepath.Join(file, "x"), Actor: genome.ActorID(1)}); err == nil {
		t.Error("an actor opens below a file's name")
	}
}
