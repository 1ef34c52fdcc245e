package store

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"crdt-genome/genome"
)

var (
	// ErrClosed reports a call after Close. Nothing was done.
	ErrClosed = errors.New("actor is closed")
	// ErrFull reports that the queue of the writer is full. Nothing was done;
	// try again after a commit, see [Actor.Changed].
	ErrFull = errors.New("write queue is full")
	// ErrFenced refuses an edit while this actor's own lost ops are being
	// pulled back; see [Actor.Fenced]. Receiving goes on.
	ErrFenced = errors.New("edits wait until this actor's own ops are back")
	// ErrStoreFull reports that the log cannot be written to: the disk is full
	// or read-only. Nothing was done if it comes with a [*NotWritableError];
	// try again later.
	ErrStoreFull = errors.New("no space left for the log")
)

// A LockedError reports that another process holds the log. What it says of
// the holder comes from the LOCK file and may be empty.
type LockedError struct {
	Path  string // of the log
	PID   int
	Since time.Time
	Addr  string // URL of the holder; a server answers there for the log
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("log %s is open in another process", e.Path)
	}
	s := fmt.Sprintf("log %s is open in pid %d", e.Path, e.PID)
	if !e.Since.IsZero() {
		s += " since " + e.Since.Local().Format("15:04")
	}
	if e.Addr != "" {
		s += " (" + e.Addr + ")"
	}
	return s
}

// A WrongOwnerError refuses a log that belongs to another actor or cluster.
type WrongOwnerError struct {
	Path                 string
	Actor, Want          genome.ActorID
	Epoch                genome.Epoch // the newest of Actor
	Cluster, WantCluster string
}

func (e *WrongOwnerError) Error() string {
	if e.Actor != e.Want {
		return fmt.Sprintf("%s is the log of actor %d (epoch %v), not of actor %d", e.Path, e.Actor, e.Epoch, e.Want)
	}
	return fmt.Sprintf("%s is a log of cluster %q, not of %q", e.Path, e.Cluster, e.WantCluster)
}

// A CorruptError names what of a log is damaged. Nothing of the log was taken
// for true beyond LSN-1, and nothing was changed.
type CorruptError struct {
	Path   string
	LSN    uint64 // of the first op damaged; 0 if the damage is not in a record
	Detail string

	// Of a segment that an actor met while it ran:
	Last   uint64         // position of the last event in it; else 0
	Ranges []genome.Range // what it holds, by replica

	// Of a start that ended because of it:
	Report      *Report // what is damaged and missing; else nil
	NotRepaired string  // why the log was not repaired unasked
}

func (e *CorruptError) Error() string {
	if e.Report != nil {
		for _, d := range e.Report.Damage {
			if d.First > 0 && d.First <= e.LSN && e.LSN <= d.Last && len(d.Ranges) > 0 {
				return d.in(e.Path)
			}
		}
	}
	if e.Last > 0 {
		return Damage{First: e.LSN, Last: e.Last, Ranges: e.Ranges, Detail: e.Detail}.in(e.Path) + "; the next start mends it, from peers too"
	}
	if e.LSN == 0 {
		return fmt.Sprintf("%s: %s", e.Path, e.Detail)
	}
	return fmt.Sprintf("op %d in %s is damaged: %s", e.LSN, e.Path, e.Detail)
}

// A FormatError refuses a log, or a part of one, that a newer program wrote.
type FormatError struct {
	Path            string
	Format, Program int    // Program is the newest that this program reads
	Part            string // "log format" or what else has a version
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s: %s %d is newer than this program (%d)", e.Path, e.Part, e.Format, e.Program)
}

// A NotLogError refuses a file that is no op log at all.
type NotLogError struct {
	Path  string
	First []byte // its first bytes, at most 8; none if it is empty
	Why   string // set if the file is of the right kind but not ours
}

func (e *NotLogError) Error() string {
	switch {
	case e.Why != "":
		return fmt.Sprintf("%s is not an op log (%s)", e.Path, e.Why)
	case len(e.First) == 0:
		return fmt.Sprintf("%s is empty (0 bytes): a crash during creation? delete it and start again", e.Path)
	}
	return fmt.Sprintf("%s is not an op log (first bytes %q)", e.Path, e.First)
}

// spaceError marks err with ErrStoreFull where the cause is a full disk. bbolt
// prints some causes into its own text instead of wrapping them.
func spaceError(err error) error {
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) || strings.Contains(err.Error(), full.Error()) {
			return fmt.Errorf("%w: %w", ErrStoreFull, err)
		}
	}
	return err
}
