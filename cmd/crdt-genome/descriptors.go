package main

import (
	"strconv"
	"syscall"
)

// What an actor has open: its log and what Go needs, and for each peer up to
// four connections to it and four from it, of which the server takes
// maxInbound at most.
const (
	ownFiles     = 64
	filesPerPeer = 4
	maxInbound   = 512
)

// filesNeeded returns the number of file descriptors for n peers.
func filesNeeded(n int) uint64 {
	return uint64(ownFiles + filesPerPeer*n + min(filesPerPeer*n, maxInbound))
}

// checkFiles refuses a group for which the system allows too few files: it
// would run well until the day on which all peers come back at once. Go has
// raised the soft limit to the hard one already.
func checkFiles(peers int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil // then there is nothing to go by
	}
	if need := filesNeeded(peers); limit.Cur < need {
		return usageError(raiseHint(need), "%s file descriptors are not enough for %s: up to %s are needed",
			thousands(limit.Cur), plural(uint64(peers), "peer"), thousands(need))
	}
	return nil
}

// raiseHint names the next power of two.
func raiseHint(need uint64) string {
	n := uint64(1024)
	for n < need {
		n *= 2
	}
	return "ulimit -n " + strconv.FormatUint(n, 10)
}
