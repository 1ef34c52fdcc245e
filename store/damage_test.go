package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crdt-genome/genome"
)

// A victim is a closed log with everything that is known of it, to be damaged
// in place and mended again.
type victim struct {
	dir   string
	path  string
	sound []byte // the file

	truth    map[genome.Dot]genome.Event
	versions []genome.Version // after each commit, the newest last
	last     *State
}

// newVictim makes actor 1's log: a sealed segment and a tail of some commits,
// by three actors.
func newVictim(t testing.TB, ops int) *victim { return newVictimOf(t, Config{}, ops) }

// newVictimOf does so with an actor of cfg.
func newVictimOf(t testing.TB, cfg Config, ops int) *victim {
	t.Helper()
	v := &victim{dir: t.TempDir(), truth: map[genome.Dot]genome.Event{}}
	other := mustOpen(t, t.TempDir(), 2, nil)
	third := mustOpen(t, t.TempDir(), 3, nil)
	cfg.Data, cfg.Actor = v.dir, 1
	a, err := Open(ctx, cfg)
	must(t, err)
	rng := rngOf(7)
	for _, b := range []*Actor{other, third} {
		bulk(t, b, rng, ops/3)
		mustReceive(t, a, all(t, b))
	}
	bulk(t, a, rng, ops/3)
	for i := range 12 {
		b := []*Actor{a, other, third}[i%3]
		if _, err := edit(b, rng); err != nil {
			t.Fatal(err)
		}
		if b != a {
			mustReceive(t, a, all(t, b))
		}
		v.versions = append(v.versions, a.Version())
	}
	v.last = mustState(t, a)
	addEvents(v.truth, all(t, a).Ops)
	v.path = filepath.Join(Dir(v.dir, 1), logName)
	within(t, "the end of packing", idle(a))
	if v.sound, err = os.ReadFile(v.path); err != nil { // before Close: the newest meta page is that of the last op
		t.Fatal(err)
	}
	mustClose(t, a)
	v.write(t, v.sound)
	return v
}

// idle is closed when a has nothing left to do in the background.
func idle(a *Actor) <-chan struct{} { return closedWhen(a.Idle) }

// closedWhen returns a channel that is closed when ok says so.
func closedWhen(ok func() bool) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		for !ok() {
			time.Sleep(time.Millisecond)
		}
		close(done)
	}()
	return done
}

// bulk makes n edits in few commits: each is a function that queues while the
// one before is written.
func bulk(t testing.TB, a *Actor, rng *rand.Rand, n int) {
	t.Helper()
	seeds := make(chan uint64)
	errs := make(chan error)
	for range 64 {
		go func() {
			var err error
			for seed := range seeds {
				if _, e := edit(a, rngOf(seed)); e != nil {
					err = e
				}
			}
			errs <- err
		}()
	}
	for range n {
		seeds <- rng.Uint64()
	}
	close(seeds)
	for range 64 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}

// write puts damaged bytes in place of the file's.
func (v *victim) write(t testing.TB, data []byte) {
	t.Helper()
	if err := os.WriteFile(v.path, data, fileMode); err != nil {
		t.Fatal(err)
	}
}

// replayed reads the log as a start does.
func (v *victim) replayed() (*replayer, []string, error) {
	f := newOSFolder(filepath.Dir(v.path))
	d, notes, err := f.openRead()
	if err != nil {
		return nil, notes, err
	}
	defer d.close()
	r, err := replay(context.Background(), d, nil, nil)
	if problems := (&Log{disk: d}).boltCheck(); err == nil && len(problems) > 0 && v.metaHeaders() { // what is read must be sound to bbolt too
		err = fmt.Errorf("bbolt's own check: %w", errors.Join(problems...))
	}
	return r, notes, err
}

