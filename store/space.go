package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

// An actor whose disk is full goes on reading and sending. It notices before
// it changes anything: the room for a commit is reserved from the file system
// first, so that the ops it was asked for get no id and nothing has to be
// taken back. Writing resumes by itself, at the first try after there is room.

// How much room a commit is taken to need: what goes into it, twice, as bbolt
// writes values to whole pages and the leaves that hold them once more, and
// some pages for the way from the root down.
const (
	roomFactor = 2
	roomPages  = 128 << 10
	// roomPerOp is what an op takes beyond its genes: record, and the entry of
	// an author who is new.
	roomPerOp = 64
	// probeEvery bounds how often a full disk is asked again.
	probeEvery = 200 * time.Millisecond
)

// A NotWritableError reports that the log cannot be written to at present, and
// that nothing was changed. It wraps [ErrStoreFull] and the cause.
type NotWritableError struct {
	Dir     string // where the log lies
	Free    int64  // bytes left there for us; -1: not known
	Running bool   // an actor goes on without writing, and looks again by itself
	Err     error
}

func (e *NotWritableError) Error() string {
	s := fmt.Sprintf("log not writable: %s on %s", cause(e.Err), e.Dir)
	if e.Free >= 0 && !errors.Is(e.Err, syscall.EROFS) && !errors.Is(e.Err, fs.ErrPermission) {
		s += fmt.Sprintf(" (%d B free)", e.Free)
	}
	if e.Running {
		s += ": reads go on, no new genes; resumes by itself"
	}
	return s
}

func (e *NotWritableError) Unwrap() []error { return []error{ErrStoreFull, e.Err} }

// cause is what the system says is wrong, without who said it when.
func cause(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		if errno == syscall.ENOSPC {
			return "no space left" // the system's text goes on with "on device"
		}
		return errno.Error()
	}
	return err.Error()
}

// A space knows whether the disk took the last reservation.
type space struct {
	mu    sync.Mutex
	err   *NotWritableError // nil: it did
	asked time.Time         // when it refused last
}

// room returns what a commit of n bytes of ops may need on the disk.
func room(n int) int64 { return roomFactor*int64(n) + roomPages }

// makeRoom reserves what batch, which has been run, and the first of reqs need,
// of as many as there is room for, or says why there is none even for one. rest
// is to be tried after the commit of the others.
func (a *Actor) makeRoom(batch, reqs []*request) (fit, rest []*request, err error) {
	n := len(reqs)
	if a.space.full() {
		n = 1 // the one that looks whether it still is
	}
	for ; n > 1; n /= 2 {
		if _, full := errors.AsType[*NotWritableError](a.disk.reserve(a.roomFor(batch, reqs[:n]))); !full {
			return reqs[:n], reqs[n:], nil
		}
	}
	return reqs[:1], reqs[1:], a.reserve(a.roomFor(batch, reqs[:1]))
}

// roomFor is what a commit of batch and reqs may write. Only the writer may ask.
func (a *Actor) roomFor(batch, reqs []*request) int64 {
	n := 0
	for _, reqs := range [][]*request{batch, reqs} {
		for _, r := range reqs {
			n += r.ops*roomPerOp + r.bytes
		}
	}
	if a.sign != nil {
		n += a.sign.room()
	}
	return room(n + a.x.bytes + len(a.x.recent)*roomPerOp) // the recent ones may be sealed with it
}

// reserve asks the disk for room, at most every probeEvery after it has
// refused, and keeps what it said.
func (a *Actor) reserve(n int64) error {
	was, err := a.space.ask(a.cfg.Now(), func() error { return a.disk.reserve(n) })
	if (was == nil) != (err == nil) {
		if err == nil {
			a.log.Info().Str("event", "log_writable").Msg("log writable again")
		} else {
			a.log.Warn().Str("event", "log_full").Err(err).Int64("needed_bytes", n).Msg("log not writable")
		}
	}
	return err
}

// ask calls reserve, if it is time to, and returns what it said before and
// what it says now. Errors that are not about room are left for the commit to
// meet.
func (s *space) ask(now time.Time, reserve func() error) (was, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		was = s.err
		if since := now.Sub(s.asked); since >= 0 && since < probeEvery {
			return was, was
		}
	}
	full, ok := errors.AsType[*NotWritableError](reserve())
	if !ok {
		s.err = nil
		return was, nil
	}
	full.Running = true
	s.err, s.asked = full, now
	return was, full
}

// Writable returns nil if the log takes ops, and else why not: a
// [*NotWritableError] while the disk is full or read-only, or what Err
// returns. After it was full it asks the disk again, so that who watches sees
// it come back also while nobody writes.
func (a *Actor) Writable() error {
	if err := a.Err(); err != nil {
		return err
	}
	if !a.space.full() {
		return nil
	}
	return a.reserve(room(0))
}

func (s *space) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// reserve makes sure of n bytes beyond what the file uses. Blocks are asked
// for from the file system itself where it can do that; they are used by the
// commits to come. A process that may not write files of that length, a quota
// and a read-only mount are noticed too.
func (d *boltDisk) reserve(n int64) error {
	d.roomMu.Lock()
	defer d.roomMu.Unlock()
	used, err := d.highWater()
	if err != nil {
		return err
	}
	if limit := fileLimit(); used+n > limit {
		return d.notWritable(syscall.EFBIG, max(limit-used, 0))
	}
	if used+n <= d.reserved {
		return nil
	}
	step := n + min(max(used/reserveShare, reserveMin), reserveMax)
	err = allocate(d.fd, used, step)
	if step > n && isFull(err) {
		step = n // near the end: no more than it takes
		err = allocate(d.fd, used, step)
	}
	switch {
	case isFull(err):
		return d.notWritable(err, -1)
	case errors.Is(err, errors.ErrUnsupported):
		if free, ok := freeSpace(d.path); ok && free < n+reserveFree {
			return d.notWritable(syscall.ENOSPC, free)
		}
		return nil
	case err != nil:
		return nil // some other trouble, which is the commit's
	}
	d.reserved = used + step
	return nil
}

// highWater returns how long the part of the file is that pages have been in
// use of. It is asked of bbolt once for each commit. roomMu is held.
func (d *boltDisk) highWater() (int64, error) {
	if d.used == 0 {
		err := d.view(func(tx *bolt.Tx) error {
			d.used = tx.Size()
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return d.used, nil
}

// Reservations ask for a little more than a commit needs, so that not every
// commit has to ask.
const (
	reserveShare = 64 // of the file, within these bounds
	reserveMin   = 256 << 10
	reserveMax   = 1 << 20  // bytes
	reserveFree  = 16 << 20 // bytes that must stay where nothing can be reserved
)

func (d *boltDisk) notWritable(err error, free int64) error {
	if free < 0 {
		var ok bool
		if free, ok = freeSpace(d.path); !ok {
			free = -1
		}
	}
	return &NotWritableError{Dir: filepath.Dir(d.path), Free: free, Err: err}
}

// isFull reports whether err says that a file system takes no more.
func isFull(err error) bool {
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS, syscall.EACCES, syscall.EPERM} {
		if errors.Is(err, full) {
			return true
		}
	}
	return false
}
