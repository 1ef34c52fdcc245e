package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// failingNames are those of the system until so many calls were made; the next
// one fails, once.
type failingNames struct {
	osNames
	left int
	hit  string // what failed
}

func (n *failingNames) fails(what string) error {
	if n.left--; n.left == -1 {
		n.hit = what
		return fmt.Errorf("%s: refused by the test", what)
	}
	return nil
}

func (n *failingNames) mkdir(dir string) error {
	return errors.Join(n.fails("mkdir"), n.osNames.mkdir(dir))
}
func (n *failingNames) rename(from, to string) error {
	if err := n.fails("rename"); err != nil {
		return err
	}
	return n.osNames.rename(from, to)
}
func (n *failingNames) remove(path string) error {
	if err := n.fails("remove"); err != nil {
		return err
	}
	return n.osNames.remove(path)
}
func (n *failingNames) sync(dir string) error {
	return errors.Join(n.fails("sync"), n.osNames.sync(dir))
}

// TestNamesRefused has each change of a name fail in turn, through a start,
// edits, a stop with a checkpoint and the start after it. Whatever fails is an
// error or costs a checkpoint; nothing that was acknowledged is lost, and the
// next start is as usual.
func TestNamesRefused(t *testing.T) {
	failed := map[string]int{}
	for n := 0; ; n++ {
		data := filepath.Join(t.TempDir(), "data")
		names := &failingNames{left: n}
		cfg, err := Config{Data: data, Actor: 3, CheckpointEvery: 1, noKeeper: true}.withDefaults() // a checkpoint at the stop
		must(t, err)
		acked := 0
		for range 2 {
			a, err := openIn(ctx, cfg, &osFolder{dir: Dir(data, 3), machine: "m", names: names})
			if err != nil {
				if names.hit == "" {
					t.Fatalf("call %d: a start fails with nothing refused: %v", n, err)
				}
				continue
			}
			for range 3 {
				if _, err := a.Insert(ctx, 0, []byte{1}); err != nil {
					t.Errorf("call %d: %v", n, err)
				}
				acked++
			}
			if err := a.Close(); err != nil && names.hit == "" {
				t.Errorf("call %d: a stop fails with nothing refused: %v", n, err)
			}
		}
		a, err := openNamed(osNames{}, data)
		if err != nil {
			t.Fatalf("call %d, a %s: the log does not open any more: %v", n, names.hit, err)
		}
		if got := a.LSN(); got != uint64(acked) {
			t.Errorf("call %d, a %s: %d ops of %d", n, names.hit, got, acked)
		}
		mustClose(t, a)
		if names.hit == "" {
			break // there were fewer calls than that
		}
		failed[names.hit]++
	}
	for _, what := range []string{"mkdir", "rename", "remove", "sync"} {
		if failed[what] == 0 {
			t.Errorf("no %s failed: %v", what, failed)
		}
	}
}

// TestLogTakenAway removes or replaces the log of a running actor: the next
// commit is not acknowledged, and the actor ends.
func TestLogTakenAway(t *testing.T) {
	for what, take := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			data, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path+".new", data, fileMode)
			}
			return errors.Join(err, os.Rename(path+".new", path))
		},
	} {
		t.Run(what, func(t *testing.T) {
			data := t.TempDir()
			a := mustOpen(t, data, 1, nil)
			mustInsert(t, a, 0, 1)
			must(t, take(filepath.Join(Dir(data, 1), logName)))
			if _, err := a.Insert(ctx, 0, []byte{2}); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("acknowledged: %v", err)
			}
			within(t, "the end of the actor", a.Done())
			if _, err := a.State(ctx); err == nil {
				t.Error("it goes on to show its state")
			}
		})
	}
}

// TestNoLog: what is no log is not opened for reading, and says what it is.
func TestNoLog(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": "", "short": "hello", "long": strings.Repeat("hello world ", 1000)} {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), fileMode))
		if l, err := OpenReadOnly(ctx, path); !isA[*NotLogError](err) && !isA[*CorruptError](err) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				l.Close()
			}
		}
	}
	if l, err := OpenReadOnly(ctx, os.DevNull); !isA[*NotLogError](err) && err == nil {
		l.Close()
		t.Error("a device was opened as a log")
	}
}