// metaHeaders reports whether the page headers of both meta pages are sound. Only
// bbolt's check reads them, and the next commits write them anew.
func (v *victim) metaHeaders() bool {
	f, err := os.Open(v.path)
	if err != nil {
		return false
	}
	defer f.Close()
	const pageMeta = 0x04
	var head [pageHeaderLen]byte
	for p := range uint64(2) {
		if _, err := f.ReadAt(head[:], int64(p)*int64(os.Getpagesize())); err != nil || order.Uint64(head[:]) != p || order.Uint16(head[8:]) != pageMeta {
			return false
		}
	}
	return true
}

// check fails unless the damaged log is refused with an error that names what
// is damaged, or gives the whole truth, or, with a note about a meta page, the
// truth of one commit before. It returns which.
func (v *victim) check(t testing.TB, what string) string {
	t.Helper()
	r, notes, err := v.replayed()
	if err != nil {
		named(t, what, err)
		return "refused"
	}
	got := r.g.Version()
	switch {
	case got.Equal(v.last.Version):
		if r.g.Digest() != v.last.Digest {
			t.Fatalf("%s: a wrong genome: digest %v, want %v", what, r.g.Digest(), v.last.Digest)
		}
		return "whole"
	case len(notes) == 0:
		t.Fatalf("%s: an older state, %v, without a word", what, got)
	case !strings.Contains(notes[0], "meta page"):
		t.Fatalf("%s: an older state because of %q", what, notes)
	case !slices.ContainsFunc(v.versions, got.Equal):
		t.Fatalf("%s: a state that never was: %v", what, got)
	}
	return "older"
}

// named fails unless err says what of the log is damaged: an op, a page, a
// key, or one of the named values.
func named(t testing.TB, what string, err error) {
	t.Helper()
	if n, ok := errors.AsType[*NotLogError](err); ok && n.Path != "" {
		return
	}
	c, ok := errors.AsType[*CorruptError](err)
	if !ok {
		t.Fatalf("%s: %v", what, err)
	}
	for _, place := range []string{"page ", "meta page", "meta value", "bucket ", "table of actors", "has the key"} {
		if strings.Contains(c.Detail, place) {
			return
		}
	}
	if c.LSN == 0 {
		t.Fatalf("%s: the error names no place: %v", what, err)
	}
}

// TestMetaBytes flips a bit of every byte of both meta pages.
func TestMetaBytes(t *testing.T) {
	v := newVictim(t, 30)
	count := map[string]int{}
	for at := range 2 * os.Getpagesize() {
		v.flip(t, at, at%8, func() {
			count[v.check(t, fmt.Sprintf("byte %d of meta page %d", at%os.Getpagesize(), at/os.Getpagesize()))]++
		})
	}
	if count["older"] == 0 || count["whole"] == 0 || count["refused"] != 0 {
		t.Errorf("outcomes: %v", count)
	}
}

