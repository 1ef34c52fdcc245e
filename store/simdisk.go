package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// errCrash is what every operation of a simFolder returns from the crash on.
var errCrash = errors.New("simulated crash")

// A simFolder is a folder in memory that can lose power between any two steps
// of any operation. What was written and not synced is then kept, lost, or, if
// it is bbolt's meta page, torn: by chance.
type simFolder struct {
	mu     sync.Mutex
	steps  []string          // all steps taken
	before func(step string) // called before each step, without the mutex

	crashAt int // number of the step that does not happen any more; 0: never
	failAt  int // number of the step that returns an error without a crash
	down    bool

	full     error // why there is no room; nil: there is
	reserves int   // how often room was asked for

	log   file[kv]    // absent, or all buckets
	guard file[guard] // absent or not
	ckpts map[uint64]*file[[]byte]
	notes []string // what the next openRead will tell
	inode uint64
	ctime int64
}

// file is something that is replaced whole: now is what a process sees, disk
// what is surely there after a crash.
type file[T any] struct {
	now, disk   T
	has, hasNow bool // on the disk, to the process
	unsynced    bool
}

func (f *file[T]) set(now T, has bool) { f.now, f.hasNow, f.unsynced = now, has, true }

func (f *file[T]) sync() { f.disk, f.has, f.unsynced = f.now, f.hasNow, false }

// settle decides what a crash leaves.
func (f *file[T]) settle(kept bool) {
	if kept {
		f.sync()
	}
	f.now, f.hasNow, f.unsynced = f.disk, f.has, false
}

// kv is all buckets of a log. It is replaced whole by each commit.
type kv map[bucket]map[string][]byte

func (k kv) with(ws []write) kv {
	next := kv{}
	for _, b := range buckets {
		next[b] = map[string][]byte{}
	}
	for b, entries := range k {
		next[b] = maps.Clone(entries)
	}
	for _, w := range ws {
		if next[w.bucket] == nil { // some are made when they are needed
			next[w.bucket] = map[string][]byte{}
		}
		if w.value == nil {
			delete(next[w.bucket], string(w.key))
		} else {
			next[w.bucket][string(w.key)] = bytes.Clone(w.value)
		}
	}
	return next
}

func newSimFolder() *simFolder { return &simFolder{inode: 1, ckpts: map[uint64]*file[[]byte]{}} }

func (s *simFolder) path() string { return "sim/log.db" }

// step is called before each thing that may be the last.
func (s *simFolder) step(name string) error {
	if s.before != nil {
		s.before(name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errCrash
	}
	s.steps = append(s.steps, name)
	switch len(s.steps) {
	case s.crashAt:
		s.down = true
		return errCrash
	case s.failAt:
		return fmt.Errorf("simulated error in %s", name)
	}
	return nil
}

// crash settles what is on the disk and lets the next life begin.
func (s *simFolder) crash(rng *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	torn := s.log.hasNow && s.log.has && rng.IntN(3) == 0 && s.log.unsynced
	s.log.settle(!torn && rng.IntN(2) == 0)
	s.guard.settle(rng.IntN(2) == 0)
	for _, lsn := range slices.Sorted(maps.Keys(s.ckpts)) {
		s.ckpts[lsn].settle(rng.IntN(2) == 0)
	}
	s.notes = nil
	if torn {
		s.notes = []string{"meta page 1 is damaged: checksum does not match"}
	}
	s.steps, s.crashAt, s.failAt, s.down, s.before = nil, 0, 0, false, nil
}

func (s *simFolder) exists() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.hasNow, nil
}

func (s *simFolder) create(first []write) error {
	if err := s.step("create: write another file"); err != nil {
		return err
	}
	if err := s.step("create: rename"); err != nil {
		return err
	}
	s.mu.Lock()
	s.log.set(kv{}.with(first), true)
	s.inode++
	s.mu.Unlock()
	if err := s.step("create: sync folder"); err != nil {
		return err
	}
	s.log.sync()
	return nil
}

func (s *simFolder) openRead() (disk, []string, error) {
	return &simDisk{s, true}, s.notes, s.step("open for reading")
}

func (s *simFolder) openWrite() (disk, error) {
	if err := s.step("open for writing"); err != nil {
		return nil, err
	}
	s.notes = nil
	return &simDisk{s, false}, nil
}

func (s *simFolder) identity() (identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return identity{Dir: "sim", Inode: s.inode, Changed: s.ctime, Machine: "sim"}, nil
}

func (s *simFolder) readGuard() (guard, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.guard.now, s.guard.hasNow, nil
}

