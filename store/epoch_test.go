package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crdt-genome/genome"
)

// TestEpoch stops an actor, does something to its files, and looks under which
// epoch and why the next one goes on, and that it issues no dot twice.
func TestEpoch(t *testing.T) {
	cases := []struct {
		name   string
		kill   bool
		meddle func(t *testing.T, data, old string) // old: a copy of the folder at an earlier clean stop
		reason string
		ops    uint64 // that the log has then
	}{
		{name: "clean stop", reason: ReasonClean, ops: 4},
		{name: "kill -9", kill: true, reason: ReasonUnclean, ops: 4},
		{name: "wiped folder", reason: ReasonNew, meddle: func(t *testing.T, data, _ string) {
			must(t, os.RemoveAll(Dir(data, 1)))
		}},
		{name: "wiped log, guard left", reason: ReasonNew, meddle: func(t *testing.T, data, _ string) {
			must(t, os.Remove(filepath.Join(Dir(data, 1), logName)))
		}},
		{name: "old folder put back", reason: ReasonMoved, ops: 2, meddle: func(t *testing.T, data, old string) {
			copyTree(t, old, Dir(data, 1))
		}},
		{name: "old log copied over", reason: ReasonRolledBack, ops: 2, meddle: func(t *testing.T, data, old string) {
			b, err := os.ReadFile(filepath.Join(old, logName))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(Dir(data, 1), logName), b, fileMode))
		}},
		{name: "old log and guard copied over in place", reason: ReasonMoved, ops: 2, meddle: func(t *testing.T, data, old string) {
			for _, name := range []string{logName, guardName} {
				b, err := os.ReadFile(filepath.Join(old, name))
				must(t, err)
				must(t, os.WriteFile(filepath.Join(Dir(data, 1), name), b, fileMode))
			}
		}},
		{name: "log replaced by a copy of itself", reason: ReasonMoved, ops: 4, meddle: func(t *testing.T, data, _ string) {
			path := filepath.Join(Dir(data, 1), logName)
			b, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path+".copy", b, fileMode))
			must(t, os.Rename(path+".copy", path))
		}},
		{name: "moved folder", reason: ReasonMoved, ops: 4, meddle: func(t *testing.T, data, _ string) {
			must(t, os.Rename(data, data+"-moved"))
		}},
		{name: "torn guard", reason: ReasonUnclean, ops: 4, meddle: func(t *testing.T, data, _ string) {
			must(t, os.Truncate(filepath.Join(Dir(data, 1), guardName), 40))
		}},
		{name: "forged guard", reason: ReasonUnclean, ops: 4, meddle: func(t *testing.T, data, _ string) {
			path := filepath.Join(Dir(data, 1), guardName)
			b, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, []byte(strings.Replace(string(b), `"lsn":4`, `"lsn":5`, 1)), fileMode))
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			root, l := t.TempDir(), ledger{}
			data, old := filepath.Join(root, "data"), filepath.Join(root, "old")
			a := mustOpen(t, data, 1, nil)
			first := a.Replica()
			l.saw(t, "Insert", []genome.Op{mustInsert(t, a, 0, 1, 2)})
			mustClose(t, a)
			copyTree(t, Dir(data, 1), old)
			a = mustOpen(t, data, 1, nil)
			if a.Replica() != first || a.Opening().EpochReason != ReasonClean {
				t.Fatalf("after a clean stop: %+v, was %v", a.Opening(), first)
			}
			l.saw(t, "Insert", []genome.Op{mustInsert(t, a, 0, 3, 4)})
			if c.kill {
				kill(a)
			} else {
				mustClose(t, a)
			}
			if c.meddle != nil {
				c.meddle(t, data, old)
			}
			if c.name == "moved folder" {
				data += "-moved"
			}
			a = mustOpen(t, data, 1, nil)
			o := a.Opening()
			if o.EpochReason != c.reason || (a.Replica() == first) != (c.reason == ReasonClean) || o.Ops != c.ops || o.New != (c.reason == ReasonNew) {
				t.Errorf("opening = %+v, %v was %v; want %q with %d ops", o, a.Replica(), first, c.reason, c.ops)
			}
			l.saw(t, "the first op of the new life", []genome.Op{mustInsert(t, a, 0, 9)})
			self := a.Replica()
			mustClose(t, a)
			if a = mustOpen(t, data, 1, nil); a.Replica() != self || a.Opening().EpochReason != ReasonClean {
				t.Errorf("and after another clean stop: %+v, was %v", a.Opening(), self)
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestNewEpochAsked is Config.NewEpoch.
func TestNewEpochAsked(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, 1, nil)
	first := a.Replica()
	mustClose(t, a)
	a, err := Open(ctx, Config{Data: dir, Actor: 1, NewEpoch: true})
	must(t, err)
	defer a.Close()
	if a.Replica() == first || a.Opening().EpochReason != ReasonAsked {
		t.Errorf("opening = %+v, replica %v was %v", a.Opening(), a.Replica(), first)
	}
}

// TestDiskThatForgot puts the log back as it was at a clean stop without
// leaving a trace on it, as a disk does that lied about its syncs: only that
// the guard went before the first mint can tell.
func TestDiskThatForgot(t *testing.T) {
	f, l := newSimFolder(), ledger{}
	mustClose(t, mustOpenOn(t, f, 1))
	old, ctime := f.log, f.ctime
	f.before = func(step string) {
		if strings.HasPrefix(step, "commit") && (f.guard.has || f.guard.hasNow) {
			t.Errorf("%s: the guard is still there", step)
		}
	}
	a := mustOpenOn(t, f, 1)
	if a.Opening().EpochReason != ReasonClean {
		t.Fatalf("opening = %+v", a.Opening())
	}
	l.saw(t, "Insert", []genome.Op{mustInsert(t, a, 0, 1)})
	kill(a)
	f.before = nil
	f.log, f.ctime = old, ctime
	a = mustOpenOn(t, f, 1)
	l.saw(t, "Insert", []genome.Op{mustInsert(t, a, 0, 2)})
}

// TestWrongOwner refuses a log of another actor or cluster and leaves it alone.
func TestWrongOwner(t *testing.T) {
	data := t.TempDir()
	mustClose(t, mustOpen(t, data, 1, nil))
	must(t, os.Rename(Dir(data, 1), Dir(data, 2)))
	before, err := os.ReadFile(filepath.Join(Dir(data, 2), logName))
	must(t, err)
	_, err = Open(ctx, Config{Data: data, Actor: 2})
	if e, ok := errors.AsType[*WrongOwnerError](err); !ok || e.Actor != 1 || e.Want != 2 || e.Epoch == 0 {
		t.Errorf("Open = %v", err)
	}
	must(t, os.Rename(Dir(data, 2), Dir(data, 1)))
	_, err = Open(ctx, Config{Data: data, Actor: 1, Cluster: "other"})
	if e, ok := errors.AsType[*WrongOwnerError](err); !ok || e.WantCluster != "other" {
		t.Errorf("Open = %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(Dir(data, 1), logName)); err != nil || string(after) != string(before) {
		t.Errorf("the log was changed (%v)", err)
	}
}
