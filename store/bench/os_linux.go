package bench

import (
	"os"

	"golang.org/x/sys/unix"
)

// dataSync makes what was written durable, without the file's times.
func dataSync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// dropCache makes the next reader of the file at path read from the disk.
func dropCache(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	if err := f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