func (s *simFolder) setGuard(name string, g guard, has bool) error {
	if err := s.step(name + " guard"); err != nil {
		return err
	}
	s.mu.Lock()
	s.guard.set(g, has)
	s.mu.Unlock()
	if err := s.step("sync folder"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guard.sync()
	return nil
}

func (s *simFolder) writeGuard(g guard) error { return s.setGuard("rename", g, true) }
func (s *simFolder) removeGuard() error       { return s.setGuard("remove", guard{}, false) }

func (s *simFolder) checkpoints() (all []uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, lsn := range slices.Sorted(maps.Keys(s.ckpts)) {
		if s.ckpts[lsn].hasNow {
			all = append(all, lsn)
		}
	}
	return all, nil
}

func (s *simFolder) readCheckpoint(lsn uint64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.ckpts[lsn]; f != nil && f.hasNow {
		return bytes.Clone(f.now), nil
	}
	return nil, fs.ErrNotExist
}

func (s *simFolder) setCheckpoint(name string, lsn uint64, data []byte, has bool) error {
	if err := s.step(name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ckpts[lsn] == nil {
		s.ckpts[lsn] = &file[[]byte]{}
	}
	s.ckpts[lsn].set(bytes.Clone(data), has)
	return nil
}

func (s *simFolder) writeCheckpoint(lsn uint64, data []byte) error {
	if err := s.step("checkpoint: write another file"); err != nil {
		return err
	}
	if err := s.setCheckpoint("checkpoint: rename", lsn, data, true); err != nil {
		return err
	}
	if err := s.step("checkpoint: sync folder"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ckpts[lsn].sync()
	return nil
}

func (s *simFolder) removeCheckpoint(lsn uint64) error {
	return s.setCheckpoint("checkpoint: remove", lsn, nil, false)
}

// simDisk is the log of a simFolder.
type simDisk struct {
	s        *simFolder
	readOnly bool
}

func (d *simDisk) commit(ws []write) error {
	if d.readOnly {
		return errors.New("read only")
	}
	for _, name := range []string{"commit: write pages", "commit: sync pages", "commit: write meta"} {
		if err := d.s.step(name); err != nil {
			return err
		}
	}
	d.s.mu.Lock()
	d.s.log.set(d.s.log.now.with(ws), true)
	d.s.ctime++
	d.s.mu.Unlock()
	if err := d.s.step("commit: sync meta"); err != nil {
		return err // and yet a reader sees it, and it may be there after a restart
	}
	d.s.mu.Lock()
	d.s.log.sync()
	d.s.mu.Unlock()
	return d.s.step("commit: return")
}

func (d *simDisk) reserve(int64) error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.s.reserves++
	if d.s.full != nil {
		return &NotWritableError{Dir: "sim", Free: 0, Err: d.s.full}
	}
	return nil
}

func (d *simDisk) floor(b bucket, key []byte) (k, v []byte, err error) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	best, found := "", false
	for k := range d.s.log.now[b] {
		if k <= string(key) && (!found || k > best) {
			best, found = k, true
		}
	}
	if !found {
		return nil, nil, nil
	}
	return []byte(best), bytes.Clone(d.s.log.now[b][best]), nil
}

func (d *simDisk) ascend(b bucket, fn func(k, v []byte) error) error { return d.ascendFrom(b, nil, fn) }

func (d *simDisk) ascendFrom(b bucket, from []byte, fn func(k, v []byte) error) error {
	d.s.mu.Lock()
	all := d.s.log.now[b]
	d.s.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if k < string(from) {
			continue
		}
		if err := fn([]byte(k), bytes.Clone(all[k])); err != nil {
			return err
		}
	}
	return nil
}

func (d *simDisk) size() int64  { return 0 }
func (d *simDisk) usage() usage { return usage{} }
func (d *simDisk) close() error { return nil }

// A SimDisk is a disk in memory for simulations of whole groups: it can lose
// power between any two steps, be full, and be copied. It is for one goroutine
// besides that of the actor's writer. Programs do not use it.
type SimDisk struct{ f *simFolder }

// NewSimDisk returns an empty disk.
func NewSimDisk() *SimDisk { return &SimDisk{newSimFolder()} }

// Open opens an actor on the disk. Nothing is done in the background, and the
// log is sealed early, so that much happens to few ops. Below cfg.Data lies only
// what is no part of the log: evidence.
func (d *SimDisk) Open(ctx context.Context, cfg Config) (*Actor, error) {
	cfg.noKeeper, cfg.sealOps, cfg.packParts = true, 6, 2
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	a, err := open(ctx, cfg, d.f)
	if err == nil {
		a.opening.Dir = Dir(cfg.Data, cfg.Actor)
	}
	return a, err
}

// CrashAfter lets so many more steps happen.
func (d *SimDisk) CrashAfter(steps int) {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	d.f.crashAt = len(d.f.steps) + 1 + steps
}

// Down reports whether the power is off.
func (d *SimDisk) Down() bool {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	return d.f.down
}

// SetFull says that there is no room, and why; nil: there is.
func (d *SimDisk) SetFull(why error) {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	d.f.full = why
}

// Kill ends the actor as the end of its process does.
func (d *SimDisk) Kill(a *Actor) {
	a.fail(errCrash)
	_ = a.Close()
}

// Cut ends with what a power cut leaves: of what was not synced, anything.
func (d *SimDisk) Cut(rng *rand.Rand) { d.f.crash(rng) }

// Keep ends with all that was written: only the process is gone.
func (d *SimDisk) Keep() {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	d.f.steps, d.f.crashAt, d.f.down = nil, 0, false
}

// Copy returns a copy of the files as they are now, in another place.
func (d *SimDisk) Copy() *SimDisk {
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	c := &simFolder{log: d.f.log, guard: d.f.guard, ckpts: map[uint64]*file[[]byte]{}, inode: d.f.inode + 1000, ctime: d.f.ctime}
	for lsn, f := range d.f.ckpts {
		copied := *f
		copied.settle(true)
		c.ckpts[lsn] = &copied
	}
	c.log.settle(true)
	c.guard.settle(true)
	return &SimDisk{c}
}
