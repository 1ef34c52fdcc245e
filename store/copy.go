package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// copyTries bounds how often a log that is written to meanwhile is copied anew.
const copyTries = 20

// OpenCopy opens a copy of the log at path, which it makes without a lock, for
// when whoever holds the log does not answer. The copy is what the log was at
// one moment: a commit writes its meta page last, and pages that the newest
// one uses are written to only after the next one is in place. So the pages
// are read between two looks at the meta pages, and count if nothing has
// changed. If the log is written to all the time, the error says so. The copy
// lies in the system's folder for such files, until Close.
func OpenCopy(ctx context.Context, path string) (*Log, error) {
	paths, err := Find(path)
	if err != nil {
		return nil, err
	}
	if len(paths) > 1 {
		return nil, fmt.Errorf("%s holds the logs of %d actors: name one, such as %s", path, len(paths), paths[0])
	}
	tmp, err := os.CreateTemp("", "crdt-genome-copy-*.db")
	if err != nil {
		return nil, err
	}
	err = copyUnlocked(ctx, tmp, paths[0])
	l := &Log{path: tmp.Name(), temp: true}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = l.open(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func copyUnlocked(ctx context.Context, to *os.File, path string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close() // only read
	for try := range copyTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration(try) * time.Millisecond):
			}
		}
		same, err := copyOnce(to, from, path)
		if err != nil || same {
			return err
		}
	}
	return fmt.Errorf("%s is written to faster than it can be copied", path)
}

// copyOnce copies the pages in use and reports whether the newest meta page
// was the same before and after.
func copyOnce(to, from *os.File, path string) (same bool, err error) {
	before, size, err := newestMeta(from, path)
	if err != nil {
		return false, err
	}
	if err := to.Truncate(0); err != nil {
		return false, err
	}
	if _, err := to.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	n := min(int64(before.high)*before.pageSize, size)
	if _, err := io.Copy(to, io.NewSectionReader(from, 0, n)); err != nil {
		return false, spaceError(err)
	}
	after, _, err := newestMeta(from, path)
	return before == after, err
}

func newestMeta(f *os.File, path string) (boltMeta, int64, error) {
	st, err := f.Stat()
	if err != nil {
		return boltMeta{}, 0, err
	}
	m, _, err := readMetas(f, path, st.Size())
	return m, st.Size(), err
}
