package store

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"crdt-genome/genome"
)

// Find returns the logs at path: path itself if it is a file, the log in it if
// it is an actor's folder, or those of all actors, by number, if it is a data
// directory. The error wraps fs.ErrNotExist if there is none.
func Find(path string) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("no log at %s: %w", path, err)
	}
	if !st.IsDir() {
		return []string{path}, nil
	}
	if own := filepath.Join(path, logName); isFile(own) {
		return []string{own}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	type found struct {
		actor uint64
		path  string
	}
	var logs []found
	for _, e := range entries {
		n, ok := strings.CutPrefix(e.Name(), dirPrefix)
		actor, err := strconv.ParseUint(n, 10, 32)
		if log := filepath.Join(path, e.Name(), logName); ok && err == nil && isFile(log) {
			logs = append(logs, found{actor, log})
		}
	}
	if len(logs) == 0 {
		return nil, fmt.Errorf("no log at %s: %w", path, fs.ErrNotExist)
	}
	slices.SortFunc(logs, func(a, b found) int { return cmp.Compare(a.actor, b.actor) })
	var paths []string
	for _, l := range logs {
		paths = append(paths, l.path)
	}
	return paths, nil
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// A Log is a log that nobody writes to, open for reading. While it is open, no
// actor can open it.
type Log struct {
	path string
	disk disk
	meta *meta
	end  uint64
	lock *os.File // shared
	temp bool     // the file is to be removed
	note []string
	used usage
}

// Info says whose log it is.
type Info struct {
	Path    string         `json:"path"`
	Format  string         `json:"format"` // "1.0"
	UUID    string         `json:"uuid"`
	Cluster string         `json:"cluster"`
	Actor   genome.ActorID `json:"actor"`
	Epoch   genome.Epoch   `json:"epoch"`           // the newest
	Epochs  []genome.Epoch `json:"epochs"`          // all that it has minted, oldest first
	LSN     uint64         `json:"lsn"`             // position of the last event
	Bytes   int64          `json:"bytes"`           // length of the file
	Used    int64          `json:"used_bytes"`      // of these, in pages that are in use
	Notes   []string       `json:"notes,omitempty"` // oddities that could be helped
}

// OpenReadOnly opens the log at path, which Find turns into exactly one. If an
// actor holds it, the error is a [*LockedError] after at most 250 ms, and its
// Addr says where to ask instead. A log that is opened so is not checked
// beyond its pages and its meta values; see [Log.Verify].
func OpenReadOnly(ctx context.Context, path string) (*Log, error) {
	paths, err := Find(path)
	if err != nil {
		return nil, err
	}
	if len(paths) > 1 {
		return nil, fmt.Errorf("%s holds the logs of %d actors: name one, such as %s", path, len(paths), paths[0])
	}
	l := &Log{path: paths[0]}
	if err := l.open(ctx); err != nil {
		return nil, errors.Join(withPath(err, l.path), l.Close())
	}
	return l, nil
}

func (l *Log) open(ctx context.Context) (err error) {
	// bbolt's own lock, shared, before anything is read: a writer changes
	// pages in place.
	if l.lock, err = os.Open(l.path); err != nil {
		return err
	}
	if err := shareLock(ctx, l.lock, l.path); err != nil {
		return err
	}
	pages, notes, err := checkPages(l.lock, l.path, nil)
	if err != nil {
		return err
	}
	l.note = notes
	d, err := openBolt(l.path, true)
	if err != nil {
		return err
	}
	l.disk = d
	high := d.usage().bytes // without the list of free pages, which only a writer has
	l.used = usage{int64(pages) * d.page, int(high/d.page) - pages}
	if l.meta, err = readMeta(d); err != nil {
		return err
	}
	l.end, err = lastLSN(d)
	return err
}

// shareLock takes the lock that bbolt takes, waiting at most readTimeout.
func shareLock(ctx context.Context, f *os.File, path string) error {
	deadline := time.Now().Add(readTimeout)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("lock %s: %w", path, err)
		case time.Now().After(deadline):
			return lockedError(filepath.Dir(path))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

// Close lets go of the log.
func (l *Log) Close() error {
	var err error
	if l.disk != nil {
		err = l.disk.close()
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
	}
	if l.temp {
		err = errors.Join(err, os.Remove(l.path))
	}
	return err
}

// Info says whose log it is.
func (l *Log) Info() Info {
	return Info{
		Path: l.path, Format: fmt.Sprintf("%d.%d", l.meta.major, l.meta.minor), UUID: hex.EncodeToString(l.meta.uuid[:]),
		Cluster: l.meta.cluster, Actor: l.meta.self, Epoch: l.meta.epoch(), Epochs: slices.Clone(l.meta.epochs),
		LSN: l.end, Bytes: l.disk.size(), Used: l.used.bytes, Notes: l.note,
	}
}

// Records yields the records from position from on. The error, if any, comes
// last and is a [*CorruptError] at the first record that is damaged.
func (l *Log) Records(ctx context.Context, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		scanRecords(ctx, l.disk, l.path, l.meta.self, from, func() (uint64, error) { return l.end, nil }, yield)
	}
}

// Stats replays the log and counts. The error is that of a damaged log.
func (l *Log) Stats(ctx context.Context) (Stats, error) {
	r, err := replay(ctx, l.disk, nil, nil)
	if err != nil {
		return Stats{}, withPath(err, l.path)
	}
	w, err := readWaiting(l.disk)
	if err != nil {
		return Stats{}, withPath(err, l.path)
	}
	s := newStats(r.g, r.meta, r.x, w, [2]prov{r.first, r.last})
	s.Path, s.LogBytes = l.path, l.disk.size()
	s.use(l.used)
	return s, nil
}

// A Verification is what Verify found.
type Verification struct {
	Path     string         `json:"path"`
	Pages    int            `json:"pages"`   // in use, all sound
	Records  int            `json:"records"` // stored values
	Sound    int            `json:"sound"`   // of these, with matching checksums
	Ops      uint64         `json:"ops"`     // unit events that could be replayed
	Authors  int            `json:"authors"`
	Genes    int            `json:"genes"`
	Digest   genome.Digest  `json:"digest"`
	Version  genome.Version `json:"version"`
	Problems []string       `json:"problems,omitempty"` // in the order found; none: the log is sound
	Report   *Report        `json:"report,omitempty"`   // what is left of a log that is not
}

// OK reports whether the log is sound.
func (v *Verification) OK() bool { return len(v.Problems) == 0 }

// Verify checks everything: the pages (also by bbolt's own check), each
// record's checksum, that positions and chains go on without a gap or fork,
// and that the ops give a genome. Damage is a finding, not an error. The error
// is that of ctx, or a [*FormatError] for what a newer program wrote.
func (l *Log) Verify(ctx context.Context) (Verification, error) {
	v, err := l.verify(ctx)
	if err == nil && !v.OK() {
		v.Report, err = Survey(ctx, l.path)
	}
	return v, err
}

func (l *Log) verify(ctx context.Context) (Verification, error) {
	v := Verification{Path: l.path, Problems: slices.Clone(l.note)}
	var err error
	if v.Pages, _, err = checkPages(l.lock, l.path, nil); err != nil {
		v.problem(err)
		return v, nil
	}
	for _, err := range l.boltCheck() {
		v.problem(err)
	}
	if err := l.verifyRecords(ctx, &v); err != nil {
		return v, err
	}
	var r *replayer
	m, err := readMeta(l.disk)
	if err == nil {
		r = newReplayer(ctx, m, nil)
		r.byApply = true
		err = r.run(l.disk)
	}
	if ctx.Err() != nil {
		return v, ctx.Err()
	}
	if err != nil {
		v.problem(withPath(err, l.path))
		return v, nil
	}
	v.Ops, v.Authors, v.Genes, v.Digest, v.Version = r.g.Ops(), len(r.x.actors), r.g.Len(), r.g.Digest(), r.g.Version()
	return v, nil
}

func (v *Verification) problem(err error) {
	if s := err.Error(); !slices.Contains(v.Problems, s) {
		v.Problems = append(v.Problems, s)
	}
}

// verifyRecords checks every value by itself, so that one that is damaged does
// not hide the next.
func (l *Log) verifyRecords(ctx context.Context, v *Verification) error {
	for _, b := range []bucket{bucketSeg, bucketTail} {
		err := l.disk.ascend(b, func(k, data []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			v.Records++
			key, err := keyLSN(k)
			if err == nil {
				err = checkValue(key, data)
			}
			if _, newer := errors.AsType[*FormatError](err); newer {
				return err
			}
			if err != nil {
				v.problem(withPath(err, l.path))
				return nil
			}
			v.Sound++
			return nil
		})
		if _, newer := errors.AsType[*FormatError](err); newer || ctx.Err() != nil {
			return cmp.Or(ctx.Err(), withPath(err, l.path))
		}
		if err != nil {
			v.problem(withPath(err, l.path))
		}
	}
	return nil
}

// boltCheck runs bbolt's own check, at most maxBoltProblems findings of it.
func (l *Log) boltCheck() (problems []error) {
	d, ok := l.disk.(*boltDisk)
	if !ok {
		return nil
	}
	err := d.view(func(tx *bolt.Tx) error {
		for err := range tx.Check() { // to the end, or its goroutine stays
			if len(problems) < maxBoltProblems {
				problems = append(problems, err)
			}
		}
		return nil
	})
	if err != nil {
		problems = append(problems, err)
	}
	return problems
}

const maxBoltProblems = 20

// Backup writes a consistent copy of the log to w. The copy is made in a file
// beside the log first: a transaction that stays open as long as a slow reader
// takes would make the log grow without bound. A log that is restored from a
// backup goes on under a new epoch, since the guard is not part of it.
func (a *Actor) Backup(ctx context.Context, w io.Writer) error {
	d, ok := a.disk.(*boltDisk)
	if !ok {
		return errors.New("this disk cannot be copied")
	}
	if err := a.Err(); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(a.folder.path()), tempPrefix+"backup-*")
	if err != nil {
		return spaceError(err)
	}
	defer func() {
		_ = f.Close() // nothing was written to it that matters now
		_ = os.Remove(f.Name())
	}()
	err = d.view(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(f)
		return err
	})
	if err != nil {
		return spaceError(fmt.Errorf("copy the log: %w", err))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(w, &contextReader{ctx, f})
	return err
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Scan reads and decodes every segment and value of the tail, in order and
// checksums included, without making a genome of it: the ops and unit events
// that the log holds. It is as fast as a log can be read.
func (l *Log) Scan(ctx context.Context) (ops int, events uint64, err error) {
	ahead := startDecoding(l.disk, 1, l.end, 0)
	defer ahead.stop()
	for s := range ahead.slots {
		<-s.done
		if err := ctx.Err(); err != nil {
			return ops, events, err
		}
		if s.err != nil {
			return ops, events, withPath(s.err, l.path)
		}
		ops, events = ops+len(s.value.block.Ops), events+s.value.events
		ahead.done(s)
	}
	return ops, events, withPath(ahead.err, l.path)
}
