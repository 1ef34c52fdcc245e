package store

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// mapFlags make a cold log come in by large reads: bbolt advises the kernel
// that its map is read at random, so each page would be a fault of its own.
const mapFlags = unix.MAP_POPULATE

func changeTime(st *syscall.Stat_t) int64 { return st.Ctim.Nano() }