// flip runs fn while one bit of the log is flipped.
func (v *victim) flip(t testing.TB, at, bit int, fn func()) {
	t.Helper()
	f, err := os.OpenFile(v.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err = f.WriteAt([]byte{v.sound[at] ^ 1<<bit}, int64(at)); err != nil {
		t.Fatal(err)
	}
	fn()
	if _, err := f.WriteAt(v.sound[at:at+1], int64(at)); err != nil {
		t.Fatal(err)
	}
}

// TestRandomBits flips 1,000 random bits, one at a time, of a log with a
// segment and a tail.
func TestRandomBits(t *testing.T) {
	v := newVictim(t, 4800)
	rng := rngOf(1)
	used := v.used(t)
	count := map[string]int{}
	for i := range 1000 {
		at, bit := rng.IntN(used), rng.IntN(8)
		v.flip(t, at, bit, func() { count[v.check(t, fmt.Sprintf("flip %d: bit %d of byte %d", i, bit, at))]++ })
	}
	if count["refused"] < 100 {
		t.Errorf("outcomes: %v: hardly anything was noticed", count)
	}
}

// used returns how many bytes of the file are below bbolt's high-water mark.
func (v *victim) used(t testing.TB) int {
	t.Helper()
	f, err := os.Open(v.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, _, err := readMetas(f, v.path, int64(len(v.sound)))
	if err != nil {
		t.Fatal(err)
	}
	return int(m.high) * int(m.pageSize)
}

// TestPagesZeroedAndCut zeroes each page in turn, cuts the file at each page,
// and shortens it by each of some lengths.
func TestPagesZeroedAndCut(t *testing.T) {
	v := newVictim(t, 4800)
	ps := os.Getpagesize()
	count := map[string]int{}
	for p := range v.used(t) / ps {
		bad := slices.Clone(v.sound)
		clear(bad[p*ps : (p+1)*ps])
		v.write(t, bad)
		count[v.check(t, fmt.Sprintf("page %d zeroed", p))]++
		for _, n := range []int{p * ps, p*ps + 1, p*ps + 17, (p+1)*ps - 1} {
			v.write(t, v.sound[:n])
			if got := v.check(t, fmt.Sprintf("cut to %d bytes", n)); got != "refused" && n < v.used(t) {
				t.Errorf("cut to %d of %d bytes: %s", n, v.used(t), got)
			}
		}
	}
	if count["refused"] == 0 || count["whole"] == 0 {
		t.Errorf("outcomes: %v", count)
	}
}

// TestNotALog names files that are something else.
func TestNotALog(t *testing.T) {
	for name, data := range map[string][]byte{
		"text": []byte("hello there, this is no log\n"), "short": []byte("x"), "zeros": make([]byte, 1<<16), "empty": {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, logName)
			if err := os.WriteFile(path, data, fileMode); err != nil {
				t.Fatal(err)
			}
			_, err := newOSFolder(dir).openRead2()
			n, ok := errors.AsType[*NotLogError](err)
			if !ok || n.Path != path {
				t.Fatalf("openRead = %v", err)
			}
			if _, err := OpenReadOnly(ctx, path); !errors.As(err, &n) {
				t.Fatalf("OpenReadOnly = %v", err)
			}
		})
	}
	if _, err := OpenReadOnly(ctx, filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// openRead2 is openRead without the notes, closed at once.
func (f *osFolder) openRead2() ([]string, error) {
	d, notes, err := f.openRead()
	if err == nil {
		err = d.close()
	}
	return notes, err
}

// TestCutWhileRunning cuts the file under a running actor: it must end with an
// error, and the process must live, whatever is called.
func TestCutWhileRunning(t *testing.T) {
	v := newVictim(t, 4800)
	for _, keep := range []int64{0, 100, 4096, 8192, 3 * 4096, 3*4096 + 100} {
		for _, zeros := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d zeros=%v", keep, zeros), func(t *testing.T) {
				dir := t.TempDir()
				copyTree(t, v.dir, dir)
				v.cutRunning(t, dir, keep, zeros)
			})
		}
	}
}

func (v *victim) cutRunning(t *testing.T, dir string, keep int64, zeros bool) {
	a := mustOpen(t, dir, 1, nil)
	path := filepath.Join(Dir(dir, 1), logName)
	err := os.Truncate(path, keep)
	if err == nil && zeros {
		err = os.Truncate(path, int64(len(v.sound)))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range a.Records(ctx, 1) {
		if err != nil {
			break
		}
	}
	_, _, _ = a.Since(ctx, nil, 0, 0) // whatever they answer
	_ = a.Stats()
	_, err = a.Insert(ctx, 0, []byte{1})
	if _, ok := errors.AsType[*CorruptError](err); !ok {
		t.Fatalf("Insert into a log that was cut = %v", err)
	}
	within(t, "Done", a.Done())
	_ = a.Close() // says that it could not go well
	if _, err := newOSFolder(filepath.Dir(path)).openRead2(); err == nil {
		t.Error("the log opens")
	}
	lock, err := takeLock(ctx, filepath.Dir(path), 0, LockInfo{})
	if err != nil {
		t.Fatalf("its lock is not free: %v", err)
	}
	_ = lock.release()
}
