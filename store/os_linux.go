package store

import (
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// mapFlags make a cold log come in by large reads: bbolt advises the kernel
// that its map is read at random, so each page would be a fault of its own.
const mapFlags = unix.MAP_POPULATE

func changeTime(st *syscall.Stat_t) int64 { return st.Ctim.Nano() }

// allocate makes the file system keep blocks for n bytes of f from off on. The
// length of f stays. The error wraps errors.ErrUnsupported where that cannot
// be done.
func allocate(f *os.File, off, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n)
		if err != unix.EINTR {
			return err
		}
	}
}

// fileLimit is how long a file of this process may become: a write beyond it
// would not only fail but raise a signal.
func fileLimit() int64 {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_FSIZE, &r) != nil || r.Cur > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(r.Cur)
}

// freeSpace is how many bytes the file system of path has left for us.
func freeSpace(path string) (int64, bool) {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0, false
	}
	return int64(st.Bavail) * st.Bsize, true
}

// startWriting tells the kernel to begin to write a part of f, and waits for
// the part of the same length before it, so that little is left for the sync.
// Only the sync says whether it worked.
func startWriting(f *os.File, off, n int64) {
	fd := int(f.Fd())
	_ = unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	if off >= n {
		_ = unix.SyncFileRange(fd, off-n, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	}
}
