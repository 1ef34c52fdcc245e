package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
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
	db   *bolt.DB
	file os.FileInfo // the file that was opened
	live bool        // opened for writing
}

// openBolt opens the file at path, which must have passed checkLogFile if it
// exists: bbolt panics on a damaged page, when writing even in a goroutine of
// its own. The error is a [*LockedError] if another process has the file.
func openBolt(path string, readOnly bool) (d *boltDisk, err error) {
	defer catchFault(path, &err)()
	opts := &bolt.Options{
		Timeout:         boltTimeout,
		FreelistType:    bolt.FreelistMapType,
		NoFreelistSync:  true,
		InitialMmapSize: boltMap,
		MmapFlags:       mapFlags,
		ReadOnly:        readOnly,
	}
	if readOnly {
		opts.Timeout, opts.InitialMmapSize = readTimeout, 0
	}
	db, err := bolt.Open(path, fileMode, opts)
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, lockedError(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.AllocSize = boltAllocMin
	d = &boltDisk{db: db, live: !readOnly}
	if d.file, err = os.Stat(path); err == nil && d.live {
		err = db.Update(func(tx *bolt.Tx) error {
			if tx.Bucket([]byte(bucketMeta)) != nil {
				return errNothingToDo
			}
			for _, b := range buckets {
				if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
					return err
				}
			}
			return nil
		})
		if errors.Is(err, errNothingToDo) {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return d, nil
}

var errNothingToDo = errors.New("nothing to do")

func (d *boltDisk) commit(writes []write) error {
	d.db.AllocSize = int(min(max(d.size(), boltAllocMin), boltAllocMax))
	err := d.db.Update(func(tx *bolt.Tx) error {
		for _, w := range writes {
			b := tx.Bucket([]byte(w.bucket))
			b.FillPercent = 1 // keys only grow
			var err error
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
		return spaceError(fmt.Errorf("commit to %s: %w", d.db.Path(), err))
	}
	return d.inPlace()
}

// inPlace checks that the file still has its name. A log that was replaced or
// removed under a running server would take every later commit with it.
func (d *boltDisk) inPlace() error {
	now, err := os.Stat(d.db.Path())
	if err != nil {
		return fmt.Errorf("the log was removed while in use: %w", err)
	}
	if !os.SameFile(d.file, now) {
		return fmt.Errorf("%s was replaced while in use", d.db.Path())
	}
	return nil
}

func (d *boltDisk) floor(name bucket, key []byte) (k, v []byte, err error) {
	err = d.view(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(name)).Cursor()
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
	return d.view(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(name)).ForEach(fn)
	})
}

// view runs fn in a short read transaction. Reading a file that was cut off
// while it is mapped is a fault, which is an error here.
func (d *boltDisk) view(fn func(*bolt.Tx) error) (err error) {
	defer catchFault(d.db.Path(), &err)()
	return d.db.View(fn)
}

func (d *boltDisk) size() int64 {
	st, err := os.Stat(d.db.Path())
	if err != nil {
		return 0
	}
	return st.Size()
}

func (d *boltDisk) close() error { return d.db.Close() }

// catchFault, deferred, turns a panic out of bbolt, a memory fault included,
// into a [*CorruptError]. It must be called before what may fault.
func catchFault(path string, err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if p := recover(); p != nil {
			*err = &CorruptError{Path: path, Detail: fmt.Sprintf("damaged page, the file may be cut short (%v)", p)}
		}
	}
}
