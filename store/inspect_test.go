package store

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crdt-genome/genome"
)

// longLog makes a stopped log of several segments and a tail, by several
// authors, and returns its data directory and what it holds.
func longLog(t *testing.T) (data string, want *State) {
	t.Helper()
	data = t.TempDir()
	cfg := Config{Data: data, Actor: 2, sealOps: 16, packParts: 2}
	a, err := Open(ctx, cfg)
	must(t, err)
	p := newPast(4)
	for range 9 {
		mustReceive(t, a, p.ops(t, 12))
	}
	mustInsert(t, a, 3, 'x', 'y')
	want = mustState(t, a)
	mustClose(t, a)
	return data, want
}

// TestLog reads a stopped log in every way that there is: all agree.
func TestLog(t *testing.T) {
	data, want := longLog(t)
	l, err := OpenReadOnly(ctx, data)
	must(t, err)
	defer l.Close()

	i := l.Info()
	if i.Actor != 2 || i.LSN != want.LSN || i.Format != "1.0" || i.Cluster != defaultCluster || len(i.Epochs) != 1 || i.Epoch != i.Epochs[0] ||
		i.Bytes <= 0 || i.Used <= 0 || i.Used > i.Bytes || len(i.Notes) > 0 {
		t.Errorf("info %+v", i)
	}
	ops, events, err := l.Scan(ctx)
	if err != nil || events != want.Ops {
		t.Errorf("scanned %d ops, %d events of %d: %v", ops, events, want.Ops, err)
	}
	var records []Record
	for r, err := range l.Records(ctx, 1) {
		must(t, err)
		records = append(records, r)
	}
	next := uint64(1)
	for _, r := range records {
		if r.LSN != next || !r.FromKnown || r.Via == ViaLocal != (r.Op.Dot.Replica.Actor() == 2) {
			t.Fatalf("record %+v, want op %d", r, next)
		}
		next += uint64(r.Op.Len())
	}
	if len(records) != ops || next != want.LSN+1 {
		t.Errorf("%d records up to %d, %d ops", len(records), next-1, ops)
	}
	for r, err := range l.Records(ctx, want.LSN) {
		if err != nil || r.LSN != want.LSN || r.Op.Len() != 1 {
			t.Errorf("the last record is %+v, %v", r, err)
		}
	}
	s, err := l.Stats(ctx)
	if err != nil || s.Ops != want.Ops || s.Genes != len(want.Genes) {
		t.Errorf("stats %+v, %v", s, err)
	}
	v, err := l.Verify(ctx)
	if err != nil || !v.OK() || v.Digest != want.Digest || v.Ops != want.Ops || v.Records != v.Sound || v.Records < 3 {
		t.Errorf("verified %+v, %v", v, err)
	}
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	if _, _, err := l.Scan(given); !errors.Is(err, context.Canceled) {
		t.Errorf("Scan with a context that has ended: %v", err)
	}
	if _, err := l.Verify(given); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify with a context that has ended: %v", err)
	}
	if _, err := l.Stats(given); !errors.Is(err, context.Canceled) {
		t.Errorf("Stats with a context that has ended: %v", err)
	}
	if a, err := Open(ctx, Config{Data: data, Actor: 2, LockTimeout: 1}); err == nil {
		a.Close()
		t.Error("an actor writes to a log that is being read")
	}
}

// TestLogHeld reads a log that an actor holds: it is refused with the holder's
// name.
func TestLogHeld(t *testing.T) {
	data := t.TempDir()
	a := mustOpen(t, data, 1, nil)
	must(t, a.SetAddr("http://127.0.0.1:9"))
	_, err := OpenReadOnly(ctx, data)
	if locked, ok := errors.AsType[*LockedError](err); !ok || locked.Addr != "http://127.0.0.1:9" || locked.PID != os.Getpid() {
		t.Errorf("error %v", err)
	}
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	if _, err := OpenReadOnly(given, data); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// TestFind: a file, an actor's folder, a data directory, and nothing.
func TestFind(t *testing.T) {
	data := t.TempDir()
	for _, n := range []genome.ActorID{10, 2} {
		mustClose(t, mustOpen(t, data, n, nil))
	}
	must(t, os.Mkdir(filepath.Join(data, "actor-x"), 0o700))
	must(t, os.Mkdir(filepath.Join(data, "actor-3"), 0o700)) // without a log
	two, ten := filepath.Join(data, "actor-2", logName), filepath.Join(data, "actor-10", logName)
	for path, want := range map[string][]string{data: {two, ten}, filepath.Dir(two): {two}, ten: {ten}} {
		if got, err := Find(path); err != nil || !slices.Equal(got, want) {
			t.Errorf("Find(%s) = %q, %v", path, got, err)
		}
	}
	for _, path := range []string{filepath.Join(data, "none"), filepath.Join(data, "actor-x")} {
		if got, err := Find(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Find(%s) = %q, %v", path, got, err)
		}
		if _, err := OpenReadOnly(ctx, path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("OpenReadOnly(%s): %v", path, err)
		}
	}
	if _, err := OpenReadOnly(ctx, data); err == nil || !strings.Contains(err.Error(), "2 actors") {
		t.Errorf("opened one of two: %v", err)
	}
}

// TestBackup copies a log that is being written to: the copy opens, holds what
// was durable when it was taken, and goes on under a new epoch.
func TestBackup(t *testing.T) {
	data, want := longLog(t)
	a, err := Open(ctx, Config{Data: data, Actor: 2})
	must(t, err)
	t.Cleanup(func() { a.Close() })
	var copied bytes.Buffer
	must(t, a.Backup(ctx, &copied))
	mustInsert(t, a, 0, 'z')

	other := t.TempDir()
	must(t, os.MkdirAll(Dir(other, 2), 0o700))
	must(t, os.WriteFile(filepath.Join(Dir(other, 2), logName), copied.Bytes(), 0o600))
	b := mustOpen(t, other, 2, nil)
	sameState(t, mustState(t, b), want)
	if b.Replica() == a.Replica() {
		t.Error("the copy goes on under the same epoch")
	}
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	if err := a.Backup(given, &copied); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(Dir(data, 2), tempPrefix+"*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	mustClose(t, a)
	if err := a.Backup(ctx, &copied); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestReadLock: a lock file that says nothing sensible says nothing.
func TestReadLock(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"", "{", "[]\n"} {
		must(t, os.WriteFile(filepath.Join(dir, lockName), []byte(text), 0o600))
		if info, err := ReadLock(dir); err == nil && info.PID != 0 {
			t.Errorf("%q is read as %+v", text, info)
		}
	}
}
