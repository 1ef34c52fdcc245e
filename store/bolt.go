package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// How bbolt is used. The layout matters far more than any of these.
const (
	// boltTimeout bounds the wait for bbolt's own lock on the file, which is
	// held by nobody but a reader once we have LOCK.
	boltTimeout = time.Second
	// readTimeout is the same for those who only look.
	readTimeout = 250 * time.Millisecond
	// boltMap is mapped from the beginning: while the map must grow, every
	// reader waits for every other.
	boltMap = 1 << 30
	// The file grows by its own length, within these bounds: an extra sync
	// each time, against zeros at the end of a small log.
	boltAllocMin = 256 << 10
	boltAllocMax = 16 << 20
)

// boltDisk is a log in a bbolt file. Every commit is one transaction with its
// two syncs: data, then the meta page that makes it count.
type boltDisk struct {
	path string
	db   *bolt.DB
	fd   *os.File    // db's own
	file os.FileInfo // the file that was opened
	page int64       // bytes
	live bool        // opened for writing
	dead atomic.Bool // bbolt panicked with its locks held: it must not be called again

	roomMu   sync.Mutex
	used     int64 // see highWater; 0: not known
	reserved int64 // bytes from the beginning that the file system has blocks for; see reserve
}

// openBolt opens the file at path, which must have passed checkLogFile if it
// exists: bbolt panics on a damaged page, when writing even in a goroutine of
// its own. The error is a [*LockedError] if another process has the file.
func openBolt(path string, readOnly bool) (*boltDisk, error) {
	d := &boltDisk{path: path, live: !readOnly}
	opts := &bolt.Options{
		Timeout:         boltTimeout,
		FreelistType:    bolt.FreelistMapType,
		NoFreelistSync:  true,
		InitialMmapSize: boltMap,
		MmapFlags:       mapFlags,
		ReadOnly:        readOnly,
		OpenFile: func(name string, flag int, perm os.FileMode) (f *os.File, err error) {
			f, err = os.OpenFile(name, flag, perm)
			if d.fd == nil { // bbolt opens the file once more for each backup
				d.fd = f
			}
			return f, err
		},
	}
	if readOnly {
		opts.Timeout, opts.InitialMmapSize = readTimeout, 0
	}
	err := d.open(opts)
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, lockedError(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	d.db.AllocSize = boltAllocMin
	if d.file, err = d.fd.Stat(); err == nil && d.live {
		err = d.makeBuckets()
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// open calls bbolt. A panic of it leaves the file open and locked.
func (d *boltDisk) open(opts *bolt.Options) (err error) {
	defer d.catch(&err, func() {
		if d.fd != nil {
			_ = unlockAndClose(d.fd) // what was wrong is in err
		}
	})()
	if d.db, err = bolt.Open(d.path, fileMode, opts); err == nil {
		d.page = int64(d.db.Info().PageSize)
	}
	return err
}

// makeBuckets makes the buckets of a new log.
func (d *boltDisk) makeBuckets() error {
	have := false
	err := d.view(func(tx *bolt.Tx) error {
		have = tx.Bucket([]byte(bucketMeta)) != nil
		return nil
	})
	if err != nil || have {
		return err
	}
	return d.update(func(tx *bolt.Tx) error {
		for _, b := range buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *boltDisk) commit(writes []write) error {
	d.setAllocSize()
	err := d.update(func(tx *bolt.Tx) error {
		for _, w := range writes {
			b, err := d.bucket(tx, w.bucket)
			if err != nil {
				return err
			}
			b.FillPercent = 1 // keys only grow
			if w.value == nil {
				err = b.Delete(w.key)
			} else {
				err = b.Put(w.key, w.value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return spaceError(fmt.Errorf("commit to %s: %w", d.path, err))
	}
	return d.inPlace()
}

// setAllocSize says by how much the file may grow in the commit that reserve
// was called for.
func (d *boltDisk) setAllocSize() {
	d.roomMu.Lock()
	defer d.roomMu.Unlock()
	d.db.AllocSize = int(min(max(d.used, boltAllocMin), boltAllocMax, max(fileLimit()-d.reserved-d.page, 0)))
	d.used = 0 // from here on
}

// update runs fn in a transaction and commits it. It does what bolt.DB.Update
// does but for one thing: after a panic, that reads all pages of the file
// again, in a goroutine whose panic nothing can recover, although a damaged
// page is why we are here.
func (d *boltDisk) update(fn func(*bolt.Tx) error) (err error) {
	tx, err := d.begin(true)
	if err != nil {
		return err
	}
	defer d.catch(&err, func() { _ = tx.Rollback() })() // frees locks, reads nothing
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// begin begins a transaction. bbolt looks at its meta pages then, with locks
// held that a fault would not give back: if they are not there, it is not
// asked, and if it faults nevertheless, never again.
func (d *boltDisk) begin(writable bool) (tx *bolt.Tx, err error) {
	if d.dead.Load() {
		return nil, &CorruptError{Path: d.path, Detail: "the file was cut short while in use"}
	}
	if st, err := d.fd.Stat(); err != nil {
		return nil, err
	} else if st.Size() < 2*d.page {
		return nil, &CorruptError{Path: d.path, Detail: fmt.Sprintf("page %d is damaged (the file was cut to %d bytes while in use)", st.Size()/d.page, st.Size())}
	}
	defer d.catch(&err, func() { d.dead.Store(true) })()
	return d.db.Begin(writable)
}

// inPlace checks that the file still has its name. A log that was replaced or
// removed under a running server would take every later commit with it.
func (d *boltDisk) inPlace() error {
	now, err := os.Stat(d.path)
	if err != nil {
		return fmt.Errorf("the log was removed while in use: %w", err)
	}
	if !os.SameFile(d.file, now) {
		return fmt.Errorf("%s was replaced while in use", d.path)
	}
	return nil
}

func (d *boltDisk) floor(name bucket, key []byte) (k, v []byte, err error) {
	err = d.view(func(tx *bolt.Tx) error {
		b, err := d.bucket(tx, name)
		if err != nil {
			return err
		}
		c := b.Cursor()
		k0, v0 := c.Seek(key)
		if k0 == nil {
			k0, v0 = c.Last()
		} else if string(k0) > string(key) {
			k0, v0 = c.Prev()
		}
		if k0 != nil {
			k, v = append([]byte{}, k0...), append([]byte{}, v0...)
		}
		return nil
	})
	return k, v, err
}

func (d *boltDisk) ascend(name bucket, fn func(k, v []byte) error) error {
	return d.ascendFrom(name, nil, fn)
}

func (d *boltDisk) ascendFrom(name bucket, from []byte, fn func(k, v []byte) error) error {
	return d.view(func(tx *bolt.Tx) error {
		b, err := d.bucket(tx, name)
		if err == errNoBucket {
			return nil
		}
		if err != nil {
			return err
		}
		c := b.Cursor()
		for k, v := c.Seek(from); k != nil; k, v = c.Next() {
			if err := fn(k, v); err != nil {
				return err
			}
		}
		return nil
	})
}

// errNoBucket says that there is nothing to read in a bucket that need not be.
var errNoBucket = errors.New("no such bucket")

// bucket returns a bucket of ours.
func (d *boltDisk) bucket(tx *bolt.Tx, name bucket) (*bolt.Bucket, error) {
	if b := tx.Bucket([]byte(name)); b != nil {
		return b, nil
	}
	if slices.Contains(optional, name) {
		if tx.Writable() {
			return tx.CreateBucketIfNotExists([]byte(name))
		}
		return nil, errNoBucket
	}
	for _, other := range buckets {
		if tx.Bucket([]byte(other)) != nil {
			return nil, &CorruptError{Path: d.path, Detail: fmt.Sprintf("bucket %q is missing", name)}
		}
	}
	if d.live { // it had them when it was opened
		return nil, &CorruptError{Path: d.path, Detail: "its buckets are gone: the file was cut or overwritten while in use"}
	}
	return nil, &NotLogError{Path: d.path, Why: "a bbolt file of some other program"}
}

// view runs fn in a short read transaction. Reading a file that was cut off
// while it is mapped is a fault, which is an error here.
func (d *boltDisk) view(fn func(*bolt.Tx) error) (err error) {
	tx, err := d.begin(false)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // of reading: nothing to fail
	defer d.catch(&err, func() {})()
	return fn(tx)
}

func (d *boltDisk) usage() (u usage) {
	err := d.view(func(tx *bolt.Tx) error {
		u.bytes = tx.Size()
		return nil
	})
	if err != nil {
		return usage{}
	}
	s := d.db.Stats()
	u.freePages = s.FreePageN + s.PendingPageN
	u.bytes -= int64(u.freePages) * d.page
	return u
}

func (d *boltDisk) size() int64 {
	st, err := os.Stat(d.path)
	if err != nil {
		return 0
	}
	return st.Size()
}

func (d *boltDisk) close() error {
	if d.dead.Load() {
		return unlockAndClose(d.fd) // its map stays: bbolt would wait for its own locks
	}
	return d.db.Close()
}

// unlockAndClose lets go of a file that is still mapped, which alone would
// keep its lock.
func unlockAndClose(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

// catch, called and then deferred, turns a panic out of bbolt, a memory fault
// included, into a [*CorruptError], and then calls after. Each goroutine that
// reads bbolt's map needs it.
func (d *boltDisk) catch(err *error, after func()) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if p := recover(); p != nil {
			*err = &CorruptError{Path: d.path, Detail: d.panicked(p)}
			after()
		}
	}
}

// panicked says what a panic out of bbolt means, and at which page it was if
// it was a fault.
func (d *boltDisk) panicked(p any) (detail string) {
	defer func() {
		if recover() != nil { // the file is not mapped any more
			detail = fmt.Sprintf("damaged page, the file may be cut short (%v)", p)
		}
	}()
	if fault, ok := p.(interface{ Addr() uintptr }); ok {
		if base := d.db.Info().Data; fault.Addr() >= base {
			return fmt.Sprintf("page %d is damaged (the file may be cut short)", int64(fault.Addr()-base)/d.page)
		}
	}
	return fmt.Sprintf("damaged page, the file may be cut short (%v)", p)
}
