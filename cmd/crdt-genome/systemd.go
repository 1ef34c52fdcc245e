package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
)

// firstListenFD is the first file that a service manager hands over; see
// sd_listen_fds(3).
const firstListenFD = 3

// handedListener returns the socket that a service manager has opened for us,
// nil if there is none. While it keeps the socket, a restart refuses nobody:
// those who dial meanwhile wait.
func (a *app) handedListener() (net.Listener, error) {
	pid, _ := a.env("LISTEN_PID")
	fds, _ := a.env("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) || fds == "" {
		return nil, nil // nothing, or meant for our parent
	}
	if fds != "1" {
		return nil, usageError("", "LISTEN_FDS=%q: an actor takes exactly one socket", fds)
	}
	f := os.NewFile(firstListenFD, "LISTEN_FD_3")
	defer f.Close() // the listener has a copy
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, usageError("", "LISTEN_FDS: file %d is not a listening socket: %v", firstListenFD, err)
	}
	return ln, nil
}

// notify tells the service manager a state; it does nothing where there is none.
func notify(log zerolog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn().Err(err).Str("state", state).Msg("service manager not notified")
	}
}

// feedWatchdog tells the service manager, twice as often as it wants to hear,
// that the actor's writer is alive. It stops telling when that one hangs, so
// that the process is restarted.
func feedWatchdog(ctx context.Context, log zerolog.Logger, node *httpapi.Node) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn().Err(err).Msg("watchdog not used")
	}
	if err != nil || every == 0 {
		return
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		askCtx, cancel := context.WithTimeout(ctx, every/2)
		if node.Actor().View(askCtx, func(*genome.Genome) {}) == nil {
			notify(log, daemon.SdNotifyWatchdog)
		}
		cancel()
	}
}

// statusLine is what systemctl status shows.
func statusLine(o serveOptions, node *httpapi.Node) string {
	return fmt.Sprintf("STATUS=actor %d at %s", o.actor, node.URL())
}
