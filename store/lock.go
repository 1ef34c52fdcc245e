package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A LockInfo is the content of a LOCK file: one line of JSON.
type LockInfo struct {
	PID   int       `json:"pid"`
	Addr  string    `json:"addr"` // URL of the server; empty if there is none (yet)
	Since time.Time `json:"since"`
}

func (l LockInfo) encode() []byte {
	line, err := json.Marshal(l)
	if err != nil {
		panic("store: a LOCK cannot be encoded: " + err.Error())
	}
	return append(line, '\n')
}

// lockPoll is how often a lock that is held is tried again. flock has no
// timeout of its own.
const lockPoll = 20 * time.Millisecond

// A lockFile is a LOCK that this process holds. The file is never replaced nor
// removed, or two processes could each hold a lock on their own.
type lockFile struct {
	f    *os.File
	info LockInfo
}

// takeLock takes the lock of dir, waiting for at most timeout. The error is a
// [*LockedError] if somebody else has it.
func takeLock(ctx context.Context, dir string, timeout time.Duration, info LockInfo) (*lockFile, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(timeout)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			l := &lockFile{f: f, info: info}
			if err := l.write(); err != nil {
				return nil, errors.Join(err, l.release())
			}
			return l, nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		case time.Now().After(deadline):
			return nil, errors.Join(lockedError(dir), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(lockPoll):
		}
	}
}

// write puts info into the file. One write of the line and its padding: a
// reader sees the old or the new text, and spaces after it.
func (l *lockFile) write() error {
	line := l.info.encode()
	if st, err := l.f.Stat(); err == nil {
		for int64(len(line)) < st.Size() {
			line = append(line, ' ')
		}
	}
	_, err := l.f.WriteAt(line, 0)
	if err != nil {
		return spaceError(fmt.Errorf("write %s: %w", l.f.Name(), err))
	}
	return nil
}

func (l *lockFile) release() error {
	return errors.Join(l.f.Truncate(0), l.f.Close()) // closing lets go of the lock
}

// ReadLock reads the LOCK file of an actor's folder: who holds it, or held it
// last if it was not let go cleanly; empty after a clean stop. The error is
// fs.ErrNotExist if no actor ever ran there.
func ReadLock(dir string) (LockInfo, error) {
	var info LockInfo
	data, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil || len(data) == 0 {
		return info, err
	}
	if err := json.Unmarshal(data, &info); err != nil {
		return info, fmt.Errorf("%s: %w", filepath.Join(dir, lockName), err)
	}
	return info, nil
}

func lockedError(dir string) error {
	info, _ := ReadLock(dir) // without it, the message is just shorter
	return &LockedError{Path: filepath.Join(dir, logName), PID: info.PID, Since: info.Since, Addr: info.Addr}
}
