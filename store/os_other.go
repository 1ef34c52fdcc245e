//go:build !linux

package store

import "syscall"

const mapFlags = 0

// changeTime is not looked up here: a log copied over in place is then
// recognised by its token and length only.
func changeTime(*syscall.Stat_t) int64 { return 0 }
